"""Unit tier: the whole program, per stack file, under a recorder in Pulumi's place, as `up` and as `preview`.

What is held up is what the program asks the engine for: names, parents, providers, order, secrets, and which
change touches a container. It does NOT prove what the engine or a provider makes of it (no diff, no replacement,
no real resource): that is the engine tier and, on real Docker, the live tier.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi
import pytest
import yaml

from catalog.images import HAPROXY, VLLM_CPU, VLLM_GPU
from checks import watchdog
from components.readiness import capacity_of
from settings import Model
from tests.unit import goldens

if TYPE_CHECKING:
    from tests.conftest import Recorded, RecordProgram, Registered

PASSWORD = "random:index/randomPassword:RandomPassword"
COMMAND = "command:local:Command"
NETWORK = "docker:index/network:Network"
CONTAINER = "docker:index/container:Container"

PROJECT = Path(__file__).resolve().parent.parent.parent
STACKS = goldens.stacks_of("local")
ENGINE, EDGE = "inference-vllm", "edge-haproxy"


def config(**settings: object) -> dict[str, str]:
    """The configuration of a stack as Pulumi hands it over."""
    return {f"seatable-vllm:{key}": json.dumps(value) for key, value in settings.items()}


def client(*cidrs: str, kind: str = "seatable") -> dict[str, object]:
    return {"kind": kind, "cidrs": list(cidrs)}


def texts(value: Any) -> Iterator[str]:
    """Every text within a value, and every text that lies in it in base64."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value
        for blob in re.findall(r"[A-Za-z0-9+/]{32,}={0,2}", value):
            try:
                decoded = base64.b64decode(blob, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                continue
            yield decoded


def released_files(recorded: Recorded) -> dict[str, str]:
    """The edge's files as the release program lays them down."""
    for text in texts(recorded.one("edge-release").inputs["stdin"]):
        if text.startswith("{") and "haproxy.cfg" in text:
            files: dict[str, str] = json.loads(text)
            return files
    raise AssertionError("the release program carries no files")


def label(container: Registered, name: str) -> str | None:
    """The value of one label of a container."""
    return {item["label"]: item["value"] for item in container.inputs["labels"]}.get(name)


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> str:
    """The name of each stack file of this computer."""
    name: str = request.param
    return name


@pytest.fixture
def up(stack: str, record_program: RecordProgram) -> Recorded:
    """One `up` of the stack."""
    return record_program(stack)


@pytest.fixture
def local(record_program: RecordProgram) -> Recorded:
    """One `up` of the stack `local`."""
    return record_program("local")


# What there is


def test_the_stack_asks_for_exactly_what_its_golden_file_says(
    stack: str, up: Recorded, record_program: RecordProgram, update_goldens: bool
) -> None:
    told = goldens.compare(f"{stack}.yaml", up, record_program(stack, preview=True), update=update_goldens)
    assert not told, told


@pytest.mark.parametrize(
    ("model", "mib"), [("Qwen/Qwen3-8B", 15_622), ("owner/unknown", 2_048)], ids=["known", "unknown"]
)
def test_a_machine_is_asked_for_the_room_that_the_weights_take(
    model: str, mib: int, record_program: RecordProgram
) -> None:
    machine = {"kind": "host", "ssh": "ubuntu@gpu1"}
    up = record_program("local", config=config(machine=machine, model={"name": model, "max_model_len": 1024}))
    program = str(up.one("machine-ready").inputs["stdin"])
    assert f"\nweights_mib={mib}\n" in program


CASES: dict[str, tuple[dict[str, str], str]] = {
    "host": (
        config(machine={"kind": "host", "ssh": "ubuntu@gpu1.example:2222", "jump": "me@bastion", "gpus": ["0"]}),
        "gpu",
    ),
    "local-tls": (
        config(
            domain={"host": "llm.example.com", "tls": "private-ca"},
            model={"tool_parser": "hermes", "revision": "main"},
            clients={
                "seatable": client("198.51.100.10/32", "2001:db8::10/128"),
                "agents": client("198.51.100.0/28", kind="openai"),
                "claw": client("127.0.0.3/32", kind="picoclaw"),
                "archi": client("127.0.0.4/32", kind="archi"),
            },
            key_generations={"agents": [1, 2]},
            ports={"edge": 8443, "loopback": 18080},
        ),
        "cpu",
    ),
}
"""Configuration and device of the golden files that belong to no stack file; both have a token for the hub too."""


@pytest.mark.parametrize("case", CASES)
def test_what_no_stack_file_has_is_asked_for_as_its_golden_file_says(
    case: str, record_program: RecordProgram, update_goldens: bool
) -> None:
    settings, device = CASES[case]
    secrets = {"seatable-vllm:hugging_face_token": token()}
    up, preview = (
        record_program(case, settings, secrets=secrets, facts={"device": device}, preview=preview)
        for preview in (False, True)
    )
    told = goldens.compare(f"{case}.yaml", up, preview, update=update_goldens)
    assert not told, told


def test_a_preview_asks_for_the_same_resources_as_an_up(
    stack: str, up: Recorded, record_program: RecordProgram
) -> None:
    assert record_program(stack, preview=True).names == up.names


def test_names_are_unique(up: Recorded) -> None:
    names = [name for _, name in up.names]
    assert len(set(names)) == len(names)


def test_the_defaults_of_the_projects_schema_change_nothing(
    record_program: RecordProgram, local: Recorded
) -> None:
    # The Pulumi CLI fills in the defaults of Pulumi.yaml; mocks and the rehearsal do not.
    schema = yaml.safe_load((PROJECT / "Pulumi.yaml").read_text())["config"]
    filled = record_program("local", config(**{key: entry["default"] for key, entry in schema.items()}))
    assert {resource.name: resource.wire for resource in filled.resources} == {
        resource.name: resource.wire for resource in local.resources
    }
    assert filled.outputs == local.outputs


# Parents, providers, order


def test_every_resource_but_the_components_of_the_line_has_a_component_as_parent_and_its_name_in_front(
    up: Recorded,
) -> None:
    for resource in up.resources:
        parent = resource.request.parent
        if "pulumi:pulumi:Stack::" in parent:
            assert resource.type.startswith("seatable-vllm:index:"), f"{resource.name} lies loose in the stack"
            continue
        above = up.by_urn(parent)
        assert not above.request.custom
        assert resource.name.startswith(f"{above.name}-")


def test_every_component_has_a_type_of_this_package(up: Recorded) -> None:
    for resource in up.resources:
        if not resource.request.custom:
            assert re.fullmatch(r"seatable-vllm:index:[A-Z][A-Za-z]+", resource.type)


def test_every_docker_resource_has_the_machines_own_provider(up: Recorded) -> None:
    # Without it the default provider pings whatever Docker it finds (docker-over-ssh.md 1.1).
    provider = up.one("machine-docker")
    found = [resource for resource in up.resources if resource.type.startswith("docker:")]
    assert len(found) == 3
    for resource in found:
        assert resource.request.provider == f"{provider.urn}::id-of-machine-docker"


def test_every_docker_resource_is_removed_before_another_takes_its_name(up: Recorded) -> None:
    for resource in up.resources:
        if resource.type in (CONTAINER, NETWORK):
            assert resource.request.deleteBeforeReplace
            assert resource.request.deleteBeforeReplaceDefined
            assert list(resource.request.replaceOnChanges) == ["*"]


def test_nothing_is_ignored_protected_or_renamed_in_silence(up: Recorded) -> None:
    for resource in up.resources:
        assert not resource.request.ignoreChanges
        assert not resource.request.aliases
        assert not resource.request.protect
        assert not resource.request.retainOnDelete


def test_every_docker_resource_waits_for_the_machine(up: Recorded) -> None:
    for resource in up.resources:
        if resource.type.startswith("docker:"):
            assert "machine-ready" in up.everything_before(resource), resource.name


def test_the_engine_is_touched_only_with_image_weights_and_files_on_the_disk(up: Recorded) -> None:
    before = up.everything_before(up.one(ENGINE))
    assert {"machine-ready", "inference-image-present", "inference-weights-present", "inference-config",
            "inference-watchdog", "inference-network"} <= before  # fmt: skip


def test_the_edge_is_touched_only_with_its_image_and_a_tried_configuration_on_the_disk(up: Recorded) -> None:
    before = up.everything_before(up.one(EDGE))
    assert {"machine-ready", "edge-image-present", "edge-release"} <= before


def test_no_program_but_the_one_that_looks_at_the_machine_runs_before_the_machine_is_ready(up: Recorded) -> None:
    for command in up.of_type(COMMAND):
        if command.name != "machine-ready":
            assert "machine-ready" in up.everything_before(command), command.name


def test_weights_are_fetched_by_an_image_that_is_there(up: Recorded) -> None:
    assert {"machine-ready", "inference-image-present"} <= up.everything_before(
        up.one("inference-weights-present")
    )


def test_the_edge_is_told_of_a_configuration_only_after_it_is_on_the_disk(up: Recorded) -> None:
    assert {EDGE, "edge-release"} <= up.everything_before(up.one("edge-reload"))


def test_the_last_gate_comes_after_everything_that_runs(up: Recorded) -> None:
    before = up.everything_before(up.one("readiness-gate"))
    commands = {command.name for command in up.of_type(COMMAND)} - {"readiness-gate"}
    assert {ENGINE, EDGE, *commands} <= before


def test_the_gate_is_asked_again_after_a_new_container_and_a_new_configuration(up: Recorded) -> None:
    gate = up.one("readiness-gate")
    assert f"id-of-{ENGINE}" in gate.inputs["triggers"]
    generation = re.findall(r"set-header x-edge-generation (\w+)", released_files(up)["haproxy.cfg"])
    assert generation[0] in gate.inputs["triggers"]


def test_nothing_runs_in_a_circle(up: Recorded) -> None:
    for resource in up.resources:
        assert resource.name not in up.everything_before(resource)


# Commands


def test_every_program_comes_on_standard_input_of_a_fixed_interpreter(up: Recorded) -> None:
    for command in up.of_type(COMMAND):
        # What runs at the end alone does nothing else.
        interpreter = command.inputs.get("delete", command.inputs["create"])
        assert interpreter in ("bash -s", "python3 -")
        assert command.inputs["create"] == ("true" if "delete" in command.inputs else interpreter)
        assert command.inputs["stdin"]
        assert set(command.wire) <= {
            "create",
            "delete",
            "stdin",
            "triggers",
            "environment",
            "addPreviousOutputInEnv",
            "logging",
        }
        assert command.inputs["addPreviousOutputInEnv"] is False


def test_every_program_talks_to_the_docker_of_the_provider(up: Recorded) -> None:
    host = up.one("machine-docker").inputs["host"]
    for command in up.of_type(COMMAND):
        assert command.inputs["environment"] == {"DOCKER_HOST": host}


# The containers


@pytest.fixture(params=[ENGINE, EDGE])
def container(request: pytest.FixtureRequest, up: Recorded) -> Registered:
    """Each container of each stack."""
    return up.one(request.param)


def test_a_container_comes_back_after_a_crash_and_a_reboot(container: Registered) -> None:
    # vLLM ends with status 0 when its engine dies: `on-failure` would leave it down (vllm.md 0.3).
    assert container.inputs["restart"] == "unless-stopped"
    assert container.inputs["mustRun"] is True


def test_a_container_has_bounded_logs(container: Registered) -> None:
    assert container.inputs["logDriver"] == "json-file"
    assert container.inputs["logOpts"] == {"max-size": "10m", "max-file": "3"}


def test_a_container_carries_its_stack_and_its_machine(stack: str, container: Registered) -> None:
    assert label(container, "seatable-vllm.stack") == stack
    assert label(container, "seatable-vllm.machine") == "ABCD:EFGH:IJKL"
    assert stack in container.inputs["name"]


def test_the_network_carries_the_stack_too(stack: str, up: Recorded) -> None:
    network = up.one("inference-network")
    assert {"label": "seatable-vllm.stack", "value": stack} in network.inputs["labels"]
    assert stack in network.inputs["name"]


def test_no_container_publishes_a_port_beyond_the_loopback_address(container: Registered) -> None:
    for port in container.inputs.get("ports", []):
        assert ipaddress.ip_address(port["ip"]).is_loopback
    assert "publishAllPorts" not in container.inputs


def test_the_edge_listens_on_the_loopback_address_alone(up: Recorded) -> None:
    binds = re.findall(r"^\s*bind (\S+)", released_files(up)["haproxy.cfg"], flags=re.MULTILINE)
    assert len(binds) == 1
    assert binds[0].startswith("127.0.0.1:")


def test_the_edge_passes_on_to_the_port_that_the_engine_is_published_on(up: Recorded) -> None:
    (port,) = up.one(ENGINE).inputs["ports"]
    (server,) = re.findall(r"^\s*server \S+ (\S+)", released_files(up)["haproxy.cfg"], flags=re.MULTILINE)
    assert server == f"{port['ip']}:{port['external']}"


def test_on_a_gpu_the_engine_may_write_inside_its_container_and_has_gpus_and_nothing_else_is_another(
    record_program: RecordProgram, local: Recorded
) -> None:
    engine = record_program("local", facts={"device": "gpu"}).one(ENGINE).inputs
    cpu = local.one(ENGINE).inputs
    differing = {name for name in {*engine, *cpu} if engine.get(name) != cpu.get(name)}
    assert differing == {"image", "envs", "labels", "readOnly", "tmpfs", "gpus"}
    assert (engine["readOnly"], engine.get("tmpfs"), engine["gpus"]) == (False, None, "all")


@pytest.mark.parametrize("name", [ENGINE, EDGE])
def test_a_stop_is_given_time(name: str, up: Recorded) -> None:
    # Unset means SIGKILL at once (docker-over-ssh.md 1.3).
    inputs = up.one(name).inputs
    assert inputs["destroyGraceSeconds"] >= 30
    assert inputs["stopTimeout"] >= 30


def test_the_engine_may_drain_longer_than_its_requests_take_to_end(up: Recorded) -> None:
    options = engine_options(up)
    assert up.one(ENGINE).inputs["stopTimeout"] >= options["shutdown-timeout"] + 30


def test_the_health_check_is_our_watchdog_with_time_for_its_own_patience(up: Recorded) -> None:
    check = up.one(ENGINE).inputs["healthcheck"]
    assert check["tests"] == ["CMD", "python3", "/etc/seatable-vllm/vllm/watchdog.py"]
    assert seconds(check["timeout"]) > watchdog.COMPLETION_SECONDS + watchdog.COUNTER_SECONDS
    assert seconds(check["startPeriod"]) >= 15 * 60
    assert check["retries"] == 3


def seconds(duration: str) -> int:
    """A duration as Go writes it."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(\d+)s", duration)
    assert found, duration
    hours, minutes, rest = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + rest


def test_durations_are_written_as_docker_gives_them_back(up: Recorded) -> None:
    # "60s" comes back as "1m0s": a difference, and a new container, at every run (docker-over-ssh.md 1.4).
    check = up.one(ENGINE).inputs["healthcheck"]
    for name in ("interval", "timeout", "startPeriod"):
        total = seconds(check[name])
        hours, minutes, rest = total // 3600, total // 60 % 60, total % 60
        canonical = (f"{hours}h" if hours else "") + (f"{minutes}m" if total >= 60 else "") + f"{rest}s"
        assert check[name] == canonical


@pytest.mark.parametrize(("device", "image", "gpus"), [("cpu", VLLM_CPU, None), ("gpu", VLLM_GPU, "all")])
def test_the_machines_device_decides_over_image_and_gpus(
    device: str, image: Any, gpus: str | None, record_program: RecordProgram
) -> None:
    recorded = record_program("local", facts={"device": device})
    engine = recorded.one(ENGINE).inputs
    assert engine["image"] == image.official
    assert engine.get("gpus") == gpus
    assert recorded.outputs["machine"].value["device"] == device


def test_other_images_of_the_stack_are_taken_and_never_replaced_by_stand_ins(
    record_program: RecordProgram,
) -> None:
    digest = f"mirror.example.com/vllm@sha256:{'0' * 64}"
    recorded = record_program(
        "local", config(images={"vllm": digest, "haproxy": "mirror.example.com/haproxy:3.2"})
    )
    assert recorded.one(ENGINE).inputs["image"] == digest
    assert recorded.one(EDGE).inputs["image"] == "mirror.example.com/haproxy:3.2"
    for name in ("inference-image-present", "edge-image-present"):
        assert "seatable-vllm/" not in recorded.one(name).inputs["stdin"].replace("seatable-vllm:", "")


def test_the_pinned_images_are_used_otherwise(local: Recorded) -> None:
    assert local.one(ENGINE).inputs["image"] == VLLM_CPU.official
    assert local.one(EDGE).inputs["image"] == HAPROXY.official


def test_another_machine_gets_other_containers(record_program: RecordProgram, local: Recorded) -> None:
    moved = record_program("local", facts={"identity": "MNOP"})
    for name in (ENGINE, EDGE):
        assert (
            label(moved.one(name), "seatable-vllm.machine")
            == "MNOP"
            != label(local.one(name), "seatable-vllm.machine")
        )


def test_two_stacks_share_no_name_port_or_folder(record_program: RecordProgram) -> None:
    first, second = (record_program(name) for name in ("local", "second"))
    for name in (ENGINE, EDGE):
        one, other = first.one(name).inputs, second.one(name).inputs
        assert one["name"] != other["name"]
        assert not {v["hostPath"] for v in one["volumes"]} & {v["hostPath"] for v in other["volumes"]}
    assert first.one("inference-network").inputs["name"] != second.one("inference-network").inputs["name"]
    ports = [recorded.one(ENGINE).inputs["ports"][0]["external"] for recorded in (first, second)]
    endpoints = [recorded.outputs["endpoint"].value for recorded in (first, second)]
    assert len({*ports, *endpoints}) == 4


# Secrets


@pytest.mark.parametrize("preview", [False, True], ids=["up", "preview"])
def test_no_key_is_anywhere_in_what_the_wire_does_not_mark_as_secret(
    preview: bool, stack: str, record_program: RecordProgram
) -> None:
    recorded = record_program(stack, preview=preview)
    keys = recorded.keys
    assert len(keys) >= 2
    for resource in recorded.resources:
        for text in texts(json.loads(resource.public_text)):
            for name, key in keys.items():
                assert key not in text, f"{name} is in the open in {resource.name}"


def test_a_key_is_given_to_programs_on_standard_input_and_to_nothing_else(up: Recorded) -> None:
    for resource in up.resources:
        for field, value in resource.inputs.items():
            holds = any(key in text for text in texts(value) for key in up.keys.values())
            if holds:
                assert (resource.type, field) == (COMMAND, "stdin")
                assert resource.is_secret("stdin")


def test_the_programs_that_hold_a_key_are_the_three_that_need_one(up: Recorded) -> None:
    holders = {
        command.name
        for command in up.of_type(COMMAND)
        if any(key in text for text in texts(command.inputs["stdin"]) for key in up.keys.values())
    }
    assert holders == {"inference-config", "edge-release", "readiness-gate"}


def test_the_engines_key_is_in_no_clients_text_and_not_in_the_gate(up: Recorded) -> None:
    key = up.keys["keys-engine"]
    assert not any(key in text for output in up.outputs.values() for text in texts(output.value))
    assert not any(key in text for text in texts(up.one("readiness-gate").inputs["stdin"]))


def test_no_component_registers_a_key_in_the_open(up: Recorded) -> None:
    public = json.dumps({urn: _without_secrets(outputs) for urn, outputs in up.component_outputs.items()})
    assert not any(key in public for key in up.keys.values())


def _without_secrets(value: Any) -> Any:
    signature = "4dabf18193072939515e22adb298388d"
    if isinstance(value, Mapping):
        if signature in value:
            return None
        return {key: _without_secrets(item) for key, item in value.items()}
    return [_without_secrets(item) for item in value] if isinstance(value, list) else value


def test_a_program_that_holds_a_key_is_secret_in_a_preview_too(record_program: RecordProgram) -> None:
    preview = record_program("local", preview=True)
    for name in ("inference-config", "edge-release", "readiness-gate"):
        assert preview.one(name).is_secret("stdin")
        assert preview.one(name).is_unknown("stdin")


def test_every_key_has_64_letters_and_digits(up: Recorded) -> None:
    for password in up.of_type(PASSWORD):
        assert password.inputs == {"length": 64, "special": False}


def test_every_client_and_the_engine_have_a_key_of_their_own(up: Recorded) -> None:
    clients = set(up.outputs["clients"].value)
    assert set(up.keys) == {"keys-engine", *(f"keys-{name}-1" for name in clients)}


def token() -> str:
    """What looks like a token of the hub; put together here, so that no file holds one."""
    return "hf_" + "Zz9" * 8


@pytest.mark.parametrize("as_secret", [True, False], ids=["encrypted", "in the clear"])
def test_the_hugging_face_token_goes_to_the_download_alone_and_is_a_secret_there(
    as_secret: bool, record_program: RecordProgram
) -> None:
    setting = {"seatable-vllm:hugging_face_token": token()}
    recorded = record_program("local", {} if as_secret else setting, secrets=setting if as_secret else {})
    holders = {r.name for r in recorded.resources if any(token() in text for text in texts(r.inputs))}
    assert holders == {"inference-weights-present"}
    assert recorded.one("inference-weights-present").is_secret("stdin")
    assert token() not in recorded.one("inference-weights-present").public_text
    assert not any(token() in text for output in recorded.outputs.values() for text in texts(output.value))


# What the clients are told


def public_outputs(recorded: Recorded) -> dict[str, Any]:
    return {name: output.value for name, output in recorded.outputs.items() if not output.secret}


def test_the_endpoint_is_a_base_url_that_everybody_may_see(up: Recorded) -> None:
    endpoint = up.outputs["endpoint"]
    assert endpoint.value.endswith("/v1")
    assert not endpoint.secret


def test_the_outputs_wait_for_the_last_gate(up: Recorded) -> None:
    # All outputs of a stack are registered in one go: one that waits holds back all.
    assert "readiness-gate" in up.outputs["endpoint"].waits_for


def test_model_context_parser_and_machine_are_told_in_the_open(local: Recorded) -> None:
    found = public_outputs(local)
    assert found["model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert found["max_model_len"] == 8192
    assert found["tool_parser"] == "hermes"
    assert found["machine"]["kind"] == "local"
    assert found["machine"]["address"] == "127.0.0.1"
    assert found["machine"]["identity"] == "ABCD:EFGH:IJKL"


def test_switched_off_tools_are_told_as_none(record_program: RecordProgram) -> None:
    recorded = record_program("local", config(model={"tool_parser": "none"}))
    assert recorded.outputs["tool_parser"].value == "none"


@pytest.mark.parametrize("name", ["clients", "openai_env", "curl", "seatable_yaml", "seatable_env"])
def test_an_output_that_holds_a_key_is_a_secret_as_a_whole(name: str, up: Recorded) -> None:
    assert up.outputs[name].secret
    assert any(key in text for text in texts(up.outputs[name].value) for key in up.keys.values())


def test_no_output_that_everybody_may_see_holds_a_key(up: Recorded) -> None:
    for name, value in public_outputs(up).items():
        assert not any(key in text for text in texts(value) for key in up.keys.values()), name


def test_every_client_gets_its_own_key_and_the_texts_of_its_kind(record_program: RecordProgram) -> None:
    recorded = record_program("second")
    clients = recorded.outputs["clients"].value
    assert {name: texts_["key"] for name, texts_ in clients.items()} == {
        name: recorded.keys[f"keys-{name}-1"] for name in ("seatable", "agents")
    }
    assert {"seatable_yaml", "seatable_env", "openai_env", "curl"} <= set(clients["seatable"])
    assert {"openai_env", "curl"} <= set(clients["agents"])
    assert "seatable_yaml" not in clients["agents"]
    for name, texts_ in clients.items():
        other = recorded.keys["keys-agents-1" if name == "seatable" else "keys-seatable-1"]
        assert not any(other in text for text in texts_.values())


def test_the_texts_of_a_client_name_the_endpoint_and_model_of_the_stack(up: Recorded) -> None:
    for client_texts in up.outputs["clients"].value.values():
        assert up.outputs["endpoint"].value in client_texts["openai_env"]
        assert up.outputs["model"].value in client_texts["openai_env"]


@pytest.mark.parametrize("name", ["seatable_yaml", "seatable_env"])
def test_the_short_way_to_seatables_text_is_that_of_the_first_seatable_client(
    name: str, record_program: RecordProgram
) -> None:
    clients = {
        "agents": client("127.0.0.2/32", kind="openai"),
        "b": client("198.51.100.1/32"),
        "c": client("::1/128"),
    }
    recorded = record_program("local", config(clients=clients))
    assert recorded.outputs[name].value == recorded.outputs["clients"].value["b"][name]


def test_without_a_seatable_client_there_is_no_short_way_to_its_texts(record_program: RecordProgram) -> None:
    recorded = record_program("local", config(clients={"agents": client("127.0.0.2/32", kind="openai")}))
    assert not {"seatable_yaml", "seatable_env"} & set(recorded.outputs)


AGENTS = {
    "seatable": client("127.0.0.1/32"),
    "first": client("127.0.0.2/32", kind="picoclaw"),
    "second": client("127.0.0.3/32", kind="picoclaw"),
    "third": client("127.0.0.4/32", kind="archi"),
}
KEYLESS = {"picoclaw_json": "first", "archi_yaml": "third"}
KEYLESS_BY_LOOPBACK = {"picoclaw_loopback_json": "first", "archi_loopback_yaml": "third"}
WITH_KEY = {"picoclaw_security": "first", "archi_env": "third"}


def test_the_texts_of_agents_are_those_of_the_first_of_each_kind_and_only_those_with_a_key_are_secret(
    record_program: RecordProgram,
) -> None:
    recorded = record_program("local", config(clients=AGENTS, ports={"loopback": 18080}))
    for name, owner in {**KEYLESS, **KEYLESS_BY_LOOPBACK, **WITH_KEY}.items():
        output = recorded.outputs[name]
        assert output.value == recorded.outputs["clients"].value[owner][name]
        assert output.secret == (name in WITH_KEY), name
        assert any(key in output.value for key in recorded.keys.values()) == (name in WITH_KEY), name
    assert recorded.keys["keys-first-1"] in recorded.outputs["picoclaw_security"].value


def test_texts_for_the_listener_without_a_key_are_told_only_where_there_is_one(
    record_program: RecordProgram,
) -> None:
    without = record_program("local", config(clients=AGENTS)).outputs
    assert not set(KEYLESS_BY_LOOPBACK) & set(without)
    assert set(KEYLESS) <= set(without)
    recorded = record_program("local", config(clients=AGENTS, ports={"loopback": 18080}))
    for name in KEYLESS_BY_LOOPBACK:
        assert recorded.outputs["loopback"].value in recorded.outputs[name].value


def test_the_context_that_agents_are_told_is_the_one_that_is_served(record_program: RecordProgram) -> None:
    recorded = record_program("local", config(clients=AGENTS, model={"max_model_len": 4096}))
    told = json.loads(recorded.outputs["picoclaw_json"].value)["agents"]["defaults"]
    assert told["context_window"] == recorded.outputs["max_model_len"].value == 4096
    assert told["max_tokens"] < 4096


def test_what_the_model_cannot_do_for_a_client_is_a_warning_of_the_program_once_for_each_cause(
    record_program: RecordProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", heard.append)
    clients = AGENTS | {"s": client("127.0.0.1/32")}
    record_program("local", config(clients=clients, model={"tool_parser": "none"}))
    agents, seatable = heard
    assert "model.tool_parser" in agents
    assert seatable.startswith("seatable, s: HuggingFaceTB/SmolLM2-135M-Instruct has 0.14 billion parameters")


def test_the_curl_line_is_that_of_a_client_whose_key_works_from_here(record_program: RecordProgram) -> None:
    clients = {"far": client("198.51.100.1/32"), "near": client("127.0.0.1/32", kind="openai")}
    recorded = record_program("local", config(clients=clients))
    assert recorded.keys["keys-near-1"] in recorded.outputs["curl"].value


def test_the_gate_proves_the_endpoint_with_the_key_and_address_of_a_client_from_here(
    record_program: RecordProgram,
) -> None:
    clients = {"far": client("198.51.100.1/32"), "near": client("127.0.0.7/32", kind="openai")}
    program = record_program("local", config(clients=clients)).one("readiness-gate").inputs["stdin"]
    order = json.loads(re.findall(r"gate\.main\('(.*)'\)", program)[0])
    assert order["target"]["source"] == "127.0.0.7"
    assert order["target"]["key"] == record_program("local", config(clients=clients)).keys["keys-near-1"]
    assert order["target"]["max_model_len"] == 8192
    assert order["target"]["tools"] is True


def test_the_reference_of_the_image_is_told(up: Recorded) -> None:
    # consumers.md section 7: "image reference".
    image = up.one(ENGINE).inputs["image"]
    assert any(image in text for text in texts(public_outputs(up)))


def test_the_effective_list_of_allowed_addresses_is_told(record_program: RecordProgram) -> None:
    # consumers.md section 7: "effective allow-list".
    found = set(texts(public_outputs(record_program("second"))))
    assert {"127.0.0.1/32", "127.0.0.2/32"} <= {word for text in found for word in re.split(r"[\s,]+", text)}


def test_whether_the_model_sees_pictures_is_told(up: Recorded) -> None:
    # consumers.md section 7: "vision yes/no"; SeaTable's OCR needs it (S31).
    assert any("vision" in text for text in texts(public_outputs(up)))


# Keys in rotation


def test_while_a_key_is_rotated_both_are_valid_and_the_new_one_is_handed_out(
    record_program: RecordProgram,
) -> None:
    recorded = record_program("local", config(key_generations={"seatable": [1, 2]}))
    old, new = recorded.keys["keys-seatable-1"], recorded.keys["keys-seatable-2"]
    valid = released_files(recorded)["client-keys.map"]
    assert f"{old} seatable\n" in valid
    assert f"{new} seatable\n" in valid
    assert recorded.outputs["clients"].value["seatable"]["key"] == new
    assert new in recorded.outputs["curl"].value
    assert old not in recorded.outputs["seatable_env"].value


def test_after_the_rotation_the_old_key_is_gone_everywhere(record_program: RecordProgram) -> None:
    recorded = record_program("local", config(key_generations={"seatable": [2]}))
    assert "keys-seatable-1" not in recorded.keys
    assert "keys-seatable-2" in recorded.keys


# What a change touches


BEFORE = config(clients={"seatable": client("127.0.0.1/32"), "agents": client("127.0.0.2/32", kind="openai")})

LIVE_CHANGES: dict[str, dict[str, str]] = {
    "a client is added": config(
        clients={
            "seatable": client("127.0.0.1/32"),
            "agents": client("127.0.0.2/32", kind="openai"),
            "third": client("198.51.100.0/28"),
        }
    ),
    "a client is removed": config(clients={"seatable": client("127.0.0.1/32")}),
    "a client is renamed": config(
        clients={"seatable": client("127.0.0.1/32"), "robots": client("127.0.0.2/32", kind="openai")}
    ),
    "addresses are changed": config(
        clients={"seatable": client("127.0.0.0/8"), "agents": client("2001:db8::/64", kind="openai")}
    ),
    "a key is added": {**BEFORE, **config(key_generations={"agents": [1, 2]})},
    "a key is replaced": {**BEFORE, **config(key_generations={"seatable": [2]})},
}


@pytest.mark.parametrize("change", list(LIVE_CHANGES))
def test_no_container_is_touched_when(change: str, record_program: RecordProgram) -> None:
    before, after = record_program("local", BEFORE), record_program("local", LIVE_CHANGES[change])
    for name in (ENGINE, EDGE, "inference-network", "machine-docker"):
        assert after.one(name).wire == before.one(name).wire
        assert after.everything_before(after.one(name)) - before.everything_before(before.one(name)) <= set(
            after.keys
        )
    assert released_files(after) != released_files(before), "the change has reached nothing"


@pytest.mark.parametrize("change", list(LIVE_CHANGES))
def test_the_edge_is_told_and_the_endpoint_proved_again_when(change: str, record_program: RecordProgram) -> None:
    before, after = record_program("local", BEFORE), record_program("local", LIVE_CHANGES[change])
    for name in ("edge-release", "edge-reload"):
        assert after.one(name).inputs["stdin"] != before.one(name).inputs["stdin"]
        # A trigger would remove and make the resource again; a change of its program only runs it again.
        assert after.one(name).inputs["triggers"] == before.one(name).inputs["triggers"]
    assert after.one("readiness-gate").inputs["triggers"] != before.one("readiness-gate").inputs["triggers"]


@pytest.mark.parametrize(
    ("change", "touched"),
    [
        (config(model={"max_model_len": 4096}), {ENGINE}),
        (config(model={"extra_args": {"max-num-seqs": 8}}), {ENGINE}),
        (config(model={"tool_parser": "none"}), {ENGINE}),
        (config(model={"name": "owner/other"}), {ENGINE}),
        (config(ports={"engine": 18002}), {ENGINE}),
        (config(ports={"edge": 8082}), {EDGE}),
        (config(images={"vllm": "mirror.example.com/vllm:1"}), {ENGINE}),
        (config(images={"haproxy": "mirror.example.com/haproxy:1"}), {EDGE}),
        (config(machine={"kind": "local", "data_dir": "/srv/elsewhere"}), {ENGINE, EDGE}),
    ],
)
def test_a_change_touches_the_container_it_is_about_and_no_other(
    change: dict[str, str], touched: set[str], record_program: RecordProgram, local: Recorded
) -> None:
    after = record_program("local", change)
    assert {name for name in (ENGINE, EDGE) if after.one(name).wire != local.one(name).wire} == touched


def engine_options(recorded: Recorded) -> dict[str, Any]:
    """vLLM's options as they are written to the machine."""
    for text in texts(recorded.one("inference-config").inputs["stdin"]):
        if "api-key:" in text:
            options: dict[str, Any] = yaml.safe_load(text)
            return options
    raise AssertionError("no options are written")


def test_the_engine_reads_the_options_of_the_stack(record_program: RecordProgram) -> None:
    recorded = record_program("local", config(model={"max_model_len": 4096, "extra_args": {"dtype": "half"}}))
    options = engine_options(recorded)
    assert options["max-model-len"] == recorded.outputs["max_model_len"].value == 4096
    assert options["dtype"] == "half"
    assert options["served-model-name"] == recorded.outputs["model"].value
    assert options["api-key"] == [recorded.keys["keys-engine"]]


def test_the_options_and_keys_of_the_engine_are_written_for_their_owner_alone(up: Recorded) -> None:
    assert re.search(r"^chmod 0600 ", up.one("inference-config").inputs["stdin"], flags=re.MULTILINE)


def test_files_go_where_the_containers_look_for_them(up: Recorded) -> None:
    outside = {volume["containerPath"]: volume["hostPath"] for volume in up.one(ENGINE).inputs["volumes"]}
    for name, file in (("inference-config", "config.yaml"), ("inference-watchdog", "watchdog.py")):
        (path,) = re.findall(r"^path=(.*)$", up.one(name).inputs["stdin"], flags=re.MULTILINE)
        assert shlex.split(path) == [f"{outside['/etc/seatable-vllm/vllm']}/{file}"]
    (edge,) = up.one(EDGE).inputs["volumes"]
    (folder,) = re.findall(r"^folder=(\S+)", up.one("edge-release").inputs["stdin"], flags=re.MULTILINE)
    assert folder == edge["hostPath"]


# A preview


def test_a_preview_shows_what_can_be_known_of_the_containers(stack: str, record_program: RecordProgram) -> None:
    preview, made = record_program(stack, preview=True), record_program(stack)
    for name in (ENGINE, EDGE):
        shown, real = preview.one(name), made.one(name)
        for field in ("name", "restart", "command", "volumes", "logOpts", "healthcheck", "ports", "networkMode"):
            assert shown.inputs.get(field) == real.inputs.get(field)
        assert shown.is_unknown("image")


def test_a_preview_promises_no_output_that_it_cannot_know(record_program: RecordProgram) -> None:
    preview = record_program("local", preview=True)
    for name in ("clients", "openai_env", "curl", "seatable_yaml", "seatable_env"):
        assert not preview.outputs[name].known
        assert preview.outputs[name].secret
    assert preview.outputs["model"].value == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_a_preview_has_the_same_outputs_by_name(stack: str, up: Recorded, record_program: RecordProgram) -> None:
    assert set(record_program(stack, preview=True).outputs) == set(up.outputs)


# Bad input


@pytest.mark.parametrize("preview", [False, True], ids=["up", "preview"])
def test_a_bad_configuration_ends_the_program_with_all_problems_before_anything_is_asked_for(
    preview: bool, record_program: RecordProgram
) -> None:
    bad = {
        **config(ports={"edge": 1}, clients={"seatable": client("0.0.0.0/0")}),
        "seatable-vllm:typo": "1",
        "seatable-vllm:machine": "local",
    }
    recorded = record_program("local", bad, preview=preview, may_fail=True)
    assert isinstance(recorded.error, pulumi.RunError)
    for key in ("ports.edge", "clients.seatable.cidrs.0", "typo", "machine"):
        assert f"seatable-vllm:{key}: " in str(recorded.error)
    assert recorded.resources == ()


def test_a_docker_elsewhere_ends_the_program_before_anything_is_asked_for(record_program: RecordProgram) -> None:
    far = {"DOCKER_HOST": "ssh://ubuntu@gpu1.example.com"}
    recorded = record_program("local", environment=far, may_fail=True)
    assert isinstance(recorded.error, pulumi.RunError)
    assert "DOCKER_HOST=ssh://ubuntu@gpu1.example.com" in str(recorded.error)
    assert recorded.resources == ()


def test_the_docker_of_this_computer_is_the_one_that_docker_itself_would_take(
    record_program: RecordProgram,
) -> None:
    recorded = record_program("local", environment={"DOCKER_HOST": "unix:///run/user/1000/docker.sock"})
    assert recorded.one("machine-docker").inputs["host"] == "unix:///run/user/1000/docker.sock"


def test_settings_of_other_providers_are_none_of_our_business(
    record_program: RecordProgram, local: Recorded
) -> None:
    recorded = record_program("local", {"aws:region": "eu-central-1", "pulumi:tags": "x"})
    assert recorded.names == local.names


def test_what_the_gate_says_of_the_engines_room_becomes_an_output_beside_the_forecast() -> None:
    told = "the engine answers after 3 s\nthe engine holds 46,592 tokens, 5 requests of full length at once\n"
    room = {"tokens": 46592, "requests": 5}
    assert capacity_of(told, Model(), "cpu") == {**room, "forecast_tokens": 46592}
    assert capacity_of(told, Model(), "gpu") == {**room, "forecast_tokens": None}
    assert capacity_of(told, Model(name="owner/other"), "cpu") == {**room, "forecast_tokens": None}
    earlier = "the engine holds 46592 tokens, 5.6875 requests at full length\n"
    assert capacity_of(earlier, Model(), "gpu") == {**room, "forecast_tokens": None}, (
        "printed by an earlier version"
    )
    assert capacity_of("the engine answers after 3 s\n", Model(), "cpu") is None


# What the engine's container may not do


def test_every_container_that_a_program_runs_for_a_moment_is_confined_too(up: Recorded) -> None:
    programs = [str(each.inputs.get("stdin", "")) for each in up.of_type("command:local:Command")]
    runs = [run[:400] for program in programs for run in re.split(r"docker run\b", program)[1:]]
    assert len(runs) >= 2
    for run in runs:
        for option in ("--security-opt no-new-privileges", "--pids-limit", "--cap-drop ALL"):
            assert option in run


def test_the_number_of_the_engines_processes_is_limited_each_time_its_container_is_made(up: Recorded) -> None:
    limit = up.one("inference-processes")
    assert "--pids-limit" in str(limit.inputs["stdin"])
    assert ENGINE in up.everything_before(limit)
