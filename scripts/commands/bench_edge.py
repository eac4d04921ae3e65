"""The edge's processes as this computer sees them, and an edge of the benchmark's own before a fast upstream."""

import contextlib
import http.client
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from catalog.haproxy import CONFIGURATION, DIRECTORY, EdgeClient, edge_files, plain_bind
from components.edge import CAPABILITIES
from components.machine.local_docker import local_docker_host
from scripts.commands import bench_upstream
from scripts.commands.bench_client import Place, models_seconds
from scripts.commands.errors import CommandError

LABEL = "seatable-vllm.bench"
"""On the container of `own_edge`: the id of the process that made it."""

LOOPBACK = "127.0.0.1"

START_SECONDS = 30


@dataclass(frozen=True)
class FastEdge:
    """An edge with a fast upstream behind it. direct: past the edge. edge: through it. container: its name."""

    direct: Place
    edge: Place
    container: str


def docker_client() -> Any:
    """This computer's Docker."""
    return docker.DockerClient(base_url=local_docker_host(), timeout=120)


def image_of(container: str) -> str:
    """The id of the image that a container runs. CommandError where there is no such container running."""
    return str(_container(container).attrs["Image"])


def haproxy_processes(container: str) -> list[int]:
    """Process ids, as this computer counts them, of every HAProxy in the container: the master and its workers."""
    top = _container(container).top()
    column = top["Titles"].index("PID")
    found = [int(process[column]) for process in top["Processes"]]
    # Docker Desktop keeps containers in a machine of its own, whose processes are not to be seen here.
    return [pid for pid in found if _read(pid, "comm").strip() == "haproxy"]


def resident_mb(container: str) -> float | None:
    """Resident memory of all its HAProxy processes in MB (1,000,000 bytes), shared pages counted in each.

    None where they cannot be seen.
    """
    sizes = [
        int(line.split()[1]) * 1024 / 1e6
        for pid in haproxy_processes(container)
        for line in _read(pid, "status").splitlines()
        if line.startswith("VmRSS:")
    ]
    return sum(sizes) if sizes else None


@contextlib.contextmanager
def fast_edge(image: str) -> Iterator[FastEdge]:
    """The product's own configuration in a container of this image, before a fast upstream on loopback ports.

    Both are gone at the end. It shares no port, file or key with any stack.
    """
    key, port = secrets.token_hex(32), _free_port()
    with tempfile.TemporaryDirectory(prefix="seatable-vllm-bench-") as folder, upstream() as upstream_port:
        made = edge_files(
            clients={"bench": EdgeClient([f"{LOOPBACK}/32"])},
            client_keys={"bench": [key]},
            engine_key=secrets.token_hex(32),
            bind=plain_bind(LOOPBACK, port),
            engine=f"{LOOPBACK}:{upstream_port}",
        )
        live = Path(folder) / "live"
        live.mkdir()
        for name, text in made.files.items():
            (live / name).write_text(text)
        direct, edge = (Place(LOOPBACK, each, key, "fast") for each in (upstream_port, port))
        with running_edge(image, folder) as container:
            _await_answer(edge, container)
            yield FastEdge(direct, edge, str(container.name))


@contextlib.contextmanager
def running_edge(image: str, folder: str) -> Iterator[Any]:
    """A container as components/edge.py makes it, without the restart policy: it is to die with this process."""
    container = docker_client().containers.create(
        image,
        ["haproxy", "-W", "-db", "-f", f"{DIRECTORY}/live/{CONFIGURATION}"],
        name=f"seatable-vllm-bench-{os.getpid()}-{secrets.token_hex(3)}",
        network_mode="host",
        user="0:0",
        cap_drop=["ALL"],
        cap_add=list(CAPABILITIES),
        read_only=True,
        volumes={folder: {"bind": DIRECTORY, "mode": "ro"}},
        labels={LABEL: str(os.getpid())},
    )
    try:
        container.start()
        yield container
    finally:
        container.remove(force=True)


@contextlib.contextmanager
def upstream() -> Iterator[int]:
    """The port of a fast upstream that runs as a child of this process."""
    with subprocess.Popen(
        [sys.executable, bench_upstream.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None  # noqa: S101 - tells the type checker what PIPE means
        assert process.stdout is not None  # noqa: S101
        line = process.stdout.readline()
        if not line:
            raise CommandError("the fast upstream did not start; the lines above say why")
        try:
            yield int(line)
        finally:
            process.stdin.close()


def _await_answer(edge: Place, container: Any) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        with contextlib.closing(edge.connection()) as connection:
            try:
                models_seconds(connection, edge)
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > end:
                    log = container.logs(tail=5).decode(errors="replace")
                    raise CommandError(f"the benchmark's own edge does not answer: {error}\n{log}") from None
                time.sleep(0.05)
            else:
                return


def _container(name: str) -> Any:
    try:
        container = docker_client().containers.get(name)
    except docker.errors.NotFound:
        raise CommandError(f"there is no container {name} on this computer; run scripts/up") from None
    except docker.errors.DockerException as error:
        raise CommandError(f"Docker does not answer: {error}") from None
    if container.status != "running":
        raise CommandError(f"{name} is not running but {container.status}; run scripts/up")
    return container


def _free_port() -> int:
    with socket.socket() as each:
        each.bind((LOOPBACK, 0))
        return int(each.getsockname()[1])


def _read(pid: int, name: str) -> str:
    """A file of /proc about a process; empty where it is gone or there is no /proc."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""
