"""A GPU machine on AWS: checked, made, given an address and a disk, and reached like any other."""

from collections.abc import Mapping, Sequence
from typing import TypedDict
from urllib.parse import urlsplit

import pulumi
import pulumi_aws as aws
import pulumi_random as random

from catalog.aws.prices import HOURS_PER_MONTH
from catalog.aws.tags import DATA_ROLE, OWNER, ROLE, tags_of
from components.machine.aws.access import GPU_VM, Place, ssh_of_instance
from components.machine.aws.address import Address
from components.machine.aws.cost import Cost
from components.machine.aws.disk import disk_program
from components.machine.aws.firewall import SSH_PORT, Firewall, by_network
from components.machine.aws.identity import Identity, Proof
from components.machine.aws.idle_stop import idle_stop_program
from components.machine.aws.instance import GpuInstance
from components.machine.aws.network import Network
from components.machine.aws.policy import keeping
from components.machine.aws.preflight import Offer
from components.machine.aws.storage import Storage
from components.machine.aws.zone import hosted_zone
from components.machine.machine import PublicAddress, RunArgs
from components.machine.ssh import Ssh
from settings import HTTPS_PORT, AwsMachine, Settings

TYPE = GPU_VM

INSTANCE_RETRIES = 2
"""Of the instance's own provider. The provider's 25 hide a lack of capacity for the better part of an hour."""


class GpuVmArgs(TypedDict):
    """Which machine."""

    stack: str
    """The stack's name."""
    settings: Settings
    """The stack's settings."""
    machine: AwsMachine
    """What they say of the machine."""
    region: str
    """AWS region."""
    public_key: str
    """What logs in, as one line of authorized_keys."""
    offer: Offer
    """What AWS has to offer, as the preflight has found it."""


class GpuVm(pulumi.ComponentResource):
    """An instance with its network, firewall, identity, data volume and address."""

    offer: pulumi.Output[Offer]
    """What AWS has to offer."""
    provider: aws.Provider
    """AWS in the stack's region. Configured only when the preflight has passed."""
    instance: aws.ec2.Instance
    """The instance."""
    public: PublicAddress
    """Where the net finds it."""
    storage: Storage
    """Its data volume."""
    ssh: pulumi.Output[Ssh]
    """The way there; known when address and disk are at the instance."""

    def __init__(self, name: str, args: GpuVmArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        self._args, machine = args, args["machine"]
        owner = random.RandomUuid(f"{name}-owner", opts=pulumi.ResourceOptions(parent=self))
        # On each resource and not on the provider, which could not look anything up before the owner is known.
        self._tags: Mapping[str, pulumi.Input[str]] = {
            "Name": f"seatable-vllm-{args['stack']}",
            OWNER: owner.result,
        }
        self._keeping = keeping(machine.protected, machine.data_disk.at_end)
        self.offer = pulumi.Output.from_input(args["offer"])
        self.provider = self._account(f"{name}-aws")
        network = Network(
            f"{name}-network",
            {
                "zone": self.offer.apply(lambda offer: offer["zone"]),
                "zone_is_free": machine.zone is None,
                "subnet": machine.subnet,
                "ipv6": machine.ipv6,
                "tags": self._tags,
            },
            self._own(),
        )
        firewall = self._firewall(f"{name}-firewall", network)
        identity = self._identity(f"{name}-identity")
        computer = self._instance(f"{name}-instance", network, firewall, identity)
        self.instance = computer.instance
        self.storage = Storage(
            f"{name}-storage",
            {
                "zone": network.zone,
                "instance": self.instance,
                "gib": machine.data_disk.gib,
                "throughput": machine.data_disk.throughput,
                "snapshot": machine.data_disk.snapshot,
                "keeping": self._keeping,
                "tags": {**self._tags, ROLE: DATA_ROLE},
            },
            self._own(),
        )
        address = Address(
            f"{name}-address",
            {
                "instance_id": self.instance.id,
                "online": network.online,
                "keeping": self._keeping,
                "tags": self._tags,
            },
            self._own(),
        )
        Cost(
            f"{name}-cost",
            {
                "stack": args["stack"],
                "cost": machine.cost,
                "instance_id": self.instance.id,
                "instance_arn": self.instance.arn,
                "tags": self._tags,
            },
            self._own(),
        )
        self.public = PublicAddress(
            self.provider, address.ipv4, computer.ipv6, self.offer.apply(lambda known: known["own_records"])
        )
        place = self._place(address)
        self.ssh = place.apply(lambda known: ssh_of_instance(machine, args["stack"], known))
        self.register_outputs({"place": place})

    def _account(self, name: str, retries: int | None = None) -> aws.Provider:
        """AWS, with the stack's tags on everything. Nothing can be made before the preflight has answered."""
        region = self._args["region"]
        return aws.Provider(
            name,
            region=self.offer.apply(lambda _: region),
            profile=pulumi.Config("aws").get("profile"),
            default_tags=aws.ProviderDefaultTagsArgs(tags=dict(tags_of(self._args["stack"]))),
            max_retries=retries,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _firewall(self, name: str, network: Network) -> Firewall:
        settings, machine = self._args["settings"], self._args["machine"]
        clients = {client: each.cidrs for client, each in settings.clients.items()}
        doors = {settings.ports.edge: by_network(clients)} if settings.domain else {}
        if machine.access == "ssh":
            doors[SSH_PORT] = by_network({"administrators": machine.admin_cidrs})
        return Firewall(
            name,
            {
                "vpc_id": network.vpc_id,
                "doors": doors,
                "egress_ports": egress_ports(settings),
                "ipv6": machine.ipv6,
                "tags": self._tags,
            },
            self._own(),
        )

    def _identity(self, name: str) -> Identity:
        region = self._args["region"]
        return Identity(name, {"region": region, "proves": self._proof(), "tags": self._tags}, self._own())

    def _instance(self, name: str, network: Network, firewall: Firewall, identity: Identity) -> GpuInstance:
        args, machine, offer = self._args, self._args["machine"], self.offer
        return GpuInstance(
            name,
            {
                "stack": args["stack"],
                "provider": self._account(f"{name}-aws", INSTANCE_RETRIES),
                "ami": offer.apply(lambda known: known["ami"]),
                "ami_is_free": machine.ami is None,
                "login": offer.apply(lambda known: known["login"]),
                "instance_type": machine.instance_type,
                "subnet_id": network.subnet_id,
                "security_group_id": firewall.group.id,
                "profile": identity.profile.name,
                "public_key": args["public_key"],
                "root_gib": offer.apply(lambda known: max(machine.root_disk_gib, known["ami_root_gib"])),
                "root_throughput": machine.root_disk_throughput,
                "ipv6": machine.ipv6,
                "ipv6_addresses": network.ipv6_addresses,
                "market": machine.market,
                "reservation": machine.reservation,
                "keeping": self._keeping,
                "tags": self._tags,
            },
            self._own(),
        )

    def _proof(self) -> Proof | None:
        domain = self._args["settings"].domain
        if domain is None or domain.tls != "acme-dns":
            return None
        zone = hosted_zone(domain, parent=self, provider=self.provider)
        assert zone is not None  # noqa: S101 - the settings see to it
        return {"host": domain.host, "zone_id": zone, "looks_for_zone": domain.zone_id is None}

    def _place(self, address: Address) -> pulumi.Output[Place]:
        """Not known before address and disk are at the instance: nothing is to be sent there earlier."""
        region = self._args["region"]
        return pulumi.Output.all(
            instance=self.instance.id,
            address=address.ipv4,
            offer=self.offer,
            association=address.association.id,
            attachment=self.storage.attachment.id,
        ).apply(
            lambda known: {
                "instance": known["instance"],
                "address": known["address"],
                "login": known["offer"]["login"],
                "region": region,
            }
        )

    def _own(self) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, providers=[self.provider])

    def prepare(self) -> Mapping[str, RunArgs]:
        """The programs that the machine needs before it is like any other."""
        machine, engine_port = self._args["machine"], self._args["settings"].ports.engine
        gib = machine.data_disk.gib
        disk = self.storage.volume.id.apply(lambda volume: disk_program(volume, machine.data_dir, gib))
        return {
            "disk": {"program": disk, "triggers": [str(gib)]},
            # Also where nothing is asked for: it takes away what was.
            "idle-stop": {"program": idle_stop_program(self._args["stack"], machine.cost, engine_port)},
        }

    def facts(self) -> Mapping[str, pulumi.Input[str | float | None]]:
        """What the stack's output `machine` says of it."""
        hourly = self.offer.apply(lambda known: known["price_per_hour"])
        return {
            "address": self.public.ipv4,
            "instance": self.instance.id,
            "instance_type": self.instance.instance_type,
            "region": self._args["region"],
            "zone": self.instance.availability_zone,
            "price_per_hour": hourly,
            "price_per_month": hourly.apply(
                lambda price: None if price is None else round(price * HOURS_PER_MONTH)
            ),
            "price_date": self.offer.apply(lambda known: known["price_date"]),
        }


def egress_ports(settings: Settings) -> Sequence[int]:
    """TCP ports beyond the usual ones that the settings lead the machine to: an own CA, an own registry."""
    chosen = settings.images
    images = [chosen.vllm, chosen.haproxy, chosen.lego, chosen.python]
    places = [f"https://{image.partition('/')[0]}" for image in images if image and "/" in image]
    if settings.domain and settings.domain.acme_server:
        places.append(settings.domain.acme_server)
    return sorted({urlsplit(place).port or HTTPS_PORT for place in places} - {HTTPS_PORT})
