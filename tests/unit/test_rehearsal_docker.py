"""Unit tier: what the rehearsal does to Docker: what it makes, repairs and removes, and what it leaves alone.

A Docker of the test keeps containers and networks, finds names by a part of them and removes no network in use, as
the real one does. It does NOT prove that a real one takes what it is given: the live tier does.
"""

from __future__ import annotations

from typing import Any

import docker
import pytest
from docker.errors import APIError, DockerException, NotFound

from rehearsal.docker_resources import (
    DockerContainer,
    DockerNetwork,
    _create_arguments,
    remove,
    require_docker_behind,
)
from rehearsal.errors import RehearsalError
from rehearsal.state import Made

HOST = {"host": "unix:///run/stand-in.sock"}
OWNED = {"seatable-vllm.stack": "s", "seatable-vllm.data-dir": "/data"}
LABELS = [{"label": label, "value": value} for label, value in OWNED.items()]


class Thing:
    """A container, or a network."""

    def __init__(self, there: list[Any], name: str, labels: dict[str, str]) -> None:
        self.name, self.id = name, f"{name}-{len(there)}"
        self.there, self.labels = there, labels
        there.append(self)

    def _leave(self) -> None:
        if self not in self.there:
            raise NotFound(self.id)
        self.there.remove(self)


class Container(Thing):
    image = "image"

    def __init__(self, there: list[Any], name: str, labels: dict[str, str], status: str = "running") -> None:
        super().__init__(there, name, labels)
        self.status, self.refuses, self.grace = status, "", -1

    def start(self) -> None:
        if self.refuses:
            raise APIError("500", explanation=self.refuses)
        self.status = "running"

    def stop(self, timeout: int) -> None:
        self.status, self.grace = "exited", timeout

    def remove(self, force: bool = False) -> None:
        if self.status == "running" and not force:
            raise APIError("409", explanation="it runs")
        self._leave()


class Network(Thing):
    def __init__(self, there: list[Any], name: str, labels: dict[str, str]) -> None:
        super().__init__(there, name, {})
        self.attrs: dict[str, Any] = {"Labels": labels}
        self.used_by: list[str] = []

    def reload(self) -> None:
        self.attrs["Containers"] = {each: {} for each in self.used_by}

    def disconnect(self, container: str, force: bool = False) -> None:
        if not force:
            raise APIError("404", explanation="it does not run")
        self.used_by.remove(container)

    def remove(self) -> None:
        if self.used_by:
            raise APIError("403", explanation="has active endpoints")
        self._leave()


class Collection:
    """`containers` or `networks` of a client."""

    def __init__(self, kind: type[Thing]) -> None:
        self.kind, self.items = kind, list[Any]()
        self.refuses = ""
        self.options: dict[str, Any] = {}

    def create(self, name: str, labels: dict[str, str], **options: Any) -> Any:
        if any(each.name == name for each in self.items):
            raise APIError("409", explanation="the name is taken")
        made = self.kind(self.items, name, labels)
        self.options = options
        if isinstance(made, Container):
            made.status, made.refuses = "created", self.refuses
        return made

    def list(
        self,
        *,
        names: list[str] | None = None,
        filters: dict[str, str] | None = None,
        all: bool = False,
        ignore_removed: bool = False,
    ) -> list[Any]:
        part = names[0] if names else (filters or {})["name"]
        assert ignore_removed or self.kind is Network, "one that goes meanwhile would end the run"
        return [each for each in self.items if part in each.name and (all or self.kind is Network
                or each.status == "running")]  # fmt: skip

    def get(self, identity: str) -> Any:
        for each in self.items:
            if each.id == identity:
                return each
        raise NotFound(identity)


class Daemon:
    """A Docker, and the client of it."""

    def __init__(self) -> None:
        self.containers, self.networks = Collection(Container), Collection(Network)
        self.silent = False
        self.address = ""

    def client(self, base_url: str, timeout: int) -> Daemon:
        if base_url == "unix:///nowhere":
            raise DockerException("no such file")
        assert timeout == 120, "the SDK's own minute is too short for a computer under load"
        self.address = base_url
        return self

    def ping(self) -> None:
        if self.silent:
            raise DockerException("no answer")


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    found = Daemon()
    monkeypatch.setattr(docker, "DockerClient", found.client)
    return found


def container(**more: Any) -> dict[str, Any]:
    return {"name": "engine", "image": "image:1", "labels": LABELS, **more}


def made(kind: str, identity: str, **inputs: Any) -> Made:
    return Made(kind, "thing", inputs, identity, {})


def test_a_network_is_a_bridge_with_the_stacks_labels_on_the_machine_of_its_provider(daemon: Daemon) -> None:
    identity, outputs = DockerNetwork().create("network", {"name": "net", "labels": LABELS}, HOST)
    (network,) = daemon.networks.items
    assert (network.id, network.name, network.attrs["Labels"]) == (identity, "net", OWNED)
    assert daemon.networks.options == {"driver": "bridge"}
    assert outputs == {"name": "net", "labels": LABELS}
    assert daemon.address == "unix:///run/stand-in.sock"


def test_a_container_is_made_and_started(daemon: Daemon) -> None:
    identity, outputs = DockerContainer().create("engine", container(), HOST)
    (one,) = daemon.containers.items
    assert (one.id, one.name, one.labels, one.status) == (identity, "engine", OWNED, "running")
    assert outputs == container()


def test_what_a_killed_run_left_makes_way_and_what_only_has_a_like_name_stays(daemon: Daemon) -> None:
    Container(daemon.containers.items, "engine", OWNED, "exited")
    Container(daemon.containers.items, "engine-2", {})
    Network(daemon.networks.items, "net", OWNED).used_by = ["left"]
    Network(daemon.networks.items, "net-2", {}).used_by = ["theirs"]
    DockerNetwork().create("network", {"name": "net", "labels": LABELS}, HOST)
    DockerContainer().create("engine", container(), HOST)
    assert [each.name for each in daemon.containers.items] == ["engine-2", "engine"]
    assert [each.name for each in daemon.networks.items] == ["net-2", "net"]
    assert daemon.networks.items[0].used_by == ["theirs"]


def test_a_name_that_is_another_stacks_is_refused_and_its_thing_goes_on(daemon: Daemon) -> None:
    other = Container(daemon.containers.items, "engine", {**OWNED, "seatable-vllm.stack": "t"})
    with pytest.raises(RehearsalError, match=r"docker container rm engine"):
        DockerContainer().create("engine", container(), HOST)
    assert daemon.containers.items == [other]


def test_what_docker_refuses_is_told_in_its_words_with_the_resources_name(daemon: Daemon) -> None:
    daemon.containers.refuses = "port is already allocated"
    with pytest.raises(RehearsalError, match=r"^engine: Docker says: port is already allocated$"):
        DockerContainer().create("engine", container(), HOST)


@pytest.mark.parametrize(
    ("status", "refuses", "kept", "after"),
    [
        ("running", "", True, "running"),
        ("restarting", "", True, "restarting"),
        ("exited", "", True, "running"),
        ("created", "no such network", False, "created"),
    ],
)
def test_a_container_that_was_stopped_is_started_and_one_that_cannot_be_is_made_anew(
    status: str, refuses: str, kept: bool, after: str, daemon: Daemon
) -> None:
    one = Container(daemon.containers.items, "engine", OWNED, status)
    one.refuses = refuses
    assert DockerContainer().keep(made("docker:index/container:Container", one.id), HOST) == kept
    assert one.status == after


def test_what_somebody_has_removed_is_not_kept_and_its_removal_is_no_error(daemon: Daemon) -> None:
    gone, network = made("container", "gone"), Network(daemon.networks.items, "net", OWNED)
    assert not DockerContainer().keep(gone, HOST)
    assert not DockerNetwork().keep(gone, HOST)
    assert DockerNetwork().keep(made("network", network.id), HOST)
    DockerContainer().delete(gone, HOST)
    DockerNetwork().delete(gone, HOST)


@pytest.mark.parametrize(("inputs", "grace"), [({}, 10), ({"destroyGraceSeconds": 40}, 40)])
def test_a_container_has_its_time_to_end_before_it_is_removed(
    inputs: dict[str, int], grace: int, daemon: Daemon
) -> None:
    one = Container(daemon.containers.items, "engine", OWNED)
    DockerContainer().delete(made("container", one.id, **inputs), HOST)
    assert (daemon.containers.items, one.grace) == ([], grace)


def test_a_network_is_removed_though_containers_are_still_on_it(daemon: Daemon) -> None:
    network = Network(daemon.networks.items, "net", OWNED)
    network.used_by = ["one", "two"]
    DockerNetwork().delete(made("network", network.id), HOST)
    assert daemon.networks.items == []


class Leaving(Container):
    """Its removal fails; `error` is how."""

    def __init__(self, error: DockerException) -> None:
        super().__init__([], "engine", OWNED)
        self.error, self.waited = error, ""

    def remove(self, force: bool = False) -> None:
        raise self.error

    def wait(self, condition: str) -> None:
        self.waited = condition
        raise NotFound("gone by now")


def test_a_container_that_somebody_else_is_removing_is_waited_for_and_any_other_refusal_is_told() -> None:
    leaving = Leaving(APIError("409", explanation="removal of container x is already in progress"))
    remove(leaving)
    assert leaving.waited == "removed"
    gone = Leaving(NotFound("no such container"))
    remove(gone)
    assert gone.waited == ""
    with pytest.raises(APIError, match="driver failed"):
        remove(Leaving(APIError("500", explanation="driver failed to remove")))
    network = Network([], "net", OWNED)
    network.used_by = ["one"]
    with pytest.raises(APIError, match="active endpoints"):
        remove(network)


def test_a_docker_that_is_not_there_is_named_and_a_tunnel_that_leads_to_none_is_explained(daemon: Daemon) -> None:
    with pytest.raises(RehearsalError, match=r"Docker daemon at unix:///nowhere: no such file"):
        DockerNetwork().create("network", {"name": "net"}, {"host": "unix:///nowhere"})
    require_docker_behind("unix:///run/tunnel")
    assert daemon.address == "unix:///run/tunnel"
    daemon.silent = True
    with pytest.raises(RehearsalError, match="AllowStreamLocalForwarding"):
        require_docker_behind("unix:///run/tunnel")


def test_every_input_of_a_container_reaches_docker_under_its_name_there() -> None:
    arguments = _create_arguments(
        container(
            command=["serve"], envs=["A=1"], networksAdvanced=[{"name": "net"}], init=True, user="1000:1000",
            readOnly=True, capabilities={"adds": ["CHOWN"], "drops": ["ALL"]},
            securityOpts=["no-new-privileges"], tmpfs={"/run": "rw"}, shmSize=64, restart="unless-stopped",
            stopSignal="SIGUSR1", logDriver="local", logOpts={"max-size": "1m"},
            ports=[{"internal": 8000, "ip": "127.0.0.1", "external": 18000}],
            volumes=[
                {"hostPath": "/a", "containerPath": "/in/a", "readOnly": True},
                {"hostPath": "/b", "containerPath": "/in/b"},
            ],
            healthcheck={"tests": ["CMD", "true"], "interval": "5s", "timeout": "1m", "startPeriod": "1h2m3s",
                         "retries": 4},
            gpus="all", mustRun=True, destroyGraceSeconds=40, stopTimeout=40,
        )
    )  # fmt: skip
    (gpus,) = arguments.pop("device_requests")
    assert (gpus["Count"], gpus["Capabilities"]) == (-1, [["gpu"]])
    log, health = dict(arguments.pop("log_config")), dict(arguments.pop("healthcheck"))
    assert log == {"Type": "local", "Config": {"max-size": "1m"}}
    assert health == {
        "Test": ["CMD", "true"], "Interval": 5 * 10**9, "Timeout": 60 * 10**9, "StartPeriod": 3723 * 10**9,
        "Retries": 4,
    }  # fmt: skip
    assert arguments == {
        "image": "image:1", "name": "engine", "command": ["serve"], "environment": ["A=1"], "labels": OWNED,
        "network": "net", "init": True, "user": "1000:1000", "read_only": True, "cap_add": ["CHOWN"],
        "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"], "tmpfs": {"/run": "rw"},
        "shm_size": 67108864, "restart_policy": {"Name": "unless-stopped"}, "stop_signal": "SIGUSR1",
        "ports": {"8000/tcp": ("127.0.0.1", 18000)},
        "volumes": {"/a": {"bind": "/in/a", "mode": "ro"}, "/b": {"bind": "/in/b", "mode": "rw"}},
    }  # fmt: skip


def test_what_a_container_does_not_say_is_left_to_docker_but_its_log_and_that_it_stays_down() -> None:
    arguments = _create_arguments({"image": "image:1", "name": "engine", "networkMode": "none"})
    assert dict(arguments.pop("log_config")) == {"Type": "json-file", "Config": {}}
    assert arguments == {
        "image": "image:1", "name": "engine", "labels": {}, "network_mode": "none", "read_only": False,
        "restart_policy": {"Name": "no"}, "ports": {}, "volumes": {},
    }  # fmt: skip
