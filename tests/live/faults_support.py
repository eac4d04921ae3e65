"""What the tests of faults, interruptions and failures share: signals to a container's processes, patient
asking, the end of what a failed command has printed, and what every failure must say there.

What is right for one failure the tests decide. It stands on `harness`, and like it on `up --rehearse`.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.live.harness import LOOPBACK, Answer, Deployment, docker_client, pace, send

PICTURE_BYTES = 100_000

SHOWN_LINES = 8
"""How much of the end of a failed command a person reads: phase, cause, change, what was seen."""


def host_processes(container: str) -> dict[int, str]:
    """Command lines of a container's processes, by their ids on this computer."""
    told = docker_client().containers.get(container).top(ps_args="-eo pid,args")
    assert told["Titles"][0] == "PID", told
    return {int(pid): command for pid, command, *_ in told["Processes"]}


def signal_processes(container: str, pattern: str, number: signal.Signals) -> None:
    """Sends a signal from outside to every process of a container whose command line has this pattern.

    Docker does not hear of it, so it takes the end for a crash, which `docker kill` would not be.
    """
    found = [pid for pid, command in host_processes(container).items() if re.search(pattern, command)]
    assert found, f"no process of {container} is {pattern!r}: {host_processes(container)}"
    try:
        for pid in found:
            os.kill(pid, number)
    except PermissionError:
        pytest.skip("only root may send signals to the processes of containers")


@dataclass
class Outage:
    """What a client that keeps asking for one token gets to see from the fault on.

    Every second request has the size of one with a picture: more than a proxy holds back while it connects.
    silences, cut: when each request was sent that got nothing in time, or whose connection was closed on it.
    cut_large: the same for the large ones, which this does not judge: HAProxy 2.6, which the made image has, hangs
    up on a client that is still sending when the answer is known; 3.2, the pinned one, reads on until its end.
    """

    begin: float = field(default_factory=time.monotonic)
    answers: list[Answer] = field(default_factory=list)
    silences: list[float] = field(default_factory=list)
    cut: list[float] = field(default_factory=list)
    cut_large: list[float] = field(default_factory=list)
    seconds: float = 0

    def last_until_served(self, deployment: Deployment, key: str, *, patience: float, deadline: float) -> None:
        """Asks until a token comes. patience: for one answer. deadline: in seconds from the fault (see `Pace`)."""
        for padding in itertools.cycle((0, PICTURE_BYTES)):
            sent = time.monotonic() - self.begin
            try:
                answer = one_token(deployment, key, patience=patience, padding=padding)
            except TimeoutError:
                self.silences.append(sent)
            except (OSError, http.client.HTTPException):
                (self.cut_large if padding else self.cut).append(sent)
            else:
                if answer.status == http.client.OK:
                    break
                self.answers.append(answer)
            late = pace.ran_out(self.begin, deadline)
            assert not late, f"not served within {pace.of(deadline):.0f} s of the fault: {self.summary()}"
            time.sleep(0.2)
        self.seconds = time.monotonic() - self.begin

    def summary(self) -> str:
        """Statuses by how often they came, and how often there was none."""
        statuses = [answer.status for answer in self.answers]
        counted = [f"{status}: {statuses.count(status)}" for status in sorted(set(statuses))]
        return ", ".join(
            [*counted, f"no answer: {len(self.silences)}", f"cut: {len(self.cut)} + {len(self.cut_large)}"]
        )


def one_token(deployment: Deployment, key: str, *, patience: float = 60, padding: int = 0) -> Answer:
    """The answer to a request for one token; TimeoutError where none came in time."""
    connection = http.client.HTTPConnection(LOOPBACK, deployment.edge_port, timeout=pace.of(patience))
    body = deployment.chat("Say OK.", max_tokens=1, user="u" * padding)
    with contextlib.closing(connection):
        return send(connection, "POST", "/v1/chat/completions", key=key, body=body)


def serves(deployment: Deployment, key: str) -> bool:
    """Whether a token comes."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return one_token(deployment, key).status == http.client.OK
    return False


def listed(deployment: Deployment, key: str) -> bool:
    """Whether the edge passes a request for the list of models on and an answer comes back."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return deployment.ask("GET", "/v1/models", key=key).status == http.client.OK
    return False


@contextlib.contextmanager
def long_generations(deployment: Deployment, key: str, count: int, tokens: int) -> Iterator[None]:
    """That many streamed completions at once that nobody reads; hung up at the end."""
    body = json.dumps(
        deployment.chat("Tell a very long story.", stream=True, max_tokens=tokens, ignore_eos=True)
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = socket.create_connection((LOOPBACK, deployment.edge_port), timeout=pace.of(60))
            stack.enter_context(contextlib.closing(connection))
            connection.sendall(head + body)
        yield


@contextlib.contextmanager
def listener(port: int) -> Iterator[None]:
    """Another program on this port of the loopback address."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((LOOPBACK, port))
        taken.listen()
        yield


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[None]:
    """A file system of this size at a folder, empty and in memory."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def end_of(done: subprocess.CompletedProcess[str]) -> str:
    """The lines of a failed command that a person reads first: its last ones."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return "\n".join(lines[-SHOWN_LINES:])


def assert_explained(done: subprocess.CompletedProcess[str], cause: str, change: str) -> None:
    """A failure status, and last of all cause and remedy in the words of whoever runs it."""
    told = f"{done.stdout}\n{done.stderr}"
    assert done.returncode != 0, f"it passed:\n{told}"
    assert "Traceback" not in told, told
    end = end_of(done)
    # A short failure is told twice within a few lines: as it happened, and summed up at the end.
    causes = sorted({*re.findall(r"^cause: (.*)$", end, re.MULTILINE)})
    assert len(causes) == 1, f"not one cause at the end:\n{end}\n--- of:\n{told}"
    assert re.search(cause, causes[0]), f"the cause is {causes[0]!r}, which is not {cause!r}\n--- of:\n{told}"
    changes = sorted({*re.findall(r"^change: (.*)$", end, re.MULTILINE)})
    assert len(changes) == 1, f"not one remedy at the end:\n{end}\n--- of:\n{told}"
    assert re.search(change, changes[0]), f"the remedy is {changes[0]!r}, not {change!r}\n--- of:\n{told}"


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """A failure status, and last of all what was wrong in the input, its value, and the way out."""
    told = f"{done.stdout}\n{done.stderr}"
    assert done.returncode != 0, f"it passed:\n{told}"
    assert "Traceback" not in told, told
    for word in words:
        assert re.search(word, end_of(done)), f"nothing of {word!r} at the end:\n{told}"


def doctor(deployment: Deployment) -> subprocess.CompletedProcess[str]:
    """`scripts/doctor` of the stack; whatever it says holds no key and no stack trace."""
    done = deployment.checkout.run("doctor", deployment.stack)
    told = done.stdout + done.stderr
    assert "Traceback" not in told, told
    assert deployment.engine_key() not in told
    for client in ("seatable", "agents"):
        assert deployment.key(client) not in told
    return done


def problems(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What was told of each problem, by what it is about."""
    blocks = [block for block in done.stdout.split("\n\n") if block.startswith("problem: ")]
    return {block.splitlines()[0].removeprefix("problem: "): block for block in blocks}


def container_exists(name: str) -> bool:
    """Whether there is a container of exactly this name, running or not."""
    found = docker_client().containers.list(all=True, filters={"name": name}, ignore_removed=True)
    return any(each.name == name for each in found)


def processes_in(folder: Path) -> dict[int, str]:
    """Command lines of all processes whose working directory is this folder, but for this one."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            # It may end while it is looked at, or belong to somebody else.
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink() == folder:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found[int(entry.name)] = command.strip()
    return {pid: command for pid, command in found.items() if command}


def until_ended(process: subprocess.Popen[str], condition: Callable[[], bool], seconds: float) -> bool:
    """Waits until the condition holds; False when the process ended first, or time ran out."""
    begin = time.monotonic()
    while not condition():
        if process.poll() is not None or pace.ran_out(begin, seconds):
            return False
        time.sleep(0.005)
    return True
