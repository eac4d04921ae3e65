"""Unit tier: the rehearsal's memory, its decisions and its reading of a stack file.

Handlers are stand-ins that write down what they are told, or the real ones for keys and commands under a tiny
program of the test; there is no Docker. It does NOT prove that a container is made as asked: the live tier
rehearses the real program.
"""

from __future__ import annotations

import contextvars
import json
import logging
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pulumi.runtime.mocks import MockCallArgs, MockResourceArgs
from pulumi.runtime.settings import SETTINGS

from rehearsal import docker_resources, monitor, run
from rehearsal.docker_resources import _create_arguments, _make_way, nanoseconds
from rehearsal.errors import RehearsalError
from rehearsal.monitor import Rehearsing, plain
from rehearsal.resources import LocalCommand, RandomPassword
from rehearsal.stack_file import stack_config, stack_names
from rehearsal.state import Made, State, exclusive

if TYPE_CHECKING:
    from tests.conftest import RecordProgram

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"


def quiet(name: str, line: str) -> None:
    """Nobody listens."""


# The memory


def made(name: str = "thing", **inputs: Any) -> Made:
    return Made("test:Thing", name, inputs, f"id-{name}", {**inputs, "more": [1, {"a": None}]})


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "rehearsal.json")


def test_the_state_file_is_the_users_alone_even_under_an_open_umask(tmp_path: Path) -> None:
    path = tmp_path / "stack" / "rehearsal.json"
    before = os.umask(0)
    try:
        with exclusive(path):
            State(path).put(made())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_was_put_is_read_back_the_same_and_in_its_order(state: State) -> None:
    for name in ("c", "a", "b"):
        state.put(made(name, text="ünï", number=1, nothing=None, many=[1.5, True]))
    state.finish({"endpoint": "http://x", "clients": {"a": {"key": "k"}}})
    read = State.load(state.path)
    assert list(read.made) == ["c", "a", "b"]
    assert read.made == state.made
    assert read.outputs == state.outputs


def test_a_resource_is_on_the_disk_as_soon_as_it_is_made(state: State) -> None:
    state.put(made("one"))
    assert list(State.load(state.path).made) == ["one"]


def test_a_resource_that_is_dropped_is_gone_from_the_disk_and_dropping_it_again_is_no_error(state: State) -> None:
    state.put(made("one"))
    state.put(made("two"))
    state.drop("one")
    state.drop("one")
    assert list(State.load(state.path).made) == ["two"]


def test_writing_the_state_leaves_no_second_file_with_keys(state: State) -> None:
    state.put(made())
    assert [path.name for path in state.path.parent.iterdir()] == ["rehearsal.json"]


def test_without_a_file_the_state_is_empty(state: State) -> None:
    assert State.load(state.path).made == {}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", "{}", '{"made": [], "x": 1}', '{"made": [{"name": "a"}], "outputs": {}}',
             '{"made": [1], "outputs": {}}', '{"made": null, "outputs": {}}']
)  # fmt: skip
def test_a_state_file_that_cannot_be_read_is_named_and_not_overwritten(text: str, state: State) -> None:
    state.path.write_text(text)
    with pytest.raises(RehearsalError) as refused:
        State.load(state.path)
    assert str(state.path) in str(refused.value)
    assert "put it aside" in str(refused.value)
    assert state.path.read_text() == text


def test_the_text_about_a_broken_state_file_shows_none_of_its_keys(state: State) -> None:
    key = "".join(["K3y", "0" * 61])
    state.path.write_text(json.dumps({"made": [{"name": "k", "outputs": {"result": key}}]}))
    with pytest.raises(RehearsalError) as refused:
        State.load(state.path)
    assert key not in str(refused.value)


def test_only_one_run_of_a_stack_goes_on_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "rehearsal.json"
    with exclusive(path), pytest.raises(RehearsalError, match="another run of this stack"), exclusive(path):
        pytest.fail("two runs at once")
    with exclusive(path):
        pass


# What is kept, made again and removed


class FakeHandler:
    """Makes things of the test's own type. `calls`: what it was told, oldest first."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.there = True
        self.providers: list[dict[str, Any]] = []
        self.fails: str | None = None

    def create(self, name: str, inputs: dict[str, Any], provider: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        self.calls.append(("create", name))
        self.providers.append(provider)
        if self.fails:
            raise RehearsalError(self.fails)
        return f"id-{name}-{len(self.calls)}", {**inputs, "made": True}

    def keep(self, made: Made, provider: dict[str, Any]) -> bool:
        self.calls.append(("keep", made.name))
        return self.there

    def delete(self, made: Made, provider: dict[str, Any]) -> None:
        self.calls.append(("delete", made.name))
        self.providers.append(provider)


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> FakeHandler:
    fake = FakeHandler()
    monkeypatch.setattr(monitor, "handlers", lambda _: {"test:Thing": fake, "pulumi:providers:docker": fake})
    return fake


def ask(rehearsing: Rehearsing, name: str, provider: str = "", **inputs: Any) -> tuple[str | None, dict[str, Any]]:
    return rehearsing.new_resource(MockResourceArgs("test:Thing", name, inputs, provider, custom=True))


def test_what_was_never_made_is_made_and_remembered(state: State, handler: FakeHandler) -> None:
    rehearsing = Rehearsing(state, quiet)
    identity, outputs = ask(rehearsing, "a", x=1.0)
    assert handler.calls == [("create", "a")]
    assert (outputs["x"], outputs["made"]) == (1, True)
    assert State.load(state.path).made["a"].id == identity
    assert rehearsing.counts.created == ["a"]


def test_what_is_there_with_the_same_inputs_is_left_alone(state: State, handler: FakeHandler) -> None:
    first = ask(Rehearsing(state, quiet), "a", x=1.0, y={SIGNATURE: SECRET, "value": "k"})
    handler.calls.clear()
    rehearsing = Rehearsing(State.load(state.path), quiet)
    assert ask(rehearsing, "a", x=1, y="k") == first
    assert handler.calls == [("keep", "a")]
    assert rehearsing.counts.unchanged == ["a"]
    assert rehearsing.counts.created == rehearsing.counts.changed == []


@pytest.mark.parametrize("after", [{"x": 2}, {}, {"x": 1, "y": None}, {"x": "1"}, {"x": 1, "z": []}])
def test_what_has_other_inputs_is_removed_first_and_then_made_again(
    after: dict[str, Any], state: State, handler: FakeHandler
) -> None:
    ask(Rehearsing(state, quiet), "a", x=1)
    handler.calls.clear()
    rehearsing = Rehearsing(state, quiet)
    ask(rehearsing, "a", **after)
    assert handler.calls == [("delete", "a"), ("create", "a")]
    assert rehearsing.counts.changed == ["a"]
    assert State.load(state.path).made["a"].inputs == after


def test_what_is_gone_though_nobody_removed_it_is_made_again(state: State, handler: FakeHandler) -> None:
    ask(Rehearsing(state, quiet), "a", x=1)
    handler.calls.clear()
    handler.there = False
    rehearsing = Rehearsing(state, quiet)
    ask(rehearsing, "a", x=1)
    assert handler.calls[0] == ("keep", "a")
    assert handler.calls[-1] == ("create", "a")
    assert rehearsing.counts.changed == ["a"]


def test_what_could_not_be_made_is_not_remembered_and_its_reason_is_kept(
    state: State, handler: FakeHandler
) -> None:
    rehearsing = Rehearsing(state, quiet)
    ask(rehearsing, "a")
    handler.fails = "the reason"
    with pytest.raises(RehearsalError):
        ask(rehearsing, "b")
    assert rehearsing.failures == ["the reason"]
    assert list(State.load(state.path).made) == ["a"]


def test_what_could_not_be_made_again_is_not_taken_for_the_old_one(state: State, handler: FakeHandler) -> None:
    ask(Rehearsing(state, quiet), "a", x=1)
    handler.fails = "the reason"
    with pytest.raises(RehearsalError):
        ask(Rehearsing(state, quiet), "a", x=2)
    assert State.load(state.path).made == {}


def test_a_resource_gets_the_inputs_of_the_provider_it_names(state: State, handler: FakeHandler) -> None:
    rehearsing = Rehearsing(state, quiet)
    state.put(Made("pulumi:providers:docker", "machine-docker", {"host": "unix:///x"}, "machine-docker", {}))
    ask(
        rehearsing, "a", "urn:pulumi:local::seatable-vllm::pulumi:providers:docker::machine-docker::machine-docker"
    )
    assert handler.providers[-1] == {"host": "unix:///x"}


def test_removing_asks_the_handler_with_the_same_provider_and_forgets(state: State, handler: FakeHandler) -> None:
    rehearsing = Rehearsing(state, quiet)
    state.put(Made("pulumi:providers:docker", "machine-docker", {"host": "unix:///x"}, "machine-docker", {}))
    ask(rehearsing, "a", "urn:x::machine-docker::machine-docker")
    rehearsing.remove("a")
    assert handler.calls[-1] == ("delete", "a")
    assert handler.providers[-1] == {"host": "unix:///x"}
    assert list(State.load(state.path).made) == ["machine-docker"]
    assert rehearsing.counts.deleted == ["a"]


def test_a_component_is_nothing_that_is_made(state: State, handler: FakeHandler) -> None:
    Rehearsing(state, quiet).new_resource(MockResourceArgs("x:index:Y", "c", {}, custom=False))
    assert handler.calls == []
    assert not state.path.exists()


@pytest.mark.parametrize(
    "kind", ["aws:ec2/instance:Instance", "command:remote:Command", "docker:index/image:Image"]
)
def test_a_type_that_the_rehearsal_does_not_know_is_refused_by_name(kind: str, state: State) -> None:
    with pytest.raises(RehearsalError) as refused:
        Rehearsing(state, quiet).new_resource(MockResourceArgs(kind, "thing", {}, custom=True))
    assert kind in str(refused.value)
    assert "thing" in str(refused.value)
    assert "pulumi up" in str(refused.value)


def test_what_the_program_warns_of_is_heard_and_nothing_else_that_pulumi_logs(tmp_path: Path) -> None:
    program = "import pulumi\npulumi.log.info('so')\npulumi.log.warn('mind')\npulumi.log.debug('it')\n"
    (tmp_path / "__main__.py").write_text(program)
    heard: list[str] = []
    run.run_program(
        "local", {}, Rehearsing(State.load(tmp_path / "state.json"), quiet), tmp_path, warn=heard.append
    )
    assert heard == ["mind"]
    run.run_program("local", {}, Rehearsing(State.load(tmp_path / "state.json"), quiet), tmp_path)


def test_a_function_of_a_provider_is_refused_by_name(state: State) -> None:
    with pytest.raises(RehearsalError, match="aws:ec2/getAmi:getAmi"):
        Rehearsing(state, quiet).call(MockCallArgs("aws:ec2/getAmi:getAmi", {}, ""))


# Values of the wire


@pytest.mark.parametrize(
    ("wire", "python"),
    [
        (3.0, 3),
        (3.5, 3.5),
        (-2.0, -2),
        (0.0, 0),
        (True, True),
        (False, False),
        (None, None),
        ("3.0", "3.0"),
        ([1.0, [2.0]], [1, [2]]),
        ({"a": 1.0, "b": {"c": []}}, {"a": 1, "b": {"c": []}}),
        ({SIGNATURE: SECRET, "value": "k"}, "k"),
        ({SIGNATURE: SECRET, "value": {"a": [1.0, {SIGNATURE: SECRET, "value": 2.0}]}}, {"a": [1, 2]}),
        ([{SIGNATURE: SECRET, "value": None}], [None]),
        ({}, {}),
    ],
)
def test_a_value_of_the_wire_is_opened(wire: Any, python: Any) -> None:
    opened = plain(wire)
    assert opened == python
    assert type(opened) is type(python)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15), ("0s", 0), ("20m0s", 1200), ("1h0m0s", 3600), ("1h2m3s", 3723), ("90m", 5400)],
)
def test_a_duration_is_read_as_go_writes_it(text: str, seconds: int) -> None:
    assert nanoseconds(text) == seconds * 10**9


@pytest.mark.parametrize("text", ["10", "", "5x", "1.5s", "500ms"])
def test_a_duration_that_the_rehearsal_cannot_read_is_refused_and_never_taken_for_another(text: str) -> None:
    with pytest.raises((RehearsalError, ValueError)):
        nanoseconds(text)


# Keys and commands


def test_a_key_is_as_long_as_asked_of_letters_and_digits_and_never_the_same_twice() -> None:
    keys = {RandomPassword().create("k", {"length": 64, "special": False}, {})[1]["result"] for _ in range(20)}
    assert len(keys) == 20
    assert all(re.fullmatch(r"[A-Za-z0-9]{64}", key) for key in keys)


@pytest.mark.parametrize("inputs", [{"length": 64}, {"length": 64, "special": True}])
def test_a_key_of_other_characters_is_refused(inputs: dict[str, Any]) -> None:
    with pytest.raises(RehearsalError, match="letters and digits"):
        RandomPassword().create("k", inputs, {})


def command(program: str, say: Callable[[str, str], None] = quiet, **inputs: Any) -> dict[str, Any]:
    """The outputs of one command."""
    return LocalCommand(say).create("name", {"create": "bash -s", "stdin": program, **inputs}, {})[1]


def test_a_command_gets_its_program_and_environment_and_gives_its_output() -> None:
    told: list[tuple[str, str]] = []
    outputs = command('echo "one $X"\necho two >&2', lambda *line: told.append(line), environment={"X": "ünï"})
    assert outputs["stdout"].splitlines()[0] == "one ünï"
    assert ("name", "one ünï") in told
    assert ("name", "two") in told


def test_a_command_that_fails_is_told_by_name_status_and_last_lines_and_never_by_its_input() -> None:
    key = "".join(["K3y", "0" * 61])
    with pytest.raises(RehearsalError) as failed:
        command(f"key={key}\necho the reason >&2\nexit 7")
    assert "name failed with status 7" in str(failed.value)
    assert "the reason" in str(failed.value)
    assert key not in str(failed.value)


def test_a_command_that_fails_after_much_output_shows_the_end_of_it() -> None:
    with pytest.raises(RehearsalError) as failed:
        command("seq 100000; echo the reason; exit 1")
    assert str(failed.value).endswith("the reason")
    assert len(str(failed.value).splitlines()) < 100


def test_output_that_is_no_text_ends_no_run() -> None:
    assert "after" in command("printf 'a\\377b\\n'; echo after")["stdout"]


# Docker's inputs


@pytest.mark.parametrize("stack", ["local", "second"])
@pytest.mark.parametrize("name", ["inference-vllm", "edge-haproxy"])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_every_input_of_the_real_containers_is_known_to_the_rehearsal(
    name: str, stack: str, device: str, record_program: RecordProgram
) -> None:
    container = record_program(stack, facts={"device": device}).one(name)
    arguments = _create_arguments(plain(dict(container.wire)))
    assert arguments["name"] == container.inputs["name"]
    assert arguments["image"] == container.inputs["image"]
    assert arguments["restart_policy"] == {"Name": "unless-stopped"}


def test_the_engines_container_is_made_as_the_program_asks(record_program: RecordProgram) -> None:
    arguments = _create_arguments(plain(dict(record_program("second").one("inference-vllm").wire)))
    assert arguments["ports"] == {"8000/tcp": ("127.0.0.1", 18001)}
    assert arguments["init"] is True
    assert arguments["network"] == "seatable-vllm-second"
    assert {bind["mode"] for bind in arguments["volumes"].values()} == {"ro", "rw"}
    assert arguments["log_config"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert arguments["healthcheck"]["Test"][0] == "CMD"
    assert arguments["healthcheck"]["StartPeriod"] == 1200 * 10**9
    assert "device_requests" not in arguments


def test_a_gpu_is_asked_for_only_where_there_is_one(record_program: RecordProgram) -> None:
    container = record_program(facts={"device": "gpu"}).one("inference-vllm")
    (request,) = _create_arguments(plain(dict(container.wire)))["device_requests"]
    assert request["Capabilities"] == [["gpu"]]


@pytest.mark.parametrize("unknown", ["privileged", "hostname", "devices"])
def test_an_input_of_a_container_that_the_rehearsal_does_not_know_is_refused_and_not_left_out(
    unknown: str,
) -> None:
    with pytest.raises(RehearsalError, match=unknown):
        _create_arguments({"image": "x", "name": "y", unknown: True})


class Found:
    """Something of Docker's that has the wanted name already."""

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels
        self.attrs = {"Labels": labels}
        self.removed = False

    def remove(self, **options: Any) -> None:
        self.removed = True


OURS = {label: f"ours {label}" for label in docker_resources.OWNER_LABELS}


@pytest.mark.parametrize("kind", ["container", "network"])
def test_what_an_interrupted_run_of_this_stack_left_is_removed(kind: str) -> None:
    left = Found({**OURS, "more": "x"})
    _make_way(kind, "seatable-vllm-local", OURS, [left])
    assert left.removed


@pytest.mark.parametrize("kind", ["container", "network"])
@pytest.mark.parametrize(
    "labels", [{}, *({**OURS, label: "another"} for label in OURS), *({label: OURS[label]} for label in OURS)]
)
def test_what_is_not_this_stacks_is_never_touched_and_is_named(labels: dict[str, str], kind: str) -> None:
    foreign = Found(labels)
    with pytest.raises(RehearsalError) as refused:
        _make_way(kind, "seatable-vllm-local", OURS, [foreign])
    assert not foreign.removed
    assert "seatable-vllm-local" in str(refused.value)
    assert "change: " in str(refused.value)


# Reading a stack file


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "Pulumi.yaml").write_text("name: seatable-vllm\nruntime: python\n")
    (tmp_path / "Pulumi.good.yaml").write_text("config: {}\n")
    return tmp_path


def config(project: Path, text: str) -> dict[str, str]:
    (project / "Pulumi.tried.yaml").write_text(text)
    return stack_config("tried", project)


def test_values_are_handed_over_as_pulumi_does_text_as_it_is_and_the_rest_as_json(project: Path) -> None:
    found = config(
        project,
        "config:\n  seatable-vllm:ports: {edge: 8081}\n  aws:region: eu-central-1\n  seatable-vllm:a: 5\n"
        '  seatable-vllm:b: true\n  seatable-vllm:c: "5"\n  plain: [x]\n',
    )
    assert found == {
        "seatable-vllm:ports": '{"edge": 8081}',
        "aws:region": "eu-central-1",
        "seatable-vllm:a": "5",
        "seatable-vllm:b": "true",
        "seatable-vllm:c": "5",
        "seatable-vllm:plain": '["x"]',
    }


@pytest.mark.parametrize("text", ["", "config:\n", "config: {}\n", "encryptionsalt: v1:x\n", "# nothing\n"])
def test_a_stack_file_without_configuration_is_an_empty_one(text: str, project: Path) -> None:
    assert config(project, text) == {}


def test_a_stack_that_does_not_exist_is_refused_with_the_names_of_those_that_do(project: Path) -> None:
    with pytest.raises(RehearsalError) as refused:
        stack_config("prdo", project)
    assert "'prdo'" in str(refused.value)
    assert "good" in str(refused.value)


def test_an_encrypted_value_is_refused_by_its_key(project: Path) -> None:
    with pytest.raises(RehearsalError) as refused:
        config(project, "config:\n  seatable-vllm:hugging_face_token:\n    secure: v1:abc\n")
    assert "hugging_face_token" in str(refused.value)
    assert "pulumi up" in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "config: [",
        "- a\n",
        "just text\n",
        "config: [a]\n",
        "config: text\n",
        "config: 5\n",
        "\tconfig: {}\n",
        f"config: {{a: {'9' * 5000}}}\n",
        f"config: {'[' * 3000}{']' * 3000}\n",
    ],
)
def test_a_stack_file_that_is_not_one_is_refused_by_its_name(text: str, project: Path) -> None:
    with pytest.raises(RehearsalError, match=r"Pulumi\.tried\.yaml"):
        config(project, text)


def test_the_refusal_of_a_stack_file_names_the_line_and_quotes_nothing_of_it(project: Path) -> None:
    twice = "config:\n  seatable-vllm:hugging_face_token: hf_one\n  seatable-vllm:hugging_face_token: hf_two\n"
    with pytest.raises(RehearsalError) as refused:
        config(project, twice)
    assert "line 3" in str(refused.value)
    assert "hf_" not in str(refused.value)
    with pytest.raises(RehearsalError, match=r"line 2: .*; indent with spaces"):
        config(project, "config:\n\ta: 1\n")


@pytest.mark.parametrize("name", ["", "../good", "a b", "-h", "a/b", ".good", "göod", "good\n"])
def test_a_name_that_no_stack_can_have_is_refused_before_any_file_is_looked_for(name: str, project: Path) -> None:
    with pytest.raises(RehearsalError, match="is no name of a stack; use letters"):
        stack_config(name, project)


@pytest.mark.parametrize("name", ["pulumi", "passphrase"])
def test_a_stack_cannot_have_the_name_of_what_lies_beside_the_stacks(name: str, project: Path) -> None:
    # `scripts/down pulumi --purge` would remove .state/pulumi, where the states of all stacks are.
    (project / f"Pulumi.{name}.yaml").write_text("config: {}\n")
    with pytest.raises(RehearsalError, match=f"cannot be called {name}"):
        stack_config(name, project)


def test_a_stacks_name_may_have_dots(project: Path) -> None:
    (project / "Pulumi.gpu.1.yaml").write_text("config: {}\n")
    assert "gpu.1" in stack_names(project)


@pytest.mark.parametrize(
    "text",
    [
        "config:\n  seatable-vllm:clients:\n    a: {kind: openai, cidrs: [127.0.0.1/32]}\n"
        "    a: {kind: openai, cidrs: [127.0.0.2/32]}\n",
        "config:\n  seatable-vllm:ports: {edge: 1}\n  seatable-vllm:ports: {edge: 2}\n",
    ],
)
def test_a_key_that_is_there_twice_is_refused_and_not_read_as_the_last_one(text: str, project: Path) -> None:
    # DESIGN section 3: refuse "overlapping client names"; Pulumi's own reader refuses any key that is there twice.
    with pytest.raises(RehearsalError):
        config(project, text)


# A whole rehearsal of a tiny program


PROGRAM = """\
import pulumi, pulumi_command as command, pulumi_random as random
class Part(pulumi.ComponentResource):
    def __init__(self, name):
        super().__init__("seatable-vllm:index:Part", name)
        self.key = random.RandomPassword(f"{name}-key", length=64, special=False,
                                         opts=pulumi.ResourceOptions(parent=self))
part = Part("part")
text = pulumi.Config("seatable-vllm").get("text")
write = command.local.Command("write", create="bash -s",
    stdin=pulumi.Output.all(part.key.result).apply(lambda k: f"echo {k[0]} {text} >> FOLDER/written; echo done"))
# more
pulumi.export("key", part.key.result)
pulumi.export("said", write.stdout)
"""


class Tiny:
    """A project of its own, rehearsed in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "Pulumi.yaml").write_text("name: seatable-vllm\nruntime: python\n")
        self.program(PROGRAM)
        self.text("first")

    def program(self, text: str) -> None:
        (self.folder / "__main__.py").write_text(text.replace("FOLDER", str(self.folder)))

    def text(self, value: str) -> None:
        (self.folder / "Pulumi.tiny.yaml").write_text(f"config: {{seatable-vllm:text: {value}}}\n")

    def up(self) -> tuple[monitor.Counts, dict[str, Any]]:
        """One run. Outside tests each is a process of its own; here the rest of a failed one is cleared away."""
        SETTINGS.rpc_manager.clear()
        SETTINGS.outputs.clear()
        return contextvars.copy_context().run(run.up, "tiny", quiet, self.folder)

    @property
    def written(self) -> list[str]:
        """The lines that the program's command has written, one for each time it ran."""
        return (self.folder / "written").read_text().splitlines()

    @property
    def state(self) -> State:
        return State.load(run.state_path("tiny", self.folder))


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield Tiny(tmp_path)
    logging.getLogger("asyncio").disabled = False


def test_a_first_run_makes_everything_and_gives_the_outputs(tiny: Tiny) -> None:
    counts, outputs = tiny.up()
    assert sorted(counts.created) == ["part-key", "write"]
    assert outputs["said"] == "done"
    assert tiny.written == [f"{outputs['key']} first"]
    assert run.outputs("tiny", tiny.folder) == outputs


def test_a_second_run_changes_nothing_and_gives_the_same_keys(tiny: Tiny) -> None:
    _, before = tiny.up()
    counts, after = tiny.up()
    assert sorted(counts.unchanged) == ["part-key", "write"]
    assert counts.created == counts.changed == counts.deleted == []
    assert after == before
    assert len(tiny.written) == 1


def test_a_changed_setting_runs_only_what_depends_on_it(tiny: Tiny) -> None:
    _, before = tiny.up()
    tiny.text("second")
    counts, after = tiny.up()
    assert (counts.changed, counts.unchanged) == (["write"], ["part-key"])
    assert after["key"] == before["key"]
    assert tiny.written[-1] == f"{before['key']} second"


def test_what_the_program_no_longer_asks_for_is_removed(tiny: Tiny) -> None:
    tiny.program(PROGRAM.replace("# more", 'random.RandomPassword("old", length=64, special=False)'))
    tiny.up()
    tiny.program(PROGRAM)
    counts, _ = tiny.up()
    assert counts.deleted == ["old"]
    assert "old" not in tiny.state.made


def test_a_failure_keeps_what_was_made_so_that_the_next_run_goes_on_from_there(tiny: Tiny) -> None:
    tiny.program(PROGRAM.replace("echo done", "echo the reason; exit 3"))
    with pytest.raises(RehearsalError, match="the reason"):
        tiny.up()
    key = tiny.state.made["part-key"].outputs["result"]
    tiny.program(PROGRAM)
    counts, outputs = tiny.up()
    assert counts.unchanged == ["part-key"]
    assert outputs["key"] == key


def test_a_failure_removes_nothing(tiny: Tiny) -> None:
    tiny.program(PROGRAM.replace("# more", 'random.RandomPassword("old", length=64, special=False)'))
    tiny.up()
    tiny.program(PROGRAM.replace("echo done", "exit 3"))
    with pytest.raises(RehearsalError):
        tiny.up()
    assert "old" in tiny.state.made


def test_a_failure_leaves_the_outputs_of_the_last_complete_run(tiny: Tiny) -> None:
    _, before = tiny.up()
    tiny.program(PROGRAM.replace("echo done", "exit 3"))
    with pytest.raises(RehearsalError):
        tiny.up()
    assert run.outputs("tiny", tiny.folder) == before


def test_a_refusal_of_the_settings_is_told_in_their_words(tiny: Tiny) -> None:
    tiny.program("import pulumi\nraise pulumi.RunError('seatable-vllm:ports: no')")
    with pytest.raises(RehearsalError, match="seatable-vllm:ports: no"):
        tiny.up()


def test_a_mistake_in_the_program_is_not_hidden(tiny: Tiny) -> None:
    tiny.program("import pulumi\nraise ZeroDivisionError('in the program')")
    with pytest.raises(ZeroDivisionError):
        tiny.up()


def test_before_any_run_there_are_no_outputs(tiny: Tiny) -> None:
    assert run.outputs("tiny", tiny.folder) is None


def test_down_removes_everything_and_the_keys_with_it(tiny: Tiny) -> None:
    tiny.up()
    counts = run.down("tiny", quiet, tiny.folder)
    assert sorted(counts.deleted) == ["part-key", "write"]
    assert not run.state_path("tiny", tiny.folder).exists()
    assert run.outputs("tiny", tiny.folder) is None


AT_THE_END = """
text = pulumi.Config("seatable-vllm").get("text")
command.local.Command("end", create="true", delete="bash -s", stdin=f"echo end of {text} >> FOLDER/ended"TRIGGERS)
"""


@pytest.mark.parametrize("replaced", [False, True])
def test_a_program_for_the_end_runs_at_the_end_alone_with_the_inputs_of_the_last_run(
    replaced: bool, tiny: Tiny
) -> None:
    """With triggers, which the stack's own has none of, another value ends the old one, as with the provider."""
    tiny.program(
        PROGRAM.replace("# more", AT_THE_END.replace("TRIGGERS", ", triggers=[text]" if replaced else ""))
    )
    ended = tiny.folder / "ended"
    tiny.up()
    tiny.text("second")
    tiny.up()
    tiny.up()
    assert (ended.read_text() if ended.exists() else "") == ("end of first\n" if replaced else "")
    run.down("tiny", quiet, tiny.folder)
    assert ended.read_text().splitlines()[-1] == "end of second"
    run.down("tiny", quiet, tiny.folder)
    assert len(ended.read_text().splitlines()) == 1 + replaced


def test_containers_end_before_what_clears_their_machine_though_that_came_later(tmp_path: Path) -> None:
    state = State(tmp_path / "state.json")
    for kind, name in (
        ("pulumi:providers:docker", "provider"),
        ("docker:index/network:Network", "network"),
        ("docker:index/container:Container", "engine"),
        ("command:local:Command", "cleared"),
    ):
        state.made[name] = Made(kind, name, {}, name, {})
    assert run.end_order(state) == ["engine", "network", "cleared"]


def test_down_without_an_up_is_no_error(tiny: Tiny) -> None:
    assert run.down("tiny", quiet, tiny.folder).deleted == []


# A whole run


TWO_FAIL = """
from pathlib import Path
from pulumi_command import local
for name, other in (("one", "other"), ("other", "one")):
    mine, its = Path(__file__).with_name(name), Path(__file__).with_name(other)
    meet = f"touch {mine}; timeout 60 sh -c 'until [ -e {its} ]; do sleep 0.01; done'"
    local.Command(name, create=f"{meet}; echo the cause of {name} >&2; exit 1")
"""
"""Two steps that fail when both are at work."""


def test_all_steps_that_fail_are_told_and_no_stack_trace_after_them(project: Path) -> None:
    """In a process of its own: what an event loop has to complain of comes at the interpreter's end."""
    (project / "__main__.py").write_text(TWO_FAIL)
    program = (
        "from pathlib import Path; from rehearsal import run; from rehearsal.errors import RehearsalError\n"
        f"try: run.up('good', lambda name, line: None, Path({str(project)!r}))\n"
        "except RehearsalError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=run.PROJECT, capture_output=True, text=True, check=False)
    assert "the cause of one" in done.stdout
    assert "the cause of other" in done.stdout
    assert done.stderr == ""
