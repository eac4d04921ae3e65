"""Unit tier: what the program knows of AWS, and the rules over what an account says of itself.

The answers in data/aws_account.json were recorded from moto 5.2.5, which has EC2's real data on types and zones.
What moto does not have is written by hand after AWS's API reference: quotas, the Deep Learning AMI, prices, a
route to an Internet gateway, capacity reservations. It does NOT prove that a real account answers so, nor that
what passes here starts: no call is made (test_aws_account has boto3 against moto).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from catalog.aws.account import ADDRESS_QUOTA, Account, Unanswered, Wanted, WantedModel
from catalog.aws.failures import CODES, answer_to, code_in
from catalog.aws.images import login, root_gib, supported_families
from catalog.aws.instance_types import counts, instance_types, nearest, price_date, price_region, quota_code
from catalog.aws.memory import memory_problem
from catalog.aws.preflight import Judgement, judge
from catalog.aws.prices import Gp3, answered_price, disks_and_address, price, price_lines
from catalog.aws.rules import disks
from catalog.failures import explain
from catalog.models import SMOLLM2

DISKS = [Gp3(150), Gp3(200)]

RECORDED: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "data" / "aws_account.json").read_text()
)
G_QUOTA = "L-DB2E81BA"
GEMMA = "RedHatAI/gemma-3-12b-it-quantized.w4a16"

DLAMI = {
    "ImageId": "ami-0123456789abcdef0",
    "Name": "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20261106",
    "State": "available",
    "Architecture": "x86_64",
    "Description": "Supported EC2 instances: G4dn, G5, G6, Gr6, G6e, G7, G7e, P4d, P4de, P5, P5e, P5en, P6-B200, "
    "P6-B300. Release notes: https://docs.aws.amazon.com/dlami/latest/devguide/",
    "RootDeviceName": "/dev/sda1",
    "BlockDeviceMappings": [
        {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
        {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": "snap-0a", "VolumeSize": 75, "VolumeType": "gp3"}},
    ],
}
"""The Deep Learning Base AMI as DescribeImages has it; by hand."""

PRODUCT = json.dumps(
    {
        "product": {"attributes": {"instanceType": "g6.xlarge", "regionCode": "eu-central-1"}},
        "terms": {
            "OnDemand": {
                "A.B": {
                    "effectiveDate": "2026-11-01T00:00:00Z",
                    "priceDimensions": {"A.B.C": {"unit": "Hrs", "pricePerUnit": {"USD": "1.0060000000"}}},
                }
            }
        },
    }
)
"""One entry of GetProducts' PriceList; by hand."""


def wanted(**changes: Any) -> Wanted:
    """What a stack `dev` wants that nothing is wrong with."""
    values: dict[str, Any] = {
        "stack": "dev",
        "region": "eu-central-1",
        "profile": None,
        "instance_types": ["g6.xlarge", "g5.xlarge"],
        "instance_type": "g6.xlarge",
        "zones": [],
        "placed_only": [],
        "ami": None,
        "subnet": None,
        "ipv6": False,
        "admin_cidrs": ["8.8.8.8/32"],
        "root_disk_gib": 150,
        "root_disk_throughput": 125,
        "data_disk_gib": 200,
        "data_disk_throughput": 125,
        "snapshot": None,
        "time_zone": "UTC",
        "market": "on-demand",
        "reservation": None,
        "gpus": "auto",
        "clients": {"seatable": ["1.1.1.1/32"]},
        "domain": {"host": "llm.example.com", "zone": "example.com", "zone_id": None, "adopt_record": False},
        "model": {"name": GEMMA, "context_tokens": 65536, "extra_args": {}},
    }
    return Wanted(**{**values, **changes})  # type: ignore[typeddict-item]


EMPTY = Account(
    id="123456789012",
    types=RECORDED["types"],
    offerings=RECORDED["offerings"],
    zones=RECORDED["zones"],
    quotas={G_QUOTA: 8.0, ADDRESS_QUOTA: 5.0},
    instances=[],
    volumes=[],
    addresses=[],
    image_id="ami-0123456789abcdef0",
    images=[DLAMI],
    hosted_zones=RECORDED["hosted_zones"],
    prices=[],
)
"""An account in which nothing of the stack is yet."""

RUNNING = replace(
    EMPTY, instances=RECORDED["instances"], volumes=RECORDED["volumes"], addresses=RECORDED["addresses"]
)
"""The same with the stack `dev` in it."""


def told(wants: Wanted, account: Account) -> str:
    """Everything that a person reads of it."""
    found = judge(wants, account)
    return "\n".join([str(found), *found.warnings, *found.price_lines])


def problems(wants: Wanted, account: Account = EMPTY) -> list[str]:
    """The causes of what ends the run."""
    return [problem.cause for problem in judge(wants, account).problems]


def instance(kind: str, state: str = "running", **more: Any) -> dict[str, Any]:
    """An instance of somebody else."""
    return {
        "InstanceId": "i-0b",
        "InstanceType": kind,
        "State": {"Name": state},
        "CpuOptions": {"CoreCount": 2, "ThreadsPerCore": 2},
        **more,
    }


# The offer


def test_an_account_that_has_everything_makes_an_offer_with_nothing_to_say_against_it() -> None:
    found = judge(wanted(), EMPTY)
    assert (found.problems, found.warnings) == ((), [])
    assert found.offer == {
        "account": "123456789012",
        "region": "eu-central-1",
        "zone": "eu-central-1a",
        "instance_type": "g6.xlarge",
        "ami": "ami-0123456789abcdef0",
        "ami_root_gib": 75,
        "login": "ubuntu",
        "vcpus": 4,
        "gpu": {"name": "NVIDIA L4", "count": 1, "mib_each": 22888, "compute_capability": "8.9"},
        "hosted_zone_id": RECORDED["hosted_zones"][0]["Id"].split("/")[2],
        "own_records": [],
        "price_per_hour": 0.8048,
        "price_date": "2026-07-20",
        "price_region": "us-east-1",
        "disks_and_address_per_month": 31.65,
    }


def test_the_offer_of_a_stack_that_is_there_is_the_one_it_was_made_with() -> None:
    before, after = judge(wanted(), EMPTY).offer, judge(wanted(), RUNNING).offer
    assert after == before


def test_every_problem_is_told_at_once_each_with_its_way_out() -> None:
    wants = wanted(
        instance_types=["g6.xlarg"], instance_type="g6.xlarg", root_disk_gib=50, data_disk_gib=8,
        domain={"host": "llm.example.org", "zone": "example.org", "zone_id": None, "adopt_record": False},
    )  # fmt: skip
    found = judge(wants, replace(EMPTY, addresses=[{}] * 5))
    assert found.offer is None
    assert len(found.problems) == 5
    lines = str(found).splitlines()
    assert lines[0] == "phase: AWS account"
    assert [line.partition(":")[0] for line in lines[1:]] == ["cause", "change"] * 5


def test_an_account_that_answers_nothing_but_the_image_is_warned_about_and_never_refused() -> None:
    # Every call but ssm:GetParameter is refused; the zone then has to be named.
    no = Unanswered("ec2:DescribeSomething", "is not allowed")
    answers = dict.fromkeys(
        ["types", "offerings", "zones", "instances", "volumes", "addresses", "images", "hosted_zones"], no
    )
    account = Account(quotas={G_QUOTA: no, ADDRESS_QUOTA: no}, image_id="ami-0a", **answers)  # type: ignore[arg-type]
    found = judge(wanted(zones=["eu-central-1b"]), account)
    assert found.problems == ()
    assert found.offer is not None
    assert (found.offer["zone"], found.offer["ami"], found.offer["ami_root_gib"]) == (
        "eu-central-1b",
        "ami-0a",
        75,
    )
    assert len([line for line in found.warnings if line.startswith("not checked: ")]) == 10


# Instance types


def test_a_type_that_nobody_knows_is_named_with_the_nearest_names() -> None:
    found = judge(wanted(instance_types=["g6.xlarge", "g6.xlareg"]), EMPTY).problems
    assert "g6.xlareg" in found[0].cause
    assert "g6.xlarge" in found[0].change


def test_a_type_that_is_newer_than_the_table_is_taken_with_a_warning() -> None:
    new = {
        "InstanceType": "g9.xlarge",
        "ProcessorInfo": {"SupportedArchitectures": ["x86_64"]},
        "VCpuInfo": {"DefaultVCpus": 4},
        "GpuInfo": {"Gpus": [{"Name": "L5", "Manufacturer": "NVIDIA"}]},
    }
    account = replace(
        EMPTY,
        types=[new],
        offerings=[{"InstanceType": "g9.xlarge", "Location": "eu-central-1c"}],
        images=[{**DLAMI, "Description": ""}],
    )
    found = judge(wanted(instance_types=["g9.xlarge"], instance_type="g9.xlarge"), account)
    assert found.problems == ()
    assert found.offer is not None
    assert found.offer["price_per_hour"] is None
    assert "newer than this program" in "\n".join(found.warnings)
    assert "no price is known" in found.price_lines[0]


@pytest.mark.parametrize("kind", ["p3.2xlarge", "g6f.xlarge"])
def test_a_gpu_that_vllm_does_not_run_on_is_refused_with_the_reason(kind: str) -> None:
    assert any(
        f"machine.instance_types: {kind} does not run vLLM" in text
        for text in problems(wanted(instance_types=["g6.xlarge", kind]))
    )


def test_a_machine_without_a_gpu_is_refused_unless_it_is_asked_for() -> None:
    types = {"instance_types": ["m7i.large"], "instance_type": "m7i.large"}
    assert problems(wanted(**types)) == ["seatable-vllm:machine.instance_types: m7i.large has no NVIDIA GPU"]
    small = {**types, "gpus": "none", "model": {"name": SMOLLM2, "context_tokens": 8192, "extra_args": {}}}
    assert problems(wanted(**small)) == []


def test_a_model_that_is_spread_over_more_gpus_than_there_are_is_refused() -> None:
    model = {"name": GEMMA, "context_tokens": 65536, "extra_args": {"tensor-parallel-size": 4}}
    assert problems(wanted(model=model)) == [
        "seatable-vllm:machine.instance_types: g6.xlarge has 1 GPU, and seatable-vllm:model.extra_args spread the "
        "model over 4 (likewise g5.xlarge)"
    ]


def test_a_model_that_does_not_fit_is_refused_in_the_words_of_the_forecast() -> None:
    model: WantedModel = {"name": "Qwen/Qwen2.5-14B-Instruct", "context_tokens": 8192, "extra_args": {}}
    found = memory_problem(model, instance_types()["g6.xlarge"])
    assert found is not None
    assert "does not hold seatable-vllm:model.name Qwen/Qwen2.5-14B-Instruct on 1 of its GPUs: weights" in found[0]
    assert "pipeline-parallel-size" in found[1]
    model["extra_args"] = {"tensor-parallel-size": 4}
    assert memory_problem(model, instance_types()["g6.12xlarge"]) is None


@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        ({"speculative-config": {"method": "ngram"}}, "should fit"),
        ({"quantization": "fp8", "max-num-seqs": 2048}, "may not fit"),
    ],
)
def test_an_uncertain_forecast_warns_and_refuses_nothing(options: dict[str, Any], verdict: str) -> None:
    model: WantedModel = {"name": GEMMA, "context_tokens": 65536, "extra_args": options}
    found = told(wanted(model=model), EMPTY)
    assert [text for text in problems(wanted(model=model)) if "fit" in text] == []
    assert f"{GEMMA} {verdict} 1 GPU of g6.xlarge" in found
    assert f"uncertain: extra_args {next(iter(options))}" in found


def test_a_model_that_nobody_knows_is_let_through() -> None:
    unknown: WantedModel = {"name": "owner/new-model", "context_tokens": 8192, "extra_args": {}}
    assert memory_problem(unknown, instance_types()["g4dn.xlarge"]) is None


# Zones


def test_a_type_that_the_zone_does_not_sell_is_refused_with_the_zones_that_do() -> None:
    offerings = [{"InstanceType": "g6.xlarge", "Location": "eu-central-1c"}]
    account = replace(EMPTY, offerings=offerings)
    found = judge(wanted(zones=["eu-central-1a", "eu-central-1b"]), account).problems
    assert [(problem.cause, problem.change) for problem in found] == [
        (
            "seatable-vllm:machine.zones: eu-central-1a and eu-central-1b do not sell g6.xlarge",
            "name a zone that does: eu-central-1c",
        )
    ]
    volumes = [{**each, "AvailabilityZone": "eu-central-1b"} for each in RECORDED["volumes"]]
    (tied,) = problems(wanted(), replace(account, volumes=volumes))
    assert tied.endswith("g6.xlarge is not sold in eu-central-1b, where the stack's data disk is")


def test_the_first_named_zone_that_sells_the_type_is_taken() -> None:
    offerings = [{"InstanceType": "g6.xlarge", "Location": f"eu-central-1{name}"} for name in "bc"]
    offer = judge(wanted(zones=["eu-central-1a", "eu-central-1c"]), replace(EMPTY, offerings=offerings)).offer
    assert offer is not None
    assert offer["zone"] == "eu-central-1c"


def test_a_region_that_does_not_sell_the_type_says_which_of_the_list_it_sells() -> None:
    offerings = [each for each in RECORDED["offerings"] if each["InstanceType"] != "g6.xlarge"]
    (found,) = judge(wanted(), replace(EMPTY, offerings=offerings)).problems
    assert "does not sell g6.xlarge" in found.cause
    assert found.change.startswith("g5.xlarge of your list")


def test_a_local_zone_and_one_that_is_down_are_never_chosen() -> None:
    zones = [
        {"ZoneName": "eu-central-1a", "State": "unavailable", "ZoneType": "availability-zone"},
        {"ZoneName": "eu-central-1-ham-1a", "State": "available", "ZoneType": "local-zone"},
        {"ZoneName": "eu-central-1b", "State": "available", "ZoneType": "availability-zone"},
    ]
    offerings = [{"InstanceType": "g6.xlarge", "Location": zone["ZoneName"]} for zone in zones]
    offer = judge(wanted(), replace(EMPTY, zones=zones, offerings=offerings)).offer
    assert offer is not None
    assert offer["zone"] == "eu-central-1b"


def test_a_zone_of_another_region_and_one_that_the_account_lacks_are_refused() -> None:
    found = problems(wanted(zones=["eu-west-1a", "eu-central-1f"]))
    assert "eu-west-1a is not in aws:region eu-central-1" in found[0]
    assert "eu-central-1f is not a zone of eu-central-1" in found[1]
    assert len(found) == 2
    by_hand = wanted(zones=["eu-central-1f"], placed_only=["eu-central-1f"])
    assert problems(by_hand)[0].startswith("seatable-vllm:machine.placed.zone: eu-central-1f ")


@pytest.mark.parametrize(
    ("wants", "account", "cause"),
    [
        ({"instance_types": ["g6.xlarg"], "instance_type": "g6.xlarg"}, EMPTY, "EC2 has no g6.xlarg"),
        ({"instance_types": ["p3.2xlarge"], "instance_type": "p3.2xlarge"},
         replace(EMPTY, quotas={"L-417A185B": 0}), "p3.2xlarge does not run vLLM"),
        ({"zones": ["eu-west-1a"]}, RUNNING, "eu-west-1a is not in aws:region"),
        ({"zones": ["eu-central-1f"]}, RUNNING, "eu-central-1f is not a zone"),
        ({"instance_types": ["m7i.large"], "instance_type": "m7i.large", "ami": "ami-0123456789abcdef0"},
         replace(EMPTY, quotas={"L-1216C47A": 0}), "m7i.large has no NVIDIA GPU"),
        ({"instance_types": ["h9.huge"], "instance_type": "h9.huge"}, replace(EMPTY, images=[], image_id=None),
         "EC2 has no h9.huge"),
        ({"zones": ["eu-west-1a"], "reservation": "cr-0a"},
         replace(EMPTY, reservations=[{"InstanceType": "g6.xlarge", "AvailabilityZone": "eu-central-1a"}]),
         "eu-west-1a is not in aws:region"),
        ({"reservation": "cr-0a"}, replace(EMPTY, reservations=[
            {"State": "expired", "InstanceType": "p5.48xlarge", "AvailabilityZone": "eu-central-1c"}]),
         "is expired"),
        ({"zones": ["eu-central-1f"], "subnet": "subnet-0a"},
         replace(EMPTY, subnets=[{"SubnetId": "subnet-0a", "AvailabilityZone": "eu-central-1a"}]),
         "eu-central-1f is not a zone"),
        ({"domain": {"host": "llm.example.com", "zone": "example.com", "zone_id": None, "adopt_record": False}},
         replace(EMPTY, hosted_zones=[], records=[{"Name": "llm.example.com.", "Type": "A"}]),
         "is not a hosted zone"),
    ],
)  # fmt: skip
def test_no_rule_speaks_of_what_another_has_made_void(wants: dict[str, Any], account: Account, cause: str) -> None:
    (found,) = problems(wanted(**wants), account)
    assert cause in found


# The machine that is there


def test_a_stopped_machine_is_told_with_the_way_to_start_it() -> None:
    own = [{**each, "State": {"Name": "stopped"}} for each in RECORDED["instances"]]
    found = judge(wanted(), replace(RUNNING, instances=[*own, instance("g5.xlarge", "stopped")]))
    (warning,) = [each for each in found.warnings if "stopped" in each]
    assert own[0]["InstanceId"] in warning
    assert "scripts/up dev starts it" in warning
    assert found.offer is not None


def test_a_machine_that_runs_is_not_spoken_of() -> None:
    assert judge(wanted(), RUNNING).warnings == judge(wanted(), EMPTY).warnings


# Quotas


def test_the_quota_counts_what_runs_of_its_kind_and_nothing_else() -> None:
    others = [
        instance("g5.xlarge"),
        instance("g6.48xlarge", "stopped"),
        instance("p5.48xlarge"),
        instance("m7i.large"),
        instance("g5.12xlarge", InstanceLifecycle="spot"),
    ]
    assert problems(wanted(), replace(EMPTY, instances=others)) == []
    (found,) = judge(wanted(), replace(EMPTY, instances=[*others, instance("g6.xlarge", "pending")])).problems
    assert found.cause == (
        "seatable-vllm:machine.instance_types: g6.xlarge needs 4 vCPUs, and the account may have 0 more in "
        "eu-central-1 (quota L-DB2E81BA: 8, in use: 8)"
    )
    assert found.change.endswith(
        "aws service-quotas request-service-quota-increase --service-code ec2 --quota-code L-DB2E81BA "
        "--desired-value 12 --region eu-central-1"
    )


def test_a_new_account_with_a_quota_of_nothing_is_told_so() -> None:
    assert "may have 0 more" in problems(wanted(), replace(EMPTY, quotas={G_QUOTA: 0.0}))[0]


def test_the_machine_that_runs_already_needs_no_more_quota() -> None:
    assert problems(wanted(), replace(RUNNING, quotas={G_QUOTA: 4.0})) == []
    elsewhere = problems(wanted(stack="prod"), replace(RUNNING, quotas={G_QUOTA: 4.0, ADDRESS_QUOTA: 5.0}))
    assert "in use: 4" in elsewhere[0]


@pytest.mark.parametrize(
    ("kind", "market", "code"),
    [
        ("g6.xlarge", "on-demand", "L-DB2E81BA"),
        ("g6.xlarge", "spot", "L-3819A6DF"),
        ("p5.4xlarge", "on-demand", "L-417A185B"),
        ("p5.4xlarge", "spot", "L-C4BD4855"),
        ("p4d.24xlarge", "spot", "L-7212CCBC"),
        ("p6-b200.48xlarge", "spot", None),
        ("p5.48xlarge", "capacity-block", None),
        ("m7i.large", "on-demand", "L-1216C47A"),
        ("g9.xlarge", "on-demand", "L-DB2E81BA"),
        ("g9.xlarge", "spot", "L-3819A6DF"),
        ("trn1.2xlarge", "on-demand", None),
    ],
)
def test_each_type_and_market_has_its_own_quota(kind: str, market: str, code: str | None) -> None:
    assert quota_code(kind, market) == code


def test_a_quota_counts_the_types_of_its_families_alone() -> None:
    assert counts("L-DB2E81BA", "g4ad.xlarge")
    assert counts("L-DB2E81BA", "gr6.4xlarge")
    assert not counts("L-DB2E81BA", "p5.4xlarge")
    assert not counts("L-C4BD4855", "p4d.24xlarge")


def test_a_reservation_and_a_capacity_block_need_no_quota() -> None:
    none_left = replace(EMPTY, quotas={G_QUOTA: 0.0})
    reserved = {"InstanceType": "g6.xlarge", "AvailabilityZone": "eu-central-1a", "State": "active"}
    wants = wanted(reservation="cr-0123456789abcdef0")
    assert problems(wants, replace(none_left, reservations=[reserved])) == []
    assert problems({**wants, "market": "capacity-block"}, replace(none_left, reservations=[reserved])) == []


def test_a_reservation_for_another_type_or_zone_is_refused() -> None:
    reserved = {"InstanceType": "g5.xlarge", "AvailabilityZone": "eu-central-1b", "State": "active"}
    found = problems(wanted(reservation="cr-0a"), replace(EMPTY, reservations=[reserved]))
    assert [text.partition(": ")[2].partition(",")[0] for text in found] == [
        "cr-0a is for g5.xlarge", "cr-0a is in eu-central-1b"
    ]  # fmt: skip
    assert "is not in eu-central-1" in problems(wanted(reservation="cr-0a"), replace(EMPTY, reservations=[]))[0]


# Image and disks


def test_an_image_for_another_processor_is_refused() -> None:
    account = replace(EMPTY, images=[{**DLAMI, "Architecture": "arm64"}])
    assert problems(wanted(), account) == [
        "seatable-vllm:machine.ami: ami-0123456789abcdef0 (the newest Deep Learning Base AMI) is for arm64, and "
        "g6.xlarge has x86_64"
    ]


def test_a_family_that_the_image_does_not_name_is_refused() -> None:
    older = {**DLAMI, "Description": "Supported EC2 instances: G4dn, G5, G6, Gr6, P4, P5. Release notes: x"}
    types = {"instance_types": ["g6e.xlarge"], "instance_type": "g6e.xlarge"}
    offerings = [{"InstanceType": "g6e.xlarge", "Location": "eu-central-1a"}]
    (found,) = problems(wanted(**types), replace(EMPTY, images=[older], offerings=offerings))
    assert "does not support g6e" in found


def test_the_families_of_a_description_are_read_as_aws_writes_them() -> None:
    families = supported_families(str(DLAMI["Description"]))
    assert families is not None
    assert set(families) == {
        "g4dn", "g5", "g6", "gr6", "g6e", "g7", "g7e", "p4d", "p4de", "p5", "p5e", "p5en", "p6-b200", "p6-b300"
    }  # fmt: skip
    older = supported_families("Supported EC2 instances: G4dn, G5, P4, P4de, P5, P6.")
    assert older is not None
    assert {"p4d", "p4de", "p6-b200"} <= older
    assert supported_families("Canonical, Ubuntu, 24.04") is None


def test_an_image_says_its_root_size_and_who_logs_in() -> None:
    assert root_gib(DLAMI) == 75
    assert root_gib({"RootDeviceName": "/dev/xvda"}) is None
    assert login(DLAMI) == "ubuntu"
    assert (
        login({"Name": "Deep Learning Base OSS Nvidia Driver GPU AMI (Amazon Linux 2023) 20260925"}) == "ec2-user"
    )
    assert login({"Name": "debian-12-amd64-20260101"}) == "admin"
    assert login({"Name": "ours"}) is None


def test_an_image_that_is_not_there_is_refused_in_words_of_who_named_it() -> None:
    gone = replace(EMPTY, image_id=None, images=[])
    assert "Deep Learning Base AMI is not found" in problems(wanted(), gone)[0]
    assert "machine.ami: ami-0a is not in eu-central-1" in problems(wanted(ami="ami-0a"), gone)[0]


def test_a_first_disk_under_the_images_own_is_refused_and_a_narrow_one_is_warned_about() -> None:
    assert problems(wanted(root_disk_gib=74)) == [
        "seatable-vllm:machine.root_disk_gib: 74 is less than the image's own 75"
    ]
    assert problems(wanted(root_disk_gib=75)) == []
    assert "leaves 25 GiB" in told(wanted(root_disk_gib=100), EMPTY)
    assert "root_disk_gib" not in told(wanted(root_disk_gib=105), EMPTY)


def test_a_data_disk_that_does_not_hold_the_weights_is_refused_with_a_size_that_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(disks, "KNOWN_MODELS", {GEMMA: SimpleNamespace(weights_gib=8.0)})
    (found,) = judge(wanted(data_disk_gib=13), EMPTY).problems
    assert "13 does not hold 8 GiB" in found.cause
    assert problems(wanted(data_disk_gib=int(found.change.split()[3]))) == []


def test_a_snapshot_has_to_be_whole_there_and_not_larger_than_the_disk() -> None:
    snapshot = RECORDED["snapshots"][0]
    wants = wanted(snapshot=snapshot["SnapshotId"])
    assert problems(wants, replace(EMPTY, snapshots=[snapshot])) == []
    assert "is not in eu-central-1" in problems(wants, replace(EMPTY, snapshots=[]))[0]
    pending = {**snapshot, "State": "pending", "VolumeSize": 300}
    assert len(problems(wants, replace(EMPTY, snapshots=[pending]))) == 2


# What is there of the stack


def test_the_machine_goes_where_its_data_disk_is() -> None:
    volumes = [{**each, "AvailabilityZone": "eu-central-1b"} for each in RECORDED["volumes"]]
    account = replace(RUNNING, instances=[], volumes=volumes)
    offer = judge(wanted(), account).offer
    assert offer is not None
    assert offer["zone"] == "eu-central-1b"
    (found,) = judge(wanted(zones=["eu-central-1a"]), account).problems
    assert "is in eu-central-1b, and the machine is to be in eu-central-1a" in found.cause


def test_the_first_disk_of_an_instance_is_not_taken_for_its_data() -> None:
    elsewhere = [{**each, "Tags": RECORDED["instances"][0]["Tags"]} for each in RECORDED["volumes"]]
    root = RECORDED["instances"][0]["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    moved = [
        {**each, "AvailabilityZone": "eu-central-1c" if each["VolumeId"] == root else "eu-central-1b"}
        for each in elsewhere
    ]
    offer = judge(wanted(), replace(RUNNING, volumes=moved)).offer
    assert offer is not None
    assert offer["zone"] == "eu-central-1b"


def test_a_disk_that_will_be_made_anew_from_a_snapshot_ties_nobody() -> None:
    snapshot = RECORDED["snapshots"][0]
    wants = wanted(zones=["eu-central-1c"], snapshot=snapshot["SnapshotId"])
    assert problems(wants, replace(RUNNING, instances=[], snapshots=[snapshot])) == []
    made = [{**each, "SnapshotId": snapshot["SnapshotId"]} for each in RECORDED["volumes"]]
    account = replace(RUNNING, instances=[], volumes=made, snapshots=[snapshot])
    assert "the stack's data disk" in problems(wants, account)[0]


def test_the_disk_with_the_role_is_the_data_disk_where_there_are_others() -> None:
    there = RECORDED["volumes"][1]
    other = {**there, "VolumeId": "vol-0b", "AvailabilityZone": "eu-central-1c"}
    data = {**there, "Tags": [*there["Tags"], {"Key": "Role", "Value": "data"}]}
    offer = judge(wanted(), replace(EMPTY, volumes=[other, data])).offer
    assert offer is not None
    assert offer["zone"] == "eu-central-1a"


def test_a_data_disk_that_is_in_use_can_grow_and_not_shrink() -> None:
    (data,) = [each for each in RECORDED["volumes"] if each["Attachments"][0]["Device"] == "/dev/sdf"]
    size = data["Size"]
    (found,) = judge(wanted(data_disk_gib=size - 1), RUNNING).problems
    assert f"{size - 1} is less than the {size} of the stack's data disk {data['VolumeId']}" in found.cause
    assert f"set it to {size} or more" in found.change
    assert problems(wanted(data_disk_gib=size + 1), RUNNING) == []
    left = replace(EMPTY, volumes=[{**data, "Attachments": [], "State": "available"}])
    assert problems(wanted(data_disk_gib=size - 1), left) == []


def test_a_machine_that_keeps_its_image_cannot_become_one_of_another_processor() -> None:
    small = {"name": SMOLLM2, "context_tokens": 8192, "extra_args": {"dtype": "half"}}
    arm = {"instance_types": ["g5g.xlarge"], "instance_type": "g5g.xlarge", "model": small}
    image = {**DLAMI, "Architecture": "arm64", "Description": "Supported EC2 instances: G5g"}
    offerings = [{"InstanceType": "g5g.xlarge", "Location": "eu-central-1a"}]
    there = [{**each, "Architecture": "x86_64"} for each in RECORDED["instances"]]
    account = replace(RUNNING, images=[image], offerings=offerings, instances=there)
    (found,) = judge(wanted(**arm), account).problems
    assert "g5g.xlarge has arm64, and the machine" in found.cause
    assert "has an image for x86_64, which it keeps" in found.cause
    assert "set seatable-vllm:machine.ami to ami-0123456789abcdef0" in found.change
    assert problems(wanted(**arm, ami="ami-0123456789abcdef0"), account) == []
    assert problems(wanted(**arm), replace(account, instances=[])) == []


def test_another_stacks_disk_and_machine_tie_nobody() -> None:
    offer = judge(wanted(stack="prod", zones=["eu-central-1c"]), RUNNING).offer
    assert offer is not None
    assert offer["zone"] == "eu-central-1c"


# Name, addresses, networks


def test_a_zone_that_is_not_there_or_private_or_there_twice_is_refused() -> None:
    public, private = RECORDED["hosted_zones"]
    assert private["Config"]["PrivateZone"]
    assert "is not a hosted zone" in problems(wanted(), replace(EMPTY, hosted_zones=[]))[0]
    assert "is a private zone" in problems(wanted(), replace(EMPTY, hosted_zones=[private]))[0]
    twice = [public, {**public, "Id": "/hostedzone/Z2"}, private]
    assert "is there 2 times" in problems(wanted(), replace(EMPTY, hosted_zones=twice))[0]
    chosen = wanted(
        domain={"host": "llm.example.com", "zone": "example.com", "zone_id": "Z2", "adopt_record": False}
    )
    offer = judge(chosen, replace(EMPTY, hosted_zones=twice)).offer
    assert offer is not None
    assert offer["hosted_zone_id"] == "Z2"


def test_a_zone_of_the_id_that_holds_another_name_is_refused() -> None:
    zone = {"Id": "/hostedzone/Z9", "Name": "example.org.", "Config": {"PrivateZone": False}}
    wants = wanted(
        domain={"host": "llm.example.com", "zone": "example.com", "zone_id": "Z9", "adopt_record": False}
    )
    assert "which does not hold llm.example.com" in problems(wants, replace(EMPTY, hosted_zones=[zone]))[0]


def test_the_zone_that_route_53_lists_after_the_name_is_not_taken_for_it() -> None:
    # ListHostedZonesByName begins at a name and goes on with those behind it.
    behind = {"Id": "/hostedzone/Z3", "Name": "example.de.", "Config": {"PrivateZone": False}}
    assert "is not a hosted zone" in problems(wanted(), replace(EMPTY, hosted_zones=[behind]))[0]


def name_record(kind: str, *values: str, name: str = "llm.example.com.", **more: Any) -> dict[str, Any]:
    """A record as ListResourceRecordSets has it."""
    return {
        "Name": name,
        "Type": kind,
        "TTL": 300,
        "ResourceRecords": [{"Value": each} for each in values],
        **more,
    }


def adopting(value: bool = True) -> Wanted:
    """A stack that takes a record over."""
    return wanted(
        domain={"host": "llm.example.com", "zone": "example.com", "zone_id": None, "adopt_record": value}
    )


ALIAS = {"Name": "llm.example.com.", "Type": "A", "AliasTarget": {"DNSName": "lb-1.elb.amazonaws.com."}}


@pytest.mark.parametrize(
    ("record", "goal"),
    [(name_record("A", "198.51.100.4"), "198.51.100.4"), (ALIAS, "lb-1.elb.amazonaws.com")],
)
def test_a_name_that_leads_elsewhere_is_refused_with_both_remedies_or_taken_over(
    record: dict[str, Any], goal: str
) -> None:
    (found,) = judge(wanted(), replace(EMPTY, records=[record])).problems
    assert found.cause == (
        f"seatable-vllm:domain.host: llm.example.com has a record A already, which points to {goal}"
    )
    assert "seatable-vllm:domain.adopt_record to true" in found.change
    assert "seatable-vllm:domain.host to another name" in found.change
    taken = judge(adopting(), replace(EMPTY, records=[record]))
    assert taken.problems == ()
    assert f"points to {goal}; this stack takes it over, and scripts/down removes it" in "".join(taken.warnings)


def test_the_stacks_own_record_is_known_by_the_stacks_own_address() -> None:
    (address,) = RECORDED["addresses"]
    records = [name_record("A", address["PublicIp"]), name_record("AAAA", "2600:1f14::10")]
    offer = judge({**wanted(), "ipv6": True}, replace(RUNNING, records=records)).offer
    assert offer is not None
    assert offer["own_records"] == ["A", "AAAA"]
    (found,) = judge(wanted(stack="prod"), replace(RUNNING, records=records)).problems
    assert f"points to {address['PublicIp']}, the address of the stack dev" in found.cause
    shared = [name_record("A", address["PublicIp"], "198.51.100.4")]
    assert "198.51.100.4" in problems(wanted(), replace(RUNNING, records=shared))[0]


@pytest.mark.parametrize(
    "record",
    [name_record("CNAME", "other.example.net."), name_record("A", "198.51.100.4", SetIdentifier="eu", Weight=10)],
)
def test_what_no_record_of_ours_can_replace_has_to_be_deleted(record: dict[str, Any]) -> None:
    for wants in (wanted(), adopting()):
        (found,) = judge(wants, replace(EMPTY, records=[record])).problems
        assert found.change.startswith("delete it in Route 53")
        assert "adopt_record" not in found.change


def test_a_record_of_ipv6_that_leads_elsewhere_is_refused_where_ours_would_be_and_else_told() -> None:
    there = replace(EMPTY, records=[name_record("AAAA", "2001:db8::1")])
    assert "llm.example.com has a record AAAA already" in problems({**wanted(), "ipv6": True}, there)[0]
    found = judge(wanted(), there)
    assert found.problems == ()
    assert "clients with IPv6 go there" in found.warnings[0]


def test_records_of_other_names_and_kinds_are_no_obstacle() -> None:
    others = [
        name_record("A", "198.51.100.4", name="www.llm.example.com."),
        name_record("A", "198.51.100.4", name="\\052.example.com."),
        name_record("TXT", '"x"'),
        name_record("CAA", '0 issue "letsencrypt.org"'),
    ]
    found = judge(wanted(), replace(EMPTY, records=others))
    assert (found.problems, found.warnings) == ((), [])


def test_a_record_of_which_nobody_says_whose_it_is_is_told_and_not_refused() -> None:
    no = Unanswered("ec2:DescribeAddresses", "is not allowed")
    found = judge(wanted(), replace(EMPTY, addresses=no, records=[name_record("A", "198.51.100.4")]))
    assert found.problems == ()
    assert any("not checked whether that is this stack's" in line for line in found.warnings)


def test_without_a_domain_no_zone_and_no_clients_network_is_asked_for() -> None:
    wants = wanted(domain=None, clients={"seatable": ["127.0.0.1/32"]})
    assert judge(wants, replace(EMPTY, hosted_zones=None)).warnings == []


@pytest.mark.parametrize("cidr", ["10.0.0.0/8", "192.168.1.7/32", "127.0.0.1/32", "100.64.0.0/10", "fd00::/64"])
def test_a_private_network_that_is_let_in_on_a_public_address_is_warned_about(cidr: str) -> None:
    found = judge(wanted(clients={"seatable": [cidr]}, ipv6=True), EMPTY)
    assert found.problems == ()
    assert f"clients.seatable.cidrs: nobody comes to a public address from {cidr}" in found.warnings[0]


def test_ipv6_clients_of_a_machine_without_ipv6_are_warned_about() -> None:
    wants = wanted(clients={"seatable": ["2606:4700::1111/128"]})
    assert "set seatable-vllm:machine.ipv6 to true" in judge(wants, EMPTY).warnings[0]
    assert judge({**wants, "ipv6": True}, EMPTY).warnings == []


def test_the_last_address_may_be_taken_and_one_more_may_not() -> None:
    others = [{"PublicIp": "8.8.4.4"}]
    assert problems(wanted(), replace(EMPTY, addresses=others * 4)) == []
    assert "may have 5" in problems(wanted(), replace(EMPTY, addresses=others * 5))[0]
    mine = [*others * 4, *RECORDED["addresses"]]
    assert problems(wanted(), replace(EMPTY, addresses=mine)) == []
    unknown = replace(EMPTY, addresses=others * 5, quotas={G_QUOTA: 8.0})
    assert problems(wanted(), unknown) == []
    assert "5 are usual" in told(wanted(), unknown)


INTERNET = {"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-0a", "State": "active"}


def test_a_subnet_has_to_lead_to_the_internet() -> None:
    subnet, table = RECORDED["subnets"][0], RECORDED["route_tables"][0]
    wants = wanted(subnet=subnet["SubnetId"])
    assert "is not public" in problems(wants, replace(EMPTY, subnets=[subnet], route_tables=[table]))[0]
    open_table = {**table, "Routes": [*table["Routes"], INTERNET]}
    assert problems(wants, replace(EMPTY, subnets=[subnet], route_tables=[open_table])) == []
    private = {"Associations": [{"Main": False, "SubnetId": subnet["SubnetId"]}], "Routes": table["Routes"]}
    tables = [open_table, private]
    assert "is not public" in problems(wants, replace(EMPTY, subnets=[subnet], route_tables=tables))[0]
    nat = {**table, "Routes": [{"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-0a", "State": "active"}]}
    assert "is not public" in problems(wants, replace(EMPTY, subnets=[subnet], route_tables=[nat]))[0]
    # What a gateway that was deleted leaves behind.
    blackhole = {**table, "Routes": [{**INTERNET, "State": "blackhole"}]}
    assert "is not public" in problems(wants, replace(EMPTY, subnets=[subnet], route_tables=[blackhole]))[0]
    elsewhere = {**table, "Routes": [{**INTERNET, "DestinationCidrBlock": "8.8.8.0/24"}]}
    assert "is not public" in problems(wants, replace(EMPTY, subnets=[subnet], route_tables=[elsewhere]))[0]


def test_a_subnet_that_is_not_there_or_full_or_without_ipv6_or_elsewhere_is_refused() -> None:
    subnet = RECORDED["subnets"][0]
    wants = wanted(subnet=subnet["SubnetId"])
    assert "is not in eu-central-1" in problems(wants, replace(EMPTY, subnets=[]))[0]
    full = {**subnet, "AvailableIpAddressCount": 0}
    account = replace(EMPTY, subnets=[full], route_tables=Unanswered("ec2:DescribeRouteTables", "is not allowed"))
    found = problems({**wants, "ipv6": True, "zones": ["eu-central-1b"]}, account)
    assert [text.partition(" ")[2].partition(" ")[2].split(",")[0] for text in found] == [
        "is in eu-central-1a", "has no free address", "has no IPv6 network"
    ]  # fmt: skip


# Prices


@pytest.mark.parametrize(
    ("kind", "usd"),
    [
        # AWS's list of 2026-07-20 for us-east-1, Linux, as Karpenter has it; copied by hand from there.
        ("g4dn.xlarge", 0.526),
        ("g5.xlarge", 1.006),
        ("g5.12xlarge", 5.672),
        ("g6.xlarge", 0.8048),
        ("gr6.4xlarge", 1.5392),
        ("g6e.xlarge", 1.861),
        ("g6e.48xlarge", 30.131),
        ("g7e.2xlarge", 3.363),
        ("p4de.24xlarge", 27.447),
        ("p5.48xlarge", 55.04),
        ("p6-b300.48xlarge", 142.416),
    ],
)
def test_the_price_of_a_type_is_within_one_per_cent_of_the_reference(kind: str, usd: float) -> None:
    found = price(kind, "us-east-1", DISKS, None)
    assert found.per_hour == pytest.approx(usd, rel=0.01)
    assert found.per_month == pytest.approx(usd * 730, rel=0.01)


def test_disks_and_address_are_added_up_as_the_bill_does() -> None:
    # 350 GiB at 0.08 USD, and 730 hours at 0.005 USD.
    assert disks_and_address(DISKS) == pytest.approx(28.0 + 3.65)
    assert disks_and_address([Gp3(150, 500), Gp3(200, 250)]) == pytest.approx(28.0 + 3.65 + 15 + 5)
    found = price("g6.xlarge", "us-east-1", DISKS, None)
    assert found.stopped == pytest.approx(31.65)


def test_the_price_line_says_price_date_and_what_a_stop_leaves() -> None:
    found = price("g6.xlarge", "eu-central-1", DISKS, None)
    first, second = price_lines("g6.xlarge", "eu-central-1a", "eu-central-1", found, "on-demand")
    assert first == (
        "g6.xlarge in eu-central-1a: 0.80 USD/h, about 588 USD/month (us-east-1 list price of 2026-07-20), "
        "disks and address 32 USD/month; stopped: 32 USD/month"
    )
    assert "estimate" in second
    assert "eu-central-1" in second


def test_a_price_that_aws_answers_goes_before_the_list() -> None:
    found = judge(wanted(), replace(EMPTY, prices=[PRODUCT]))
    assert found.offer is not None
    assert (found.offer["price_per_hour"], found.offer["price_date"]) == (1.006, "2026-11-01")
    assert "(eu-central-1 list price of 2026-11-01)" in found.price_lines[0]
    assert "estimate" not in "\n".join(found.price_lines)


def test_an_answer_that_means_several_prices_or_none_is_not_believed() -> None:
    dearer = PRODUCT.replace("1.0060000000", "2.0")
    assert answered_price([PRODUCT, dearer]) is None
    assert answered_price([PRODUCT.replace("1.0060000000", "0.0000000000")]) is None
    assert answered_price([]) is None
    assert answered_price([PRODUCT, PRODUCT]) == (1.006, "2026-11-01")


def test_spot_and_capacity_blocks_are_not_sold_as_the_list_price() -> None:
    spot = judge(wanted(market="spot"), replace(EMPTY, quotas={"L-3819A6DF": 8.0}))
    assert "spot costs less" in spot.price_lines[-1]
    assert "USD/h" not in judge(wanted(market="capacity-block"), EMPTY).price_lines[0]


def test_every_price_has_a_day_and_a_region() -> None:
    assert (price_date(), price_region()) == ("2026-07-20", "us-east-1")


def test_every_type_of_the_table_is_whole_and_those_without_vllm_say_why() -> None:
    for name, row in instance_types().items():
        assert row.vcpus > 0, name
        assert row.mib_per_gpu > 0, name
        assert row.quota, name
        assert (row.no_vllm is None) == (float(row.compute_capability) >= 7.5 and row.gpus >= 1), name
    assert nearest("g6xlarge")[0] == "g6.xlarge"


# What EC2's errors ask for


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (
            "creating EC2 Instance: operation error EC2: RunInstances, https response error StatusCode: 500, "
            "RequestID: b5c1, api error InsufficientInstanceCapacity: We currently do not have sufficient "
            "g6.xlarge capacity in the Availability Zone you requested (eu-central-1a).",
            "InsufficientInstanceCapacity",
        ),
        (
            "botocore.exceptions.ClientError: An error occurred (VcpuLimitExceeded) when calling the RunInstances "
            "operation: You have requested more vCPU capacity",
            "VcpuLimitExceeded",
        ),
        (
            "waiting for EC2 Instance (i-0a) create: unexpected state 'terminated', wanted target 'running'. last "
            "error: Server.InsufficientInstanceCapacity: Insufficient capacity to satisfy instance request",
            "InsufficientInstanceCapacity",
        ),
        ("Error launching source instance: Unsupported: Your requested instance type", "Unsupported"),
        ("api error InvalidAMIID.NotFound: The image id '[ami-0a]' does not exist", "InvalidAMIID.NotFound"),
        ("operation error EC2: RunInstances, api error SomethingNew: what", "SomethingNew"),
        ("aws:ec2:Instance (machine): error: 1 error occurred: all is well", None),
        ("", None),
    ],
)
def test_the_code_is_found_in_the_texts_of_provider_and_boto3(text: str, code: str | None) -> None:
    assert code_in(text) == code


def test_the_known_code_goes_before_another_that_the_text_also_has() -> None:
    text = "api error InternalError: again\nError: api error InsufficientInstanceCapacity: none left"
    assert code_in(text) == "InsufficientInstanceCapacity"


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("InsufficientInstanceCapacity", "next zone"),
        ("Unsupported", "next zone"),
        ("UnfulfillableCapacity", "next zone"),
        ("InsufficientFreeAddressesInSubnet", "next zone"),
        ("InvalidInstanceType", "next type"),
        ("VcpuLimitExceeded", "stop"),
        ("MaxSpotInstanceCountExceeded", "stop"),
        ("AddressLimitExceeded", "stop"),
        ("UnauthorizedOperation", "stop"),
        ("SomethingNew", "stop"),
    ],
)
def test_a_code_says_where_to_go_next(code: str, answer: str) -> None:
    assert answer_to(code) == answer


def test_every_code_that_ends_a_search_is_explained_to_whoever_reads_it() -> None:
    # InvalidParameterValue may be anything: the line itself says which.
    stops = {code for code, answer in CODES.items() if answer == "stop"} - {"InvalidParameterValue"}
    assert not {code for code in stops if explain(f"operation error EC2: X, api error {code}: no") is None}


def test_a_judgement_without_problems_has_no_cause() -> None:
    assert str(Judgement((), (), None)) == "phase: AWS account"
