"""Unit tier: the bash and Python programs that components send to a machine.

All of them are read by bash or Python without being run; those that touch files alone are run for real in a folder
of the test, with a script in the place of `docker`. It does NOT prove what Docker, HAProxy or the hub do with the
calls: the live tier runs the same programs against them.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog import haproxy
from catalog.failures import explain
from catalog.haproxy import CLIENT_KEYS, CONFIGURATION, EdgeClient, EdgeFiles, edge_files
from checks import watchdog
from components.edge import release_program, reload_program
from components.image import image_program
from components.machine.local import LocalMachineArgs, folder_of, ready_program
from components.machine.machine import write_file_program
from components.machine.reach import reach_program
from components.machine.ssh import Ssh
from components.parser_proof import parser_program
from components.weights import lost_program, weights_program
from scripts.commands.failure_text import last_lines
from settings import Model, SshTarget

if TYPE_CHECKING:
    from tests.conftest import Asked, FakeCommand, FakeEndpoint, RecordProgram, Reply

COMMANDS = ("machine-ready", "machine-cleared", "inference-image-present", "inference-weights-present",
            "inference-config", "inference-processes", "inference-watchdog", "inference-parser-fits",
            "edge-image-present", "edge-release", "edge-reload", "readiness-gate")  # fmt: skip

WEIRD_NAMES = ("plain", "it's", 'a "quoted" name', "two  spaces", "$HOME", "$(touch pwned)", "`touch pwned`", "*",
               "-n", "ünï ☃", "line\nbreak", "a;touch pwned", "back\\slash", "{x}", "%s", "XXXXXX")  # fmt: skip
WEIRDEST_NAMES = ("it's $(touch pwned)", 'a "quoted" * name', "ünï\nbreak")


def run_bash(
    program: str, environment: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The program as a machine runs it: on standard input of `bash -s`."""
    return subprocess.run(
        ["bash", "-s"],
        input=program,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
        cwd=cwd,
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]


def here_documents(program: str) -> dict[str, str]:
    """The here-documents of a bash program by their word."""
    return dict(re.findall(r"<<'(\w+)'[^\n]*\n(.*?)\n\1\n", program, flags=re.DOTALL))


# Every program that the stack sends

ALL_PROGRAMS = {"seatable-vllm:model": json.dumps({"tool_parser": "hermes"})}
"""A stack that sends each kind of program there is: also the one that asks about a parser chosen by hand."""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_program_is_whole_and_without_a_slip_of_the_pen(name: str, record_program: RecordProgram) -> None:
    inputs = record_program(config=ALL_PROGRAMS).one(name).inputs
    if "python3 -" in (inputs["create"], inputs.get("delete")):
        compile(inputs["stdin"], name, "exec")
        return
    assert inputs["create"] == "bash -s"
    read = subprocess.run(["bash", "-n"], input=inputs["stdin"], capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")


def test_the_list_of_programs_above_is_complete(record_program: RecordProgram) -> None:
    assert {
        command.name for command in record_program(config=ALL_PROGRAMS).of_type("command:local:Command")
    } == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_bash_program_stops_at_its_first_error(name: str, record_program: RecordProgram) -> None:
    inputs = record_program(config=ALL_PROGRAMS).one(name).inputs
    if inputs["create"] == "bash -s":
        assert inputs["stdin"].startswith("set -euo pipefail\n")


@pytest.mark.parametrize(
    ("name", "word"),
    [("edge-reload", "RELOAD"), ("inference-weights-present", "FETCH"), ("inference-parser-fits", "ASK")],
)
def test_python_inside_a_bash_program_is_whole_too(name: str, word: str, record_program: RecordProgram) -> None:
    text = here_documents(record_program(config=ALL_PROGRAMS).one(name).inputs["stdin"])[word]
    compile(text, name, "exec")


def test_the_watchdog_needs_nothing_but_the_standard_library_and_yaml() -> None:
    source = Path(watchdog.__file__).read_text()
    compile(source, "watchdog.py", "exec")
    imported = set(re.findall(r"^(?:import|from) (\w+)", source, flags=re.MULTILINE))
    assert imported <= {*sys.stdlib_module_names, "yaml"}


@pytest.mark.parametrize("name", WEIRD_NAMES)
def test_a_weird_data_directory_breaks_no_program(name: str) -> None:
    folder = f"/srv/{name}"
    args: LocalMachineArgs = {
        "stack": "local",
        "docker_host": "unix:///var/run/docker.sock",
        "data_dir": folder,
        "data_dir_is_ours": False,
        "gpus": "auto",
        "edge_port": 8080,
        "engine_port": 18000,
        "loopback_port": None,
    }
    for program in (
        ready_program(args, folder_of(args, "owner")),
        weights_program(folder, "owner/model", None, "image:1", None),
        release_program(folder, EdgeFiles("0" * 12, {}), "image:1"),
        parser_program("image:1", f"{folder}/models", Model()),
        write_file_program(f"{folder}/x", "content", "0600"),
    ):
        read = subprocess.run(["bash", "-n"], input=program, capture_output=True, text=True, check=False)
        assert (read.returncode, read.stderr) == (0, "")


# Writing a file


@pytest.mark.parametrize("name", WEIRD_NAMES)
def test_a_file_is_written_under_any_name_and_nothing_else_happens(name: str, tmp_path: Path) -> None:
    path = tmp_path / "data" / f"folder of {name}" / name
    done = run_bash(write_file_program(str(path), "content\n", "0600"), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert path.read_text() == "content\n"
    assert list(path.parent.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == [tmp_path / "data"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "no newline at the end",
        "two at the end\n\n",
        "CONTENT\n",
        "\nCONTENT\nEOF\n",
        "'\"$(touch pwned)`touch pwned`\\n%s",
        "ünï ☃ \U0001f600",
        "\x00\x01\x1b[31m\r\n",
        "long " * 50_000,
    ],
    ids=lambda content: repr(content[:20]),
)
def test_any_content_arrives_byte_for_byte(content: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert run_bash(write_file_program(str(path), content, "0600"), cwd=tmp_path).returncode == 0
    assert path.read_bytes() == content.encode()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("octal", ["0600", "0644", "0400"])
def test_a_file_has_the_mode_that_was_asked_for_and_its_new_folder_is_the_users_alone(
    octal: str, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "file"
    run_bash(f"umask 000\n{write_file_program(str(path), 'x', octal)}")
    assert mode(path) == int(octal, 8)
    assert mode(path.parent) == 0o700


def test_a_second_run_replaces_the_file_and_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    run_bash(write_file_program(str(path), "old", "0644"))
    assert run_bash(write_file_program(str(path), "new", "0600")).returncode == 0
    assert (path.read_text(), mode(path)) == ("new", 0o600)


@pytest.mark.parametrize("broken", ["base64", "chmod", "mv", "mktemp"])
def test_a_write_that_fails_half_way_leaves_the_old_file_and_no_rest(
    broken: str, tmp_path: Path, fake_command: FakeCommand
) -> None:
    path = tmp_path / "data" / "file"
    run_bash(write_file_program(str(path), "old", "0600"))
    fake_command.add(broken, "exit 1")
    assert run_bash(write_file_program(str(path), "new", "0600"), fake_command.environment).returncode != 0
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_no_secret_content_is_in_an_argument_of_any_program(tmp_path: Path, fake_command: FakeCommand) -> None:
    content = "a secret " * 20
    watch(fake_command, "base64", "chmod", "mv", "mktemp", "mkdir", "dirname", "rm")
    done = run_bash(write_file_program(str(tmp_path / "f"), content, "0600"), fake_command.environment)
    assert done.returncode == 0
    assert len(fake_command.calls) >= 5
    assert_not_in_arguments(fake_command, content)


def watch(fake_command: FakeCommand, *names: str) -> None:
    """Has the real programs run with their arguments written down."""
    for name in names:
        fake_command.add(name, f'exec {shutil.which(name)} "$@"')


def assert_not_in_arguments(fake_command: FakeCommand, *secrets: str) -> None:
    """No call has a secret, or its base64, among its arguments."""
    for call in fake_command.calls:
        for secret in secrets:
            hidden = base64.b64encode(secret.encode()).decode().rstrip("=")[:-2]
            assert not any(secret in word or hidden in word for word in call), call[0]


# The edge's files


def key(name: str) -> str:
    return name.ljust(64, "0")


def edge(generation: str = "one") -> EdgeFiles:
    """A set of files whose client key is named for the generation."""
    return edge_files(
        clients={"seatable": EdgeClient(["127.0.0.1/32"])},
        client_keys={"seatable": [key(generation)]},
        engine_key=key("engine"),
        bind=["127.0.0.1:8080"],
        engine="127.0.0.1:18000",
    )


def in_use(folder: Path) -> dict[str, str]:
    """The files that a container that starts now would read."""
    return {path.name: path.read_text() for path in (folder / "live").iterdir()}


def release(files: EdgeFiles, folder: Path, fake: FakeCommand) -> subprocess.CompletedProcess[str]:
    return run_bash(release_program(str(folder), files, "haproxy:3.2"), fake.environment)


@pytest.mark.parametrize("name", WEIRDEST_NAMES)
def test_a_released_set_is_complete_private_and_in_use(
    name: str, tmp_path: Path, fake_command: FakeCommand
) -> None:
    folder = tmp_path / name
    fake_command.add("docker")
    done = release(edge(), folder, fake_command)
    assert (done.returncode, done.stderr) == (0, "")
    assert in_use(folder) == dict(edge().files)
    assert (folder / "live").readlink() == Path("releases") / edge().generation
    assert {mode(path) for path in (folder / "live").iterdir()} == {0o600}
    assert sorted(path.name for path in folder.iterdir()) == ["live", "releases"]


def test_haproxy_tries_the_new_set_before_it_is_in_use(tmp_path: Path, fake_command: FakeCommand) -> None:
    folder = tmp_path / "edge"
    fake_command.add(
        "docker",
        f"""for word in "$@"; do case "$word" in *:ro) part=${{word%%:*}};; esac; done
ls "$part" > {fake_command.folder}/tried
[ ! -e {folder}/live ] || echo early >> {fake_command.folder}/tried""",
    )
    release(edge(), folder, fake_command)
    assert (fake_command.folder / "tried").read_text().split() == sorted(edge().files)
    (call,) = fake_command.calls
    assert call[:3] == ["docker", "run", "--rm"]
    assert "haproxy:3.2" in call
    assert call[-4:] == ["haproxy", "-c", "-f", f"{haproxy.DIRECTORY}/{CONFIGURATION}"]


def test_a_set_that_haproxy_refuses_is_not_used_and_its_reason_is_told_without_a_key(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    folder = tmp_path / "edge"
    fake_command.add("docker")
    release(edge("one"), folder, fake_command)
    fake_command.add(
        "docker",
        f"echo '[ALERT] parsing [haproxy.cfg:9]: broken'; echo '[ALERT] client-keys.map: {key('two')}'; exit 1",
    )
    done = release(edge("two"), folder, fake_command)
    assert done.returncode != 0
    assert in_use(folder) == dict(edge("one").files)
    assert "haproxy.cfg:9" in done.stderr
    assert key("two") not in done.stdout + done.stderr
    assert [line.partition(":")[0] for line in done.stderr.splitlines()[-3:]] == ["phase", "cause", "change"]
    assert [path.name for path in (folder / "releases").iterdir()] == [edge("one").generation]


def test_a_new_set_takes_the_place_of_the_last_one_whose_keys_do_not_stay_on_the_disk(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    folder = tmp_path / "edge"
    fake_command.add("docker")
    release(edge("one"), folder, fake_command)
    assert release(edge("two"), folder, fake_command).returncode == 0
    assert in_use(folder) == dict(edge("two").files)
    assert [path.name for path in (folder / "releases").iterdir()] == [edge("two").generation]
    assert not any(key("one") in path.read_text() for path in folder.rglob("*") if path.is_file())


def test_a_second_run_of_the_same_release_changes_nothing(tmp_path: Path, fake_command: FakeCommand) -> None:
    folder = tmp_path / "edge"
    fake_command.add("docker")
    release(edge(), folder, fake_command)
    assert release(edge(), folder, fake_command).returncode == 0
    assert in_use(folder) == dict(edge().files)


@pytest.mark.parametrize("again", ["one", "two"], ids=["same generation", "next generation"])
@pytest.mark.parametrize(
    ("program", "call"),
    [
        ("mktemp", 1),
        ("base64", 1),
        ("python3", 1),
        ("docker", 1),
        ("mv", 1),
        ("mv", 2),
        ("ln", 1),
        ("mv", 3),
        ("rm", 2),
    ],
)
def test_a_release_that_is_cut_off_anywhere_leaves_a_whole_set_in_use(
    program: str, call: int, again: str, tmp_path: Path, fake_command: FakeCommand
) -> None:
    # release_program promises: "a restart at any moment finds a whole one".
    folder = tmp_path / "edge"
    fake_command.add("docker")
    release(edge("one"), folder, fake_command)
    real = "true" if program == "docker" else shutil.which(program)
    count = fake_command.folder / "count"
    fake_command.add(
        program,
        f'echo >> {count}; [ "$(wc -l < {count})" != {call} ] || {{ kill -9 $PPID; exit 1; }}; exec {real} "$@"',
    )
    done = release(edge(again), folder, fake_command)
    # A set that is there already is not moved again, and no other is there to be removed.
    assert done.returncode != 0 or again == "one"
    assert in_use(folder) in (dict(edge("one").files), dict(edge(again).files))


def test_a_set_whose_removal_was_cut_off_is_whole_when_it_is_wanted_again(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    # An old set is removed file by file. Cut off there, and set back to the old configuration by the next run.
    folder = tmp_path / "edge"
    fake_command.add("docker")
    release(edge("one"), folder, fake_command)
    old = folder / "releases" / edge("one").generation
    real = shutil.which("rm")
    fake_command.add(
        "rm",
        f'case "$*" in *{old}*) {real} -f {old}/{CLIENT_KEYS}; kill -9 $PPID; exit 1;; esac; exec {real} "$@"',
    )
    release(edge("two"), folder, fake_command)
    assert in_use(folder) == dict(edge("two").files)
    fake_command.add("rm", f'exec {real} "$@"')
    assert release(edge("one"), folder, fake_command).returncode == 0
    assert in_use(folder) == dict(edge("one").files)


def test_a_release_after_one_that_was_cut_off_clears_its_remains(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    folder = tmp_path / "edge"
    fake_command.add("docker", "kill -9 $PPID")
    release(edge("one"), folder, fake_command)
    fake_command.add("docker")
    assert release(edge("two"), folder, fake_command).returncode == 0
    assert in_use(folder) == dict(edge("two").files)
    assert sorted(path.name for path in (folder / "releases").iterdir()) == [edge("two").generation]


def test_no_key_is_in_an_argument_of_any_program_of_the_release(tmp_path: Path, fake_command: FakeCommand) -> None:
    fake_command.add("docker")
    watch(fake_command, "base64", "python3", "mv", "ln", "mktemp", "find", "rm", "mkdir")
    assert release(edge(), tmp_path / "edge", fake_command).returncode == 0
    assert len(fake_command.calls) >= 8
    assert_not_in_arguments(fake_command, key("one"), key("engine"), edge().files[CLIENT_KEYS])


# Telling the edge


GENERATION = "0123456789ab"


def signals(fake_command: FakeCommand) -> list[list[str]]:
    """What Docker was asked to do with the edge, apart from starting it, which a running one does not notice."""
    unnoticed = [call for call in fake_command.calls if call[1] in ("start", "inspect")]
    assert unnoticed[0] == ["docker", "start", "stack-edge"], "one that was stopped by hand"
    assert all(call[-1] == "stack-edge" for call in unnoticed)
    return [call for call in fake_command.calls if call not in unnoticed]


def test_an_edge_that_already_answers_with_the_configuration_is_left_alone(
    fake_endpoint: FakeEndpoint, fake_command: FakeCommand
) -> None:
    fake_command.add("docker")
    seen = {haproxy.GENERATION_HEADER: GENERATION}
    fake_endpoint.answers["GET /v1/models"] = fake_endpoint.always(401, "{}", headers=seen)
    done = run_bash(reload_program("stack-edge", fake_endpoint.base_url, GENERATION), fake_command.environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert signals(fake_command) == []
    assert GENERATION in done.stdout


@pytest.mark.parametrize("status", [200, 401, 403, 404, 503])
def test_an_edge_with_another_configuration_is_told_once_and_waited_for(
    status: int, fake_endpoint: FakeEndpoint, fake_command: FakeCommand
) -> None:
    told, count = fake_command.folder / "told", fake_command.folder / "count"
    # Restarts are no reason to give up while it answers.
    inspect = f"echo . >> {count}; echo running $(wc -l < {count})"
    fake_command.add("docker", f'case "$1" in exec) touch {told};; inspect) {inspect};; esac')
    now, before = ({haproxy.GENERATION_HEADER: name} for name in (GENERATION, "ba9876543210"))
    asked_before = 0

    def answer_after_the_signal(asked: Asked) -> Reply:
        nonlocal asked_before
        asked_before += told.exists()
        return fake_endpoint.always(status, "{}", headers=now if asked_before > 2 else before)(asked)

    fake_endpoint.answers["GET /v1/models"] = answer_after_the_signal
    done = run_bash(reload_program("stack-edge", fake_endpoint.base_url, GENERATION), fake_command.environment)
    assert (done.returncode, done.stderr) == (0, "")
    # From inside: `docker kill` makes Docker take the container for stopped by hand.
    assert signals(fake_command) == [["docker", "exec", "stack-edge", "sh", "-c", "kill -USR2 1"]]


def test_an_edge_that_is_not_up_yet_gets_no_signal_which_would_end_it(
    fake_endpoint: FakeEndpoint, fake_command: FakeCommand
) -> None:
    # A master that does not handle signals yet is ended by one; it reads the new files when it starts.
    fake_command.add("docker")
    asked = 0

    def answer_after_a_while(request: Asked) -> Reply:
        nonlocal asked
        asked += 1
        headers = {haproxy.GENERATION_HEADER: GENERATION} if asked > 3 else {}
        return fake_endpoint.always(503, "{}", headers=headers)(request)

    fake_endpoint.answers["GET /v1/models"] = answer_after_a_while
    done = run_bash(reload_program("stack-edge", fake_endpoint.base_url, GENERATION), fake_command.environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert (signals(fake_command), asked) == ([], 4)


def test_an_edge_that_keeps_ending_is_told_with_its_log_and_not_waited_for(
    fake_endpoint: FakeEndpoint, fake_command: FakeCommand
) -> None:
    # Every look finds one more restart; a tenth of a second apart, as nothing listens at the address.
    count = fake_command.folder / "count"
    inspect = f"echo . >> {count}; echo restarting $(wc -l < {count})"
    fake_command.add("docker", f'case "$1" in inspect) {inspect};; logs) echo "cannot bind socket";; esac')
    nowhere = f"http://127.0.0.1:{free_port()}/v1"
    done = run_bash(reload_program("stack-edge", nowhere, GENERATION), fake_command.environment)
    assert done.returncode == 1
    assert "cannot bind socket" in done.stderr
    assert "phase: edge" in done.stderr
    assert len(count.read_text().split()) < 10, "it went on although the container kept ending"
    assert signals(fake_command) == [["docker", "logs", "--tail", "20", "stack-edge"]]


# Images


OFFICIAL, MADE = "vllm/vllm-openai-cpu:v0.32.0", "seatable-vllm/vllm-cpu:0.32.0"


def docker_with_images(fake_command: FakeCommand, here: tuple[str, ...], pull: str = "exit 1") -> None:
    """A `docker` that has these images, and this much luck with pulling."""
    known = "|".join(here) or "none"
    fake_command.add(
        "docker", f'case "$1" in image) case "$3" in {known}) exit 0;; *) exit 1;; esac;; pull) {pull};; esac'
    )


@pytest.mark.parametrize(
    ("here", "made", "chosen"),
    [
        ((OFFICIAL,), MADE, OFFICIAL),
        ((OFFICIAL, MADE), MADE, OFFICIAL),
        ((MADE,), MADE, MADE),
        ((OFFICIAL,), None, OFFICIAL),
    ],
)
def test_an_image_that_is_here_is_taken_without_asking_a_registry(
    here: tuple[str, ...], made: str | None, chosen: str, fake_command: FakeCommand
) -> None:
    docker_with_images(fake_command, here)
    done = run_bash(image_program(OFFICIAL, made), fake_command.environment)
    assert (done.returncode, last_line(done.stdout)) == (0, chosen)
    assert not [call for call in fake_command.calls if call[1] == "pull"]


def test_an_image_that_is_not_here_is_pulled_and_the_last_line_is_still_its_name(
    fake_command: FakeCommand,
) -> None:
    docker_with_images(fake_command, (), "echo docker.io/something/else; exit 0")
    done = run_bash(image_program(OFFICIAL, MADE), fake_command.environment)
    assert (done.returncode, last_line(done.stdout)) == (0, OFFICIAL)


def test_an_image_of_the_stacks_own_is_never_replaced_by_a_stand_in(fake_command: FakeCommand) -> None:
    docker_with_images(fake_command, (MADE,))
    done = run_bash(image_program("mirror.example.com/vllm:1", None), fake_command.environment)
    assert done.returncode != 0
    assert MADE not in done.stdout


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Error response from daemon: manifest unknown", "image-missing"),
        ("dial tcp: lookup registry-1.docker.io: no such host", "image-missing"),
        ("toomanyrequests: You have reached your unauthenticated pull rate limit.", "image-rate-limit"),
        ("first line\nunexpected EOF", "image-cut-off"),
        ("write /var/lib/docker/tmp/x: no space left on device", "disk-full"),
        ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", "docker-not-running"),
    ],
)
def test_an_image_that_cannot_be_had_is_explained_with_dockers_own_words(
    said: str, name: str, fake_command: FakeCommand
) -> None:
    docker_with_images(fake_command, (), f"echo '{said}' >&2; exit 1")
    done = run_bash(image_program(OFFICIAL, MADE), fake_command.environment)
    assert done.returncode != 0
    assert said in done.stderr
    for word in ("phase: images present", "cause: ", "change: "):
        assert word in done.stderr
    found = explain(done.stderr)
    assert found is not None
    assert found.failure.name == name
    # The last lines that a person reads name the image and what its registry said last.
    end = last_lines(done.stderr).splitlines()
    assert [line.partition(": ")[0] for line in end] == ["phase", "cause", "change"]
    assert OFFICIAL in end[1]
    assert said.splitlines()[-1] in end[1]


# The machine


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def machine(data_dir: Path, **changes: object) -> str:
    """The program that looks at this computer."""
    args: dict[str, Any] = {
        "stack": "local",
        "docker_host": "unix:///var/run/docker.sock",
        "data_dir": str(data_dir),
        "data_dir_is_ours": False,
        "gpus": "auto",
        "edge_port": free_port(),
        "engine_port": free_port(),
        "loopback_port": None,
    }
    asked = LocalMachineArgs(**{**args, **changes})  # type: ignore[typeddict-item]
    return ready_program(asked, folder_of(asked, "owner"))


DOCKER_ID = "7TRN:IPZB:QYBB:VPBQ:UMPP:KARE:6ZNR:XE6T:7EWV:PKF4:ZOJD:TPYS"
RUNC = '{"io.containerd.runc.v2":{"path":"runc"},"runc":{"path":"runc"}}'
NVIDIA = '{"nvidia":{"path":"nvidia-container-runtime"},"runc":{"path":"runc"}}'


def docker_info(
    fake_command: FakeCommand, runtimes: str = RUNC, more: str = "", listed: str = "", by_name: str = ""
) -> None:
    """A `docker` that answers `info` and `ps`. by_name: what it lists where it is asked for the edge's name."""
    fake_command.add(
        "docker",
        f"""case "$1 $3" in
  "info {{{{.DockerRootDir}}}}") echo /;;
  info*) {more}
    echo '{DOCKER_ID} {runtimes}';;
  ps*) if [[ "$*" == *name=-edge* ]]; then printf '%s' '{by_name}'; else printf '%s' '{listed}'; fi;;
esac""",
    )


@pytest.mark.parametrize(
    ("runtimes", "gpus", "device"), [(RUNC, "auto", "cpu"), (NVIDIA, "auto", "gpu"), (NVIDIA, "none", "cpu")]
)
def test_a_machine_that_is_ready_says_what_it_is_in_its_last_line(
    runtimes: str, gpus: str, device: str, tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker_info(fake_command, runtimes)
    done = run_bash(machine(tmp_path / "data", gpus=gpus), fake_command.environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(last_line(done.stdout)) == {"identity": DOCKER_ID, "device": device}


@pytest.mark.parametrize("name", WEIRDEST_NAMES)
def test_the_data_directory_is_made_whatever_it_is_called(
    name: str, tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker_info(fake_command)
    folder = tmp_path / name / "data"
    assert run_bash(machine(folder), fake_command.environment, tmp_path).returncode == 0
    assert folder.is_dir()


def test_a_warning_of_docker_is_not_taken_for_the_machines_identity(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    # Docker prints this for any config.json that it cannot read, and goes on with status 0. The identity is a
    # label of every container: another one, another container.
    docker_info(
        fake_command, more='echo "WARNING: Error parsing config file (/home/me/.docker/config.json): EOF" >&2'
    )
    done = run_bash(machine(tmp_path / "data"), fake_command.environment)
    assert done.returncode == 0
    assert json.loads(last_line(done.stdout))["identity"] == DOCKER_ID


def machine_failure(program: str, environment: dict[str, str]) -> str:
    """What is told of a machine that is not ready: phase, cause and change, and no facts."""
    done = run_bash(program, environment)
    assert done.returncode != 0
    assert "identity" not in done.stdout
    for word in ("phase: machine ready", "cause: ", "change: "):
        assert word in done.stderr
    return done.stderr


def test_a_docker_that_does_not_answer_is_told_with_its_own_words(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    said = "Cannot connect to the Docker daemon at unix:///x.sock. Is the docker daemon running?"
    fake_command.add("docker", f"echo '{said}' >&2; exit 1")
    text = machine_failure(machine(tmp_path / "data"), fake_command.environment)
    assert said in text
    found = explain(text)
    assert found is not None
    assert found.failure.name == "docker-not-running"


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///x.sock. Is the docker daemon running?",
            "docker-not-running",
        ),
        (
            "Got permission denied while trying to connect to the Docker daemon socket at unix:///x.sock: dial",
            "docker-permission",
        ),
    ],
)
def test_docker_20_10_is_understood_when_it_does_not_answer(
    said: str, name: str, tmp_path: Path, fake_command: FakeCommand
) -> None:
    # The oldest one that the issue names. It tells the reason on standard output, and with a format none.
    fake_command.add(
        "docker",
        f"""case "$*" in
  *--format*) echo 'template: :1:2: executing "" at <.ID>: reflect: indirection through nil pointer' >&2;;
  *) printf '%s\n' 'Client:' 'Server:' 'ERROR: {said}'; echo 'errors pretty printing info' >&2;;
esac
exit 1""",
    )
    text = machine_failure(machine(tmp_path / "data"), fake_command.environment)
    assert said in text
    found = explain(text)
    assert found is not None
    assert found.failure.name == name


def test_a_machine_without_the_docker_command_is_told_to_get_it(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "mkdir", "df", "awk"):
        (programs / name).symlink_to(shutil.which(name) or name)
    (programs / "python3").symlink_to(sys.executable)
    assert "install Docker" in machine_failure(machine(tmp_path / "data"), {"PATH": str(programs)})


def test_a_data_directory_that_cannot_be_made_is_named_with_its_setting(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker_info(fake_command)
    (tmp_path / "file").write_text("in the way")
    text = machine_failure(machine(tmp_path / "file" / "data"), fake_command.environment)
    assert "seatable-vllm:machine.data_dir" in text
    assert str(tmp_path / "file" / "data") in text


def test_a_disk_that_is_nearly_full_is_told_with_figures_and_the_setting(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker_info(fake_command)
    fake_command.add(
        "df", "echo 'Filesystem 1048576-blocks Used Available Capacity Mounted on'; echo '/dev/x 9 9 812 99% /'"
    )
    text = machine_failure(machine(tmp_path / "data"), fake_command.environment)
    assert "812 MiB free" in text
    assert "seatable-vllm:machine.data_dir" in text
    found = explain(text)
    assert found is not None
    assert found.failure.name == "disk-full"


@pytest.mark.parametrize("which", ["edge", "engine", "loopback"])
def test_a_port_that_another_program_has_is_told_with_its_number_and_setting(
    which: str, tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker_info(fake_command)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = machine_failure(machine(tmp_path / "data", **{f"{which}_port": port}), fake_command.environment)
    assert str(port) in text
    assert f"seatable-vllm:ports.{which}" in text
    found = explain(text)
    assert found is not None
    assert found.failure.name == "port-in-use"


def test_a_port_that_the_stacks_own_container_has_is_no_failure(tmp_path: Path, fake_command: FakeCommand) -> None:
    docker_info(fake_command, listed="0123456789ab")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_bash(machine(tmp_path / "data", edge_port=port), fake_command.environment)
    assert done.returncode == 0, done.stderr
    (listed,) = [call for call in fake_command.calls if f"label=seatable-vllm.port={port}" in call]
    assert "label=seatable-vllm.stack=local" in listed


def edge_with_loopback_port(data: Path, port: int) -> None:
    """Lays down the configuration in force of an edge that has this port beside its own."""
    live = data / "edge" / "live"
    live.mkdir(parents=True)
    marker = {"project": "seatable-vllm", "stack": "local", "owner": None}
    (data / ".seatable-vllm.json").write_text(json.dumps(marker))
    files = edge_files(
        clients={}, client_keys={}, engine_key="k", bind=[], engine="127.0.0.1:1", loopback_port=port
    )
    (live / CONFIGURATION).write_text(files.files[CONFIGURATION])


@pytest.mark.parametrize("runs", [True, False], ids=["the edge runs", "the edge does not run"])
def test_a_loopback_port_is_the_stacks_own_where_its_edge_runs_with_it(
    runs: bool, tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker_info(fake_command, by_name="0123456789ab" if runs else "")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        edge_with_loopback_port(tmp_path / "data", port)
        done = run_bash(machine(tmp_path / "data", loopback_port=port), fake_command.environment)
    assert (done.returncode == 0) == runs, done.stderr
    assert runs or "seatable-vllm:ports.loopback" in done.stderr


def test_another_loopback_port_than_that_of_the_edge_that_runs_is_not_the_stacks_own(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker_info(fake_command, by_name="0123456789ab")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        edge_with_loopback_port(tmp_path / "data", free_port())
        text = machine_failure(machine(tmp_path / "data", loopback_port=port), fake_command.environment)
    assert "seatable-vllm:ports.loopback" in text


# A machine behind SSH


@dataclass(frozen=True)
class Elsewhere:
    """A machine that `ssh` leads to: its programs run here, with its files below the folder."""

    folder: Path
    fake: FakeCommand

    def identity(self, patience: int = 1) -> str | None:
        """What the machine says that it is."""
        for name in ("bin", "etc", "var/lib/dbus", "run/cloud-init"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.fake.add("ssh", 'shift $(($# - 1)); exec bash -c "$1"')
        program = reach_program(Ssh(SshTarget("me", "there"), str(self.folder / "known")), "gpu1", patience)
        for place in ("/etc/machine-id", "/var/lib/dbus/machine-id", "/run/cloud-init/"):
            program = program.replace(f" {place}", f" {self.folder}{place}")
        done = run_bash(program, self.fake.environment)
        assert done.returncode == 0, done.stderr
        found: str | None = json.loads(last_line(done.stdout)).get("identity")
        return found

    def docker(self, identity: str) -> None:
        """A Docker with this id."""
        self.fake.add("docker", f'[ "$1" = info ] && echo {identity}')

    def machine_id(self, identity: str, place: str = "etc") -> None:
        """The id that systemd or D-Bus gave to the machine."""
        (self.folder / place).mkdir(parents=True, exist_ok=True)
        (self.folder / place / "machine-id").write_text(f"{identity}\n")


@pytest.fixture
def elsewhere(tmp_path: Path, fake_command: FakeCommand) -> Elsewhere:
    """A machine with a Docker."""
    made = Elsewhere(tmp_path / "there", fake_command)
    made.machine_id("4c1a2b")
    made.docker("AAAA:BBBB")
    return made


def test_a_machine_is_known_by_its_own_id_and_by_its_dockers(elsewhere: Elsewhere) -> None:
    first = elsewhere.identity()
    assert first is not None
    assert re.fullmatch(r"[0-9a-f]{16}", first)
    assert elsewhere.identity() == first, "the same machine on the next day"
    elsewhere.docker("CCCC:DDDD")
    docker_anew = elsewhere.identity()
    elsewhere.docker("AAAA:BBBB")
    elsewhere.machine_id("5d3e4f")
    other_machine = elsewhere.identity()
    assert len({first, docker_anew, other_machine}) == 3
    elsewhere.machine_id("4c1a2b")
    elsewhere.machine_id("6e5f7a", "var/lib/dbus")
    assert elsewhere.identity() == first, "systemd's id goes before that of D-Bus"
    (elsewhere.folder / "etc/machine-id").unlink()
    elsewhere.machine_id("4c1a2b", "var/lib/dbus")
    assert elsewhere.identity() == first, "D-Bus keeps the same id"


def test_a_machine_does_not_show_the_ids_that_it_is_known_by(elsewhere: Elsewhere) -> None:
    found = elsewhere.identity()
    assert found == hashlib.sha256(b"4c1a2b AAAA:BBBB").hexdigest()[:16]


def test_a_preview_takes_no_machine_for_another_because_its_docker_is_silent(elsewhere: Elsewhere) -> None:
    elsewhere.fake.add("docker", "exit 1")
    assert elsewhere.identity(patience=0) is None


# Weights


def test_what_is_fetched_is_noted_as_the_stacks_own_and_what_was_there_is_not(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker_that_fetches(fake_command)
    done = weights(tmp_path / "fetched", fake_command)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fetched/models/.made").read_text() == f"{MODEL}\n"
    there = tmp_path / "there" / "models" / MODEL
    there.mkdir(parents=True)
    (there / "config.json").write_text("{}")
    assert weights(tmp_path / "there", fake_command).returncode == 0
    assert not (tmp_path / "there/models/.made").exists()


MODEL = "owner/model"


def token() -> str:
    """What looks like a token of the hub; put together here, so that no file holds one."""
    return "hf_" + "Zz9" * 8


def weights(data: Path, fake: FakeCommand, token: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**fake.environment, "XDG_CACHE_HOME": str(fake.folder / "cache")}
    return run_bash(weights_program(str(data), MODEL, None, "image:1", token), environment)


def docker_that_fetches(fake_command: FakeCommand, status: int = 0) -> None:
    """A `docker run` that puts a file into the folder of the download, and keeps what it was given."""
    fake_command.add(
        "docker",
        f"""cat > {fake_command.folder}/stdin
for word in "$@"; do case "$word" in *:/models) models=${{word%:/models}};; esac; done
echo weights > "$models/.partial/{MODEL}/model.safetensors"
[ {status} != 0 ] || echo '{{}}' > "$models/.partial/{MODEL}/config.json"
exit {status}""",
    )


def test_weights_that_are_here_are_not_fetched_again(tmp_path: Path, fake_command: FakeCommand) -> None:
    (tmp_path / "models" / MODEL).mkdir(parents=True)
    (tmp_path / "models" / MODEL / "config.json").write_text("{}")
    fake_command.add("docker", "exit 1")
    assert weights(tmp_path, fake_command).returncode == 0
    assert fake_command.calls == []


def test_fetched_weights_are_in_place_only_when_they_are_complete(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker_that_fetches(fake_command, status=1)
    assert weights(tmp_path, fake_command).returncode != 0
    assert not (tmp_path / "models" / MODEL).exists()
    assert (tmp_path / "models" / ".partial" / MODEL / "model.safetensors").exists(), "the next run resumes it"
    (tmp_path / "models" / ".lock").unlink(missing_ok=True)
    docker_that_fetches(fake_command)
    assert weights(tmp_path, fake_command).returncode == 0
    folder = tmp_path / "models" / MODEL
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert not (tmp_path / "models" / ".partial").exists()


@pytest.mark.parametrize("status", [0, 1])
def test_a_run_that_has_ended_keeps_no_other_waiting(
    status: int, tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker_that_fetches(fake_command, status)
    weights(tmp_path, fake_command)
    with (tmp_path / "models" / ".lock").open("w") as lock:
        # Raises BlockingIOError where something that the program left running still holds it.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_weights_that_scripts_up_has_made_are_copied_and_not_fetched(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    made = fake_command.folder / "cache" / "seatable-vllm" / "models" / MODEL
    made.mkdir(parents=True)
    for name in ("config.json", ".complete"):
        (made / name).write_text("{}")
    fake_command.add("docker", "exit 1")
    assert weights(tmp_path, fake_command).returncode == 0
    assert fake_command.calls == []
    assert (tmp_path / "models" / MODEL / "config.json").exists()


def test_a_made_model_that_is_not_complete_is_not_taken(tmp_path: Path, fake_command: FakeCommand) -> None:
    made = fake_command.folder / "cache" / "seatable-vllm" / "models" / MODEL
    made.mkdir(parents=True)
    (made / "config.json").write_text("half")
    docker_that_fetches(fake_command)
    assert weights(tmp_path, fake_command).returncode == 0
    assert (tmp_path / "models" / MODEL / "config.json").read_text().strip() == "{}"


def test_the_hubs_token_goes_to_the_container_on_its_standard_input_alone(
    tmp_path: Path, fake_command: FakeCommand
) -> None:
    docker_that_fetches(fake_command)
    done = weights(tmp_path, fake_command, token())
    assert done.returncode == 0
    assert token() in (fake_command.folder / "stdin").read_text()
    assert_not_in_arguments(fake_command, token())
    assert token() not in done.stdout + done.stderr
    assert not any(token() in path.read_text() for path in (tmp_path / "models").rglob("*") if path.is_file())


HUB = """\
class RepositoryNotFoundError(Exception): pass
class RevisionNotFoundError(Exception): pass
class GatedRepoError(RepositoryNotFoundError): pass
class HfHubHTTPError(Exception):
    def __init__(self, status):
        self.response = type("Response", (), {{"status_code": status}})
class LocalEntryNotFoundError(Exception):
    def __init__(self, status):
        self.__cause__ = HfHubHTTPError(status)
class HfApi:
    def list_repo_files(self, name, revision, token):
        {action}
        return ["model.safetensors", "pytorch_model.bin", "config.json"]
def snapshot_download(name, revision, token, local_dir, ignore_patterns):
    print(local_dir, sorted(ignore_patterns))
"""


def fetch(tmp_path: Path, action: str) -> subprocess.CompletedProcess[str]:
    """Runs what the engine's image would run, against a stand-in for the hub's client."""
    (tmp_path / "huggingface_hub.py").write_text(HUB.format(action=action))
    program = here_documents(weights_program("/data", MODEL, None, "image:1", token()))["FETCH"]
    return subprocess.run(
        [sys.executable, "-"],
        input=program,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )


def test_only_one_form_of_the_weights_is_fetched_into_the_folder_of_the_download(tmp_path: Path) -> None:
    done = fetch(tmp_path, "pass")
    assert done.returncode == 0, done.stderr
    folder, _, patterns = done.stdout.strip().partition(" ")
    assert folder == f"/models/.partial/{MODEL}"
    assert "*.bin" in patterns
    assert "safetensors" not in patterns


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ("GatedRepoError('401 Client Error')", "model-gated"),
        ("RepositoryNotFoundError('401 Client Error')", "model-unknown"),
        ("RevisionNotFoundError('404 Client Error')", "revision-unknown"),
        ("HfHubHTTPError(401)", "hub-token"),
        ("HfHubHTTPError(403)", "hub-token"),
        ("HfHubHTTPError(429)", "hub-rate-limit"),
        ("LocalEntryNotFoundError(429)", "hub-rate-limit"),
        ("HfHubHTTPError(503)", "model-unreachable"),
        ("ConnectionError('no route to host')", "model-unreachable"),
        ("OSError(28, 'No space left on device')", "disk-full"),
    ],
)
def test_a_download_that_fails_is_explained_by_its_own_cause_and_without_the_token(
    error: str, name: str, tmp_path: Path
) -> None:
    done = fetch(tmp_path, f"raise {error}")
    assert done.returncode != 0
    assert token() not in done.stdout + done.stderr
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["phase", "cause", "change"]
    found = explain(done.stderr)
    assert found is not None
    assert found.failure.name == name


@pytest.mark.parametrize("write", [False, True], ids=["preview", "up"])
def test_a_model_folder_that_was_removed_counts_once_and_no_more_when_it_is_back(
    tmp_path: Path, write: bool
) -> None:
    # The number is a trigger: any change of it fetches the weights again, so it must rest in between.
    folder = tmp_path / "models" / MODEL

    def lost(*, write: bool) -> str:
        return run_bash(lost_program(str(tmp_path), MODEL, write=write), dict(os.environ)).stdout.strip()

    def put() -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").touch()
        run_bash(weights_program(str(tmp_path), MODEL, None, "image", None), dict(os.environ))

    assert lost(write=True) == "0", "nothing was there yet, so nothing is lost"
    put()
    assert lost(write=True) == "0"
    shutil.rmtree(folder)
    assert lost(write=write) == "1"
    assert lost(write=True) == ("2" if write else "1"), "a preview remembers nothing"
    before = lost(write=False)
    put()
    assert lost(write=True) == str(int(before) - 1)
