"""An ACME CA (Debian's pebble), a Route 53 (moto) and their DNS on this computer, for the tests of certificates.

What this does NOT stand for: Let's Encrypt's limits and its looks from several places, and AWS's own judgement of
rights (moto lets every key do everything).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from images import cache_dir
from tests.live.harness import LOOPBACK, free_ports, wait_until

HERE = Path(__file__).resolve().parent
LAB_PACKAGES = ("moto==5.2.5", "dnslib==0.9.26")
ZONE = "example.test"
IMAGE = "seatable-vllm/lego:lab"


@dataclass(frozen=True)
class Lab:
    """Route 53 and DNS. proxy, dns: ports on 127.0.0.1. image: a lego image that finds Route 53."""

    proxy: int
    dns: int
    zone_id: str
    image: str


@dataclass(frozen=True)
class Pebble:
    """A CA. directory: its address. roots: PEM that it and its certificates are trusted by. dns: its DNS port."""

    directory: str
    roots: str
    dns: int


def ensure_debian(program: str) -> None:
    """Installs the Debian package of this name where its program is not there."""
    if shutil.which(program) is None:
        subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
        command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", program]
        subprocess.run(
            command, check=True, capture_output=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        )


def lab_python() -> Path:
    """A Python with moto and dnslib, in a folder that is kept: they are no dependency of the project."""
    folder = cache_dir() / f"acme-lab-{hashlib.sha256(' '.join(LAB_PACKAGES).encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        uv = [sys.executable, "-m", "uv", "-q"]
        subprocess.run([*uv, "venv", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([*uv, "pip", "install", "--python", str(python), *LAB_PACKAGES], check=True)
        (folder / ".complete").touch()
    return python


@contextlib.contextmanager
def acme_lab(lego: str, folder: Path) -> Iterator[Lab]:
    """Route 53 and DNS, and an image made from `lego` (a reference) that asks the first. Gone at the end."""
    with subprocess.Popen(
        [lab_python(), HERE / "acme_lab.py", ZONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        told = json.loads(process.stdout.readline())
        image = f"{IMAGE}-{os.getpid()}"
        context = folder / "image"
        context.mkdir()
        shutil.copy(told["aws_ca"], context / "aws.crt")
        (context / "Dockerfile").write_text(
            f"FROM {lego}\nCOPY aws.crt /aws.crt\n"
            f"ENV HTTPS_PROXY=http://{LOOPBACK}:{told['proxy']} AWS_CA_BUNDLE=/aws.crt\n"
            'ENTRYPOINT ["lego", "--dns.disable-cp"]\n'
        )
        (context / "aws.crt").chmod(0o644)
        subprocess.run(["docker", "build", "-q", "-t", image, str(context)], check=True, capture_output=True)
        try:
            yield Lab(told["proxy"], told["dns"], told["zone_id"], image)
        finally:
            subprocess.run(["docker", "rmi", image], capture_output=True, check=False)
            process.stdin.close()


@contextlib.contextmanager
def pebble(folder: Path, dns: int, http_port: int = 5002) -> Iterator[Pebble]:
    """A CA that asks this DNS server and this port of the names. Its log is `pebble.log` in the folder."""
    ensure_debian("pebble")
    folder.mkdir(exist_ok=True)
    listen, manage, unused = free_ports(3)
    certificate, key = folder / "listener.pem", folder / "listener.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=pebble", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    settings = {
        "listenAddress": f"{LOOPBACK}:{listen}",
        "managementListenAddress": f"{LOOPBACK}:{manage}",
        "certificate": str(certificate),
        "privateKey": str(key),
        "httpPort": http_port,
        "tlsPort": unused,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    trusting = ssl.create_default_context(cadata=certificate.read_text())
    with (
        (folder / "pebble.log").open("w") as log,
        subprocess.Popen(
            ["pebble", "-config", folder / "pebble.json", "-dnsserver", f"{LOOPBACK}:{dns}"],
            env={**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"},
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            wait_until(lambda: _listens(listen) and _listens(manage), "pebble")
            with urllib.request.urlopen(f"https://localhost:{manage}/roots/0", context=trusting) as answer:
                root = answer.read().decode()
            yield Pebble(f"https://localhost:{listen}/dir", certificate.read_text() + root, dns)
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as each:
        return each.connect_ex((LOOPBACK, port)) == 0
