"""Unit tier: an account read with boto3, against moto on the loopback address; and the program that asks for it.

moto 5.2.5 answers EC2, Route 53, STS and SSM, with IAM's refusals where a test wants them. Of what it lacks, EC2's
quotas, the image's parameter and its public image are put into it here, and the Pricing API and capacity
reservations are left as questions that nobody answers. It does NOT prove how a real account answers, how a
login of AWS's single sign-on ends, or how long a call over a network takes.
"""

from __future__ import annotations

import contextvars
import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pulumi
import pytest
import requests
from botocore import loaders
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.instances import InstanceResponse
from moto.moto_api._internal.models import moto_api_backend
from moto.server import ThreadedMotoServer
from moto.servicequotas.models import ServiceQuotasBackend
from moto.ssm.models import Parameter, ssm_backends
from moto.sts.exceptions import STSClientError
from moto.sts.responses import TokenResponse
from pulumi.runtime import mocks, set_all_config, set_mocks

from aws_account import preflight as program
from aws_account.reader import read_account
from aws_account.request import request_of
from aws_account.session import AccountError, account_number, open_session
from catalog.aws.account import ADDRESS_QUOTA, Unanswered, Wanted, items
from catalog.aws.images import parameter_for
from catalog.aws.preflight import Offer, judge
from catalog.aws.tags import tags_of
from components.machine.aws.preflight import preflight
from settings import AwsMachine, Settings, SettingsError, parse

if TYPE_CHECKING:
    from tests.conftest import FakeEndpoint

PROJECT = Path(__file__).resolve().parents[2]
REGION = "eu-central-1"
ACCOUNT = "123456789012"
KEY = {"AWS_ACCESS_KEY_ID": "AKIA" + "TESTTESTTEST", "AWS_SECRET_ACCESS_KEY": "made" + "-for-a-test"}
QUOTAS = {"L-DB2E81BA": 8.0, ADDRESS_QUOTA: 5.0}
TAGS = [{"Key": key, "Value": value} for key, value in tags_of("dev").items()]


@dataclass(frozen=True)
class Aws:
    """moto on a port of its own, and the tests' own way in."""

    url: str
    ec2: Any
    route53: Any
    iam: Any


@pytest.fixture(scope="module")
def server() -> Iterator[Aws]:
    """One for all tests here: it takes a second to start."""
    with pytest.MonkeyPatch.context() as patch:
        # Every session would read all of EC2's model anew, which is half of the time that these tests take.
        patch.setattr(loaders, "create_loader", functools.cache(loaders.create_loader))
        started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        started.start()
        host, port = started.get_host_and_port()
        url = f"http://{host}:{port}"
        session = boto3.Session("test", "test", region_name=REGION)
        yield Aws(url, *(session.client(name, endpoint_url=url) for name in ("ec2", "route53", "iam")))
        started.stop()


@pytest.fixture
def aws(server: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Aws:
    """An empty account behind that port, and this process's environment leading there and nowhere else."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in {
        **KEY,
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ENDPOINT_URL_PRICING": "http://127.0.0.1:9",  # nothing listens there
        "AWS_EC2_METADATA_DISABLED": "true",
        "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    moto_api_backend.reset()
    monkeypatch.setattr(ServiceQuotasBackend, "get_service_quota", _quota)
    image = server.ec2.register_image(
        Name="Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20261106",
        Description="Supported EC2 instances: G4dn, G5, G6, G6e. Release notes: x",
        Architecture="x86_64",
    )["ImageId"]
    _publish(parameter_for("x86_64"), image)
    server.route53.create_hosted_zone(Name="example.com", CallerReference="test")
    return server


def _quota(backend: Any, service_code: str, quota_code: str) -> dict[str, Any]:
    """GetServiceQuota as AWS answers it for EC2, which moto does not know."""
    return {"ServiceCode": service_code, "QuotaCode": quota_code, "Value": QUOTAS[quota_code]}


def _publish(name: str, image: str) -> None:
    """A public parameter; PutParameter refuses such names, as AWS does."""
    ssm_backends[ACCOUNT][REGION]._parameters[name].append(
        Parameter(  # type: ignore[abstract]
            account_id=ACCOUNT,
            name=name,
            value=image,
            parameter_type="String",
            description="",
            allowed_pattern=None,
            keyid=None,
            last_modified_date=datetime.now(UTC),
            version=1,
            data_type="aws:ec2:image",
        )
    )


def settings(**machine: Any) -> Settings:
    """A stack on AWS that nothing is wrong with."""
    return parse(
        {
            "machine": {
                "kind": "aws",
                "instance_types": ["g6.xlarge", "g5.xlarge"],
                "admin_cidrs": ["8.8.8.8/32"],
                **machine,
            },
            "model": {"name": "RedHatAI/gemma-3-12b-it-quantized.w4a16"},
            "clients": {"seatable": {"kind": "seatable", "cidrs": ["1.1.1.1/32"]}},
            "domain": {
                "host": "llm.example.com", "tls": "acme-dns", "zone": "example.com", "acme_email": "a@example.com"
            },
        }
    )  # fmt: skip


def wanted(region: str = REGION, **machine: Any) -> Wanted:
    """What such a stack wants of its account."""
    tree = settings(**machine)
    assert isinstance(tree.machine, AwsMachine)
    return request_of(tree, tree.machine, stack="dev", region=region)


def offered(wants: Wanted) -> Offer:
    """The offer, where there is one."""
    found = judge(wants, read_account(wants))
    assert found.offer is not None, str(found)
    return found.offer


def run(
    wants: Wanted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str, str]:
    """The program: its status, what it printed, and what it said."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(wants)))
    status = program.main()
    printed, said = capsys.readouterr()
    return status, printed, said


# Reading


def test_an_account_is_read_and_makes_an_offer(aws: Aws) -> None:
    wants = wanted()
    account = read_account(wants)
    assert account.id == ACCOUNT
    assert {each["InstanceType"] for each in items(account.types)} == {"g5.xlarge", "g6.xlarge"}
    assert {each["Location"] for each in items(account.offerings)} == {f"{REGION}{zone}" for zone in "abc"}
    assert account.quotas == QUOTAS
    offer = offered(wants)
    assert (offer["zone"], offer["vcpus"], offer["login"]) == (f"{REGION}a", 4, "ubuntu")
    assert offer["ami"].startswith("ami-")
    assert offer["hosted_zone_id"]


def test_what_nobody_answers_is_a_warning_and_no_problem(aws: Aws) -> None:
    wants = wanted(reservation="cr-0123456789abcdef0")  # moto has no capacity reservations and no Pricing API
    account = read_account(wants)
    assert isinstance(account.reservations, Unanswered)
    assert isinstance(account.prices, Unanswered)
    found = judge(wants, account)
    assert found.problems == ()
    assert [line for line in found.warnings if "ec2:DescribeCapacityReservations" in line]
    assert "us-east-1 list price" in found.price_lines[0]


def test_the_stack_that_is_there_is_told_from_what_others_have(aws: Aws) -> None:
    ec2 = aws.ec2
    image = ec2.describe_images(Owners=["self"])["Images"][0]["ImageId"]
    for zone, tags in ((f"{REGION}b", TAGS), (f"{REGION}c", [])):
        machine = ec2.run_instances(
            ImageId=image,
            InstanceType="g6.xlarge",
            MinCount=1,
            MaxCount=1,
            Placement={"AvailabilityZone": zone},
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}] if tags else [],
        )["Instances"][0]["InstanceId"]
        disk = ec2.create_volume(
            AvailabilityZone=zone,
            Size=200,
            TagSpecifications=[{"ResourceType": "volume", "Tags": tags}] if tags else [],
        )["VolumeId"]
        ec2.attach_volume(VolumeId=disk, InstanceId=machine, Device="/dev/sdf")
    for tags in (TAGS, [], [], [], []):
        ec2.allocate_address(
            Domain="vpc",
            TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": tags}] if tags else [],
        )
    assert offered(wanted())["zone"] == f"{REGION}b"
    wants = {**wanted(), "stack": "prod"}
    found = judge(wants, read_account(wants))  # type: ignore[arg-type]
    assert [problem.cause.partition(" (")[0] for problem in found.problems] == [
        f"seatable-vllm:machine.instance_types: g6.xlarge needs 4 vCPUs, and the account may have 0 more "
        f"in {REGION}",
        f"the account has 5 Elastic IPs in {REGION}, and may have 5",
    ]


def test_a_named_image_subnet_and_snapshot_that_are_not_there_are_told_together(aws: Aws) -> None:
    wants = wanted(
        ami="ami-0123456789abcdef0",
        subnet="subnet-0123456789abcdef0",
        data_disk={"gib": 200, "snapshot": "snap-0123456789abcdef0"},
    )
    causes = "\n".join(problem.cause for problem in judge(wants, read_account(wants)).problems)
    assert "machine.ami: ami-0123456789abcdef0 is not in eu-central-1" in causes
    assert "machine.subnet: subnet-0123456789abcdef0 is not in" in causes
    assert "machine.data_disk.snapshot: snap-0123456789abcdef0 is not in" in causes


def test_a_subnet_is_public_by_the_route_of_its_table(aws: Aws) -> None:
    ec2 = aws.ec2
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24", AvailabilityZone=f"{REGION}c")["Subnet"]
    wants = wanted(subnet=subnet["SubnetId"])
    assert "is not public" in str(judge(wants, read_account(wants)))
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"][0]
    ec2.create_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    assert offered(wants)["zone"] == f"{REGION}c"


def test_without_the_parameter_the_newest_image_of_the_name_is_taken(aws: Aws) -> None:
    # Nobody in moto is `amazon` but the owner of moto's own images, so that nothing of the name is found there.
    ssm_backends[ACCOUNT][REGION]._parameters.pop(parameter_for("x86_64"))
    wants = wanted()
    (found,) = judge(wants, read_account(wants)).problems
    assert "Deep Learning Base AMI is not found" in found.cause


def test_a_private_zone_and_one_behind_it_in_the_list_are_not_the_stacks(aws: Aws) -> None:
    route53 = aws.route53
    route53.create_hosted_zone(Name="example.org", CallerReference="another")
    wants = wanted()
    assert wants["domain"] is not None
    first = offered(wants)["hosted_zone_id"]
    assert first is not None
    route53.delete_hosted_zone(Id=first)
    assert "is not a hosted zone" in str(judge(wants, read_account(wants)))
    wants["domain"]["zone_id"] = first
    assert f"zone_id: {first} is not a hosted zone" in str(judge(wants, read_account(wants)))


def test_the_names_record_is_read_from_its_zone_and_known_by_the_stacks_address(aws: Aws) -> None:
    zone = offered(wanted())["hosted_zone_id"]

    def lead_to(address: str, name: str = "llm.example.com") -> None:
        record = {"Name": name, "Type": "A", "TTL": 60, "ResourceRecords": [{"Value": address}]}
        change = {"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]}
        aws.route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=change)

    lead_to("198.51.100.4", "zz.example.com")
    lead_to("198.51.100.4", "a.llm.example.com")
    assert read_account(wanted()).records == []
    lead_to("198.51.100.4")
    assert "llm.example.com has a record A already" in str(judge(wanted(), read_account(wanted())))
    tags = [{"ResourceType": "elastic-ip", "Tags": TAGS}]
    lead_to(aws.ec2.allocate_address(Domain="vpc", TagSpecifications=tags)["PublicIp"])
    assert offered(wanted())["own_records"] == ["A"]


# Rights


def test_what_iam_does_not_allow_is_a_warning_that_names_the_action(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    iam = aws.iam
    iam.create_user(UserName="deploy")
    allowed = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    refused = {
        "Effect": "Deny",
        "Action": ["ec2:DescribeAddresses", "ec2:DescribeImages", "ec2:DescribeVolumes"],
        "Resource": "*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed, refused]})
    iam.put_user_policy(UserName="deploy", PolicyName="most", PolicyDocument=policy)
    key = iam.create_access_key(UserName="deploy")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    requests.post(f"{aws.url}/moto-api/reset-auth", data=b"0", timeout=10)
    try:
        wants = wanted()
        found = judge(wants, read_account(wants))
    finally:
        requests.post(f"{aws.url}/moto-api/reset-auth", data=b"inf", timeout=10)
    assert found.problems == ()
    refusals = [line for line in found.warnings if "is not allowed" in line]
    assert [line.partition("(")[2] for line in refusals] == [
        "ec2:DescribeVolumes is not allowed)",
        "ec2:DescribeImages is not allowed)",
        "ec2:DescribeAddresses is not allowed)",
    ]


# Credentials and regions


def test_no_credentials_are_said_in_words_with_the_way_out(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in KEY:
        monkeypatch.delenv(name)
    status, printed, said = run(wanted(), capsys, monkeypatch)
    assert (status, printed) == (1, "")
    lines = said.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["phase", "cause", "change"]
    assert "there are no AWS credentials" in lines[1]
    assert "aws sso login" in lines[2]


def test_a_profile_that_is_not_there_is_named(aws: Aws) -> None:
    with pytest.raises(AccountError, match="there is no profile work"):
        open_session("work", REGION)


def test_credentials_that_a_helper_cannot_renew_are_said_without_what_the_helper_says(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in KEY:
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(
        "[profile work]\ncredential_process = sh -c 'echo token=very-secret >&2; exit 3'\n"
    )
    with pytest.raises(AccountError, match="cannot be renewed") as raised:
        open_session("work", REGION)
    assert "very-secret" not in str(raised.value)
    assert "aws sso login --profile work" in raised.value.change


def refuse(code: str, *regions: str) -> Any:
    """STS that refuses the credentials in these regions."""
    real = TokenResponse.get_caller_identity

    def answer(self: TokenResponse) -> Any:
        if self.region in regions:
            raise STSClientError(code, "The security token included in the request is " + code)
        return real(self)

    return answer


def enter(region: str = REGION) -> str:
    """The account that the credentials are of."""
    return account_number(open_session(None, region), region)


moto_does_not_know_these_codes = pytest.mark.filterwarnings("ignore:Exception.STSClientError")


@moto_does_not_know_these_codes
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("ExpiredToken", "have run out"),
        ("RequestExpired", "have run out"),
        ("InvalidClientTokenId", "does not accept the credentials"),
    ],
)
def test_credentials_that_have_run_out_are_told_from_wrong_ones(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    assert enter() == ACCOUNT
    monkeypatch.setattr(TokenResponse, "get_caller_identity", refuse(code, REGION, "us-east-1"))
    with pytest.raises(AccountError, match=said):
        enter()


@moto_does_not_know_these_codes
def test_a_region_that_is_off_is_told_from_wrong_credentials(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    # AWS answers the same to both; credentials that are good elsewhere tell them apart.
    monkeypatch.setattr(TokenResponse, "get_caller_identity", refuse("InvalidClientTokenId", "ap-east-1"))
    with pytest.raises(AccountError, match="has not enabled the region ap-east-1"):
        enter("ap-east-1")


def test_a_region_where_ec2_alone_refuses_is_off(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_all(self: Any) -> Any:
        raise EC2ClientError("OptInRequired", "You are not subscribed to this service.")

    monkeypatch.setattr(InstanceResponse, "describe_instance_types", refuse_all)
    with pytest.raises(AccountError, match="has not enabled the region eu-central-1"):
        read_account(wanted())


def test_a_region_that_does_not_exist_is_named_with_the_nearest(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(AccountError, match="no region eu-centrall-1") as raised:
        enter("eu-centrall-1")
    assert "eu-central-1" in raised.value.change
    with pytest.raises(AccountError, match="cannot be reached"):
        enter()


@pytest.mark.parametrize("page", ["<!doctype html><p>log in", "<html>log in</html>"])
def test_a_page_of_somebody_else_than_aws_is_no_answer(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, fake_endpoint: FakeEndpoint, page: str
) -> None:
    # A proxy that wants a login, for instance.
    fake_endpoint.answers["*"] = fake_endpoint.always(200, page)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{fake_endpoint.port}")
    with pytest.raises(AccountError, match="cannot be reached"):
        enter()


# The program


def test_the_program_ends_in_the_offer_and_says_the_price(aws: Aws) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aws_account.preflight"],
        input=json.dumps(wanted()),
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
    )
    assert done.returncode == 0, done.stderr
    offer: Offer = json.loads(done.stdout.splitlines()[-1])
    assert (offer["region"], offer["zone"]) == (REGION, f"{REGION}a")
    assert "g6.xlarge in eu-central-1a: 0.80 USD/h, about 588 USD/month" in done.stderr
    assert "stopped: 32 USD/month" in done.stderr
    assert not [value for value in KEY.values() if value in done.stdout + done.stderr]


def test_the_program_says_all_problems_and_prints_neither_an_offer_nor_a_credential(
    aws: Aws, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, printed, said = run(wanted(zones=["eu-west-1a"], data_disk={"gib": 8}), capsys, monkeypatch)
    assert (status, printed) == (1, "")
    assert said.count("cause: ") == said.count("change: ") == 2
    assert not [value for value in KEY.values() if value in said]
    assert said.splitlines()[[*said.splitlines()].index("phase: AWS account") + 1].startswith("cause: ")


# The request


def test_the_request_names_the_place_where_the_machine_has_landed_and_no_other() -> None:
    wants = wanted(zones=[f"{REGION}a"], placed={"instance_type": "g5.xlarge", "zone": f"{REGION}c"})
    assert (wants["instance_type"], wants["zones"]) == ("g5.xlarge", [f"{REGION}c"])
    assert wants["instance_types"] == ["g5.xlarge", "g6.xlarge"]


def test_the_request_is_plain_json() -> None:
    assert json.loads(json.dumps(wanted())) == wanted()


# In Pulumi

OFFER = {"region": REGION, "zone": f"{REGION}b", "ami": "ami-0a"}


class Answers(mocks.Mocks):
    """Answers the look at the account, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[mocks.MockCallArgs] = []

    def call(self, args: mocks.MockCallArgs) -> Any:
        self.asked.append(args)
        return {"stdout": f"a line before\n{json.dumps(OFFER)}", "stderr": "warning: so\n1 USD/h"}

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        return None, {}


def ask_in_pulumi(tree: Settings, config: dict[str, str], *, preview: bool = False) -> tuple[Answers, list[Any]]:
    """One run of a program that asks for an offer, in a stack with this configuration."""
    answers, seen = Answers(), list[Any]()

    def whole() -> None:
        set_mocks(answers, "seatable-vllm", "dev", preview)
        set_all_config(config)

        @pulumi.runtime.test  # type: ignore[untyped-decorator]
        async def asking() -> None:
            seen.append(preflight(tree))

        asking()

    contextvars.copy_context().run(whole)
    return answers, seen


@pytest.mark.parametrize("preview", [False, True])
def test_the_offer_is_asked_for_in_an_up_and_in_a_preview_and_its_price_is_shown(
    preview: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[tuple[str, str]]()
    for kind in ("info", "warn"):
        monkeypatch.setattr(pulumi.log, kind, lambda text, kind=kind: told.append((kind, text)))
    answers, seen = ask_in_pulumi(settings(), {"aws:region": REGION, "aws:profile": "work"}, preview=preview)
    assert seen == [OFFER]
    assert told == [("warn", "so"), ("info", "1 USD/h")]
    (asked,) = answers.asked
    assert asked.token == "command:local:run"
    assert " -m aws_account.preflight" in asked.args["command"]
    assert json.loads(asked.args["stdin"]) == {**wanted(), "profile": "work"}
    assert Path(asked.args["dir"], "aws_account", "preflight.py").is_file()


def test_an_account_that_lacks_something_ends_the_run_in_the_words_of_the_rules_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "phase: AWS account\ncause: no quota\nchange: ask for one"
    monkeypatch.setattr(Answers, "call", lambda *_: {"stdout": "", "stderr": said})
    # Of a RunError Pulumi shows the text; of a command that fails, a stack trace before it.
    with pytest.raises(pulumi.RunError) as ended:
        ask_in_pulumi(settings(), {"aws:region": REGION})
    assert str(ended.value) == f"the AWS account is not ready for this stack:\n{said}"


def test_a_stack_without_a_region_or_a_machine_on_aws_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(SettingsError, match="aws:region: missing"):
        ask_in_pulumi(settings(), {"aws:profile": "work"})
    with pytest.raises(SettingsError, match=r"machine\.kind: local"):
        ask_in_pulumi(
            parse({"clients": {"a": {"kind": "openai", "cidrs": ["127.0.0.1/32"]}}}), {"aws:region": REGION}
        )
