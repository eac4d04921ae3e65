"""Unit tier: examples/consumer under Pulumi's mocks, with an endpoint's stack that has the outputs of a real one.

It does NOT prove that the shell line works under a provider, or what a state holds: no resource is made.
"""

from __future__ import annotations

import contextvars
import logging
import os
import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from pulumi.runtime import get_root_resource, mocks, set_all_config, set_mocks
from pulumi.runtime.stack import Stack

from clients.blocks import blocks
from clients.endpoint import ClientEndpoint

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "consumer"
KEY = "Ab3" + "z" * 61
ENDPOINT = ClientEndpoint("https://llm.example.com/v1", KEY, "owner/model", 4096)
OUTPUTS = {
    "endpoint": ENDPOINT.base_url,
    "model": ENDPOINT.model,
    "clients": {"agents": blocks("openai", ENDPOINT), "seatable": blocks("seatable", ENDPOINT)},
}


class Recorder(mocks.Mocks):
    """Answers for the endpoint's stack, and keeps what is asked for."""

    def __init__(self) -> None:
        self.asked: dict[str, mocks.MockResourceArgs] = {}

    def call(self, args: mocks.MockCallArgs) -> Any:
        raise AssertionError(f"the example calls {args.token}")

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        self.asked[args.name] = args
        if args.typ == "pulumi:pulumi:StackReference":
            return args.name, {**args.inputs, "outputs": OUTPUTS, "secretOutputNames": ["clients"]}
        return args.name, dict(args.inputs)


Run = Callable[..., tuple[Recorder, dict[str, Any], dict[str, bool]]]


@pytest.fixture
def run() -> Run:
    """Runs the example: what it asked for, its outputs, and which of its values are secret."""

    def running(config: dict[str, str]) -> tuple[Recorder, dict[str, Any], dict[str, bool]]:
        recorder, outputs, secret = Recorder(), dict[str, Any](), dict[str, bool]()
        quiet = logging.getLogger("tests.example")
        quiet.disabled = True
        set_mocks(recorder, "endpoint-consumer", "dev", False, quiet)
        set_all_config({f"endpoint-consumer:{key}": value for key, value in config.items()})

        @pulumi.runtime.test  # type: ignore[untyped-decorator]
        async def program() -> None:
            env_file = runpy.run_path(str(EXAMPLE / "__main__.py"))["env_file"]
            root = get_root_resource()
            assert isinstance(root, Stack)
            for name, exported in {**root.outputs, "stdin": env_file.stdin}.items():
                output: pulumi.Output[Any] = pulumi.Output.from_input(exported)
                outputs[name], secret[name] = await output.future(), await output.is_secret()

        program()
        return recorder, outputs, secret

    return lambda **changes: contextvars.Context().run(running, {**SETTINGS, **changes})


SETTINGS = {"endpoint": "organization/seatable-vllm/gpu1", "client": "agents", "env_file": "/srv/app/.env"}


def test_the_file_gets_the_settings_of_the_client_on_standard_input_as_a_secret(run: Run) -> None:
    recorder, outputs, secret = run()
    assert recorder.asked["endpoint"].inputs["name"] == SETTINGS["endpoint"]
    assert outputs["stdin"] == OUTPUTS["clients"]["agents"]["openai_env"]  # type: ignore[index]
    assert secret["stdin"]


def test_no_output_and_no_argument_holds_the_key(run: Run) -> None:
    recorder, outputs, _ = run()
    del outputs["stdin"]
    assert KEY not in str(outputs)
    assert outputs == {"endpoint": ENDPOINT.base_url, "model": ENDPOINT.model, "env_file": SETTINGS["env_file"]}
    inputs = recorder.asked["env-file"].inputs
    assert KEY not in str({name: value for name, value in inputs.items() if name != "stdin"})


def test_a_client_that_is_not_there_is_named_with_those_that_are(run: Run) -> None:
    with pytest.raises(pulumi.RunError, match="no client 'nobody', but agents, seatable"):
        run(client="nobody")


def test_the_shell_lines_write_a_file_for_its_owner_alone_start_again_and_remove_it(
    run: Run, tmp_path: Path
) -> None:
    file, started = tmp_path / ".env", tmp_path / "started"
    recorder, outputs, _ = run(env_file=str(file), restart=f"touch {started}")
    inputs = recorder.asked["env-file"].inputs
    environment = {"PATH": os.environ["PATH"], **inputs["environment"]}
    for _ in range(2):
        subprocess.run(
            ["sh", "-c", inputs["create"]], input=outputs["stdin"], env=environment, text=True, check=True
        )
    assert file.read_text() == outputs["stdin"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert started.exists()
    subprocess.run(["sh", "-c", inputs["delete"]], env=environment, check=True)
    assert sorted(tmp_path.iterdir()) == [started]


def test_every_setting_that_the_example_reads_is_in_its_schema_and_the_readme() -> None:
    schema = yaml.safe_load((EXAMPLE / "Pulumi.yaml").read_text())["config"]
    assert set(schema) == {*SETTINGS, "restart"}
    readme = (EXAMPLE / "README.md").read_text()
    assert all(f"pulumi config set {name} " in readme for name in schema)
