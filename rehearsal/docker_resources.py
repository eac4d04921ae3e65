"""Docker's resource types, made with the Docker SDK from the inputs that the real provider would get."""

import contextlib
import json
import re
from typing import Any

import docker
import docker.errors
import requests
from docker.types import Healthcheck, LogConfig

from rehearsal.errors import RehearsalError
from rehearsal.state import Made

OWNER_LABELS = ("seatable-vllm.stack", "seatable-vllm.data-dir")
"""Together they say whose a container or network is."""

MIB = 2**20

SECONDS = {"s": 1, "m": 60, "h": 3600}


def client(provider: dict[str, Any]) -> docker.DockerClient:
    """A client for the address that the stack's docker.Provider names."""
    try:
        return docker.DockerClient(base_url=provider["host"], timeout=120)
    except docker.errors.DockerException as error:
        raise RehearsalError(f"Cannot connect to the Docker daemon at {provider['host']}: {error}") from None


def require_docker_behind(url: str) -> None:
    """RehearsalError where a tunnel leads to no Docker. That the machine's Docker works was seen before."""
    try:
        client({"host": url}).ping()
    except (RehearsalError, docker.errors.DockerException, requests.RequestException):
        raise RehearsalError(
            "phase: machine ready\n"
            "cause: Docker works on the machine, but sshd there does not forward its socket to here\n"
            "change: in /etc/ssh/sshd_config there set AllowTcpForwarding yes, AllowStreamLocalForwarding yes and "
            "DisableForwarding no, then run sudo systemctl reload ssh"
        ) from None


def nanoseconds(duration: str) -> int:
    """A Go duration such as 20m0s, in nanoseconds."""
    if not re.fullmatch(r"(\d+h)?(\d+m)?(\d+s)?", duration) or not duration:
        raise RehearsalError(f"the rehearsal cannot read the duration {duration!r}; write it as 20m0s")
    return sum(int(number) * SECONDS[unit] for number, unit in re.findall(r"(\d+)([hms])", duration)) * 10**9


def _labels(inputs: dict[str, Any]) -> dict[str, str]:
    return {item["label"]: item["value"] for item in inputs.get("labels", [])}


def _make_way(kind: str, name: str, labels: dict[str, str], found: Any) -> None:
    """Removes what an interrupted run left under this name; refuses to touch what is not this stack's."""
    for item in found:
        held = item.attrs.get("Labels") if kind == "network" else item.labels
        if any((held or {}).get(label) != labels.get(label) for label in OWNER_LABELS):
            raise RehearsalError(
                f"phase: {kind} {name}\n"
                f"cause: a {kind} named {name} is there that this stack did not make\n"
                f"change: remove it (docker {kind} rm {name}), or use another stack name"
            )
        remove(item)


def remove(item: Any) -> None:
    """Removes a container or network. One that is gone, or that somebody else is removing, is no error."""
    container = hasattr(item, "image")
    try:
        item.remove(**({"force": True} if container else {}))
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as error:
        if not container or "already in progress" not in str(error):
            raise
        # Its name is free only then.
        with contextlib.suppress(docker.errors.NotFound):
            item.wait(condition="removed")


def _disconnect(network: Any) -> None:
    """Takes every container off a network; Docker removes none that is in use."""
    network.reload()
    for container in network.attrs["Containers"]:
        network.disconnect(container, force=True)


class DockerNetwork:
    """`docker.Network`."""

    def create(self, name: str, inputs: dict[str, Any], provider: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """A bridge network with the stack's labels."""
        docker_client, labels = client(provider), _labels(inputs)
        found = [n for n in docker_client.networks.list(names=[inputs["name"]]) if n.name == inputs["name"]]
        for network in found:
            _disconnect(network)
        _make_way("network", inputs["name"], labels, found)
        network = docker_client.networks.create(inputs["name"], driver="bridge", labels=labels)
        return str(network.id), inputs

    def keep(self, made: Made, provider: dict[str, Any]) -> bool:
        """Whether it is still there."""
        try:
            client(provider).networks.get(made.id)
        except docker.errors.NotFound:
            return False
        return True

    def delete(self, made: Made, provider: dict[str, Any]) -> None:
        """Removes it. Containers that are still on it are made again after it."""
        try:
            network = client(provider).networks.get(made.id)
            _disconnect(network)
            network.remove()
        except docker.errors.NotFound:
            return


class DockerContainer:
    """`docker.Container`."""

    def create(self, name: str, inputs: dict[str, Any], provider: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Creates and starts it."""
        docker_client = client(provider)
        labels = _labels(inputs)
        found = [
            container
            for container in docker_client.containers.list(
                all=True, filters={"name": inputs["name"]}, ignore_removed=True
            )
            if container.name == inputs["name"]
        ]
        _make_way("container", inputs["name"], labels, found)
        try:
            container = docker_client.containers.create(**_create_arguments(inputs))
            container.start()
        except docker.errors.APIError as error:
            raise RehearsalError(f"{name}: Docker says: {error.explanation}") from None
        return str(container.id), inputs

    def keep(self, made: Made, provider: dict[str, Any]) -> bool:
        """Starts it where it was stopped; False where it is gone or cannot be started."""
        try:
            container = client(provider).containers.get(made.id)
        except docker.errors.NotFound:
            return False
        if container.status in ("running", "restarting"):
            return True
        try:
            container.start()
        except docker.errors.APIError:
            return False
        return True

    def delete(self, made: Made, provider: dict[str, Any]) -> None:
        """Stops it with its grace, then removes it."""
        try:
            container = client(provider).containers.get(made.id)
            container.stop(timeout=made.inputs.get("destroyGraceSeconds", 10))
            container.remove(force=True)
        except docker.errors.NotFound:
            return


def _create_arguments(inputs: dict[str, Any]) -> dict[str, Any]:
    """The SDK's arguments for a provider's inputs; an input that is not known here is an error, not ignored."""
    left = dict(inputs)
    take = left.pop
    capabilities = take("capabilities", {})
    networks = take("networksAdvanced", [])
    arguments: dict[str, Any] = {
        "image": take("image"),
        "name": take("name"),
        "command": take("command", None),
        "environment": take("envs", None),
        "labels": _labels({"labels": take("labels", [])}),
        "network": networks[0]["name"] if networks else None,
        "network_mode": take("networkMode", None),
        "init": take("init", None),
        "user": take("user", None),
        "read_only": take("readOnly", False),
        "cap_add": capabilities.get("adds"),
        "cap_drop": capabilities.get("drops"),
        "security_opt": take("securityOpts", None),
        "tmpfs": take("tmpfs", None),
        "shm_size": take("shmSize", 0) * MIB or None,
        "restart_policy": {"Name": take("restart", "no")},
        "stop_signal": take("stopSignal", None),
        "log_config": LogConfig(type=take("logDriver", "json-file"), config=take("logOpts", {})),
        "ports": {f"{port['internal']}/tcp": (port["ip"], port["external"]) for port in take("ports", [])},
        "volumes": {
            item["hostPath"]: {"bind": item["containerPath"], "mode": "ro" if item.get("readOnly") else "rw"}
            for item in take("volumes", [])
        },
        "healthcheck": _healthcheck(take("healthcheck", None)),
    }
    if take("gpus", None):
        arguments["device_requests"] = [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])]
    for known_elsewhere in ("mustRun", "destroyGraceSeconds", "stopTimeout"):
        take(known_elsewhere, None)
    if left:
        raise RehearsalError(
            f"the rehearsal does not know these inputs of a container: {json.dumps(sorted(left))}"
        )
    return {key: value for key, value in arguments.items() if value is not None}


def _healthcheck(inputs: dict[str, Any] | None) -> Healthcheck | None:
    if inputs is None:
        return None
    return Healthcheck(
        test=inputs["tests"],
        interval=nanoseconds(inputs["interval"]),
        timeout=nanoseconds(inputs["timeout"]),
        start_period=nanoseconds(inputs["startPeriod"]),
        retries=inputs["retries"],
    )
