"""Whole Linux machines for the tests of `host`: systemd, sshd and a Docker of their own, in containers.

They are not virtual machines: they share this computer's kernel and have neither cloud-init nor a GPU. Their
images come from a registry beside them, as nothing outside is reached from here.

Interface: `Site` (a network with a registry and one address for a machine), `Machine` (start, stop, look inside).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import ipaddress
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from images import cache_dir
from tests.live.harness import docker_client, pace, wait_until
from tests.live.machine_image import USER, machine_image

OPTIONS = (
    *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--device-cgroup-rule", "a *:* rwm", "--cgroupns=private"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *(
        "--security-opt",
        "systempaths=unconfined",
        "--tmpfs",
        "/run",
        "--tmpfs",
        "/run/lock",
        "--tmpfs",
        "/tmp:exec",
    ),
    *("--volume", "/var/lib/docker", "--volume", "/var/lib/containerd"),
    *("--cpu-shares", "512"),
)
"""What systemd and a Docker of its own need, short of --privileged, which not every computer can give.

Whoever else computes gets twice as much time: other tests run beside those on machines. With four times as
much, the engine there once computed so little between two health checks that it was taken for one that hangs.
"""

SUBNET = "198.18.77.0/24"
"""Addresses for benchmarks of networks (RFC 2544): no other network has them. One site at a time has a subnet."""

ADDRESS = "198.18.77.4"
"""The machine's, in that subnet."""

INNER_BRIDGE = "172.29.0.1/16"
DATA_DIR = "/srv/seatable-vllm"
BOOT_SECONDS = 180

OWNER = "seatable-vllm-tests.process"
"""Label of a site's network: the process id of the test run that made it."""

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"


@contextlib.contextmanager
def undone_by(undo: Callable[[], None]) -> Iterator[None]:
    """Undoes what was made where the block fails: an address can be had once, and the next test wants it."""
    try:
        yield
    except BaseException:
        undo()
        raise


class Machine:
    """One machine; made, but not switched on."""

    def __init__(self, name: str, site: Site, disk: str | None = None) -> None:
        """disk: a Docker volume of this computer that holds the data directory and outlives the machine."""
        self.name = name
        extra = ["--volume", f"{disk}:{DATA_DIR}"] if disk else []
        network = ["--network", site.network, "--ip", site.address, "--hostname", "gpu1"]
        _docker("create", "--name", name, *network, *OPTIONS, *extra, machine_image())
        daemon = {"bip": INNER_BRIDGE, "insecure-registries": [site.registry]}
        with undone_by(self.remove):
            self.put("/etc/docker/daemon.json", json.dumps(daemon))
            self.put(f"/home/{USER}/.ssh/authorized_keys", site.key.with_suffix(".pub").read_text(), owner=1000)

    def put(self, path: str, text: str, *, owner: int = 0) -> None:
        """Writes a file in the machine, switched on or not."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            data = text.encode()
            for name, kind, size in (
                (str(Path(path).parent), tarfile.DIRTYPE, 0),
                (path, tarfile.REGTYPE, len(data)),
            ):
                info = tarfile.TarInfo(name.lstrip("/"))
                info.type, info.size, info.uid, info.gid = kind, size, owner, owner
                info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
                tar.addfile(info, io.BytesIO(data))
        docker_client().containers.get(self.name).put_archive("/", archive.getvalue())

    def give_model(self, model: str) -> None:
        """Puts the made model where the user's cache has it: no hub is reached from here."""
        with tempfile.TemporaryFile(dir=cache_dir()) as packed:
            with tarfile.open(fileobj=packed, mode="w") as tar:
                tar.add(cache_dir() / "models" / model, f"home/{USER}/.cache/seatable-vllm/models/{model}")
            packed.seek(0)
            docker_client().containers.get(self.name).put_archive("/", packed)

    def start(self) -> None:
        """Switches it on; it answers a few seconds later."""
        _docker("start", self.name)

    def stop(self) -> None:
        """Shuts it down."""
        _docker("stop", "--time", "60", self.name)

    def booted(self) -> None:
        """Returns when its sshd and its Docker answer."""
        wait_until(
            lambda: self.run("docker info && ss -Hltn 'sport = 22'", check=False), "a machine", BOOT_SECONDS
        )

    def run(self, command: str, *, check: bool = True) -> str:
        """What a shell command of the user prints; nothing where it fails and may."""
        done = _docker("exec", "--user", USER, "--env", f"HOME=/home/{USER}", self.name, "bash", "-c", command,
                       check=check)  # fmt: skip
        return done.stdout if done.returncode == 0 else ""

    def as_root(self, command: str) -> str:
        """What a shell command of root prints; it must pass. It needs no sudo, which a test may take away."""
        return _docker("exec", "--user", "0", self.name, "bash", "-c", command).stdout

    def load(self, image: str) -> None:
        """Gives its Docker an image of this computer's, under the same name and without a registry."""
        save = subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE)
        load = ["docker", "exec", "--interactive", "--user", "0", self.name, "docker", "load", "--quiet"]
        subprocess.run(load, stdin=save.stdout, capture_output=True, check=True)
        assert save.wait() == 0

    def remove(self) -> None:
        """Takes it away with its own disks."""
        _docker("rm", "--force", "--volumes", self.name, check=False)


class Site:
    """A network with a registry in it, a login key, and an address that one machine at a time has."""

    def __init__(self, name: str, folder: Path, subnet: str = SUBNET) -> None:
        self.network = name
        self.key = folder / "id_ed25519"
        addresses = ipaddress.ip_network(subnet)
        self.address = str(addresses[4])
        self.registry = f"{addresses[3]}:5000"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        _free(subnet)
        _docker("network", "create", "--subnet", subnet, "--label", f"{OWNER}={os.getpid()}", name)
        network = ["--network", name, "--ip", str(addresses[3])]
        serve = ["docker-registry", "serve", "/etc/registry.yml"]
        with undone_by(self.remove):
            _docker("run", "--detach", "--name", f"{name}-registry", *network, machine_image(), *serve)
            wait_until(self._answers, "a registry")

    def offer(self, image: str) -> str:
        """Puts an image of this computer's Docker into the registry; the name it has there.

        As it is, layers not compressed: on two cores that would take longer than everything else.
        """
        name = image.replace(":", "-").lower()
        with tempfile.TemporaryFile(dir=cache_dir()) as saved:
            for chunk in docker_client().images.get(image).save(named=True):
                saved.write(chunk)
            saved.seek(0)
            self._upload(name, saved)
        return f"{self.registry}/{name}:1"

    def remove(self) -> None:
        """Takes registry and network away."""
        _docker("rm", "--force", "--volumes", f"{self.network}-registry", check=False)
        _docker("network", "rm", self.network, check=False)

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://{self.registry}/v2/").status_code == httpx.codes.OK
        return False

    def _upload(self, name: str, saved: BinaryIO) -> None:
        with tarfile.open(fileobj=saved) as tar:

            def member(path: str) -> BinaryIO:
                file = tar.extractfile(path)
                assert file is not None
                return file  # type: ignore[return-value]

            (entry,) = json.load(member("manifest.json"))
            config = self._blob(name, member(entry["Config"]), CONFIG)
            layers = [
                self._blob(name, member(path), "application/vnd.docker.image.rootfs.diff.tar.gzip")
                for path in entry["Layers"]
            ]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        answer = httpx.put(
            f"http://{self.registry}/v2/{name}/manifests/1",
            content=json.dumps(manifest),
            headers={"content-type": MANIFEST},
            timeout=pace.of(60),
        )
        answer.raise_for_status()

    def _blob(self, name: str, file: BinaryIO, kind: str) -> dict[str, Any]:
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        size = file.tell()
        file.seek(0)
        begun = httpx.post(f"http://{self.registry}/v2/{name}/blobs/uploads/", timeout=pace.of(60))
        place = begun.headers["location"]
        answer = httpx.put(
            place,
            params={**dict(httpx.URL(place).params), "digest": f"sha256:{digest}"},
            content=iter(lambda: file.read(1 << 20), b""),
            headers={"content-type": "application/octet-stream"},
            timeout=pace.of(120),
        )
        answer.raise_for_status()
        return {"mediaType": kind, "size": size, "digest": f"sha256:{digest}"}


def _free(subnet: str) -> None:
    """Removes what a test run that was killed has left in this subnet; what a live one has there stays."""
    client = docker_client()
    for network in client.networks.list(filters={"label": OWNER}, greedy=True):
        subnets = [each.get("Subnet") for each in network.attrs["IPAM"]["Config"] or []]
        if subnet in subnets and not Path("/proc", network.attrs["Labels"][OWNER]).exists():
            for container in network.attrs["Containers"]:
                _docker("rm", "--force", "--volumes", container, check=False)
            network.remove()


def _docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done
