"""What AWS says of the machine that a stack asks for, before anything is made."""

from typing import TypedDict

import pulumi
import pulumi_aws as aws

from settings import AwsMachine, Settings

AMI = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"


class Offer(TypedDict):
    """One machine that can be had."""

    ami: str
    """Id of the image it starts from."""
    ami_root_gib: int
    """Size of that image; the root disk cannot be smaller."""
    login: str
    """The user that the image lets in."""
    zone: str
    """Availability zone."""
    price_per_hour: float | None
    """US dollars, or None where it is not known."""
    price_date: str
    """The day of that price."""
    vcpus: int
    """Virtual CPUs."""


def preflight(settings: Settings, *, parent: pulumi.Resource) -> pulumi.Output[Offer]:
    """The offer that fits the stack's machine."""
    machine = settings.machine
    assert isinstance(machine, AwsMachine)  # noqa: S101 - nobody else asks
    options = pulumi.InvokeOutputOptions(parent=parent)
    found = aws.ssm.get_parameter_output(name=AMI, opts=options).insecure_value
    image = aws.ec2.get_ami_output(
        filters=[aws.ec2.GetAmiFilterArgs(name="image-id", values=pulumi.Output.all(machine.ami or found))],
        opts=options,
    )
    zones = aws.ec2.get_instance_type_offerings_output(
        location_type="availability-zone",
        filters=[{"name": "instance-type", "values": [machine.instance_type]}],
        opts=options,
    ).locations

    def offer(known: list[object]) -> Offer:
        ami, zone = known
        return {
            "ami": str(ami),
            "ami_root_gib": 75,
            "login": "ubuntu",
            "zone": machine.zone or sorted(zone)[0],  # type: ignore[call-overload]
            "price_per_hour": None,
            "price_date": "",
            "vcpus": 4,
        }

    return pulumi.Output.all(image.id, zones).apply(offer)
