"""Unit tier: the whole program for a machine on AWS, under a recorder in Pulumi's place, as `up` and as `preview`.

What is held up is what AWS and the machine are asked for: names, doors, rights, order, what is kept, and what a
change touches. It does NOT prove that AWS takes it, that a disk is found or a machine is reached: the arguments
are held against the provider's schema in test_aws_schema.py, and only a real engine and a real AWS show the rest.
"""

from __future__ import annotations

import base64
import contextvars
import ipaddress
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pulumi
import pulumi_aws as aws
import pytest
from pulumi.runtime import mocks

from catalog.aws import owned
from catalog.aws.tags import OWNER as OWNER_TAG
from components.machine.aws.access import SESSION_PROGRAMS
from components.machine.aws.gpu_vm import egress_ports
from components.machine.aws.instance import MAX_USER_DATA_BYTES, user_data
from components.machine.aws.zone import hosted_zone
from rehearsal.stack_file import stack_config
from settings import Domain, Images, parse
from tests import conftest
from tests.conftest import AMI, OWNER, PUBLIC_KEY, UUID, fake_key, offer
from tests.unit import goldens

if TYPE_CHECKING:
    from tests.conftest import FakeCommand, Recorded, RecordProgram, Registered

PROJECT = Path(__file__).resolve().parent.parent.parent
STACKS = goldens.stacks_of("aws")

INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
PROVIDER = "pulumi:providers:aws"
RECORD = "aws:route53/record:Record"
COMMAND = "command:local:Command"

VM, VOLUME, EIP = "vm-instance-vm", "vm-storage-data", "vm-address-ip"
INSTANCE_ID, VOLUME_ID = "i-0123456789abcdef0", "vol-0123456789abcdef0"

Config = dict[str, Any]


class RecordAws(Protocol):
    """Runs the program for a stack on AWS; `change` is called with the configuration that it then has."""

    def __call__(
        self, stack: str = "dev", *, preview: bool = False, may_fail: bool = False, **settings: object
    ) -> Recorded:
        """settings: in place of those of the stack's file; inside machine they are laid over them."""


@pytest.fixture(scope="session")
def record(record_program: RecordProgram, home_with_key: Path) -> RecordAws:
    """The program under the recorder, with a home folder that has a key."""

    def run(stack: str = "dev", *, preview: bool = False, may_fail: bool = False, **settings: object) -> Recorded:
        config = stack_config(stack)
        for name, value in settings.items():
            key = f"seatable-vllm:{name}" if name != "region" else "aws:region"
            before = config.pop(key, "{}")
            laid_over = isinstance(value, Mapping) and name in ("machine", "domain")
            said = {**json.loads(before), **value} if laid_over else value  # type: ignore[dict-item]
            if said is not None:
                config[key] = said if isinstance(said, str) else json.dumps(said)
        return record_program(
            stack,
            config,
            preview=preview,
            may_fail=may_fail,
            facts={"device": "gpu"},
            environment={"HOME": str(home_with_key)},
        )

    return run


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> str:
    """Each stack that is on AWS."""
    name: str = request.param
    return name


@pytest.fixture
def up(stack: str, record: RecordAws) -> Recorded:
    """One `up` of the stack."""
    return record(stack)


@pytest.fixture
def dev(record: RecordAws) -> Recorded:
    """One `up` of `dev`."""
    return record()


@pytest.fixture
def prod(record: RecordAws) -> Recorded:
    """One `up` of `prod`."""
    return record("prod")


def doors(recorded: Recorded) -> set[tuple[int, str]]:
    """(port, network) of everything that is let in."""
    found = set()
    for rule in recorded.of_type(INGRESS):
        inputs = rule.inputs
        assert inputs["fromPort"] == inputs["toPort"]
        assert inputs["ipProtocol"] == "tcp"
        (network,) = [inputs[side] for side in ("cidrIpv4", "cidrIpv6") if side in inputs]
        found.add((inputs["fromPort"], network))
    return found


def docker_resources(recorded: Recorded) -> list[Registered]:
    return [resource for resource in recorded.resources if resource.type.startswith("docker:")]


def texts(value: Any) -> Iterator[str]:
    """Every text within a value, user data as the machine reads it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from (str(key), base64.b64decode(item).decode()) if key == "userDataBase64" else texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    else:
        yield str(value)


# What there is


def test_the_stack_asks_for_exactly_what_its_golden_file_says(
    stack: str, up: Recorded, record: RecordAws, update_goldens: bool
) -> None:
    told = goldens.compare(f"aws/{stack}.yaml", up, record(stack, preview=True), update=update_goldens)
    assert not told, told


ALL_OF_IT: Config = {
    "cost": {"stop_at": "20:00", "budget": {"usd_per_month": 100, "mail": "ops@example.org"}},
    "ipv6": True,
}
"""Settings of the machine that make everything that can be made."""

RARE: Config = {
    **ALL_OF_IT,
    "market": "spot",
    "data_disk": {"gib": 100, "at_end": "retain", "snapshot": "snap-0123456789abcdef0"},
}


def test_what_no_stack_file_has_is_asked_of_aws_as_its_golden_file_says(
    record: RecordAws, update_goldens: bool
) -> None:
    up, preview = (
        record(machine=RARE, domain={"adopt_record": True}, preview=preview) for preview in (False, True)
    )
    told = goldens.compare("aws/rare.yaml", up, preview, update=update_goldens, only="aws:")
    assert not told, told


def test_the_first_preview_of_a_stack_that_was_never_up_shows_all_of_it_and_fails_nowhere(
    stack: str, up: Recorded, record: RecordAws
) -> None:
    preview = record(stack, preview=True)
    assert preview.names == up.names
    assert preview.one("machine-docker").is_unknown("host")
    assert preview.one("machine-disk").is_unknown("create")


def test_every_resource_but_the_components_of_the_line_has_a_component_as_parent_and_its_name_in_front(
    up: Recorded,
) -> None:
    for resource in up.resources:
        if "pulumi:pulumi:Stack::" in resource.request.parent:
            assert resource.type.startswith("seatable-vllm:index:"), f"{resource.name} lies loose in the stack"
            continue
        above = up.by_urn(resource.request.parent)
        assert not above.request.custom
        assert resource.name.startswith(f"{above.name}-")


def test_names_are_unique_and_no_name_breaks_an_urn(up: Recorded) -> None:
    names = [name for _, name in up.names]
    assert len(set(names)) == len(names)
    assert not any("::" in name or "/" in name for name in names)


def test_no_part_of_aws_is_loaded_for_a_stack_that_is_not_there() -> None:
    program = "import sys, components.machine; assert 'pulumi_aws.ec2' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PROJECT)


# Who may come in


def test_in_come_the_clients_by_https_and_the_administrators_by_ssh_and_nobody_else(
    dev: Recorded, prod: Recorded
) -> None:
    assert doors(dev) == {(443, "198.51.100.10/32"), (443, "198.51.100.0/28"), (22, "203.0.113.7/32")}
    assert doors(prod) == doors(dev) | {(443, "2001:db8::10/128")}


def test_the_group_has_no_rules_in_it_which_would_be_taken_for_all_there_are(up: Recorded) -> None:
    group = up.one("vm-firewall-group").inputs
    assert not {"ingress", "egress"} & set(group)
    for rule in [*up.of_type(INGRESS), *up.of_type(EGRESS)]:
        assert rule.inputs["securityGroupId"] == "sg-0123456789abcdef0"


def test_the_machine_has_that_group_and_no_other(up: Recorded) -> None:
    vm = up.one(VM).inputs
    assert vm["vpcSecurityGroupIds"] == ["sg-0123456789abcdef0"]
    assert "securityGroups" not in vm


def test_the_ports_of_the_edge_and_not_those_of_the_engine_are_open(record: RecordAws) -> None:
    recorded = record(ports={"edge": 8443, "engine": 18000, "loopback": 18080})
    assert {port for port, _ in doors(recorded)} == {8443, 22}


def test_without_a_domain_clients_come_through_a_tunnel_and_no_port_but_ssh_is_open(record: RecordAws) -> None:
    recorded = record(domain=None, clients={"seatable": {"kind": "seatable", "cidrs": ["127.0.0.1/32"]}})
    assert doors(recorded) == {(22, "203.0.113.7/32")}
    assert recorded.outputs["tunnel"].value.endswith("ubuntu@203.0.113.99")
    assert "dns" not in recorded.outputs


def test_taking_a_client_out_takes_exactly_its_rules_out(dev: Recorded, record: RecordAws) -> None:
    clients = json.loads(stack_config("dev")["seatable-vllm:clients"])
    without = record(clients={"seatable": clients["seatable"]})
    before = {rule.name: rule.wire for rule in dev.of_type(INGRESS)}
    after = {rule.name: rule.wire for rule in without.of_type(INGRESS)}
    assert set(before) - set(after) == {"vm-firewall-in-443-198.51.100.0-28"}
    assert after == {name: wire for name, wire in before.items() if name in after}


def test_two_clients_of_one_network_share_its_rule_until_both_are_gone(record: RecordAws) -> None:
    # EC2 refuses the same rule twice in a group (InvalidPermission.Duplicate).
    def client(*cidrs: str) -> Config:
        return {"kind": "openai", "cidrs": list(cidrs)}

    both = record(clients={"a": client("198.51.100.7/32"), "b": client("198.51.100.7/32", "2001:db8::/64")})
    one = record(clients={"b": client("198.51.100.7/32", "2001:db8::/64")})
    assert len(doors(both)) == len(both.of_type(INGRESS))
    assert doors(both) == doors(one)
    shared = "vm-firewall-in-443-198.51.100.7-32"
    assert both.one(shared).inputs["description"] == "a, b"
    assert one.one(shared).inputs["description"] == "b"


def test_a_rule_says_its_network_on_the_side_of_its_version(prod: Recorded) -> None:
    for rule in [*prod.of_type(INGRESS), *prod.of_type(EGRESS)]:
        for side, version in (("cidrIpv4", 4), ("cidrIpv6", 6)):
            if side in rule.inputs:
                assert ipaddress.ip_network(rule.inputs[side]).version == version


USUAL_PORTS = {443, 80, 53, 123}


@pytest.mark.parametrize("image", sorted(set(Images.model_fields) - {"pulled"}))
def test_the_registry_of_each_image_is_reached_at_a_port_of_its_own(image: str) -> None:
    chosen = parse({"images": {image: "mirror.example.com:5000/any/image:1"}})
    assert egress_ports(chosen) == [5000]


@pytest.mark.parametrize(
    "image", ["haproxy:3.2", "owner/image:1", "mirror.example.com/image:1", "a.example:443/i"]
)
def test_a_registry_at_the_usual_port_needs_no_rule_of_its_own(image: str) -> None:
    assert egress_ports(parse({"images": {"haproxy": image, "python": "none"}})) == []


def test_a_registry_or_a_ca_at_a_port_of_its_own_is_reached_too(record: RecordAws) -> None:
    recorded = record(
        images={"vllm": "mirror.example.com:5000/vllm:1", "haproxy": "haproxy:3.2"},
        domain={"acme_server": "https://ca.example.com:9000/acme/directory", "acme_staging": False},
    )
    ports = {rule.inputs["fromPort"] for rule in recorded.of_type(EGRESS)}
    assert ports == USUAL_PORTS | {5000, 9000}


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "0.0.0.0/1"])
@pytest.mark.parametrize("whose", ["client", "administrator"])
def test_the_whole_world_is_let_in_nowhere(network: str, whose: str, record: RecordAws) -> None:
    wrong: Config = (
        {"clients": {"seatable": {"kind": "seatable", "cidrs": [network]}}}
        if whose == "client"
        else {"machine": {"admin_cidrs": [network]}}
    )
    refused = record(may_fail=True, **wrong)
    assert isinstance(refused.error, pulumi.RunError)
    assert not refused.resources


# The instance


def test_the_metadata_service_asks_for_a_token_and_answers_no_container(up: Recorded) -> None:
    assert up.one(VM).inputs["metadataOptions"] == {
        "httpEndpoint": "enabled",
        "httpTokens": "required",
        "httpPutResponseHopLimit": 1,
        "instanceMetadataTags": "disabled",
    }


def test_all_disks_are_encrypted_and_the_root_disk_ends_with_its_instance(up: Recorded, stack: str) -> None:
    root = dict(up.one(VM).inputs["rootBlockDevice"])
    assert root.pop("volumeSize") >= 75
    assert root.pop("throughput") >= 125
    assert root == {
        "volumeType": "gp3",
        "encrypted": True,
        "deleteOnTermination": True,
        "tags": {"Name": f"seatable-vllm-{stack}", "Owner": OWNER},
    }
    volume = up.one(VOLUME).inputs
    assert (volume["type"], volume["encrypted"]) == ("gp3", True)
    assert not {"ebsBlockDevices", "ephemeralBlockDevices"} & set(up.one(VM).inputs)


def test_disks_are_as_fast_as_they_are_asked_to_be(record: RecordAws) -> None:
    recorded = record(machine={"root_disk_throughput": 500, "data_disk": {"throughput": 250}})
    assert recorded.one(VM).inputs["rootBlockDevice"]["throughput"] == 500
    assert recorded.one(VOLUME).inputs["throughput"] == 250


@pytest.mark.parametrize(("wanted", "made"), [(30, 75), (75, 75), (150, 150)])
def test_the_root_disk_is_never_smaller_than_the_image(wanted: int, made: int, record: RecordAws) -> None:
    recorded = record(machine={"root_disk_gib": wanted})
    assert recorded.one(VM).inputs["rootBlockDevice"]["volumeSize"] == made


def test_a_newer_image_or_other_user_data_moves_nothing_unless_an_image_is_named(
    dev: Recorded, record: RecordAws
) -> None:
    assert dev.one(VM).inputs["ami"] == AMI
    assert sorted(dev.one(VM).request.ignoreChanges) == ["ami", "userDataBase64"]
    named = record(machine={"ami": AMI})
    assert list(named.one(VM).request.ignoreChanges) == ["userDataBase64"]


def test_the_instance_alone_has_a_provider_that_gives_up_soon(up: Recorded) -> None:
    patient, hasty = up.one("vm-aws"), up.one("vm-instance-aws")
    assert "maxRetries" not in patient.inputs
    assert int(hasty.inputs["maxRetries"]) <= 3
    with_hasty = {each.name for each in up.resources if each.request.provider.startswith(hasty.urn)}
    assert with_hasty == {VM}
    for each in up.resources:
        if each.type.startswith("aws:") and each.name != VM:
            assert each.request.provider.startswith(patient.urn), each.name


def test_user_data_fits_and_is_the_program_for_the_login_of_the_image(up: Recorded) -> None:
    program = base64.b64decode(up.one(VM).inputs["userDataBase64"]).decode()
    assert program == user_data("ubuntu")
    assert program.startswith("#!/bin/bash\n")
    assert len(program.encode()) < MAX_USER_DATA_BYTES / 4


@pytest.mark.parametrize(
    ("runtimes", "more"),
    [
        ("{}", [["nvidia-ctk", "runtime", "configure", "--runtime=docker"], ["systemctl", "restart", "docker"]]),
        ('{"nvidia":{}}', []),
    ],
    ids=["a Docker without its GPU runtime", "a Docker with it"],
)
def test_user_data_does_each_of_its_steps_to_its_end(
    runtimes: str, more: list[list[str]], tmp_path: Path, fake_command: FakeCommand
) -> None:
    (tmp_path / "etc/ssh/sshd_config.d").mkdir(parents=True)
    for name in ("systemctl", "usermod", "getent", "nvidia-ctk"):
        fake_command.add(name)
    fake_command.add("docker", f"echo {shlex.quote(runtimes)}")
    program = user_data("admin").replace("/etc/", f"{tmp_path}/etc/")
    done = subprocess.run(
        ["bash", "-s"], input=program, env=fake_command.environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    written = {
        str(path.relative_to(tmp_path)): path.read_text()
        for path in (tmp_path / "etc").rglob("*")
        if path.is_file()
    }
    assert written == {
        "etc/ssh/sshd_config.d/10-seatable-vllm.conf": "MaxStartups 100:30:200\nMaxSessions 100\n",
        "etc/apt/apt.conf.d/52seatable-vllm": "Unattended-Upgrade::Package-Blacklist "
        '{ "nvidia"; "libnvidia"; "linux-"; };\n',
    }
    changes = [call for call in fake_command.calls if call[0] not in ("docker", "getent")]
    assert changes == [["systemctl", "reload", "ssh"], ["usermod", "-aG", "docker", "admin"], *more]


def test_user_data_goes_on_where_a_step_is_not_possible(tmp_path: Path, fake_command: FakeCommand) -> None:
    for name in ("systemctl", "getent", "docker", "nvidia-ctk", "usermod"):
        fake_command.add(name, "exit 1")
    program = user_data("admin").replace("/etc/", f"{tmp_path}/etc/")
    done = subprocess.run(
        ["bash", "-s"], input=program, env=fake_command.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert (tmp_path / "etc/apt/apt.conf.d/52seatable-vllm").exists()
    systemd = [call for call in fake_command.calls if call[0] in ("systemctl", "usermod")]
    assert systemd == [["systemctl", "reload", "ssh"], ["systemctl", "reload", "sshd"]]


def test_no_secret_is_in_anything_that_aws_is_given(record_program: RecordProgram, home_with_key: Path) -> None:
    token, key_id, secret = "hf_" + fake_key("token"), "AKIA" + "X" * 16, fake_key("aws")
    given = {
        "seatable-vllm:hugging_face_token": token,
        "seatable-vllm:aws_access_key_id": key_id,
        "seatable-vllm:aws_secret_access_key": secret,
    }
    recorded = record_program("dev", secrets=given, environment={"HOME": str(home_with_key)})
    secrets = [token, key_id, secret, *recorded.keys.values(), "private"]
    for resource in recorded.resources:
        assert not any(text in resource.name for text in secrets)
        if resource.type.startswith(("aws:", PROVIDER)):
            everything = json.dumps(list(texts(resource.inputs)))
            # The group `private-ca` or a subnet may be called private; the key's text stands alone.
            assert not any(text in everything for text in secrets[:-1]), resource.name
            assert '"private"' not in everything


def test_the_key_is_given_to_aws_without_the_name_of_its_owner(up: Recorded) -> None:
    assert up.one("vm-instance-key").inputs["publicKey"] == PUBLIC_KEY


def test_another_administrators_key_replaces_no_machine(up: Recorded) -> None:
    vm, key = up.one(VM), up.one("vm-instance-key")
    assert vm.inputs["keyName"] == key.inputs["keyName"]
    assert key.urn not in vm.request.propertyDependencies["keyName"].urns
    assert key.name in up.everything_before(vm)


def test_a_new_instance_gets_the_volume_and_the_address_after_the_old_one_has_lost_them(up: Recorded) -> None:
    for name in (VM, "vm-storage-attachment", "vm-address-association"):
        assert up.one(name).request.deleteBeforeReplace, name
    assert up.one("vm-storage-attachment").inputs["stopInstanceBeforeDetaching"] is True


def test_nothing_of_the_volume_depends_on_the_instance_or_it_would_be_replaced_with_it(up: Recorded) -> None:
    # With delete-before-replace the engine also deletes what would be replaced if the instance's values changed.
    volume, address = up.one(VOLUME), up.one(EIP)
    vm = up.one(VM)
    for kept in (volume, address):
        depends = {urn for each in kept.request.propertyDependencies.values() for urn in each.urns}
        assert vm.urn not in depends
    assert VM in up.everything_before(volume), "a lack of capacity would leave a volume in a zone without machines"


# What is kept


def test_prod_is_protected_in_every_way_and_dev_in_none(dev: Recorded, prod: Recorded) -> None:
    for recorded, wanted in ((dev, False), (prod, True)):
        protected = {each.name for each in recorded.resources if each.request.protect}
        assert protected == ({VOLUME, EIP} if wanted else set())
        vm = recorded.one(VM).inputs
        assert vm["disableApiTermination"] is wanted
        assert vm["monitoring"] is wanted


@pytest.mark.parametrize(
    ("at_end", "snapshot", "retained"),
    [("delete", False, False), ("snapshot", True, False), ("retain", False, True)],
)
def test_what_becomes_of_the_data_volume_is_what_the_settings_say(
    at_end: str, snapshot: bool, retained: bool, record: RecordAws
) -> None:
    volume = record(machine={"data_disk": {"at_end": at_end}}).one(VOLUME)
    assert volume.inputs["finalSnapshot"] is snapshot
    assert volume.request.retainOnDelete is retained


def test_the_data_volume_is_found_by_its_tags_when_nothing_else_is_left(stack: str, up: Recorded) -> None:
    assert up.one(VOLUME).inputs["tags"] == {"Name": f"seatable-vllm-{stack}", "Role": "data", "Owner": OWNER}


def test_a_snapshot_is_what_the_volume_begins_with_and_forgetting_it_changes_nothing(
    dev: Recorded, record: RecordAws
) -> None:
    snapshot = "snap-0123456789abcdef0"
    restored = record(machine={"data_disk": {"snapshot": snapshot}}).one(VOLUME)
    assert restored.inputs["snapshotId"] == snapshot
    assert not restored.request.ignoreChanges
    assert list(dev.one(VOLUME).request.ignoreChanges) == ["snapshotId"]


def test_the_zone_that_nobody_asked_for_is_never_changed(record: RecordAws) -> None:
    free = record().one("vm-network-subnet")
    named = record(machine={"zones": ["eu-central-1b"]}).one("vm-network-subnet")
    placed = record(
        machine={"placed": {"instance_type": "g6.xlarge", "zone": "eu-central-1c"}, "zones": ["eu-central-1b"]}
    ).one("vm-network-subnet")
    assert list(free.request.ignoreChanges) == ["availabilityZone"]
    assert (named.inputs["availabilityZone"], list(named.request.ignoreChanges)) == ("eu-central-1b", [])
    assert placed.inputs["availabilityZone"] == "eu-central-1c"
    # The next zone's subnet has the same addresses, and EC2 takes no two such subnets.
    assert placed.request.deleteBeforeReplace


def test_the_machine_is_of_the_type_that_it_has_landed_in(record: RecordAws) -> None:
    placed = {"instance_type": "g5.xlarge", "zone": "eu-central-1b"}
    assert record(machine={"placed": placed}).one(VM).inputs["instanceType"] == "g5.xlarge"


def test_nothing_but_what_a_test_here_names_is_ignored_protected_or_retained(up: Recorded) -> None:
    for resource in up.resources:
        assert not resource.request.aliases
        if resource.name not in (VM, VOLUME, EIP, "vm-network-subnet", "dns-a", "dns-aaaa"):
            assert not resource.request.ignoreChanges
            assert not resource.request.protect
            assert not resource.request.retainOnDelete


# An existing network, markets, access


def test_in_an_existing_subnet_no_network_is_made(record: RecordAws) -> None:
    recorded = record("prod", machine={"subnet": "subnet-0123456789abcdef0"})
    kinds = {resource.type for resource in recorded.resources}
    assert not {kind for kind in kinds if kind.startswith("aws:ec2/") and kind.rpartition(":")[2] in (
        "Vpc", "Subnet", "InternetGateway", "RouteTable", "Route", "RouteTableAssociation")}  # fmt: skip
    vm = recorded.one(VM).inputs
    assert vm["subnetId"] == "subnet-0123456789abcdef0"
    assert vm["ipv6AddressCount"] == 1
    assert recorded.one("vm-firewall-group").inputs["vpcId"] == "vpc-0fedcba9876543210"
    assert recorded.one(VOLUME).inputs["availabilityZone"] == "eu-central-1a"


def test_an_own_subnet_is_public_by_its_route_and_gives_no_address_away(up: Recorded) -> None:
    assert up.one("vm-network-subnet").inputs["mapPublicIpOnLaunch"] is False
    assert "associatePublicIpAddress" not in up.one(VM).inputs
    route = up.one("vm-network-route").inputs
    assert (route["destinationCidrBlock"], route["gatewayId"]) == ("0.0.0.0/0", "id-of-vm-network-gateway")


def test_an_address_is_given_only_where_the_net_is_reached(up: Recorded) -> None:
    before = up.everything_before(up.one("vm-address-association"))
    assert {"vm-network-gateway", "vm-network-route", "vm-network-routed", EIP, VM} <= before


def test_a_machine_of_ipv6_keeps_its_address_when_the_instance_is_another(prod: Recorded) -> None:
    assert prod.one("vm-network-subnet").inputs["ipv6CidrBlock"] == "2001:db8:1234:ab00::/64"
    assert prod.one(VM).inputs["ipv6Addresses"] == ["2001:db8:1234:ab00::10"]
    assert "ipv6AddressCount" not in prod.one(VM).inputs


@pytest.mark.parametrize(
    ("settings", "market", "reservation"),
    [
        ({"market": "on-demand"}, None, None),
        (
            {"market": "spot"},
            {
                "marketType": "spot",
                "spotOptions": {"spotInstanceType": "persistent", "instanceInterruptionBehavior": "stop"},
            },
            None,
        ),
        ({"reservation": "cr-0123456789abcdef0"}, None, "cr-0123456789abcdef0"),
        (
            {"market": "capacity-block", "reservation": "cr-0123456789abcdef0"},
            {"marketType": "capacity-block"},
            "cr-0123456789abcdef0",
        ),
    ],
)
def test_an_instance_is_asked_for_in_the_market_of_the_settings(
    settings: Config, market: Config | None, reservation: str | None, record: RecordAws
) -> None:
    inputs = record(machine=settings).one(VM).inputs
    assert inputs.get("instanceMarketOptions") == market
    target = inputs.get("capacityReservationSpecification", {}).get("capacityReservationTarget", {})
    assert target.get("capacityReservationId") == reservation


def test_with_session_manager_no_port_of_ssh_is_open_and_everything_goes_through_a_session(
    record: RecordAws, fake_command: FakeCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in SESSION_PROGRAMS:
        fake_command.add(program)
    monkeypatch.setenv("PATH", fake_command.environment["PATH"])
    recorded = record(machine={"access": "ssm", "admin_cidrs": []})
    assert {port for port, _ in doors(recorded)} == {443}
    provider = recorded.one("machine-docker").inputs
    assert provider["host"] == f"ssh://ubuntu@{INSTANCE_ID}:22"
    options = json.loads(provider["sshOpts"]) if isinstance(provider["sshOpts"], str) else provider["sshOpts"]
    assert (
        "ProxyCommand=aws ssm start-session --region eu-central-1 --target %h --document-name "
        "AWS-StartSSHSession --parameters portNumber=%p" in options
    )
    for command in recorded.of_type(COMMAND):
        assert "AWS-StartSSHSession" in command.inputs["create"]


# Its rights


def test_the_role_is_for_ec2_and_has_session_manager_and_one_name_in_one_zone(up: Recorded, stack: str) -> None:
    host = json.loads(stack_config(stack)["seatable-vllm:domain"])["host"]
    trust = json.loads(up.one("vm-identity-role").inputs["assumeRolePolicy"])
    assert [each["Principal"] for each in trust["Statement"]] == [{"Service": "ec2.amazonaws.com"}]
    attached = [each.inputs["policyArn"] for each in up.resources if each.type.endswith("RolePolicyAttachment")]
    assert attached == ["arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"]
    policy = json.loads(up.one("vm-identity-proof").inputs["policy"])
    changes = [each for each in policy["Statement"] if "Change" in each["Action"] and "Get" not in each["Action"]]
    assert [each["Resource"] for each in changes] == ["arn:aws:route53:::hostedzone/Z0123456789ABC"]
    names = changes[0]["Condition"]["ForAllValues:StringEquals"]
    assert names["route53:ChangeResourceRecordSetsNormalizedRecordNames"] == [f"_acme-challenge.{host}"]


def test_a_machine_that_knows_its_zones_id_may_not_list_zones(dev: Recorded, record: RecordAws) -> None:
    def actions(recorded: Recorded) -> set[str]:
        policy = json.loads(recorded.one("vm-identity-proof").inputs["policy"])
        return {each["Action"] for each in policy["Statement"]}

    told = record(domain={"zone_id": "Z0ABC"})
    assert actions(dev) - actions(told) == {"route53:ListHostedZonesByName"}
    assert "Z0ABC" in told.one("vm-identity-proof").inputs["policy"]


@pytest.mark.parametrize("source", ["private-ca", "acme-dns"])
def test_only_a_machine_that_proves_its_name_by_dns_may_change_dns(source: str, record: RecordAws) -> None:
    recorded = record() if source == "acme-dns" else record_with_private_ca(record)
    rights = {each.name for each in recorded.resources if each.type.endswith(":RolePolicy")}
    # The other role is the scheduler's.
    assert rights - {"vm-cost-stop-policy"} == ({"vm-identity-proof"} if source == "acme-dns" else set())


def record_with_private_ca(record: RecordAws, **more: object) -> Recorded:
    """A stack whose domain has only what a private CA needs."""
    ours = {"host": "llm.example.com", "tls": "private-ca", **more}
    return record(domain=json.dumps(ours))


# The name


def test_the_name_leads_to_the_address_that_stays(stack: str, up: Recorded) -> None:
    host = json.loads(stack_config(stack)["seatable-vllm:domain"])["host"]
    records = {each.inputs["type"]: each for each in up.of_type(RECORD)}
    assert set(records) == ({"A", "AAAA"} if stack == "prod" else {"A"})
    for each in records.values():
        assert (each.inputs["name"], each.inputs["zoneId"]) == (host, "Z0123456789ABC")
    assert records["A"].inputs["records"] == ["203.0.113.99"]
    assert f"{host}. 60 IN A 203.0.113.99" in up.outputs["dns"].value["records"]
    assert up.outputs["dns"].value["made"] is True


@pytest.mark.parametrize("more", [{"zone": "example.com"}, {"zone_id": "Z0ABC"}])
def test_every_source_of_certificates_may_have_its_record_made(more: Config, record: RecordAws) -> None:
    recorded = record_with_private_ca(record, **more)
    (made,) = recorded.of_type(RECORD)
    assert made.inputs["zoneId"] == more.get("zone_id", "Z0123456789ABC")


def test_aws_is_asked_for_the_zone_only_by_the_provider_that_waits_for_the_preflight(dev: Recorded) -> None:
    # Pulumi's default provider would be asked at once, and a zone that is not there end the run in its words.
    zones = [provider for function, provider in dev.asked if function == "aws:route53/getZone:getZone"]
    assert zones
    assert {provider.rpartition("::")[0] for provider in zones} == {dev.one("vm-aws").urn}


def test_a_record_is_written_over_only_where_the_settings_say_so_and_its_making_is_no_later_change(
    dev: Recorded, record: RecordAws
) -> None:
    ours, adopted = dev.one("dns-a"), record(domain={"adopt_record": True}).one("dns-a")
    assert (ours.inputs["allowOverwrite"], list(ours.request.ignoreChanges)) == (False, ["allowOverwrite"])
    assert (adopted.inputs["allowOverwrite"], list(adopted.request.ignoreChanges)) == (True, [])


def test_a_record_that_an_interrupted_run_has_left_is_no_obstacle(
    record: RecordAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conftest, "offer", lambda wanted: {**offer(wanted), "own_records": ["A"]})
    found = record("prod", machine={"ipv6": True, "root_disk_gib": 151})
    assert found.one("dns-a").inputs["allowOverwrite"] is True
    assert found.one("dns-aaaa").inputs["allowOverwrite"] is False


def test_without_a_zone_the_record_to_write_is_told(record: RecordAws) -> None:
    recorded = record_with_private_ca(record)
    assert not recorded.of_type(RECORD)
    assert recorded.outputs["dns"].value == {
        "made": False,
        "records": ["llm.example.com. 60 IN A 203.0.113.99"],
    }


# The way there, and the order


def test_the_machine_is_reached_at_its_address_and_known_by_its_instance(up: Recorded) -> None:
    for command in up.of_type(COMMAND):
        words = shlex.split(command.inputs["create"])
        assert words[0] == "ssh"
        assert f"HostKeyAlias={INSTANCE_ID}" in words
        assert "StrictHostKeyChecking=accept-new" in words
        assert words[words.index("--") + 1] == "203.0.113.99"
    assert up.one("machine-docker").inputs["host"] == "ssh://ubuntu@203.0.113.99:22"


def test_every_docker_resource_waits_for_the_machine_its_disk_its_address_and_its_look(up: Recorded) -> None:
    found = docker_resources(up)
    assert len(found) == 3
    for resource in found:
        assert {
            VM, "vm-storage-attachment", "vm-address-association", "machine-disk", "machine-ready"
        } <= up.everything_before(resource), resource.name  # fmt: skip


@pytest.mark.parametrize(("gpus", "looked_for"), [("auto", "all"), ("none", "none")])
def test_the_machine_must_have_its_gpus_unless_none_are_asked_for(
    gpus: str, looked_for: str, record: RecordAws
) -> None:
    # What the program does with either is in test_remote_host; it would write to this computer.
    assert f"[ {looked_for} != none ]" in record(machine={"gpus": gpus}).one("machine-ready").inputs["stdin"]


def test_no_program_is_sent_before_disk_and_address_are_at_the_instance(up: Recorded) -> None:
    for command in up.of_type(COMMAND):
        before = up.everything_before(command)
        assert {VM, "vm-storage-attachment", "vm-address-association"} <= before, command.name
        # What stops an idle machine lies on the root disk, and is there however long all else takes.
        if command.name not in ("machine-disk", "machine-idle-stop"):
            assert "machine-disk" in before, command.name


def test_every_resource_of_aws_waits_for_no_program_on_the_machine(up: Recorded) -> None:
    for resource in up.resources:
        if resource.type.startswith("aws:"):
            assert not [name for name in up.everything_before(resource) if name.startswith("machine")]


def test_nothing_on_the_machine_is_asked_for_its_end_when_the_machine_goes(up: Recorded) -> None:
    vm = up.one(VM)
    for resource in docker_resources(up):
        assert resource.request.deletedWith == vm.urn


def test_the_disk_is_found_by_the_volumes_id_and_looked_at_again_when_it_has_grown(
    dev: Recorded, record: RecordAws
) -> None:
    grown = record(machine={"data_disk": {"gib": 300}})
    assert grown.one("machine-disk").inputs["triggers"] != dev.one("machine-disk").inputs["triggers"]
    assert grown.one(VOLUME).inputs["size"] == 300


def test_the_last_gate_comes_after_everything_that_runs(up: Recorded) -> None:
    before = up.everything_before(up.one("readiness-gate"))
    commands = {command.name for command in up.of_type(COMMAND)} - {"readiness-gate"}
    assert commands <= before


def test_the_machine_is_told_with_its_type_place_and_price(dev: Recorded) -> None:
    told = dev.outputs["machine"].value
    assert told["kind"] == "aws"
    assert told["address"] == "203.0.113.99"
    assert (told["instance"], told["instance_type"]) == (INSTANCE_ID, "g6.xlarge")
    assert (told["region"], told["zone"]) == ("eu-central-1", "eu-central-1a")
    assert {"price_per_hour", "price_per_month", "price_date"} <= set(told)


def test_the_daily_stop_begins_only_when_it_is_allowed_to_stop_the_machine(record: RecordAws) -> None:
    recorded = record(machine={"cost": {"stop_at": "20:00"}})
    assert {"vm-cost-stop-policy", "vm-cost-stop-role", VM} <= recorded.everything_before(
        recorded.one("vm-cost-stop")
    )


# The zone


class Zones(mocks.Mocks):
    """An AWS that is asked for zones."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []

    def call(self, args: mocks.MockCallArgs) -> Any:
        self.asked.append(args.args)
        return {"zoneId": "Z1"}

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        return f"id-of-{args.name}", dict(args.inputs)


@pytest.mark.parametrize(
    ("more", "found", "asked"),
    [
        ({"zone": "example.com"}, "Z1", [{"name": "example.com", "privateZone": False}]),
        ({"zone": "example.com", "zone_id": "Z9"}, "Z9", []),
        ({}, None, []),
    ],
)
def test_a_zone_that_is_looked_for_is_a_public_one(more: Config, found: str | None, asked: list[Config]) -> None:
    zones, seen = Zones(), list[str | None]()

    def look() -> None:
        mocks.set_mocks(zones, project="seatable-vllm", stack="dev", preview=False)

        async def program() -> None:
            provider = aws.Provider("aws", region="eu-central-1")
            domain = Domain(host="llm.example.com", tls="private-ca", **more)
            zone = hosted_zone(domain, parent=provider, provider=provider)
            seen.append(await zone.future() if zone is not None else None)

        as_a_test: Any = pulumi.runtime.test
        as_a_test(program)()

    contextvars.copy_context().run(look)
    assert (seen, zones.asked) == ([found], asked)


# What is refused before anything is asked for


def test_an_account_that_is_not_ready_ends_the_program_with_nothing_in_the_state(
    record: RecordAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(wanted: Mapping[str, Any]) -> Any:
        raise pulumi.RunError(f"phase: AWS account\ncause: {wanted['stack']} has no quota\nchange: ask for one")

    monkeypatch.setattr(conftest, "offer", refuse)
    refused = record("prod", may_fail=True, machine={"root_disk_gib": 152})
    assert refused.error is not None
    assert "prod has no quota" in str(refused.error)
    assert [each.name for each in refused.resources] == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"region": None}, ["aws:region: missing", "write the region"]),
        ({"region": "Frankfurt"}, ["aws:region", "Frankfurt"]),
        ({"machine": {"zones": ["us-east-1a"]}}, ["zones", "us-east-1a", "eu-central-1"]),
        ({"machine": {"ssh_key": "~/.ssh/nobodys"}}, ["machine.ssh_key", "nobodys", "ssh-keygen"]),
        ({"machine": {"admin_cidrs": []}}, ["admin_cidrs", "access: ssm"]),
    ],
)
def test_what_cannot_be_right_ends_the_program_before_anything_is_asked_for(
    settings: Config, words: list[str], record: RecordAws
) -> None:
    refused = record(may_fail=True, **settings)
    assert isinstance(refused.error, pulumi.RunError)
    for word in words:
        assert word in str(refused.error)
    assert not refused.resources


def test_a_variable_that_would_lead_docker_elsewhere_ends_the_program(
    record_program: RecordProgram, home_with_key: Path
) -> None:
    environment = {"HOME": str(home_with_key), "DOCKER_CONTEXT": "other"}
    refused = record_program("dev", environment=environment, may_fail=True)
    assert "DOCKER_CONTEXT" in str(refused.error)
    assert not refused.resources


# --- what may be left in the account (catalog.aws.owned)


def test_every_resource_that_is_made_at_aws_is_known_as_a_thing_or_as_a_part_of_one(record: RecordAws) -> None:
    made = {each.type for each in record(machine=ALL_OF_IT).resources}
    at_aws = {each for each in made if each.startswith("aws:")}
    assert at_aws == {kind.type for kind in owned.KINDS} | set(owned.PARTS)


def test_everything_that_takes_tags_says_which_state_made_it(record: RecordAws) -> None:
    recorded = record(machine=ALL_OF_IT)
    assert recorded.one(owned.OWNER_RESOURCE).type == UUID
    tagged = {kind.type for kind in owned.KINDS} - {owned.RECORD.type, owned.SCHEDULE.type}
    things = [each for each in recorded.resources if each.type in tagged]
    assert {each.type for each in things} == tagged
    for each in things:
        assert each.inputs["tags"][OWNER_TAG] == OWNER, each.name
