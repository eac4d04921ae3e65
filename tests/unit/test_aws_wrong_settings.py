"""Unit tier: wrong settings of a stack on AWS, each with what an administrator reads of it: one cause, one remedy.

A stack's file is read as the commands read it, and the rules of the preflight are asked with the answers of an
account that were recorded from moto (test_aws_preflight). It does NOT prove what a real account answers, that a
run prints these words and no others (test_up, test_failures), nor that nothing is left in a state.
"""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from aws_account.request import request_of
from catalog.aws.account import Account
from catalog.aws.preflight import judge
from components.machine.aws.access import public_key
from scripts.commands.aws import aws_stack
from scripts.commands.errors import CommandError
from scripts.commands.stacks import stack_settings
from settings import SettingsError
from tests.unit.test_aws_preflight import DLAMI, EMPTY, G_QUOTA, RECORDED, name_record

BASE: Mapping[str, Any] = {
    "aws:region": "eu-central-1",
    "machine": {
        "kind": "aws",
        "instance_types": ["g6.xlarge", "g5.xlarge"],
        "admin_cidrs": ["8.8.8.8/32"],
        "data_disk": {"gib": 100},
        "cost": {"stop_at": "20:00", "budget": {"usd_per_month": 700, "mail": "ops@example.com"}},
    },
    "model": {"name": "RedHatAI/gemma-3-12b-it-quantized.w4a16", "max_model_len": 32768},
    "clients": {"seatable": {"kind": "seatable", "cidrs": ["1.1.1.1/32"]}},
    "domain": {
        "host": "llm.example.com", "zone": "example.com", "tls": "acme-dns", "acme_email": "ops@example.com",
    },
}  # fmt: skip
GONE = object()
"""A setting that is taken out."""

PLACED = {"instance_type": "g6.xlarge", "zone": "eu-central-1a"}

Case = tuple[str, Any, str, str]
"""A setting by its path, its wrong value, and what cause and remedy have to say."""

REFUSED: list[Case] = [
    # Instance types
    ("machine.instance_types", ["g6.huge"], "EC2 has no g6.huge", "write one that EC2 has"),
    ("machine.instance_types", ["g6.xlarge", "g5.xlareg"], "EC2 has no g5.xlareg", "such as g5.xlarge"),
    ("machine.instance_types.0", ["g6xlarge"], "'g6xlarge' is not an instance type", "such as g6.xlarge"),
    ("machine.instance_types", "g6.xlarge", "'g6.xlarge'", "write a list"),
    ("machine.instance_types", [], "an empty list", "name at least 1"),
    ("machine.instance_types", GONE, "missing", "name them in order of preference"),
    ("machine.instance_types", ["p3.2xlarge"], "p3.2xlarge does not run vLLM", "take g6"),
    ("machine.instance_types", ["g6f.xlarge"], "g6f.xlarge does not run vLLM", "take g6.xlarge"),
    # Zones, region, place
    ("machine.zones", ["eu-west-1a"], "eu-west-1a is not in aws:region eu-central-1", "set aws:region to"),
    ("machine.zones", ["eu-central-1f"], "eu-central-1f is not a zone of eu-central-1", "name one of"),
    ("machine.zones.0", ["eu-central1a"], "is not an availability zone", "write one such as eu-central-1a"),
    ("machine.zones", ["eu-central-1a", "us-east-1a"], "of several regions", "name zones of aws:region"),
    ("aws:region", GONE, "missing", "aws:region: eu-central-1"),
    ("aws:region", "Frankfurt", "'Frankfurt' is not a region", "write one such as eu-central-1"),
    ("aws:region", "eu-central-1a", "'eu-central-1a' is not a region", "write one such as eu-central-1"),
    ("machine.placed.instance_type", {"zone": "eu-central-1a"}, "missing", "remove machine.placed"),
    ("machine.placed.zone", {**PLACED, "zone": "us-east-1a"}, "us-east-1a is not in aws:region", "name zones of"),
    ("machine.placed.zone", {**PLACED, "zone": "eu-central-1f"}, "eu-central-1f is not a zone", "name one of"),
    ("machine.placed.instance_type", {**PLACED, "instance_type": "g6.huge"}, "EC2 has no g6.huge", "write one"),
    # Image, key
    ("machine.ami", "ubuntu-24.04", "'ubuntu-24.04' is not an AMI id", "ami-0123456789abcdef0"),
    ("machine.ssh_key", "HOME/nosuch", "cannot be read (No such file", "ssh-keygen -t ed25519"),
    ("machine.ssh_key", "HOME/good.pub", "is a public key", "give the private one"),
    ("machine.ssh_key", "HOME/locked", "has a passphrase", "ssh-add"),
    ("machine.ssh_key", "HOME/open", "can be read by others", "chmod 600"),
    ("machine.ssh_key", "HOME/alone", "public half", "ssh-keygen -y"),
    ("machine.ssh_key", "HOME/mixed", "does not belong to", "make it anew: ssh-keygen -y"),
    ("machine.ssh_key", "HOME/ecdsa", "is not of a type that EC2 takes", "ssh-keygen -t ed25519"),
    ("machine.ssh_key", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n", "a text in PEM is not", "~/.ssh/id_"),
    # Networks
    ("machine.admin_cidrs", [], "missing", "name the address that you run this from"),
    ("machine.admin_cidrs.0", ["0.0.0.0/0"], "'0.0.0.0/0' is wide for a login", "/16 or longer"),
    ("machine.admin_cidrs", ["192.168.1.0/24"], "192.168.1.0/24 does not reach", "name the public address"),
    ("machine.admin_cidrs", ["fd00::/64", "127.0.0.1/32"], "does not reach", "name the public address"),
    ("machine.admin_cidrs.0", ["my-office"], "'my-office' is not a network", "write an address with its length"),
    ("machine.admin_cidrs.0", ["8.8.8.8/24"], "has host bits set", "write 8.8.8.0/24"),
    ("clients.seatable.cidrs.0", ["0.0.0.0/0"], "'0.0.0.0/0' lets", "name the addresses"),
    ("clients.seatable.cidrs", [], "an empty list", "name at least 1"),
    ("clients.seatable.cidrs", ["127.0.0.1/32"], "is the machine on AWS itself", "name the addresses"),
    # Disks
    ("machine.data_disk.gib", 4, "4", "write 8 or more"),
    ("machine.data_disk.gib", 100000, "100000", "write 65536 or less"),
    ("machine.data_disk.gib", 10, "10 does not hold", "set it to 14 or more"),
    ("machine.data_disk.gib", "100GB", "'100GB'", "write a whole number, without quotes or unit"),
    ("machine.data_disk.type", "gp2", "there is no such setting", "known: at_end, gib, snapshot, throughput"),
    ("machine.data_disk.throughput", 2000, "2000", "write 750 or less"),
    ("machine.data_disk.snapshot", "vol-0123456789abcdef0", "is not a snapshot id", "snap-0123456789abcdef0"),
    ("machine.data_disk.at_end", "keep", "'keep'", "use 'delete', 'snapshot' or 'retain'"),
    ("machine.root_disk_gib", 40, "40 is less than the image's own 75", "set it to 105 or more"),
    # Cost
    ("machine.cost.stop_at", "8pm", "'8pm' is not a time of day", "write one such as 20:00"),
    ("machine.cost.time_zone", "Berlin", "'Berlin' is not a time zone", "Europe/Berlin"),
    ("machine.cost.time_zone", "Europe/Frankfurt", "no time zone Europe/Frankfurt", "write one of the IANA"),
    ("machine.cost.idle_stop_minutes", 5, "5", "write 10 or more"),
    ("machine.cost.live_hours", 0, "0", "write 1 or more"),
    ("machine.cost.budget.usd_per_month", 0, "0", "write 1 or more"),
    ("machine.cost.budget.usd_per_month", GONE, "missing", "US dollars"),
    ("machine.cost.budget.mail", "ops", "'ops' is not an e-mail address", "ops@example.com"),
    ("machine.cost.budget.mail", GONE, "missing", "write the address"),
    # Market
    ("machine.market", "ondemand", "'ondemand'", "use 'on-demand', 'spot' or 'capacity-block'"),
    ("machine.reservation", "r-1", "is not a capacity reservation's id", "cr-0123456789abcdef0"),
    ("machine.subnet", "vpc-0123456789abcdef0", "is not a subnet id", "subnet-0123456789abcdef0"),
    # Name
    ("domain.zone", "Z0123456789ABC", "is not the name of a zone", "such as example.com"),
    ("domain.zone", "example.org", "example.org does not hold llm.example.com", "name the zone"),
    ("domain.zone_id", "Z0123456789ABC", "is not a hosted zone of this account", "correct it"),
    ("domain.zone", GONE, "missing", "write the Route 53 zone"),
    ("domain.acme_email", GONE, "missing", "write the address"),
    ("domain.host", "https://llm.example.com", "is not a host name", "without scheme"),
    ("domain.tls", "letsencrypt", "'letsencrypt'", "use 'private-ca'"),
    ("ports.edge", 22, "22 is not for TLS", "use 443"),
    # Keys of other kinds, typing errors
    ("machine.kind", "ec2", "'ec2' is not a kind of machine", "use local, host or aws"),
    ("machine.kind", GONE, "missing", "write kind: aws"),
    ("machine.ssh", "ubuntu@gpu1.example.com", "is for a machine of kind host, not aws", "remove it"),
    ("machine.instance_type", "g6.xlarge", "there is no such setting", "write instance_types"),
    ("machine.cost.idle_stop", 30, "there is no such setting", "write idle_stop_minutes"),
    ("domian", {"host": "x"}, "there is no such setting", "write domain"),
    ("machine.ipv6", "yes", "'yes'", "write true or false"),
    ("machine.gpus", 1, "1", "use 'auto' or 'none'"),
]  # fmt: skip

RULED: list[tuple[Mapping[str, Any], Mapping[str, Any], str, str, str]] = [
    # Several settings, or what the account says: settings, answers, setting of the cause, cause, remedy.
    ({"machine.access": "ssm"}, {}, "machine.admin_cidrs", "has no effect with access ssm", "remove it"),
    ({"machine.market": "capacity-block"}, {}, "machine.reservation", "missing", "buy a capacity block"),
    ({"machine.market": "spot", "machine.reservation": "cr-0123456789abcdef0"}, {}, "machine.reservation",
     "market spot cannot start in one", "remove it"),
    ({"machine.cost": {"time_zone": "Europe/Berlin"}}, {}, "machine.cost.time_zone", "no effect", "set that"),
    ({"domain": {"host": "a.example.com", "tls": "acme-http", "acme_email": "a@example.com"}}, {}, "domain.tls",
     "open port 80", "set it to acme-dns"),
    ({}, {"quotas": {G_QUOTA: 0.0}}, "machine.instance_types", "may have 0 more", "aws service-quotas request"),
    ({"machine.instance_types": ["m7i.large"]}, {"quotas": {"L-1216C47A": 0.0}}, "machine.instance_types",
     "m7i.large has no NVIDIA GPU", "take g6.xlarge"),
    ({}, {"offerings": [], "quotas": {G_QUOTA: 0.0}}, "machine.instance_types",
     "does not sell g6.xlarge in any zone", "set aws:region"),
    ({"machine.zones": ["eu-central-1a"]},
     {"offerings": [{"InstanceType": "g6.xlarge", "Location": "eu-central-1b"}]}, "machine.zones",
     "eu-central-1a do not sell g6.xlarge", "name a zone that does: eu-central-1b"),
    ({"machine.ami": "ami-0a0a0a0a"}, {"images": [], "image_id": None}, "machine.ami", "ami-0a0a0a0a is not in",
     "correct it, or remove it"),
    ({"machine.ami": "ami-0a0a0a0a"}, {"images": [{**DLAMI, "Architecture": "arm64"}]}, "machine.ami",
     "is for arm64", "name an image for x86_64"),
    ({"machine.data_disk.snapshot": "snap-0a0a0a0a"}, {"snapshots": []}, "machine.data_disk.snapshot",
     "snap-0a0a0a0a is not in eu-central-1", "correct it"),
    ({"machine.subnet": "subnet-0a0a0a0a"}, {"subnets": []}, "machine.subnet", "is not in eu-cent", "remove it"),
    ({"machine.reservation": "cr-0a0a0a0a"}, {"reservations": []}, "machine.reservation", "is not", "correct it"),
    ({"domain.host": "llm.example.org", "domain.zone": "example.org"}, {}, "domain.zone",
     "example.org is not a hosted zone", "make the zone"),
    ({}, {"hosted_zones": RECORDED["hosted_zones"][1:]}, "domain.zone", "private zone", "domain.zone_id"),
    ({}, {"records": [name_record("A", "198.51.100.4")]}, "domain.host", "has a record A already",
     "adopt_record to true"),
    ({"model": {"name": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 8192}}, {}, "machine.instance_types",
     "does not hold seatable-vllm:model.name Qwen/Qwen2.5-14B-Instruct", "pipeline-parallel-size"),
    ({"model.extra_args": {"tensor-parallel-size": 4}}, {}, "machine.instance_types", "spread the model over 4",
     "lower tensor-parallel-size"),
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with key pairs, of which only `good` can be used."""
    folder = tmp_path_factory.mktemp("keys")
    kinds = {"good": "ed25519", "locked": "ed25519", "open": "ed25519", "alone": "ed25519", "ecdsa": "ecdsa"}
    for name, kind in {**kinds, "mixed": "ed25519"}.items():
        passphrase = "only a test's" if name == "locked" else ""
        words = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(folder / name)]
        subprocess.run(words, check=True)
    (folder / "open").chmod(0o644)
    (folder / "alone.pub").unlink()
    (folder / "mixed.pub").write_text((folder / "good.pub").read_text())
    return folder


def put(config: dict[str, Any], path: str, value: Any) -> None:
    """Sets what a path names; of a list's place or of what is inside a map, the whole list or map is given."""
    keys = [path] if ":" in path else path.removesuffix(".0").split(".")
    if keys[:2] == ["machine", "placed"]:
        keys = keys[:2]
    for key in keys[:-1]:
        config = config.setdefault(key, {})
    if value is GONE:
        config.pop(keys[-1])
    else:
        config[keys[-1]] = value


def refusals(changes: Mapping[str, Any], project: Path, home: Path, account: Account) -> list[tuple[str, str]]:
    """Every cause and remedy that a stack with these settings is refused with."""
    config = copy.deepcopy(dict(BASE))
    config["machine"]["ssh_key"] = str(home / "good")
    for path, value in changes.items():
        put(config, path, value.replace("HOME", str(home)) if isinstance(value, str) else value)
    named = {name if ":" in name else f"seatable-vllm:{name}": value for name, value in config.items()}
    (project / "Pulumi.yaml").write_text("name: seatable-vllm\nruntime: python\n")
    (project / "Pulumi.dev.yaml").write_text(yaml.safe_dump({"config": named}))
    try:
        settings = stack_settings("dev", project)
        stack = aws_stack("dev", settings, project)
        assert stack is not None
        public_key(stack.machine)
    except SettingsError as error:
        lines = [line for line in str(error).splitlines() if not line.startswith("the stack's configuration")]
        return [(line.partition("; ")[0], line.partition("; ")[2] or line.partition(": ")[2]) for line in lines]
    except CommandError as error:
        cause, change = str(error).splitlines()
        return [(cause.removeprefix("cause: "), change.removeprefix("change: "))]
    wanted = request_of(settings, stack.machine, stack="dev", region=stack.aws.region)
    return [(problem.cause, problem.change) for problem in judge(wanted, account).problems]


def test_the_settings_that_the_wrong_ones_are_put_into_are_right(tmp_path: Path, home: Path) -> None:
    assert refusals({}, tmp_path, home, EMPTY) == []


@pytest.mark.parametrize(("setting", "value", "cause", "remedy"), REFUSED)
def test_a_wrong_setting_has_one_cause_that_names_it_and_one_remedy(  # noqa: PLR0917 - fixtures and one case
    setting: str, value: Any, cause: str, remedy: str, tmp_path: Path, home: Path
) -> None:
    ((says, change),) = refusals({setting: value}, tmp_path, home, EMPTY)
    assert says.startswith(f"{setting}: " if ":" in setting else f"seatable-vllm:{setting}: ")
    assert cause in says
    assert remedy in change
    assert "b3Blbn" not in says


@pytest.mark.parametrize(("changes", "answers", "setting", "cause", "remedy"), RULED)
def test_what_does_not_go_together_or_is_not_in_the_account_has_one_cause_and_one_remedy(  # noqa: PLR0917 - one case
    changes: Mapping[str, Any],
    answers: Mapping[str, Any],
    setting: str,
    cause: str,
    remedy: str,
    tmp_path: Path,
    home: Path,
) -> None:
    ((says, change),) = refusals(changes, tmp_path, home, replace(EMPTY, **answers))
    assert says.startswith(f"seatable-vllm:{setting}: ")
    assert cause in says
    assert remedy in change
