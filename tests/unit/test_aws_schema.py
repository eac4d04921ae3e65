"""Unit tier: every argument that the program gives to AWS, held against the schema of the real provider.

The schema is that of terraform-provider-aws, which pulumi-aws wraps; the program is run under the recorder. It
needs `terraform` and a mirror of that provider on this computer, and skips where there is none: nothing is
downloaded. It does NOT prove that AWS takes the values, nor what the provider does with them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rehearsal.stack_file import stack_config

if TYPE_CHECKING:
    from tests.conftest import RecordProgram, Registered

PROVIDER = "registry.terraform.io/hashicorp/aws"
MIRRORS = (
    "~/.terraform.d/plugins",
    "~/.local/share/terraform/plugins",
    "/usr/local/share/terraform/plugins",
    "/usr/share/terraform/plugins",
    "/opt/*",
)
"""Where mirrors of providers lie: the folders that terraform looks in by itself, and the usual place of others."""

CONFIGURATION = """\
terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}
"""

TERRAFORM_NAMES = {
    "aws:ec2/vpc:Vpc": "aws_vpc",
    "aws:ec2/subnet:Subnet": "aws_subnet",
    "aws:ec2/internetGateway:InternetGateway": "aws_internet_gateway",
    "aws:ec2/routeTable:RouteTable": "aws_route_table",
    "aws:ec2/route:Route": "aws_route",
    "aws:ec2/routeTableAssociation:RouteTableAssociation": "aws_route_table_association",
    "aws:ec2/securityGroup:SecurityGroup": "aws_security_group",
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": "aws_vpc_security_group_ingress_rule",
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": "aws_vpc_security_group_egress_rule",
    "aws:iam/role:Role": "aws_iam_role",
    "aws:iam/rolePolicy:RolePolicy": "aws_iam_role_policy",
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": "aws_iam_role_policy_attachment",
    "aws:iam/instanceProfile:InstanceProfile": "aws_iam_instance_profile",
    "aws:ec2/keyPair:KeyPair": "aws_key_pair",
    "aws:ec2/instance:Instance": "aws_instance",
    "aws:ebs/volume:Volume": "aws_ebs_volume",
    "aws:ec2/volumeAttachment:VolumeAttachment": "aws_volume_attachment",
    "aws:ec2/eip:Eip": "aws_eip",
    "aws:ec2/eipAssociation:EipAssociation": "aws_eip_association",
    "aws:route53/record:Record": "aws_route53_record",
    "aws:scheduler/schedule:Schedule": "aws_scheduler_schedule",
    "aws:budgets/budget:Budget": "aws_budgets_budget",
}
"""Every type that the program makes at AWS, by the name that the provider itself has for it."""

NEWER_THAN_THE_SCHEMA: frozenset[tuple[str, str]] = frozenset()
"""(type, argument) that only a later provider than the one at hand has."""

SUBNET, RESERVATION = "subnet-0123456789abcdef0", "cr-0123456789abcdef0"
VARIANTS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "dev": ("dev", {}),
    "prod": ("prod", {}),
    "existing subnet": ("prod", {"subnet": SUBNET}),
    "spot": ("dev", {"market": "spot", "data_disk": {"snapshot": "snap-0123456789abcdef0"}}),
    "reservation": ("dev", {"reservation": RESERVATION}),
    "capacity block": ("dev", {"market": "capacity-block", "reservation": RESERVATION}),
    "budget": ("prod", {"cost": {"budget": {"usd_per_month": 300, "mail": "ops@example.com"}}}),
}

Block = Mapping[str, Any]


def _mirror() -> Path | None:
    """A folder with the provider's program, if this computer has one."""
    for pattern in MIRRORS:
        place = Path(pattern).expanduser()
        for folder in [place] if "*" not in pattern else sorted(place.parent.glob(place.name)):
            if any(folder.glob(f"{PROVIDER}/*/*/terraform-provider-aws*")):
                return folder
    return None


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """The schema of the provider as terraform prints it."""
    terraform, mirror = shutil.which("terraform"), _mirror()
    if terraform is None:
        pytest.skip("terraform is not on this computer's PATH")
    if mirror is None:
        pytest.skip(f"this computer has no mirror of {PROVIDER}")
    folder = tmp_path_factory.mktemp("terraform")
    (folder / "main.tf").write_text(CONFIGURATION)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    for words in (["init", f"-plugin-dir={mirror}"], ["providers", "schema", "-json"]):
        done = subprocess.run(
            [terraform, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    found: Mapping[str, Any] = json.loads(done.stdout)["provider_schemas"][PROVIDER]
    return found


@pytest.fixture(params=sorted(VARIANTS))
def made(request: pytest.FixtureRequest, record_program: RecordProgram, home_with_key: Path) -> list[Registered]:
    """What each variant of a stack asks AWS for."""
    stack, machine = VARIANTS[request.param]
    config = stack_config(stack)
    key = "seatable-vllm:machine"
    config[key] = json.dumps({**json.loads(config[key]), **machine})
    recorded = record_program(stack, config, environment={"HOME": str(home_with_key)})
    return [each for each in recorded.resources if each.type.startswith(("aws:", "pulumi:providers:aws"))]


def snake(name: str) -> str:
    """An argument's name as the provider has it."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def problems(kind: str, block: Block, inputs: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Everything about these inputs that the schema has otherwise."""
    attributes, blocks = block.get("attributes", {}), block.get("block_types", {})
    # Pulumi writes a block that may be there several times in the plural.
    given = {plain.removesuffix("s") if (plain := snake(name)).removesuffix("s") in blocks else plain: value
             for name, value in inputs.items()}  # fmt: skip
    for name, attribute in attributes.items():
        if attribute.get("required") and name not in given:
            yield f"{kind}: {where}{name} is missing"
    for name, value in given.items():
        here = f"{where}{name}"
        if (kind, here) in NEWER_THAN_THE_SCHEMA:
            continue
        if name in blocks:
            for each in value if isinstance(value, list) else [value]:
                yield from problems(kind, blocks[name]["block"], each, f"{here}.")
        elif name not in attributes:
            yield f"{kind}: there is no {here}"
        elif not (attributes[name].get("optional") or attributes[name].get("required")):
            yield f"{kind}: {here} cannot be set"
        elif not fits(attributes[name]["type"], value):
            yield f"{kind}: {here} is {attributes[name]['type']}, not {value!r}"


def fits(wanted: str | list[Any], value: object) -> bool:
    """Whether a value is of the type that the schema names."""
    if isinstance(wanted, list):
        collection, inner = wanted
        if collection == "map":
            return isinstance(value, dict) and all(fits(inner, each) for each in value.values())
        return isinstance(value, list) and all(fits(inner, each) for each in value)
    python = {"string": str, "number": int | float, "bool": bool}[wanted]
    return isinstance(value, python) and (wanted == "bool") == isinstance(value, bool)


def test_every_argument_of_every_resource_is_one_that_the_provider_knows(
    made: list[Registered], schema: Mapping[str, Any]
) -> None:
    found = []
    for resource in made:
        if resource.type.startswith("aws:"):
            kind = TERRAFORM_NAMES[resource.type]
            found += list(problems(kind, schema["resource_schemas"][kind]["block"], resource.inputs))
    assert not found


def test_every_argument_of_the_provider_itself_is_one_that_it_knows(
    made: list[Registered], schema: Mapping[str, Any]
) -> None:
    for provider in made:
        if provider.type == "pulumi:providers:aws":
            # Pulumi hands a provider's own arguments over as text.
            texts = {"region"}
            inputs = {
                name: value if name in texts else json.loads(value) for name, value in provider.inputs.items()
            }
            # One that pulumi-aws adds, and answers itself.
            ours = {name: value for name, value in inputs.items() if name != "skipMetadataApiCheck"}
            assert not list(problems("aws", schema["provider"]["block"], ours))


def test_a_wrong_name_a_wrong_type_and_a_missing_argument_are_found(schema: Mapping[str, Any]) -> None:
    block = schema["resource_schemas"]["aws_volume_attachment"]["block"]
    inputs = {"deviceName": 5, "instanceId": "i-1", "volumeIdentity": "vol-1", "id": "x"}
    assert len(list(problems("aws_volume_attachment", block, inputs))) == 3
