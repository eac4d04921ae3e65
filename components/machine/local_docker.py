"""Which Docker is this computer's: the answer to DOCKER_HOST, contexts and Docker Desktop's sockets."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from settings import SettingsError

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
DEFAULT_CONTEXT = "default"
LOCAL_SCHEMES = ("unix://", "npipe://")

TLS_VARIABLES = (
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "DOCKER_TLS",
    "DOCKER_CERT_MATERIAL",
    "DOCKER_KEY_MATERIAL",
    "DOCKER_CA_MATERIAL",
)
"""They belong to a Docker elsewhere, and the provider would obey them in place of the stack."""


def local_docker_host(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> str:
    """The address of this computer's Docker, as `docker` itself would find it.

    environment: the process's. home: the user's home folder. Raises SettingsError when a variable or a context
    leads to another computer: a `local` stack must not land there unseen.
    """
    foreign = [name for name in TLS_VARIABLES if environment.get(name)]
    if foreign:
        raise SettingsError(
            f"{foreign[0]} is set, which is for a Docker on another computer; unset it to deploy a local stack"
        )
    chosen = list(_choices(environment, home or Path.home()))
    for source, host, way_out in chosen:
        if not host.startswith(LOCAL_SCHEMES):
            raise SettingsError(
                f"{source} leads to {host}, which is not this computer; {way_out} to deploy a local stack here"
            )
    return chosen[0][1]


def _choices(environment: Mapping[str, str], home: Path) -> Iterator[tuple[str, str, str]]:
    """What decides, in words for an error text, the address it leads to, and how to undo it; the strongest first.

    The provider obeys DOCKER_CONTEXT even beside DOCKER_HOST, so both have to lead here.
    """
    folder = Path(environment.get("DOCKER_CONFIG") or home / ".docker")
    host, name = environment.get("DOCKER_HOST"), environment.get("DOCKER_CONTEXT")
    if host:
        yield f"DOCKER_HOST={host}", host, "unset it"
    if name:
        yield f"DOCKER_CONTEXT={name}", _context_host(folder, name), "unset it"
    if not host and not name:
        current = _current_context(folder)
        way_out = "run `docker context use default`, or set DOCKER_CONTEXT=default,"
        yield f"Docker's current context {current!r}", _context_host(folder, current), way_out


def _current_context(folder: Path) -> str:
    """The context that `docker context use` chose; Docker passes over a file that it cannot read, so we do."""
    try:
        values = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        values = None
    name = values.get("currentContext") if isinstance(values, dict) else None
    return name if isinstance(name, str) and name else DEFAULT_CONTEXT


def _context_host(folder: Path, name: str) -> str:
    if name == DEFAULT_CONTEXT:
        return DEFAULT_SOCKET
    meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
    try:
        host = json.loads(meta.read_text())["Endpoints"]["docker"]["Host"]
    except (OSError, ValueError, KeyError, TypeError):
        raise SettingsError(
            f"Docker context {name!r} is not known on this computer; choose one of `docker context ls`, "
            "or unset DOCKER_CONTEXT"
        ) from None
    return str(host)
