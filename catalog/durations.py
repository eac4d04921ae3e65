"""How long the steps of an `up` typically take, for plans: measured where a source is named, else of experience.

Of a first `up`, with nothing on the machine yet. No figure is a promise, and none of them decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping

from catalog.vllm import Device

ASKED_SECONDS = 1.0
"""A look at the AWS account: README."""

AWS_SECONDS: Mapping[str, float] = {
    "aws:ec2/vpc:Vpc": 12,
    "aws:iam/instanceProfile:InstanceProfile": 7,
    "aws:ec2/instance:Instance": 15,
    "aws:ebs/volume:Volume": 11,
    "aws:ec2/volumeAttachment:VolumeAttachment": 15,
    "aws:route53/record:Record": 35,
}
"""Until AWS's provider calls a resource done, as logs of Terraform, which has the same provider, usually show it.
An instance is done when it runs (10 to 20 s), a record when all name servers of Route 53 have it."""

AWS_OTHER_SECONDS = 2.0
"""All others at AWS: a call or two."""

BOOT_SECONDS = 75.0
"""From an instance that runs to cloud-init's end and a Docker that answers: 60 to 90 s with the Deep Learning AMI,
which has Docker and the driver already. Most of it is loading the root disk from its snapshot."""

PROGRAM_SECONDS = 2.0
"""A short program on the machine, or a container that is made or told something: README calls both quick."""

NET_MB_PER_SECOND = 100.0
"""What a registry or the hub gives to one machine in a data centre; at home it may be a tenth."""

DISK_MB_PER_SECOND = 125.0
"""A gp3 volume that nobody pays more for, and the baseline of g6.xlarge and g6e.xlarge (EC2's instance table)."""

ENGINE_IMAGE_MB: Mapping[Device, tuple[float, float]] = {"gpu": (8_660, 28_600), "cpu": (1_000, 2_400)}
"""Compressed and unpacked. gpu: vllm-openai of 0.12 (vLLM's issue 22377, ci-infra 481). cpu: the image that
`images/` makes."""

SMALL_IMAGE_MB = (45.0, 120.0)
"""HAProxy's, lego's and Python's images are about this size or smaller."""

USUAL_WEIGHTS_BYTES = 16_000_000_000
"""A model that the catalogue does not know: eight billion parameters in 16 bits."""

HUB_CLIENT_SECONDS = 6.0
"""pip puts the hub's client into a container: measured here with two cores, 7 MB of packages."""

ENGINE_SECONDS: Mapping[Device, float] = {"gpu": 79, "cpu": 36}
"""A start with nothing in vLLM's cache, until it serves, beside the reading of weights. gpu: a 0.6B model on an
A10 (vLLM's issue 49782), 31 s of it compilation. cpu: SmolLM2-135M on two cores, measured here."""

GPU_PROOF_SECONDS = 15.0
"""Two containers of the engine's image, one of which loads torch."""

PARSER_PROOF_SECONDS = 10.0
"""components/parser_proof.py: some ten seconds."""

CERTIFICATE_SECONDS: Mapping[str, float] = {"acme-dns": 45, "acme-http": 10, "private-ca": 2, "files": 1}
"""By `domain.tls`. acme-dns waits for Route 53 to have the TXT record everywhere."""

CHECKS_SECONDS = 10.0
"""The ten checks with a small answer each."""


def image_seconds(megabytes: tuple[float, float], disk: float = DISK_MB_PER_SECOND) -> float:
    """Of a pull: what is slower, the way here or unpacking, which Docker does meanwhile. disk: MB/s."""
    compressed, unpacked = megabytes
    return PROGRAM_SECONDS + max(compressed / NET_MB_PER_SECOND, unpacked / disk)


def weights_seconds(weights_bytes: int, disk: float = DISK_MB_PER_SECOND) -> float:
    """Of fetching weights from the hub to the data disk. disk: its MB/s."""
    return PROGRAM_SECONDS + weights_bytes / 1e6 / min(NET_MB_PER_SECOND, disk)


def engine_seconds(device: Device, weights_bytes: int, disk: float = DISK_MB_PER_SECOND) -> float:
    """Of an engine that starts: its weights from the disk (MB/s), as memory holds few of them, and the rest."""
    return ENGINE_SECONDS[device] + weights_bytes / 1e6 / disk
