"""The volume that holds weights, caches and certificates. It outlives the instance."""

from collections.abc import Mapping
from typing import TypedDict

import pulumi
import pulumi_aws as aws

from components.machine.aws.policy import Keeping

TYPE = "seatable-vllm:index:AwsStorage"

DEVICE = "/dev/sdf"
"""What EC2 is told. The machine itself finds the disk by the volume's id: Linux names NVMe disks as it likes."""


class StorageArgs(TypedDict):
    """Which disk, and for whom."""

    zone: pulumi.Input[str]
    """The availability zone of the subnet. Not the instance's own word for it: a volume whose zone depended on the
    instance would be replaced, and its data lost, when the instance is."""
    instance: aws.ec2.Instance
    """What it is attached to. It is made first, so that no volume is left in a zone that has no capacity."""
    gib: int
    """Its size."""
    throughput: int
    """MiB/s."""
    snapshot: str | None
    """What it begins with, or None for an empty disk."""
    keeping: Keeping
    """How it is kept."""
    tags: Mapping[str, pulumi.Input[str]]
    """Tags beside those of the provider."""


class Storage(pulumi.ComponentResource):
    """A data volume that is attached."""

    volume: aws.ebs.Volume
    """The volume."""
    attachment: aws.ec2.VolumeAttachment
    """Its place at the instance."""

    def __init__(self, name: str, args: StorageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        keeping = args["keeping"]
        self.volume = aws.ebs.Volume(
            f"{name}-data",
            availability_zone=args["zone"],
            size=args["gib"],
            type="gp3",
            throughput=args["throughput"],
            encrypted=True,
            snapshot_id=args["snapshot"],
            final_snapshot=keeping.at_end == "snapshot",
            tags=args["tags"],
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[args["instance"]],
                protect=keeping.protect,
                retain_on_delete=keeping.at_end == "retain",
                # Whoever takes the snapshot out of the settings does not want the disk to be made anew.
                ignore_changes=None if args["snapshot"] else ["snapshotId"],
            ),
        )
        self.attachment = aws.ec2.VolumeAttachment(
            f"{name}-attachment",
            device_name=DEVICE,
            instance_id=args["instance"].id,
            volume_id=self.volume.id,
            stop_instance_before_detaching=True,
            # A volume is attached once: it leaves the old instance before the new one gets it.
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )
        self.register_outputs({"volume_id": self.volume.id})
