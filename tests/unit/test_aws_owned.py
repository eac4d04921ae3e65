"""What a stack has in an account that its state does not list: found by tags and names, told apart, removed.

The account is moto's, with a thing of every kind, of this state, of another state of the same stack name, of
another stack and of a stranger. What this does not prove: AWS's own delays and refusals, budgets (moto has no tags
of them), and that the real engine leaves what is assumed here; the AWS lab shows those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import pytest

from aws_account.clients import Clients
from aws_account.ending import _END, end
from aws_account.finding import _FIND, Sought, find
from catalog.aws import owned
from catalog.aws.owned import KINDS, Kind, Part, Recorded, Strays, Thing, gone, strays
from catalog.aws.tags import OWNER, tags_of
from components.machine.aws.cost import stop_policy
from scripts.commands.aws import Aws
from scripts.commands.errors import CommandError
from scripts.commands.strays import Settled, StackAccount, refuse_others, settle
from tests.unit.aws_support import IMAGE, REGION, account

HOST = "llm.example.org"
OURS = "11111111-1111-1111-1111-111111111111"
ARN = "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0"
ANOTHER = "22222222-2222-2222-2222-222222222222"

WITHOUT_MOTO = {owned.BUDGET}
"""moto does not list the tags of these."""


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    """An account with nothing in it but the public zone."""
    with account(monkeypatch):
        route53 = boto3.client("route53")
        route53.create_hosted_zone(Name="example.org", CallerReference="1")
        yield Clients(REGION, None)


class Maker:
    """Makes one thing of each kind, with the tags of a stack and the owner of a state."""

    def __init__(self, clients: Clients, stack: str = "gpu", owner: str | None = OURS, host: str = HOST) -> None:
        self._at = clients
        tags = {**(tags_of(stack) if stack else {"Name": "a stranger's"}), **({OWNER: owner} if owner else {})}
        self.tags: Any = [{"Key": key, "Value": value} for key, value in tags.items()]
        self._host, self._suffix = host, f"{stack or 'stranger'}-{(owner or 'none')[:4]}"

    def _for(self, kind: str) -> Any:
        return [{"ResourceType": kind, "Tags": self.tags}]

    def all(self) -> dict[Kind, str]:
        """Their ids as Pulumi has them, by kind."""
        made = {**self.network(), **self.machine(), **self.rights()}
        made[owned.RECORD] = self.record(self.address)
        return made

    def network(self) -> dict[Kind, str]:
        ec2 = self._at.ec2
        vpc = ec2.create_vpc(CidrBlock="10.213.0.0/24", TagSpecifications=self._for("vpc"))["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.213.0.0/24", TagSpecifications=self._for("subnet"))
        gateway = ec2.create_internet_gateway(TagSpecifications=self._for("internet-gateway"))
        table = ec2.create_route_table(VpcId=vpc, TagSpecifications=self._for("route-table"))
        group = ec2.create_security_group(
            VpcId=vpc, GroupName=self._suffix, Description="d", TagSpecifications=self._for("security-group")
        )
        made = {
            owned.VPC: vpc,
            owned.SUBNET: subnet["Subnet"]["SubnetId"],
            owned.GATEWAY: gateway["InternetGateway"]["InternetGatewayId"],
            owned.ROUTES: table["RouteTable"]["RouteTableId"],
            owned.GROUP: group["GroupId"],
        }
        ec2.attach_internet_gateway(InternetGatewayId=made[owned.GATEWAY], VpcId=vpc)
        ec2.associate_route_table(RouteTableId=made[owned.ROUTES], SubnetId=made[owned.SUBNET])
        return made

    def machine(self) -> dict[Kind, str]:
        ec2 = self._at.ec2
        key = f"seatable-vllm-{self._suffix}"
        ec2.create_key_pair(KeyName=key, KeyType="ed25519", TagSpecifications=self._for("key-pair"))
        instance = self.instance()
        address = ec2.allocate_address(Domain="vpc", TagSpecifications=self._for("elastic-ip"))
        self.address = address["PublicIp"]
        ec2.associate_address(AllocationId=address["AllocationId"], InstanceId=instance)
        volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=8, TagSpecifications=self._for("volume"))
        return {
            owned.INSTANCE: instance,
            owned.ADDRESS: address["AllocationId"],
            owned.VOLUME: volume["VolumeId"],
            owned.KEY_PAIR: key,
        }

    def instance(self) -> str:
        """One that must not be terminated, with a disk of its own that has the same tags."""
        made = self._at.ec2.run_instances(
            ImageId=IMAGE,
            MinCount=1,
            MaxCount=1,
            InstanceType="g6.xlarge",
            DisableApiTermination=True,
            TagSpecifications=[*self._for("instance"), *self._for("volume")],
            BlockDeviceMappings=[
                {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 8, "DeleteOnTermination": True}}
            ],
        )
        return str(made["Instances"][0]["InstanceId"])

    def rights(self) -> dict[Kind, str]:
        iam, role, profile = (
            self._at.iam,
            f"vm-identity-role-{self._suffix}",
            f"vm-identity-profile-{self._suffix}",
        )
        made = iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}", Tags=self.tags)["Role"]
        iam.put_role_policy(
            RoleName=role,
            PolicyName="p",
            PolicyDocument=stop_policy(ARN),
        )
        iam.create_instance_profile(InstanceProfileName=profile, Tags=self.tags)
        iam.add_role_to_instance_profile(InstanceProfileName=profile, RoleName=role)
        schedule = f"vm-cost-stop-{self._suffix}"
        self._at.scheduler.create_schedule(
            Name=schedule,
            ScheduleExpression="cron(0 20 * * ? *)",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": "arn:aws:scheduler:::aws-sdk:ec2:stopInstances", "RoleArn": made["Arn"]},
        )
        return {owned.ROLE: role, owned.PROFILE: profile, owned.SCHEDULE: f"default/{schedule}"}

    def record(self, address: str) -> str:
        zone = self._at.route53.list_hosted_zones()["HostedZones"][0]["Id"].rpartition("/")[2]
        lines = {"Name": self._host, "Type": "A", "TTL": 60, "ResourceRecords": [{"Value": address}]}
        change: Any = {"Changes": [{"Action": "CREATE", "ResourceRecordSet": lines}]}
        self._at.route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=change)
        return f"{zone}_{self._host}_A"


def found(clients: Clients, stack: str = "gpu", host: str = HOST) -> set[tuple[Kind, str]]:
    look = find(clients, Sought(stack, host))
    assert set(look.unanswered) <= WITHOUT_MOTO
    return {(each.kind, each.id) for each in look.things}


def silent(_: str) -> None:
    """Says nothing."""


# --- one place knows all


def test_every_kind_can_be_found_and_removed() -> None:
    assert set(KINDS) == set(_FIND) == set(_END)


# --- finding


def test_a_thing_of_every_kind_is_found_with_its_owner(clients: Clients) -> None:
    made = Maker(clients).all()
    assert set(made) == set(KINDS) - WITHOUT_MOTO
    assert found(clients) == set(made.items())
    assert {each.tags[OWNER] for each in find(clients, Sought("gpu", HOST)).things} == {OURS}


def test_another_stacks_things_and_a_strangers_with_like_names_are_not_found(clients: Clients) -> None:
    Maker(clients, "gpu2", ANOTHER, "other.example.org").all()
    Maker(clients, "", None, "third.example.org").all()
    assert found(clients) == set()


def test_a_record_of_the_name_that_leads_elsewhere_is_not_the_stacks(clients: Clients) -> None:
    Maker(clients).machine()
    Maker(clients, "", None).record("198.51.100.7")
    assert owned.RECORD not in {kind for kind, _ in found(clients)}


# --- telling apart


def thing(kind: Kind, name: str = "x", owner: str | None = OURS) -> Thing:
    return Thing(kind, name, {**tags_of("gpu"), **({OWNER: owner} if owner else {})})


def test_what_the_state_lists_is_no_stray_and_what_it_made_besides_is_in_the_order_of_removal() -> None:
    known, second = thing(owned.INSTANCE, "i-1"), thing(owned.INSTANCE, "i-2")
    role, vpc = thing(owned.ROLE), thing(owned.VPC)
    recorded = Recorded(ids=frozenset({(owned.INSTANCE.type, "i-1")}), owner=OURS)
    assert strays([role, vpc, known, second], recorded) == Strays([second, vpc, role], [])


@pytest.mark.parametrize("owner", [ANOTHER, None])
def test_what_another_state_or_an_older_version_made_is_never_ones_own(owner: str | None) -> None:
    creating = frozenset(kind.type for kind in KINDS)
    things = [thing(kind, owner=owner) for kind in KINDS]
    for own in (OURS, None):
        assert not strays(things, Recorded(owner=own, creating=creating)).mine


@pytest.mark.parametrize("being_made", [True, False])
def test_a_data_volume_is_removed_only_where_a_run_was_killed_making_it(being_made: bool) -> None:
    creating = frozenset({owned.VOLUME.type} if being_made else ())
    found = strays([thing(owned.VOLUME)], Recorded(owner=OURS, creating=creating))
    assert bool(found.mine) is being_made


def test_what_the_state_lists_and_the_account_has_not_is_gone_but_not_in_another_account_or_region() -> None:
    kinds, here = (owned.VPC, owned.ADDRESS, owned.ROLE, owned.INSTANCE), ("123456789012", REGION)
    homes = {(kind.type, "x"): here for kind in kinds} | {(owned.ROLE.type, "x"): (here[0], "")}
    recorded, role = Recorded(frozenset(homes), homes=homes, owner=OURS), (owned.ROLE.type, "x")
    all_of_it = {(kind.type, "x") for kind in kinds if kind != owned.INSTANCE}
    assert gone([], recorded, KINDS, here) == all_of_it
    assert gone([thing(owned.VPC), thing(owned.ROLE)], recorded, KINDS, here) == {(owned.ADDRESS.type, "x")}
    assert gone([], recorded, [owned.VPC], here) == {(owned.VPC.type, "x")}, "nobody said so of the others"
    assert gone([], recorded, KINDS, (here[0], "eu-central-1")) == {role}
    assert not gone([], recorded, KINDS, ("999999999999", REGION))


def test_a_state_is_read_as_the_engine_exports_it() -> None:
    urn = (
        "urn:pulumi:dev::seatable-vllm::seatable-vllm:index:AwsGpuVm$random:index/randomUuid:RandomUuid::vm-owner"
    )
    state = {
        "resources": [
            {"urn": "u1", "type": "pulumi:pulumi:Stack"},
            {"urn": urn, "type": "random:index/randomUuid:RandomUuid", "id": OURS, "outputs": {"result": OURS}},
            {
                "urn": "u2",
                "type": owned.VPC.type,
                "id": "vpc-1",
                "outputs": {"arn": "arn:aws:ec2:eu-central-1:123456789012:vpc/vpc-1"},
            },
        ],
        "pending_operations": [
            {"resource": {"urn": "u3", "type": owned.INSTANCE.type}, "type": "creating"},
            {"resource": {"urn": "u2", "type": owned.VPC.type, "id": "vpc-1"}, "type": "deleting"},
        ],
    }
    recorded = Recorded.of(state)
    assert (owned.VPC.type, "vpc-1") in recorded.ids
    assert recorded.creating == {owned.INSTANCE.type}
    assert (recorded.pending, recorded.owner) == (2, OURS)
    assert recorded.homes == {(owned.VPC.type, "vpc-1"): ("123456789012", "eu-central-1")}
    assert Recorded.of({"resources": None}) == Recorded()


# --- removing


def test_everything_can_be_removed_in_the_order_of_the_table_and_nobody_elses_goes_with_it(
    clients: Clients,
) -> None:
    Maker(clients).all()
    Maker(clients, "gpu", ANOTHER, "other.example.org").all()
    Maker(clients, "", None, "third.example.org").all()
    before = _everything(clients)
    look = find(clients, Sought("gpu", HOST))
    mine = strays(look.things, Recorded(owner=OURS, creating=frozenset({owned.VOLUME.type}))).mine
    for each in mine:
        end(clients, each)
    assert {kind for kind, _ in found(clients)} == set(KINDS) - WITHOUT_MOTO - {owned.RECORD}
    gone = before - _everything(clients)
    assert gone == {each.id for each in mine}


def _everything(clients: Clients) -> set[str]:
    """Ids of all there is in the account, whoever it belongs to."""
    ec2, iam = clients.ec2, clients.iam
    records = [
        f"{zone['Id'].rpartition('/')[2]}_{each['Name'].rstrip('.')}_{each['Type']}"
        for zone in clients.route53.list_hosted_zones()["HostedZones"]
        for each in clients.route53.list_resource_record_sets(HostedZoneId=zone["Id"])["ResourceRecordSets"]
    ]
    instances = [each for group in ec2.describe_instances()["Reservations"] for each in group["Instances"]]
    return {
        *records,
        *(each["InstanceId"] for each in instances if each["State"]["Name"] != "terminated"),
        *(each["AllocationId"] for each in ec2.describe_addresses()["Addresses"]),
        *(each["VolumeId"] for each in ec2.describe_volumes()["Volumes"] if not each["Attachments"]),
        *(
            each["GroupId"]
            for each in ec2.describe_security_groups()["SecurityGroups"]
            if each["GroupName"] != "default"
        ),
        *(each["RouteTableId"] for each in ec2.describe_route_tables()["RouteTables"] if each["Tags"]),
        *(each["SubnetId"] for each in ec2.describe_subnets()["Subnets"]),
        *(each["InternetGatewayId"] for each in ec2.describe_internet_gateways()["InternetGateways"]),
        *(each["VpcId"] for each in ec2.describe_vpcs()["Vpcs"]),
        *(each["KeyName"] for each in ec2.describe_key_pairs()["KeyPairs"]),
        *(each["InstanceProfileName"] for each in iam.list_instance_profiles()["InstanceProfiles"]),
        *(each["RoleName"] for each in iam.list_roles()["Roles"]),
        *(f"default/{each['Name']}" for each in clients.scheduler.list_schedules()["Schedules"]),
    }


def test_what_is_gone_already_is_no_error(clients: Clients) -> None:
    Maker(clients).all()
    things = strays(find(clients, Sought("gpu", HOST)).things, Recorded(owner=OURS)).mine
    for each in [*things, *things]:
        end(clients, each)


# --- settling


class State:
    """A stack's state, and what was done with it."""

    def __init__(self, recorded: Recorded, *, another_run: bool = False) -> None:
        self.recorded, self.another_run, self.forgotten = recorded, another_run, 0

    def read(self) -> Recorded:
        return self.recorded

    def forget(self) -> None:
        self.forgotten += 1
        if not self.another_run:
            self.recorded = Recorded(self.recorded.ids, owner=self.recorded.owner)


@pytest.fixture
def gpu(clients: Clients) -> StackAccount:
    """The account of the stack `gpu`."""
    assert clients.number
    return StackAccount("gpu", Aws(REGION), HOST)


def test_a_machine_that_a_killed_run_made_is_removed_with_a_line_and_the_other_stays(
    clients: Clients, gpu: StackAccount
) -> None:
    known, left = Maker(clients).instance(), Maker(clients).instance()
    state = State(
        Recorded(
            frozenset({(owned.INSTANCE.type, known)}), frozenset({owned.INSTANCE.type}), pending=1, owner=OURS
        )
    )
    said: list[str] = []
    assert settle(gpu, state.read, state.forget, said.append).removed == 1
    assert {identity for _, identity in found(clients)} == {known}
    assert state.forgotten == 1
    (line,) = said
    assert left in line


def _group_rule(egress: bool, **inputs: Any) -> Part:
    way = "Egress" if egress else "Ingress"
    inputs = {"ipProtocol": "tcp", "fromPort": 443, "toPort": 443, **inputs}
    return Part(f"aws:vpc/securityGroup{way}Rule:SecurityGroup{way}Rule", "vm-firewall-one", inputs)


def test_a_part_that_a_killed_run_was_making_is_removed_from_what_the_state_lists_and_no_other_part(
    clients: Clients, gpu: StackAccount
) -> None:
    ec2, iam = clients.ec2, clients.iam
    made, attached = Maker(clients).all(), ("arn:aws:iam::aws:policy/One", "arn:aws:iam::aws:policy/Two")
    group, table, role = (made[kind] for kind in (owned.GROUP, owned.ROUTES, owned.ROLE))
    for port in (443, 444):
        rule = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port}
        for change in (ec2.authorize_security_group_ingress, ec2.authorize_security_group_egress):
            change(
                GroupId=group,
                IpPermissions=[
                    {
                        **rule,
                        "IpRanges": [{"CidrIp": "192.0.2.1/32", "Description": "d"}, {"CidrIp": "192.0.2.2/32"}],
                        "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}],
                    }
                ],
            )
    for net in ("0.0.0.0/0", "192.0.2.0/24"):
        ec2.create_route(RouteTableId=table, DestinationCidrBlock=net, GatewayId=made[owned.GATEWAY])
    for arn in attached:
        iam.create_policy(PolicyName=arn.rpartition("/")[2], PolicyDocument=stop_policy(ARN))
    own = [f"arn:aws:iam::{clients.number}:policy/{arn.rpartition('/')[2]}" for arn in attached]
    for arn in own:
        iam.attach_role_policy(RoleName=role, PolicyArn=arn)
    iam.put_role_policy(RoleName=role, PolicyName="q", PolicyDocument=stop_policy(ARN))
    parts = (
        _group_rule(False, securityGroupId=group, cidrIpv4="192.0.2.1/32", description="d"),
        _group_rule(True, securityGroupId=group, cidrIpv6="2001:db8::/32"),
        Part(
            "aws:ec2/route:Route", "vm-network-route", {"routeTableId": table, "destinationCidrBlock": "0.0.0.0/0"}
        ),
        Part(
            "aws:ec2/routeTableAssociation:RouteTableAssociation",
            "vm-network-routed",
            {"routeTableId": table, "subnetId": made[owned.SUBNET]},
        ),
        Part("aws:iam/rolePolicy:RolePolicy", "vm-identity-proof", {"role": role, "name": "q"}),
        Part(
            "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
            "vm-identity-ssm",
            {"role": role, "policyArn": own[0]},
        ),
        # Its call had not been made yet.
        Part("aws:iam/rolePolicy:RolePolicy", "vm-identity-none", {"role": role, "name": "none"}),
        Part(
            "aws:ec2/volumeAttachment:VolumeAttachment", "vm-storage-attachment", {"volumeId": made[owned.VOLUME]}
        ),
    )
    listed = frozenset((kind.type, name) for kind, name in made.items())
    said: list[str] = []
    state = State(Recorded(listed, frozenset(part.type for part in parts), parts, len(parts), OURS))
    assert settle(gpu, state.read, state.forget, said.append).removed == 6
    assert {line.split()[1].rstrip(":") for line in said} == {part.name for part in parts[:6]}
    rules = [
        (each["IsEgress"], each["FromPort"], each.get("CidrIpv4") or each.get("CidrIpv6"))
        for each in ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])[
            "SecurityGroupRules"
        ]
        if each["IpProtocol"] == "tcp"
    ]
    addresses = ("192.0.2.1/32", "192.0.2.2/32", "2001:db8::/32")
    all_rules = {(egress, port, net) for egress in (False, True) for port in (443, 444) for net in addresses}
    assert set(rules) == all_rules - {(False, 443, "192.0.2.1/32"), (True, 443, "2001:db8::/32")}
    (routes,) = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"]
    assert "0.0.0.0/0" not in {each["DestinationCidrBlock"] for each in routes["Routes"]}
    assert "192.0.2.0/24" in {each["DestinationCidrBlock"] for each in routes["Routes"]}
    assert not routes["Associations"]
    assert iam.list_role_policies(RoleName=role)["PolicyNames"] == ["p"]
    assert [
        each["PolicyArn"] for each in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    ] == own[1:]


def test_nothing_is_touched_where_all_is_listed(clients: Clients, gpu: StackAccount) -> None:
    known = Maker(clients).instance()
    state = State(Recorded(frozenset({(owned.INSTANCE.type, known)}), owner=OURS))
    assert settle(gpu, state.read, state.forget, silent) == Settled(0, Strays([], []))
    assert state.forgotten == 0


def test_marks_of_steps_are_taken_out_where_nothing_is_left(gpu: StackAccount) -> None:
    state = State(Recorded(pending=2, owner=OURS))
    assert settle(gpu, state.read, state.forget, silent).removed == 0
    assert state.forgotten == 1


def test_what_another_run_is_making_right_now_is_not_touched(clients: Clients, gpu: StackAccount) -> None:
    new = Maker(clients).instance()
    state = State(Recorded(creating=frozenset({owned.INSTANCE.type}), pending=1, owner=OURS), another_run=True)
    with pytest.raises(CommandError, match="another run"):
        settle(gpu, state.read, state.forget, silent)
    assert {identity for _, identity in found(clients)} == {new}


def test_a_record_of_a_killed_run_stays_for_the_next_up_and_goes_with_the_stack(
    clients: Clients, gpu: StackAccount
) -> None:
    Maker(clients).all()
    address = next(each for each in find(clients, Sought("gpu")).things if each.kind == owned.ADDRESS)
    state = State(Recorded(frozenset({(owned.ADDRESS.type, address.id)}), owner=OURS))
    settle(gpu, state.read, state.forget, silent)
    assert owned.RECORD in {kind for kind, _ in found(clients)}
    settle(gpu, state.read, state.forget, silent, removing=True)
    assert owned.RECORD not in {kind for kind, _ in found(clients)}


def test_another_states_machine_is_refused_with_what_it_is_and_a_volume_that_was_kept_is_not(
    clients: Clients,
) -> None:
    assert clients.number
    refuse_others("gpu", [thing(owned.VOLUME, owner=ANOTHER), thing(owned.VPC, owner=ANOTHER)])
    with pytest.raises(CommandError) as refused:
        refuse_others("gpu", [thing(owned.INSTANCE, "i-7", ANOTHER), thing(owned.ADDRESS, "eipalloc-7", None)])
    assert "i-7" in str(refused.value)
    assert "eipalloc-7" in str(refused.value)
    assert "change: " in str(refused.value)


def test_an_account_that_does_not_say_what_costs_is_not_taken_for_empty(
    clients: Clients, gpu: StackAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clients.number
    _refuse(monkeypatch, owned.INSTANCE)
    with pytest.raises(CommandError, match="ec2:Describe"):
        gpu.strays(Recorded(owner=OURS), silent)


def test_what_costs_nothing_and_was_never_made_need_not_be_seen(
    clients: Clients, gpu: StackAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clients.number
    _refuse(monkeypatch, owned.SCHEDULE)
    said: list[str] = []
    gpu.strays(Recorded(owner=OURS), said.append)
    assert not said
    gpu.strays(Recorded(ids=frozenset({(owned.SCHEDULE.type, "default/x")}), owner=OURS), said.append)
    assert "schedule" in said[0]


def _refuse(monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    """Takes the right to list things of this kind away."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    def refused(*_: object) -> Iterator[Thing]:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "List")

    finders: Mapping[Kind, Any] = {**_FIND, kind: refused}
    monkeypatch.setattr("aws_account.finding._FIND", finders)
