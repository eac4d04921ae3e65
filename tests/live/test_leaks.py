"""The keys of the clients and of the engine, looked for in every place where somebody else could find them.

What this does NOT prove: that a key is nowhere in memory or on the disk (those who may use Docker can read every
file that the containers read), nor anything about the state of the Pulumi CLI, which encrypts secrets itself. A
process that lives for less than a few milliseconds may go unseen by the sampling of /proc; what the scripts call
by name is written down in full by stand-ins on PATH.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import shutil
import socket
import stat
import string
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.machine.machine import MACHINE_OWNER
from tests.live.harness import LOOPBACK, Deployment, docker_client

AGENTS = "127.0.0.2"

MIB = 2**20
WHOLE_FILES_MIB = 16
"""Larger files than this are weights, and are not read."""

CALLED = (
    "awk", "base64", "bash", "cat", "chmod", "cp", "curl", "cut", "date", "df", "dirname", "docker", "du", "env",
    "find", "flock", "grep", "install", "ln", "mkdir", "mktemp", "mv", "python3", "rm", "sed", "sh", "sha256sum",
    "tee", "tr",
)  # fmt: skip
"""Programs that the scripts call, or could call, by name."""


def needles(secret: str) -> list[bytes]:
    """Pieces of a secret that betray it, plain and in base64 at each of its three alignments."""
    plain = [secret[:16], secret[24:40], secret[-16:]]
    encoded = [base64.b64encode(b"x" * shift + secret.encode()).decode()[4:-4] for shift in range(3)]
    return [piece.encode() for piece in (*plain, *(text[:24] for text in encoded), secret.encode().hex()[:32])]


@dataclass(frozen=True)
class Secrets:
    """Everything that must not be found, by what it is."""

    values: Mapping[str, str]

    def found_in(self, data: bytes | str) -> list[str]:
        """Which of them are in there, whole or in part."""
        raw = data.encode() if isinstance(data, str) else data
        return [name for name, value in self.values.items() if any(needle in raw for needle in needles(value))]


def secrets_of(deployment: Deployment) -> Secrets:
    """All generated keys, from the rehearsal's own state: also those that no output shows."""
    state = json.loads((deployment.state_dir / "rehearsal.json").read_text())
    made = {
        item["name"]: item["outputs"]["result"]
        for item in state["made"]
        if item["type"].startswith("random:") and item["name"] != MACHINE_OWNER  # a label of containers, no key
    }
    in_use = [client["key"] for client in deployment.outputs()["clients"].values()] + [deployment.engine_key()]
    assert set(in_use) <= set(made.values()), "there are keys that the state does not know"
    return Secrets(made)


@pytest.fixture
def secrets(deployment: Deployment) -> Secrets:
    """The keys in use, after every client has used its own, rightly and wrongly."""
    for client, source in (("seatable", LOOPBACK), ("agents", AGENTS)):
        key = deployment.key(client)
        body = deployment.chat("Say OK.", max_tokens=1)
        answer = deployment.ask("POST", "/v1/chat/completions", key=key, source=source, body=body)
        assert answer.status == 200
        deployment.ask("POST", "/v1/chat/completions", key=key, source=source, body={"messages": 1})
        deployment.ask("GET", "/invocations", key=key, source=source)
        deployment.ask("GET", "/v1/models", key=key, source="127.0.0.3")
        for wrong in (key, f"Token {key}", f"Bearer {key} x"):
            deployment.ask("GET", "/v1/models", source=source, headers={"authorization": wrong})
        deployment.exchange(f"GET /v1/models HTTP/1.1\r\nAuthorization: {key}\r\nX\0: y\r\n\r\n".encode())
    return secrets_of(deployment)


@contextlib.contextmanager
def configured(deployment: Deployment, **settings: Any) -> Iterator[None]:
    """The stack's file with these keys in it, until the block ends."""
    before = deployment.stack_file.read_text()
    deployment.configure(**settings)
    try:
        yield
    finally:
        deployment.stack_file.write_text(before)


def test_a_key_is_recognised_plain_and_in_every_alignment_of_base64() -> None:
    """If the finder were blind, everything below would pass."""
    value = "".join(random.choices(string.ascii_letters + string.digits, k=64))  # noqa: S311
    secrets = Secrets({"one": value, "other": value[::-1]})
    for before in ("", "a", "ab", "abc"):
        text = f"{before}{value} behind"
        assert secrets.found_in(text) == ["one"]
        assert secrets.found_in(base64.b64encode(text.encode())) == ["one"]
    assert secrets.found_in(value[:20]) == ["one"]
    assert secrets.found_in(b"nothing") == []


# --- logs and Docker


def test_no_key_is_in_the_log_of_a_container(deployment: Deployment, secrets: Secrets) -> None:
    """The logs are not empty, and both have seen every key."""
    for name in (deployment.edge, deployment.engine):
        log = deployment.log(name)
        assert "/v1/chat/completions" in log.replace("\\/", "/")
        assert not secrets.found_in(log), name


def test_what_a_client_puts_into_a_query_is_in_no_log(deployment: Deployment) -> None:
    """Some clients send a key that way; no door has a use for a query."""
    mark = f"marked-{os.getpid()}"
    deployment.ask("GET", f"/v1/models?api_key={mark}")
    deployment.ask("GET", f"/v1/models?api_key={mark}", key=deployment.key())
    deployment.ask("GET", f"/invocations?api_key={mark}")
    assert not [name for name in (deployment.edge, deployment.engine) if mark in deployment.log(name)]


def test_no_key_is_in_what_docker_tells_of_containers_networks_and_images(
    deployment: Deployment, secrets: Secrets
) -> None:
    """`docker inspect` and `docker events` are there for everyone who may use Docker."""
    names = [deployment.edge, deployment.engine, deployment.network]
    images = [docker_client().containers.get(name).attrs["Image"] for name in names[:2]]
    told = subprocess.run(
        ["docker", "inspect", *names, *images], capture_output=True, text=True, check=True
    ).stdout
    assert [item.get("Name") for item in json.loads(told)][:2] == [f"/{name}" for name in names[:2]]
    assert not secrets.found_in(told)
    since = docker_client().containers.get(deployment.engine).attrs["Created"]
    form = ["docker", "events", "--since", since, "--until", "0s", "--format", "{{json .}}"]
    events = subprocess.run(form, capture_output=True, text=True, check=True).stdout
    assert deployment.engine in events
    assert not secrets.found_in(events)


def test_no_key_is_in_a_log_of_the_machine(secrets: Secrets) -> None:
    """Docker's own log is among them where it writes to a file."""
    logs = [path for path in _files(Path("/var/log")) if path.stat().st_size < WHOLE_FILES_MIB * MIB]
    found = {str(path): names for path in logs if (names := secrets.found_in(_read(path)))}
    assert not found


# --- processes


def _read(path: Path) -> bytes:
    """The content of a file that may be gone, or not ours to read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _processes() -> Iterator[Path]:
    return (path for path in Path("/proc").iterdir() if path.name.isdigit())


def test_no_key_is_in_the_arguments_or_the_environment_of_a_process(
    deployment: Deployment, secrets: Secrets
) -> None:
    """All processes of the machine, those in the containers above all."""
    first = [
        docker_client().containers.get(name).attrs["State"]["Pid"] for name in (deployment.edge, deployment.engine)
    ]
    seen = {int(path.name): (_read(path / "cmdline"), _read(path / "environ")) for path in _processes()}
    assert all(all(seen[pid]) for pid in first), "the containers' processes cannot be read"
    found = {pid: names for pid, told in seen.items() if (names := secrets.found_in(b"\0".join(told)))}
    assert not found
    assert not secrets.found_in(subprocess.run(["ps", "auxeww"], capture_output=True, check=True).stdout)


@dataclass
class Watch:
    """Everything that was to be seen from outside while something ran."""

    processes: set[bytes] = field(default_factory=set)
    open_files: dict[bytes, str] = field(default_factory=dict)
    """Contents, by path, of files that others could have read at some moment."""
    rounds: int = 0

    def look(self, folder: Path) -> None:
        """Once through all processes and through the files of a stack that change during an `up`."""
        for path in _processes():
            self.processes |= {_read(path / "cmdline"), _read(path / "environ")}
        for path in _files(folder, without=("models", "cache")):
            with contextlib.suppress(OSError):
                if not _private(path, folder.parent.parent):
                    self.open_files[path.read_bytes()] = str(path)
        self.rounds += 1


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[Watch]:
    """Looks again and again until the block ends."""
    watch, stop = Watch(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            watch.look(folder)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join()


def stand_ins(folder: Path) -> tuple[dict[str, str], Path]:
    """Programs that write down how they are called, then do it: the PATH that finds them, and the record."""
    record = folder / "called"
    record.mkdir()
    programs = folder / "bin"
    programs.mkdir()
    for name in CALLED:
        if real := shutil.which(name):
            program = programs / name
            program.write_text(
                "#!/bin/bash\n"
                f'printf "%s\\n" "{name}" "$@" > "{record}/{name}.$$.$RANDOM"\n'
                f'{{ printf "%s\\n" "$(< /proc/$$/environ)"; }} >> "{record}/{name}.$$.environ" 2>/dev/null\n'
                f'exec {real} "$@"\n'
            )
            program.chmod(0o755)
    return {"PATH": f"{programs}:{os.environ['PATH']}"}, record


def test_no_key_is_shown_to_others_at_any_moment_of_an_up(deployment: Deployment, tmp_path: Path) -> None:
    """A new key is made, laid down, tried, loaded and proved meanwhile, for a user whose umask hides nothing."""
    path, record = stand_ins(tmp_path)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**path, "TMPDIR": str(temporary)}
    arguments = ("agents", "--stack", deployment.stack, "--rehearse")
    with watched(deployment.state_dir) as watch:
        for more in ((), ("--finish",)):
            done = deployment.checkout.run("rotate-key", *arguments, *more, environment=environment, umask=0)
            assert done.returncode == 0, done.stderr
    deployment.forget_outputs()
    secrets = secrets_of(deployment)
    called = sorted(record.iterdir())
    programs = {path.name.partition(".")[0] for path in called}
    assert {"bash", "docker", "python3", "base64"} <= programs, "the stand-ins were not called"
    assert not [names for path in called if (names := secrets.found_in(path.read_bytes()))]
    assert watch.rounds > 10
    assert any(b"scripts.commands" in seen for seen in watch.processes), "the run itself was not seen"
    assert not [names for seen in watch.processes if (names := secrets.found_in(seen))]
    assert not {path for content, path in watch.open_files.items() if secrets.found_in(content)}
    assert list(temporary.iterdir()) == [], "something was left behind"


# --- files


def _files(folder: Path, without: Iterable[str] = ()) -> Iterator[Path]:
    """The plain files below a folder; folders of these names and links are left out."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in without]
        for name in names:
            path = Path(place, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _private(path: Path, top: Path) -> bool:
    """Whether nobody but the owner can read it, by its own mode or that of a folder between it and `top`."""
    others = stat.S_IRWXG | stat.S_IRWXO
    between = [parent for parent in path.parents if parent.is_relative_to(top) and parent != top]
    return any(each.stat().st_mode & others == 0 for each in (path, *between))


def test_only_files_of_the_owner_alone_hold_a_key(deployment: Deployment, secrets: Secrets) -> None:
    """Everything in the project's copy, and what is kept for all stacks of a user."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seatable-vllm"
    holders, open_to_others = set(), []
    for top in (deployment.checkout.path, deployment.data_dir, cache):
        for path in _files(top):
            if path.stat().st_size < WHOLE_FILES_MIB * MIB and secrets.found_in(path.read_bytes()):
                holders.add(path.name)
                if not _private(path, top):
                    open_to_others.append(f"{path} {path.stat().st_mode:o}")
    assert {"rehearsal.json", "config.yaml", "client-keys.map", "engine-key.map"} <= holders, "keys were not found"
    assert not open_to_others


def test_the_files_that_hold_a_key_are_0600_themselves(deployment: Deployment) -> None:
    """A folder's mode is easily changed by somebody who wants to look at the weights."""
    edge = deployment.data_dir / "edge" / "live"
    for path in (
        deployment.data_dir / "vllm" / "config.yaml",
        edge / "client-keys.map",
        edge / "engine-key.map",
        deployment.state_dir / "rehearsal.json",
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


# --- what is printed


def test_up_prints_keys_in_the_settings_block_and_the_curl_line_alone(
    deployment: Deployment, secrets: Secrets
) -> None:
    """Those two are what it is asked for; the rest often ends up in a ticket."""
    done = deployment.checkout.run("up", deployment.stack, *deployment.how, "--show-secrets")
    assert not secrets.found_in(done.stderr)
    blocks = dict(block.split("\n", 1) for block in done.stdout.split("\n--- ")[1:])
    assert set(blocks) == {"endpoint", "settings for SeaTable AI", "try it"}
    rest = [done.stdout.split("\n--- ")[0], blocks["endpoint"]]
    for line in blocks["settings for SeaTable AI"].splitlines():
        if line.strip() != f"key: {deployment.key('seatable')}":
            rest.append(line)
    assert not secrets.found_in("\n".join(rest))
    assert len(secrets.found_in(blocks["try it"])) == 1
    assert deployment.engine_key() not in done.stdout


def test_up_prints_no_key_where_nobody_looks_but_the_command_that_does(
    deployment: Deployment, secrets: Secrets
) -> None:
    """What is read here is a pipe, as the log of a CI is."""
    done = deployment.up()
    assert not secrets.found_in(done.stdout + done.stderr)
    for name in ("seatable_yaml", "curl"):
        assert f"<scripts/output {deployment.stack} {name}>" in done.stdout


def test_no_key_is_in_the_words_of_an_up_that_fails_at_its_beginning(
    deployment: Deployment, secrets: Secrets
) -> None:
    """A port that another program has is found before anything is changed."""
    ports = deployment.settings["ports"]
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        with configured(deployment, ports={**ports, "edge": other.getsockname()[1]}):
            failed = deployment.up(passes=False)
    assert "port in use" in failed.stderr
    assert not secrets.found_in(failed.stdout + failed.stderr)
    deployment.up()


def test_no_key_is_in_the_words_of_an_up_that_fails_with_the_keys_in_hand(
    deployment: Deployment, secrets: Secrets
) -> None:
    """An image that is no HAProxy refuses the configuration, keys and all; the edge in use stays as it is."""
    containers = deployment.containers()
    engine_image = docker_client().containers.get(deployment.engine).attrs["Config"]["Image"]
    with configured(deployment, images={"haproxy": engine_image}):
        failed = deployment.up(passes=False)
    assert "HAProxy refuses its configuration" in failed.stderr
    assert not secrets.found_in(failed.stdout + failed.stderr)
    assert deployment.containers() == containers
    assert deployment.ask("GET", "/v1/models", key=deployment.key()).status == 200
    deployment.up()


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "STACK"),
        ("check", "STACK", "--client", "agents"),
        ("check", "STACK", "--client", "nobody"),
        ("output", "STACK"),
        ("output", "STACK", "--json"),
        ("doctor", "STACK"),
        ("output", "STACK", "nothing"),
        ("output", "STACK", "endpoint"),
        ("output", "STACK", "machine", "--json"),
        ("rotate-key", "nobody", "--stack", "STACK", "--rehearse"),
        ("up", "STACK", "--nothing"),
    ],
    ids=" ".join,
)
def test_no_key_is_in_what_the_other_commands_print(
    deployment: Deployment, secrets: Secrets, arguments: tuple[str, ...]
) -> None:
    """Only those outputs hold a key that are asked for by name."""
    words = [deployment.stack if word == "STACK" else word for word in arguments]
    done = deployment.checkout.run(words[0], *words[1:])
    assert done.stdout + done.stderr
    assert not secrets.found_in(done.stdout + done.stderr)


def test_no_key_is_in_the_words_of_a_stack_that_is_refused(deployment: Deployment, secrets: Secrets) -> None:
    """Every wrong setting at once, beside good keys in the state."""
    wrong = {
        "clients": {"seatable": {"kind": "x", "cidrs": ["0.0.0.0/0"]}},
        "model": {"name": "x", "extra_args": {"api-key": "x"}},
        "ports": {"edge": 1, "more": 1},
    }
    with configured(deployment, **wrong):
        failed = deployment.up(passes=False)
    assert not secrets.found_in(failed.stdout + failed.stderr)
