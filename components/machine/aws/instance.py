"""The instance itself, and the key that it is made with."""

import base64
import textwrap
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

import pulumi
import pulumi_aws as aws

from components.machine.aws.policy import Keeping

TYPE = "seatable-vllm:index:AwsInstance"

MAX_USER_DATA_BYTES = 16 * 1024
"""EC2's limit, before base64."""


class InstanceArgs(TypedDict):
    """Which computer."""

    stack: str
    """The stack's name."""
    provider: aws.Provider
    """A provider that gives up soon: with the usual one an instance that there is no capacity for is asked for
    again and again, for the better part of an hour, and `up` says nothing."""
    ami: pulumi.Input[str]
    """The image it starts from."""
    ami_is_free: bool
    """Whether nobody has asked for that image; a newer one then moves nothing."""
    login: pulumi.Input[str]
    """The user that the image lets in."""
    instance_type: str
    """EC2's instance type."""
    subnet_id: pulumi.Input[str]
    """Where it stands."""
    security_group_id: pulumi.Input[str]
    """What reaches it."""
    profile: pulumi.Input[str]
    """Name of the instance profile: what it may do."""
    public_key: str
    """What logs in, as one line of authorized_keys."""
    root_gib: pulumi.Input[int]
    """Size of the disk with the system and the container images."""
    root_throughput: int
    """MiB/s of that disk."""
    ipv6: bool
    """Whether it gets an IPv6 address."""
    ipv6_addresses: pulumi.Input[Sequence[str]] | None
    """Which one; None: AWS chooses."""
    market: Literal["on-demand", "spot", "capacity-block"]
    """How it is paid."""
    reservation: str | None
    """Id of the capacity reservation or block it starts in."""
    keeping: Keeping
    """How it is kept."""
    tags: Mapping[str, pulumi.Input[str]]
    """Tags beside those of the provider."""


class GpuInstance(pulumi.ComponentResource):
    """An instance that starts."""

    instance: aws.ec2.Instance
    """The instance."""
    ipv6: pulumi.Output[str] | None
    """Its IPv6 address, where it has one."""

    def __init__(self, name: str, args: InstanceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        # A fixed name, in place of what the key pair says of itself: a new key (another administrator's, say) is
        # for the next instance, and must not replace this one.
        key_name = pulumi.Output.concat("seatable-vllm-", args["stack"], "-", args["security_group_id"])
        key = aws.ec2.KeyPair(
            f"{name}-key",
            key_name=key_name,
            public_key=args["public_key"],
            tags=args["tags"],
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )
        self.instance = self._instance(f"{name}-vm", args, key_name, key)
        chosen = args["ipv6_addresses"]
        addresses = self.instance.ipv6_addresses if chosen is None else pulumi.Output.from_input(chosen)
        self.ipv6 = addresses.apply(lambda known: known[0]) if args["ipv6"] else None
        self.register_outputs({"instance_id": self.instance.id})

    def _instance(
        self, name: str, args: InstanceArgs, key_name: pulumi.Output[str], key: aws.ec2.KeyPair
    ) -> aws.ec2.Instance:
        keeping = args["keeping"]
        return aws.ec2.Instance(
            name,
            ami=args["ami"],
            instance_type=args["instance_type"],
            subnet_id=args["subnet_id"],
            vpc_security_group_ids=[args["security_group_id"]],
            key_name=key_name,
            iam_instance_profile=args["profile"],
            ipv6_addresses=args["ipv6_addresses"],
            ipv6_address_count=1 if args["ipv6"] and args["ipv6_addresses"] is None else None,
            metadata_options=aws.ec2.InstanceMetadataOptionsArgs(
                http_endpoint="enabled",
                http_tokens="required",
                # A container behind Docker's bridge is a hop further, and the role is not for model code.
                http_put_response_hop_limit=1,
                instance_metadata_tags="disabled",
            ),
            root_block_device=aws.ec2.InstanceRootBlockDeviceArgs(
                volume_type="gp3",
                volume_size=args["root_gib"],
                throughput=args["root_throughput"],
                encrypted=True,
                delete_on_termination=True,
                tags=args["tags"],
            ),
            # In base64: of plain user data the provider's state may hold a digest, which then differs for ever.
            user_data_base64=pulumi.Output.from_input(args["login"]).apply(
                lambda login: base64.b64encode(user_data(login).encode()).decode()
            ),
            instance_initiated_shutdown_behavior="stop",
            disable_api_termination=keeping.termination,
            monitoring=keeping.monitoring,
            instance_market_options=market_options(args["market"]),
            capacity_reservation_specification=reservation(args["reservation"]),
            tags=args["tags"],
            opts=pulumi.ResourceOptions(
                parent=self,
                provider=args["provider"],
                depends_on=[key],
                # One volume and one address, and seldom quota for two: the old one goes first.
                delete_before_replace=True,
                # User data is read at the first start alone; a change of it would stop the machine for nothing.
                ignore_changes=["userDataBase64", *(["ami"] * args["ami_is_free"])],
            ),
        )


def market_options(
    market: Literal["on-demand", "spot", "capacity-block"],
) -> aws.ec2.InstanceInstanceMarketOptionsArgs | None:
    """How EC2 is asked for a way of paying; None: on demand."""
    if market == "on-demand":
        return None
    if market == "capacity-block":
        return aws.ec2.InstanceInstanceMarketOptionsArgs(market_type="capacity-block")
    # Persistent, and stopped where AWS takes it back: it keeps its disks, and can be started again.
    return aws.ec2.InstanceInstanceMarketOptionsArgs(
        market_type="spot",
        spot_options=aws.ec2.InstanceInstanceMarketOptionsSpotOptionsArgs(
            spot_instance_type="persistent", instance_interruption_behavior="stop"
        ),
    )


def reservation(identity: str | None) -> aws.ec2.InstanceCapacityReservationSpecificationArgs | None:
    """The reservation that the instance starts in, or None."""
    if identity is None:
        return None
    return aws.ec2.InstanceCapacityReservationSpecificationArgs(
        capacity_reservation_target=aws.ec2.InstanceCapacityReservationSpecificationCapacityReservationTargetArgs(
            capacity_reservation_id=identity
        )
    )


def user_data(login: str) -> str:
    """What cloud-init runs at the first start. Everything on the machine may read it, so it holds no secret.

    login: the user that Docker and our programs log in as.
    """
    return textwrap.dedent(
        f"""\
        #!/bin/bash
        set -u
        # Docker's provider and our programs open many connections at once; sshd's default refuses the eleventh.
        printf 'MaxStartups 100:30:200\\nMaxSessions 100\\n' > /etc/ssh/sshd_config.d/10-seatable-vllm.conf
        systemctl reload ssh || systemctl reload sshd
        getent group docker >/dev/null && usermod -aG docker {login}
        # A driver or kernel that is changed under a running engine takes its GPU away.
        mkdir -p /etc/apt/apt.conf.d
        cat > /etc/apt/apt.conf.d/52seatable-vllm <<'APT'
        Unattended-Upgrade::Package-Blacklist {{ "nvidia"; "libnvidia"; "linux-"; }};
        APT
        if command -v nvidia-ctk >/dev/null && command -v docker >/dev/null &&
          ! docker info --format '{{{{json .Runtimes}}}}' 2>/dev/null | grep -q nvidia; then
          nvidia-ctk runtime configure --runtime=docker && systemctl restart docker
        fi
        exit 0
        """
    )
