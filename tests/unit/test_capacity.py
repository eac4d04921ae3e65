"""Unit tier: where a machine on AWS lands, and what the stack's file says afterwards.

The walk itself is asked with scripted answers; the rest runs against moto's EC2 in this process, with a deployment
that makes an instance there or fails in the provider's words. Does NOT prove that EC2 answers in these words, nor
that Pulumi's provider passes them on: aws.md section 3 has them from its issues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.commands.aws import Aws
from scripts.commands.capacity import NoCapacity, Refused, candidates, deploy_somewhere, walk
from scripts.commands.errors import CommandError
from scripts.commands.failure_text import last_lines
from scripts.commands.stacks import set_in_stack_file, stack_settings
from settings import AwsMachine
from settings.aws import Placement
from tests.unit.aws_support import STACK_FILE, account, again, make_instance, make_volume, stack

NO_ROOM = "InsufficientInstanceCapacity"
NOT_SOLD = "Unsupported"
QUOTA = "VcpuLimitExceeded"

WORDS: Mapping[str, str] = {
    NO_ROOM: "We currently do not have sufficient g6.xlarge capacity in the Availability Zone you requested",
    NOT_SOLD: "Your requested instance type (g6.xlarge) is not supported in your requested Availability Zone",
    "MaxSpotInstanceCountExceeded": "Max spot instance count exceeded",
    QUOTA: "You have requested more vCPU capacity than your current vCPU limit of 8 allows for",
}


def told(code: str) -> str:
    """A failed `pulumi up` that says this code of EC2's, as the AWS provider reports it."""
    return (
        " +  aws:ec2:Instance machine-instance creating (31s) error: 1 error occurred:\n"
        f"    * creating EC2 Instance: operation error EC2: RunInstances, https response error StatusCode: 500, "
        f"RequestID: 5a6b, api error {code}: {WORDS[code]}\n"
    )


def place(instance_type: str, zone: str) -> Placement:
    return Placement(instance_type=instance_type, zone=f"us-east-1{zone}")


def scripted(answers: Mapping[tuple[str, str], str]) -> Callable[[Placement], str]:
    """Refuses with the code for a place, and makes the machine where there is none."""

    def try_one(where: Placement) -> str:
        if code := answers.get((where.instance_type, where.zone[-1])):
            raise Refused(where, code, told(code))
        return f"made in {where.zone}"

    return try_one


ABC = [place(kind, zone) for kind in ("g6.xlarge", "g5.xlarge") for zone in "abc"]


def test_a_zone_of_another_region_ends_a_run_with_its_own_cause_before_anything_is_tried(tmp_path: Path) -> None:
    text = STACK_FILE.replace('zones: ["us-east-1a", us-east-1b, us-east-1c]', "zones: [eu-west-1a]")
    with pytest.raises(CommandError) as refused:
        stack(tmp_path, text)
    assert str(refused.value).splitlines() == [
        "cause: seatable-vllm:machine.zones: eu-west-1a is not in aws:region us-east-1",
        "change: name zones of us-east-1, such as us-east-1a, or set aws:region to eu-west-1",
    ]


def test_what_the_program_says_of_a_setting_is_a_cause_that_this_program_knows() -> None:
    text = (
        "error: update failed\n  error: the stack's configuration cannot be used:\n"
        "    aws:region: 'Frankfurt' is no region; write one such as eu-central-1\n"
        "error: seatable-vllm:machine.ssh_key: x cannot be read here; ssh-keygen -y; and more"
    )
    assert last_lines(text).splitlines() == [
        "cause: aws:region: 'Frankfurt' is no region",
        "change: write one such as eu-central-1",
        "cause: seatable-vllm:machine.ssh_key: x cannot be read here",
        "change: ssh-keygen -y; and more",
    ]
    assert last_lines("nothing of the kind").splitlines()[-1].startswith("cause: not one that this program knows")


# The walk


def test_the_machine_lands_in_the_first_place_that_has_room_and_every_attempt_is_told_in_a_line() -> None:
    said: list[str] = []
    answers = {("g6.xlarge", "a"): NO_ROOM, ("g6.xlarge", "b"): NOT_SOLD}
    assert walk(ABC, scripted(answers), said.append) == (place("g6.xlarge", "c"), "made in us-east-1c")
    assert said == [
        "g6.xlarge in us-east-1a: InsufficientInstanceCapacity; next zone",
        "g6.xlarge in us-east-1b: Unsupported; next zone",
        "g6.xlarge in us-east-1c: made",
    ]


def test_a_type_that_no_zone_has_room_for_is_followed_by_the_next_type() -> None:
    answers = {("g6.xlarge", zone): NO_ROOM for zone in "abc"}
    assert walk(ABC, scripted(answers), lambda _: None)[0] == place("g5.xlarge", "a")


def test_a_type_that_the_region_does_not_know_is_not_tried_in_its_other_zones() -> None:
    tried: list[Placement] = []

    def try_one(where: Placement) -> str:
        tried.append(where)
        if where.instance_type == "g6.xlarge":
            raise Refused(where, "InvalidInstanceType", "api error InvalidInstanceType: no such type")
        return "made"

    walk(ABC, try_one, lambda _: None)
    assert tried == [place("g6.xlarge", "a"), place("g5.xlarge", "a")]


def test_a_quota_ends_the_walk_at_once() -> None:
    tried: list[str] = []

    def try_one(where: Placement) -> str:
        tried.append(where.zone)
        raise Refused(where, QUOTA, told(QUOTA))

    with pytest.raises(Refused):
        walk(ABC, try_one, lambda _: None)
    assert tried == ["us-east-1a"]


def test_where_no_place_has_room_all_that_were_asked_are_named() -> None:
    with pytest.raises(NoCapacity, match=r"g6.xlarge in us-east-1a: .*g5.xlarge in us-east-1c: ") as seen:
        walk(
            ABC, scripted({(kind, zone): NO_ROOM for kind in ("g6.xlarge", "g5.xlarge") for zone in "abc"}), print
        )
    assert "change: " in str(seen.value)


def test_any_other_failure_ends_the_walk_as_it_is() -> None:
    def try_one(where: Placement) -> str:
        raise CommandError("phase: weights present")

    with pytest.raises(CommandError, match="weights present"):
        walk(ABC, try_one, lambda _: None)


# Which places


def machine(**more: object) -> AwsMachine:
    return AwsMachine.model_validate(
        {"instance_types": ["g6.xlarge", "g5.xlarge"], "admin_cidrs": ["203.0.113.7/32"], **more}
    )


def test_zones_are_asked_for_only_when_the_turn_of_a_type_comes() -> None:
    asked: list[str] = []

    def offered(instance_type: str) -> list[str]:
        asked.append(instance_type)
        return ["us-east-1a", "us-east-1d"]

    places = candidates(machine(), offered)
    assert [next(places), next(places)] == [place("g6.xlarge", "a"), place("g6.xlarge", "d")]
    assert asked == ["g6.xlarge"]


def test_where_the_machine_was_before_is_tried_first_and_once() -> None:
    before = {"instance_type": "g5.xlarge", "zone": "us-east-1b"}
    zones = ["us-east-1a", "us-east-1b"]
    places = list(candidates(machine(placed=before, zones=zones), lambda _: zones))
    assert [(each.instance_type, each.zone[-1]) for each in places] == [
        ("g5.xlarge", "b"), ("g6.xlarge", "a"), ("g6.xlarge", "b"), ("g5.xlarge", "a"),
    ]  # fmt: skip


def test_a_named_zone_that_does_not_sell_a_type_is_passed_over_without_a_run() -> None:
    def offered(instance_type: str) -> list[str]:
        return {"g6.xlarge": ["us-east-1c"], "g5.xlarge": ["us-east-1a", "us-east-1b"]}[instance_type]

    assert list(candidates(machine(zones=["us-east-1b"]), offered)) == [place("g5.xlarge", "b")]
    assert list(candidates(machine(), offered, "us-east-1a")) == [place("g5.xlarge", "a")]


# The stack's file


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project in an empty account."""
    with account(monkeypatch):
        yield tmp_path


class Deployment:
    """`pulumi up`: makes the stack's instance where its file says, or fails in the provider's words."""

    def __init__(self, project: Path, answers: Mapping[str, str], then: str = "") -> None:
        self.tried: list[str] = []
        self._project, self._answers, self._then = project, answers, then

    def __call__(self) -> str:
        now = again(self._project)
        assert now.machine.placed is not None
        zone = now.machine.placed.zone
        self.tried.append(zone[-1])
        if code := self._answers.get(zone[-1]):
            raise CommandError(told(code))
        if not now.aws.instance("gpu"):
            make_instance(now, now.machine.placed.instance_type, zone)
        if self._then:
            raise CommandError(self._then)
        return "deployed"


def placed(project: Path) -> Placement | None:
    found = stack_settings("gpu", project).machine
    assert isinstance(found, AwsMachine)
    return found.placed


def text(project: Path) -> str:
    return (project / "Pulumi.gpu.yaml").read_text()


def test_the_winner_is_written_into_the_file_and_the_next_run_changes_nothing(project: Path) -> None:
    answers = {"a": NO_ROOM, "b": NOT_SOLD}
    first = Deployment(project, answers)
    assert deploy_somewhere(stack(project), first, lambda _: None) == "deployed"
    assert (first.tried, placed(project)) == (["a", "b", "c"], place("g6.xlarge", "c"))
    before, _, after = STACK_FILE.partition("    instance_types")
    here = "    placed:\n      instance_type: g6.xlarge\n      zone: us-east-1c\n"
    assert text(project) == f"{before}{here}    instance_types{after}"
    written, second = text(project), Deployment(project, answers)
    deploy_somewhere(again(project), second, lambda _: None)
    assert (second.tried, text(project)) == (["c"], written)


def test_comments_and_lists_in_the_file_stay_where_they_are(tmp_path: Path) -> None:
    lines = [
        "config:",
        "  seatable-vllm:machine:",
        "    kind: aws",
        "    # the cheapest first",
        "    instance_types:",
        "      - g6.xlarge",
        "      # what we had before",
        "      - g5.xlarge",
        "    admin_cidrs:",
        "      - 203.0.113.7/32",
        "  # who may use it",
        '  seatable-vllm:clients: {seatable: {kind: seatable, cidrs: ["127.0.0.1/32"]}}',
    ]
    (tmp_path / "Pulumi.yaml").write_text("name: seatable-vllm\n")
    file = tmp_path / "Pulumi.gpu.yaml"
    file.write_text("\n".join(lines) + "\n")
    for zone in "abc":
        set_in_stack_file("gpu", ("machine", "placed"), place("g6.xlarge", zone).model_dump(), tmp_path)
    placed = ["    placed:", "      instance_type: g6.xlarge", "      zone: us-east-1c"]
    assert file.read_text().splitlines() == [*lines[:8], *placed, *lines[8:]]
    set_in_stack_file("gpu", ("machine", "placed"), None, tmp_path)
    assert file.read_text().splitlines() == lines


def test_where_nothing_could_be_made_the_file_is_as_before(project: Path) -> None:
    nowhere = Deployment(project, dict.fromkeys("abc", NO_ROOM))
    with pytest.raises(CommandError, match="AWS has none of these machines now"):
        deploy_somewhere(stack(project), nowhere, lambda _: None)
    assert (nowhere.tried, text(project)) == (list("abcabc"), STACK_FILE)


def test_what_pulumi_wrote_into_the_file_meanwhile_is_kept(project: Path) -> None:
    nowhere = Deployment(project, dict.fromkeys("abc", NO_ROOM))

    def deploy() -> str:
        if "encryptionsalt" not in text(project):
            (project / "Pulumi.gpu.yaml").write_text(f"encryptionsalt: v1:abc=:v1:def\n{text(project)}")
        return nowhere()

    with pytest.raises(CommandError, match="none of these"):
        deploy_somewhere(stack(project), deploy, lambda _: None)
    assert "encryptionsalt: v1:abc=:v1:def" in text(project)
    assert placed(project) is None


def test_a_quota_ends_with_the_request_to_paste(project: Path) -> None:
    deploy = Deployment(project, {"a": QUOTA})
    with pytest.raises(CommandError) as seen:
        deploy_somewhere(stack(project), deploy, lambda _: None)
    assert (deploy.tried, text(project)) == (["a"], STACK_FILE)
    # The limit of 8 that AWS names, and the four vCPUs of one more g6.xlarge.
    assert (
        "aws service-quotas request-service-quota-increase --service-code ec2 --quota-code L-DB2E81BA "
        "--desired-value 12 --region us-east-1"
    ) in str(seen.value).splitlines()


def test_the_quota_of_spot_machines_is_another_one(project: Path) -> None:
    code = "MaxSpotInstanceCountExceeded"
    deploy = Deployment(project, {"a": code})
    with pytest.raises(CommandError) as seen:
        deploy_somewhere(stack(project), deploy, lambda _: None)
    assert (
        "aws service-quotas request-service-quota-increase --service-code ec2 --quota-code L-3819A6DF "
        "--desired-value 4 --region us-east-1"
    ) in str(seen.value).splitlines()


def test_a_failure_after_the_machine_was_made_leaves_it_where_it_is(project: Path) -> None:
    # The text has a capacity code in it, as a log of the engine may: the machine is there, so it is none.
    deploy = Deployment(
        project, {"a": NO_ROOM}, then="phase: engine ready\nUnsupported: api error Unsupported: dtype"
    )
    with pytest.raises(CommandError, match="engine ready"):
        deploy_somewhere(stack(project), deploy, lambda _: None)
    assert (deploy.tried, placed(project)) == (["a", "b"], place("g6.xlarge", "b"))


def test_an_interrupted_walk_leaves_the_file_as_it_was(project: Path) -> None:
    def deploy() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy_somewhere(stack(project), deploy, lambda _: None)
    assert text(project) == STACK_FILE


def test_a_machine_that_is_there_is_never_moved_and_its_place_gets_into_the_file(project: Path) -> None:
    # `pulumi up` by hand, without scripts/up, has made it.
    made = make_instance(stack(project), "g5.xlarge", "us-east-1b")
    deploy = Deployment(project, {"b": NO_ROOM})
    with pytest.raises(CommandError, match=NO_ROOM):
        deploy_somewhere(again(project), deploy, lambda _: None)
    assert (deploy.tried, placed(project)) == (["b"], place("g5.xlarge", "b"))
    found = again(project).aws.instance("gpu")
    assert found is not None
    assert found.id == made


def test_the_machines_own_disk_is_not_taken_for_the_data_volume(project: Path) -> None:
    here = stack(project)
    made = make_instance(here)
    disks = here.aws.ec2.describe_volumes(Filters=[{"Name": "tag:Stack", "Values": ["gpu"]}])["Volumes"]
    assert len(disks) == 1
    assert here.aws.data_volume("gpu") is None
    data = make_volume(here, "us-east-1a")
    here.aws.ec2.attach_volume(VolumeId=data, InstanceId=made, Device="/dev/sdf")
    found = here.aws.data_volume("gpu")
    assert found is not None
    assert found.id == data


def test_a_data_volume_leaves_its_zone_alone_to_try(project: Path) -> None:
    volume = make_volume(stack(project), "us-east-1b")
    said: list[str] = []
    deploy = Deployment(project, {"b": NO_ROOM})
    with pytest.raises(CommandError) as seen:
        deploy_somewhere(again(project), deploy, said.append)
    assert deploy.tried == ["b", "b"]  # both types
    assert f"{volume}, the data volume, is in us-east-1b, so no other zone is tried" in said
    assert f"create-snapshot --region us-east-1 --volume-id {volume}" in str(seen.value)
    assert "machine.data_disk.snapshot" in str(seen.value)


def test_a_snapshot_to_begin_with_frees_the_machine_from_the_zone_of_the_old_volume(project: Path) -> None:
    old = make_volume(stack(project), "us-east-1b")
    snapshot = again(project).aws.ec2.create_snapshot(VolumeId=old)["SnapshotId"]
    set_in_stack_file("gpu", ("machine", "data_disk"), {"snapshot": snapshot}, project)
    deploy = Deployment(project, {})
    deploy_somewhere(again(project), deploy, lambda _: None)
    assert deploy.tried == ["a"]
    # From then on the volume that was made from it holds the machine.
    make_volume(again(project), "us-east-1c", snapshot)
    again(project).aws.ec2.delete_volume(VolumeId=old)
    found = again(project).aws.instance("gpu")
    assert found is not None
    again(project).aws.ec2.terminate_instances(InstanceIds=[found.id])
    third = Deployment(project, {})
    deploy_somewhere(again(project), third, lambda _: None)
    assert third.tried == ["c"]


def test_a_place_in_the_file_that_would_empty_the_data_volume_is_refused(project: Path) -> None:
    make_instance(stack(project), zone="us-east-1a")
    make_volume(again(project), "us-east-1a")
    set_in_stack_file("gpu", ("machine", "placed"), place("g6.xlarge", "c").model_dump(), project)
    deploy = Deployment(project, {})
    with pytest.raises(CommandError, match=r"placed.zone is us-east-1c.* it would be made anew, empty"):
        deploy_somewhere(again(project), deploy, lambda _: None)
    assert deploy.tried == []


def test_without_zones_all_that_offer_the_type_are_tried_by_name(project: Path) -> None:
    zoneless = STACK_FILE.replace('    zones: ["us-east-1a", us-east-1b, us-east-1c]\n', "").replace(
        ", g5.xlarge", ""
    )
    here = stack(project, zoneless)
    deploy = Deployment(project, dict.fromkeys("abcdef", NO_ROOM))
    with pytest.raises(CommandError, match="none of these"):
        deploy_somewhere(here, deploy, lambda _: None)
    offers = here.aws.ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["g6.xlarge"]}]
    )
    assert deploy.tried == sorted(offer["Location"][-1] for offer in offers["InstanceTypeOfferings"])
    assert len(deploy.tried) > 1


def test_a_subnet_of_ones_own_leaves_its_zone_alone_to_try(project: Path) -> None:
    first = stack(project)
    found = first.aws.ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": ["us-east-1c"]}])
    set_in_stack_file("gpu", ("machine", "subnet"), found["Subnets"][0]["SubnetId"], project)
    deploy = Deployment(project, {})
    deploy_somewhere(again(project), deploy, lambda _: None)
    assert deploy.tried == ["c"]


def test_another_stacks_machine_and_volume_are_none_of_this_ones(project: Path) -> None:
    other = stack(project, name="other")
    make_instance(other, zone="us-east-1b")
    make_volume(other, "us-east-1b")
    deploy = Deployment(project, {})
    deploy_somewhere(stack(project), deploy, lambda _: None)
    assert deploy.tried == ["a"]


def test_credentials_that_aws_does_not_take_are_told_in_words(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(project / "none"))
    with pytest.raises(CommandError, match=r"AWS cannot be asked.*\nchange: log in to AWS"):
        deploy_somewhere(stack(project), lambda: "deployed", lambda _: None)


def test_a_stack_without_a_region_is_told_what_to_set(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pulumi's program takes none from the environment, so the look at the account must not either.
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(CommandError, match=r"aws:region: missing\nchange: write the region"):
        stack(project, STACK_FILE.replace("  aws:region: us-east-1\n", ""))


@pytest.mark.parametrize("region", ["Frankfurt", "us-east-1a"])
def test_what_is_not_a_region_is_refused_before_aws_is_asked(project: Path, region: str) -> None:
    with pytest.raises(CommandError) as refused:
        stack(project, STACK_FILE.replace("aws:region: us-east-1", f"aws:region: {region}"))
    assert str(refused.value) == (
        f"cause: aws:region: '{region}' is not a region\nchange: write one such as eu-central-1"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[g6.xlarge, g5.xlarge]", "[g6.huge]"),
        ('zones: ["us-east-1a", us-east-1b, us-east-1c]', "zones: [us-east-1z]"),
        ('zones: ["us-east-1a", us-east-1b, us-east-1c]', "subnet: subnet-0123456789abcdef0"),
    ],
)
def test_what_aws_does_not_have_is_left_to_the_programs_look_at_the_account(
    before: str, after: str, project: Path
) -> None:
    file = STACK_FILE.replace(before, after)

    def look() -> str:
        assert text(project) == file, "a place was written that nobody asked for"
        raise CommandError("phase: AWS account\ncause: the preflight's own")

    with pytest.raises(CommandError, match="the preflight's own"):
        deploy_somewhere(stack(project, file), look, lambda _: None)
    assert text(project) == file


def matching(rows: list[dict[str, str]], filters: list[dict[str, Any]], names: Mapping[str, str]) -> Any:
    """The rows that EC2 gives for filters; one that it does not know is an error there, and here."""
    return [row for row in rows if all(row[names[each["Name"]]] in each["Values"] for each in filters)]


def test_a_type_is_offered_in_the_regions_own_zones_that_are_open() -> None:
    """By hand, as moto looks at no filter of zones."""
    zones = [
        {"ZoneName": name, "State": state, "ZoneType": kind}
        for name, state, kind in (
            ("us-east-1c", "available", "availability-zone"),
            ("us-east-1a", "available", "availability-zone"),
            ("us-east-1b", "unavailable", "availability-zone"),
            ("us-east-1d", "available", "availability-zone"),
            ("us-east-1-bos-1a", "available", "local-zone"),
        )
    ]
    sold = ("us-east-1a", "us-east-1b", "us-east-1c", "us-east-1-bos-1a")
    offers = [{"InstanceType": "g6.xlarge", "Location": zone} for zone in sold]
    offers.append({"InstanceType": "g5.xlarge", "Location": "us-east-1d"})

    def offered(LocationType: str, Filters: list[dict[str, Any]]) -> Any:  # noqa: N803 - EC2's names
        assert LocationType == "availability-zone", "else places are regions, or ids of zones"
        return {"InstanceTypeOfferings": matching(offers, Filters, {"instance-type": "InstanceType"})}

    names = {"zone-type": "ZoneType", "state": "State"}
    aws = Aws("us-east-1")
    aws.__dict__["ec2"] = SimpleNamespace(
        describe_availability_zones=lambda Filters: {"AvailabilityZones": matching(zones, Filters, names)},  # noqa: N803
        describe_instance_type_offerings=offered,
    )
    assert aws.zones_with("g6.xlarge") == ["us-east-1a", "us-east-1c"]
    assert aws.zones_with("g5.xlarge") == ["us-east-1d"]


def test_a_subnet_is_in_its_own_zone_whatever_others_there_are(project: Path) -> None:
    ec2 = Aws("us-east-1").ec2
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    made = {
        zone: ec2.create_subnet(VpcId=vpc, CidrBlock=network, AvailabilityZone=zone)["Subnet"]["SubnetId"]
        for zone, network in (("us-east-1b", "10.0.1.0/24"), ("us-east-1a", "10.0.2.0/24"))
    }
    assert {zone: Aws("us-east-1").zone_of_subnet(subnet) for zone, subnet in made.items()} == {
        "us-east-1a": "us-east-1a",
        "us-east-1b": "us-east-1b",
    }
