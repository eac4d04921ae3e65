"""Every way in which `scripts/up` can fail ends with a failure status and with its own cause in plain words, last.

All rows fail on one stack, one after the other, and each begins with whatever is left by those before it, if by
any. At the end the stack's file is right, and `up` has to take over whatever is there. (`scripts/test` runs those
that end before an engine is made in a process of their own, so on another stack: they leave nothing behind.)

What this does not prove: failures that only a GPU has, a gated model and an unknown one on a hub that can be
reached (here the hub may well be out of reach, which is a row of its own), Docker's own disk being full, and the
Pulumi CLI's way of passing these texts on.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.commands.run_log import LOGS
from tests.live.conftest import Shared
from tests.live.faults_support import (
    assert_explained,
    assert_refused,
    container_exists,
    doctor,
    end_of,
    listener,
    one_token,
    problems,
    small_disk,
)
from tests.live.harness import Checkout, Deployment, docker_client, free_ports, wait_until

# Those that share a stack come first, and its engine makes room; `make_stack` is what tells them apart.
pytestmark = pytest.mark.usefixtures("make_stack")

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
LONGEST = 8192
"""Tokens of context that the model was made for."""

ELSEWHERE = "tcp://192.0.2.1:2376"
"""An address that is set aside for documentation."""

SMALL_DISK_MIB = 64


@pytest.fixture(scope="module")
def failing(checkout: Checkout, _shared: Shared) -> Iterator[Deployment]:
    """The one stack that everything here fails on. Purged at the end with its file in order again."""
    _shared.release()
    stack = Deployment(checkout, "failing")
    right = stack.settings
    yield stack
    stack.write(right)
    stack.purge()


@pytest.fixture(scope="module")
def right(failing: Deployment) -> dict[str, Any]:
    """What the stack's file should say."""
    return failing.settings


@pytest.fixture
def stack(failing: Deployment, right: dict[str, Any]) -> Iterator[Deployment]:
    """The stack with its file in order, before and after."""
    failing.write(right)
    yield failing
    failing.write(right)


def up(stack: Deployment, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`scripts/up` of the stack, whatever comes of it."""
    return stack.checkout.run("up", stack.stack, "--rehearse", environment=environment)


def everything(stack: Deployment) -> dict[str, object]:
    """What there is of the stack: files with their contents' age, except logs of runs; containers, networks."""
    client = docker_client()
    label = {"label": f"seatable-vllm.stack={stack.stack}"}
    files: dict[str, int] = {}
    # What is being written may be renamed while it is looked at.
    for folder, folders, names in os.walk(stack.state_dir):
        if Path(folder) == stack.state_dir and LOGS in folders:
            folders.remove(LOGS)
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                files[str(path)] = path.stat().st_mtime_ns
    containers = [
        (each.id, each.status) for each in client.containers.list(all=True, filters=label, ignore_removed=True)
    ]
    return {
        "files": {name: age for name, age in files.items() if "/data/cache/" not in name},
        "containers": sorted(containers),
        "networks": sorted(each.id for each in client.networks.list(filters=label)),
    }


# --- input that is refused before anything is touched


@pytest.mark.beside
@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "yaml",
            'config: {"seatable-vllm:ports": {edge: 8080\n',
            (r"Pulumi\.\S+\.yaml", r"line \d", "cannot be read"),
        ),
        (
            "key",
            "config: {'seatable-vllm:modle': {}}\n",
            ("seatable-vllm:modle", "no such setting", r"known: .*model"),
        ),
        (
            "nested-key",
            "config: {'seatable-vllm:model': {max_len: 5}}\n",
            (r"seatable-vllm:model\.max_len", "no such setting"),
        ),
        (
            "cidr",
            "config: {'seatable-vllm:clients': {office: {kind: openai, cidrs: ['10.1.2.3/8']}}}\n",
            (r"seatable-vllm:clients\.office\.cidrs", r"10\.1\.2\.3/8", r"10\.0\.0\.0/8"),
        ),
        (
            "open-to-the-world",
            "config: {'seatable-vllm:clients': {office: {kind: openai, cidrs: ['0.0.0.0/0']}}}\n",
            (r"seatable-vllm:clients\.office\.cidrs", r"0\.0\.0\.0/0", "name the addresses"),
        ),
        (
            "context",
            f"config: {{'seatable-vllm:model': {{max_model_len: {LONGEST + 1}}}}}\n",
            (r"seatable-vllm:model\.max_model_len", str(LONGEST + 1), rf"\b{LONGEST}\b"),
        ),
        (
            "tool-parser",
            "config: {'seatable-vllm:model': {tool_parser: no_such_parser}}\n",
            (r"seatable-vllm:model\.tool_parser", "no_such_parser", "it has .*hermes"),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_a_stack_file_that_cannot_be_meant_is_refused_by_name_and_nothing_is_touched(
    stack: Deployment, name: str, text: str, words: tuple[str, ...]
) -> None:
    before = everything(stack)
    stack.stack_file.write_text(text)
    assert_refused(up(stack), *words)
    assert everything(stack) == before


@pytest.mark.beside
def test_a_stack_without_a_file_is_refused_with_the_names_of_those_that_have_one(stack: Deployment) -> None:
    done = stack.checkout.run("up", "lokal", "--rehearse")
    assert_refused(done, "lokal", r"Pulumi\.lokal\.yaml", stack.stack)
    assert not (stack.checkout.path / ".state" / "lokal").exists()


# --- a Docker that is not this computer's, or is not there


@dataclass(frozen=True)
class Environment:
    """Variables that lead astray, made in a folder of the test's own."""

    variables: Callable[[Path], Mapping[str, str]]
    cause: str
    change: str


def far_context(folder: Path) -> Mapping[str, str]:
    """A Docker context of another computer, in a configuration of its own."""
    environment = {"DOCKER_CONFIG": str(folder)}
    command = ["docker", "context", "create", "far", "--docker", f"host={ELSEWHERE}"]
    subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=True)
    return environment | {"DOCKER_CONTEXT": "far"}


def current_far_context(folder: Path) -> Mapping[str, str]:
    """The same, chosen by `docker context use` and not by a variable."""
    variables = far_context(folder)
    configuration = folder / "config.json"
    known = json.loads(configuration.read_text()) if configuration.exists() else {}
    configuration.write_text(json.dumps({**known, "currentContext": "far"}))
    return {"DOCKER_CONFIG": variables["DOCKER_CONFIG"]}


ENVIRONMENTS = {
    "nobody-listens": Environment(
        lambda folder: {"DOCKER_HOST": f"unix://{folder}/nobody.sock"}, r"Docker does not answer", r"[Ss]tart"
    ),
    "another-computer": Environment(
        lambda _: {"DOCKER_HOST": ELSEWHERE}, r"DOCKER_HOST.*not this computer", "unset"
    ),
    "context-elsewhere": Environment(far_context, r"DOCKER_CONTEXT=far.*not this computer", "unset|context use"),
    "current-context-elsewhere": Environment(
        current_far_context, r"context 'far'.*not this computer", "docker context use"
    ),
    "no-such-context": Environment(
        lambda folder: {"DOCKER_CONFIG": str(folder), "DOCKER_CONTEXT": "gone"},
        r"context 'gone'",
        "DOCKER_CONTEXT",
    ),
    "tls-variables": Environment(lambda folder: {"DOCKER_CERT_PATH": str(folder)}, "DOCKER_CERT_PATH", "unset"),
}


@pytest.mark.beside
@pytest.mark.parametrize("which", ENVIRONMENTS)
def test_a_docker_that_is_away_or_elsewhere_is_named_and_nothing_is_touched(
    stack: Deployment, tmp_path: Path, which: str
) -> None:
    row = ENVIRONMENTS[which]
    before = everything(stack)
    # Whoever runs the tests may have these set, and they are stronger than what some rows set.
    own = {"DOCKER_HOST": "", "DOCKER_CONTEXT": ""}
    assert_refused(up(stack, {**own, **row.variables(tmp_path)}), row.cause, row.change)
    assert everything(stack) == before


# --- a machine, an image or a model that is not as it should be


@contextlib.contextmanager
def foreign_container(stack: Deployment) -> Iterator[None]:
    """A container of somebody else under the engine's name; it must be there afterwards."""
    stack.checkout.run("down", stack.stack)  # an earlier row may have got as far as the engine
    images = [tag for image in docker_client().images.list() for tag in image.tags if "haproxy" in tag]
    container = docker_client().containers.create(images[0], ["sleep", "1"], name=stack.engine)
    try:
        yield
        assert docker_client().containers.get(stack.engine).id == container.id, (
            "a stranger's container was removed"
        )
    finally:
        container.remove(force=True)


@pytest.mark.beside
def test_a_port_that_another_program_holds_is_named_with_its_setting(stack: Deployment) -> None:
    for port in ("edge", "engine", "loopback"):
        (taken,) = free_ports(1)
        stack.configure(ports={**stack.settings["ports"], port: taken})
        with listener(taken):
            assert_explained(up(stack), rf"port.*{taken}|{taken}.*taken", rf"seatable-vllm:ports\.{port}")


@pytest.mark.beside
def test_a_data_folder_that_cannot_be_made_is_named_with_its_setting(stack: Deployment, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    stack.configure(machine={"data_dir": str(in_the_way / "data")})
    # root may write everywhere, but nobody can make a folder in a file.
    assert_explained(up(stack), re.escape(str(in_the_way)), r"folder|seatable-vllm:machine\.data_dir")


@pytest.mark.beside
def test_a_disk_that_is_nearly_full_is_named_with_its_setting(stack: Deployment, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", SMALL_DISK_MIB):
        stack.configure(machine={"data_dir": str(tmp_path / "disk" / "data")})
        assert_explained(up(stack), r"disk.*full", r"seatable-vllm:machine\.data_dir")
        assert not list((tmp_path / "disk").rglob("*.safetensors")), "weights were copied to a disk without room"


def test_an_image_that_does_not_exist_is_named_with_its_setting(stack: Deployment) -> None:
    image = "seatable-vllm.invalid/no-such-image:0"
    for which in ("vllm", "haproxy"):
        stack.configure(images={which: image})
        assert_explained(up(stack), rf"image.*{re.escape(image)}", "seatable-vllm:images")


def test_a_container_of_somebody_else_under_our_name_is_named_and_left_alone(stack: Deployment) -> None:
    with foreign_container(stack):
        assert_explained(up(stack), re.escape(stack.engine), "remove|rename")


@pytest.mark.beside
def test_a_model_that_is_neither_here_nor_on_the_hub_is_named_with_its_setting(stack: Deployment) -> None:
    """Where the hub is reached it says that it has none of this name; where not, that it cannot be asked."""
    stack.configure(model={"name": "seatable-vllm-tests/no-such-model", "max_model_len": 512})
    assert_explained(
        up(stack), r"(not here and hub not reached|knows no|not on the machine).*", r"seatable-vllm:model\.name"
    )


# --- what only vLLM itself can find wrong


def weights(stack: Deployment) -> Path:
    """The default model's folder in the stack's data directory; put there by an `up` where it is not yet."""
    folder = stack.data_dir / "models" / MODEL
    if not folder.exists():
        settings = stack.settings
        stack.configure(model={"tool_parser": "mistral"})  # what only vLLM itself refuses, so after the weights
        stack.up(passes=False)
        stack.write(settings)
    return folder


def other_model(stack: Deployment, name: str, changed: Mapping[str, bytes] | None = None) -> str:
    """A model that the catalogue does not know: the default one under another name, with some files changed."""
    source, target = weights(stack), stack.data_dir / "models" / "seatable-vllm-tests" / name
    if not target.exists():
        shutil.copytree(source, target, copy_function=os.link)
        for file, content in (changed or {}).items():
            (target / file).unlink()
            (target / file).write_bytes(content)
    return f"seatable-vllm-tests/{name}"


def test_an_option_that_vllm_does_not_have_is_refused_before_anything_runs_with_the_nearest_one(
    stack: Deployment,
) -> None:
    stack.configure(model={"extra_args": {"max-num-seq": 8}})
    done = up(stack)
    assert done.returncode != 0
    assert re.search(r"seatable-vllm:model\.extra_args\.max-num-seq: .*max-num-seqs", end_of(done)), end_of(done)


def test_a_value_that_an_option_of_vllm_cannot_have_is_refused_before_anything_runs(stack: Deployment) -> None:
    stack.configure(model={"extra_args": {"max-num-seqs": "many"}})
    done = up(stack)
    assert done.returncode != 0
    assert "seatable-vllm:model.extra_args.max-num-seqs: 'many': write an integer" in end_of(done), end_of(done)


def test_a_tool_parser_of_another_model_family_is_named_with_its_setting(stack: Deployment) -> None:
    stack.configure(model={"tool_parser": "mistral"})
    assert_explained(up(stack), "tool parser does not fit the model", r"seatable-vllm:model\.tool_parser")


def test_a_context_longer_than_a_model_allows_that_only_vllm_knows_is_named_with_its_setting(
    stack: Deployment,
) -> None:
    stack.configure(model={"name": other_model(stack, "copy"), "max_model_len": 100_000})
    done = up(stack)
    assert_explained(done, "context is longer than the model", r"seatable-vllm:model\.max_model_len")
    assert str(LONGEST) in end_of(done), f"it does not say how long it may be: {end_of(done)}"


def test_a_context_that_does_not_fit_the_memory_is_named_with_its_setting(stack: Deployment) -> None:
    """65,536 tokens of this model need 1.4 GiB, and the engine has 1 GiB for them on a CPU."""
    configuration = json.loads((weights(stack) / "config.json").read_text())
    long = json.dumps({**configuration, "max_position_embeddings": 131_072}).encode()
    stack.configure(model={"name": other_model(stack, "long", {"config.json": long}), "max_model_len": 65_536})
    assert_explained(up(stack), "memory", r"seatable-vllm:model\.max_model_len")


def test_weights_cut_short_are_named_and_the_advice_that_is_given_mends_them(
    stack: Deployment, tmp_path: Path
) -> None:
    """The advice: remove the folder, and the next `up` fetches it again."""
    folder = weights(stack)
    shutil.copytree(folder, tmp_path / "whole")
    (file,) = folder.glob("*.safetensors")
    whole = file.stat().st_size
    content = file.read_bytes()[: whole // 3]
    file.unlink()  # another model's folder may hold the same file
    file.write_bytes(content)
    try:
        assert_explained(up(stack), "weights.*incomplete", r"remove the model's folder.*up")
        shutil.rmtree(folder)
        stack.up()
        assert file.stat().st_size == whole
        assert one_token(stack, stack.key()).status == http.client.OK
    finally:
        # The tests after this one are not about weights.
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", folder)


# --- and with everything put right


def test_after_all_of_these_the_right_settings_bring_the_same_stack_up(
    stack: Deployment, right: dict[str, Any]
) -> None:
    stack.up()
    assert one_token(stack, stack.key()).status == http.client.OK
    client = docker_client()
    label = {"label": f"seatable-vllm.stack={stack.stack}"}
    names = sorted(each.name for each in client.containers.list(all=True, filters=label, ignore_removed=True))
    assert names == [stack.edge, stack.engine]
    assert "nothing changed" in stack.up().stderr
    assert stack.settings == right


def test_an_engine_that_was_stopped_and_one_that_keeps_failing_are_told_apart_by_doctor(stack: Deployment) -> None:
    stack.up()
    engine = docker_client().containers.get(stack.engine)
    engine.stop(timeout=1)
    told = problems(doctor(stack))
    assert f"scripts/up {stack.stack}" in told[stack.engine]
    assert "does not run" in told[stack.engine] or "was killed" in told[stack.engine]
    # Its file gets an option that vLLM does not know, and Docker starts it again and again.
    configuration = stack.data_dir / "vllm" / "config.yaml"
    right = configuration.read_text()
    try:
        configuration.write_text(f"{right}no-such-option: 1\n")
        engine.start()
        wait_until(lambda: stack.container(stack.engine).restarts >= 1, "the engine has failed")
        done = doctor(stack)
        assert done.returncode == 1
        told = problems(done)
        assert "does not know an option" in told[stack.engine]
        assert "no-such-option" in told[stack.engine]
        assert "seatable-vllm:model.extra_args" in told[stack.engine]
    finally:
        engine.stop(timeout=1)
        configuration.write_text(right)


def test_a_port_taken_while_the_stack_was_stopped_is_named_with_its_setting(stack: Deployment) -> None:
    """The machine was found ready long ago, and its ports were free then."""
    client = docker_client()
    if not all(map(container_exists, (stack.edge, stack.engine))):
        stack.up()
    for port, name in (("edge", stack.edge), ("engine", stack.engine)):
        client.containers.get(name).stop(timeout=1)
        with listener(stack.settings["ports"][port]):
            assert_explained(up(stack), "port", rf"seatable-vllm:ports\.{port}")


def test_the_data_folder_of_a_stack_that_is_up_can_be_moved_to_another_disk(
    stack: Deployment, tmp_path: Path
) -> None:
    """It is the remedy that a full disk is explained with."""
    stack.up()
    stack.configure(machine={"data_dir": str(tmp_path / "larger")})
    try:
        assert re.search(r"the engine was away for \d+ s", stack.up().stderr)
        assert one_token(stack, stack.key()).status == http.client.OK
        assert (tmp_path / "larger" / "models" / MODEL / "config.json").exists()
    finally:
        # Its containers use the new folder: they go before it does, and before the setting is put back.
        stack.checkout.run("down", stack.stack)
