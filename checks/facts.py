"""What is on a machine of a stack: Docker, containers, edge, ports, disk. Only looks, and never fails.

Runs on the machine, as a program on standard input (see `checks.bundle`): it imports the standard library alone,
is given one JSON object (see `main`) and prints one.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone
from typing import Any

LOG_LINES = 300
ASK_SECONDS = 5
DOCKER_SECONDS = 60
SECOND = "%Y-%m-%dT%H:%M:%S"
"""How the moments begin that Docker writes; fractions and the zone, always UTC here, follow."""
GENERATION_HEADER = "x-edge-generation"
"""The same as catalog.haproxy's, which does not travel."""


def _docker(*arguments: str) -> tuple[str, str]:
    """Output and complaint of a docker command; the complaint is empty when it worked."""
    try:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, errors="replace", timeout=DOCKER_SECONDS,
            check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return "", "the docker command is not installed"
    except subprocess.TimeoutExpired:
        return "", f"Docker does not answer within {DOCKER_SECONDS} s"
    if done.returncode != 0:
        return "", done.stderr.strip() or f"docker {arguments[0]} ended with status {done.returncode}"
    # Programs in containers log to both.
    return done.stdout + (done.stderr if arguments[0] == "logs" else ""), ""


def _container(name: str) -> dict[str, Any] | None:
    """State and log of a container, or None where there is none of this name."""
    text, complaint = _docker("inspect", "--type", "container", name)
    if complaint:
        return None
    (seen,) = json.loads(text)
    state = seen["State"]
    health = state.get("Health") or {}
    # Of a container that keeps ending, the last start may not have said anything yet; of any other, what earlier
    # starts said is history.
    since = [] if seen["RestartCount"] else ["--since", just_before(state["StartedAt"])]
    log, complaint = _docker("logs", "--tail", str(LOG_LINES), *since, name)
    return {
        "status": state["Status"],
        "exit_code": state["ExitCode"],
        "restarts": seen["RestartCount"],
        "up_seconds": seconds_since(state["StartedAt"]),
        "error": state.get("Error", ""),
        "out_of_memory": bool(state.get("OOMKilled")),
        "health": health.get("Status", ""),
        "health_log": "\n".join(entry.get("Output", "") for entry in (health.get("Log") or [])[-1:]),
        "labels": seen["Config"].get("Labels") or {},
        "log": log or complaint,
    }


def just_before(moment: str) -> str:
    """A second before a container's start: Docker notes that when the program runs and may have written."""
    began = datetime.strptime(moment[:19], SECOND).replace(tzinfo=timezone.utc)  # noqa: UP017 - 3.8
    return (began - timedelta(seconds=1)).strftime(SECOND) + moment[19:]


def seconds_since(moment: str) -> float:
    """Seconds since a moment as Docker writes it, in UTC."""
    begin = datetime.strptime(moment[:19], SECOND).replace(tzinfo=timezone.utc)  # noqa: UP017 - 3.8
    return (datetime.now(timezone.utc) - begin).total_seconds()  # noqa: UP017


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=ASK_SECONDS):
            return True
    except OSError:
        return False


def _generation_in_force(url: str) -> tuple[str, str]:
    """Which configuration the edge answers with, and why that is not known. No key is sent."""
    # The certificate may be for a name that does not lead to this address; a client judges it, not this.
    context = ssl._create_unverified_context()  # noqa: S323
    try:
        answer = urllib.request.urlopen(url, timeout=ASK_SECONDS, context=context)  # noqa: S310 - a URL of ours
    except urllib.error.HTTPError as error:
        answer = error
    except OSError as error:
        return "", str(getattr(error, "reason", error))
    with answer:
        return answer.headers.get(GENERATION_HEADER) or "", ""


def _free_mib(path: str) -> tuple[str, int]:
    """The nearest folder that exists, and the free space there."""
    while not os.path.isdir(path):  # noqa: PTH112 - Python 3.8 machines
        path = os.path.dirname(path)  # noqa: PTH120
    return path, shutil.disk_usage(path).free // 2**20


def _live(data_dir: str) -> str:
    """The name of the edge's configuration on the disk; empty where there is none to be seen."""
    try:
        return os.path.basename(os.readlink(f"{data_dir}/edge/live"))  # noqa: PTH115, PTH119
    except OSError:
        return ""


def collect(order: dict[str, Any]) -> dict[str, Any]:
    """All facts. order: see `main`."""
    told, complaint = _docker("info", "--format", "{{.ServerVersion}} {{.DockerRootDir}}")
    version, _, root = told.strip().partition(" ")
    in_force, why = _generation_in_force(order["edge_url"])
    loopback = _generation_in_force(order["loopback_url"])[0] if order["loopback_url"] else ""
    return {
        "docker": {"version": version, "complaint": complaint},
        "containers": {} if complaint else {role: _container(name) for role, name in order["containers"].items()},
        "edge": {"on_disk": _live(order["data_dir"]), "in_force": in_force, "complaint": why},
        "loopback": {"in_force": loopback},
        "listening": {role: _listens("127.0.0.1", port) for role, port in order["ports"].items()},
        "weights": os.path.isfile(f"{order['data_dir']}/models/{order['model']}/config.json"),  # noqa: PTH113
        "free_mib": dict(_free_mib(path) for path in (order["data_dir"], *([root] if root else []))),
    }


def main(text: str) -> int:
    """Prints the facts as JSON.

    text: JSON with `containers` (name by role), `ports` (by role), `data_dir`, `model`, `edge_url` and
    `loopback_url` (what the edge answers there by itself; the second may be None).
    """
    print(json.dumps(collect(json.loads(text))))
    return 0
