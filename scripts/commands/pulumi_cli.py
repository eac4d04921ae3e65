"""The Pulumi CLI: found on PATH or in the project, else fetched by its official installer, within a time limit."""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from scripts.commands.stacks import PROJECT
from scripts.commands.terminal import Terminal

INSTALL_SECONDS = 180
"""Longest that the installer may take; the archive is about 100 MB."""

FOLDER = PROJECT / ".pulumi-cli"

_INSTALLER = """
import sys
from pulumi.automation import PulumiCommand
PulumiCommand.install(root=sys.argv[1])
"""


def on_path() -> bool:
    """Whether the user's own CLI is there."""
    return shutil.which("pulumi") is not None


def find_cli(terminal: Terminal) -> str | None:
    """The folder to use as the CLI's root ("" for PATH), or None, said in one line, where none can be had."""
    if on_path():
        return ""
    if (FOLDER / "bin" / "pulumi").exists():
        return str(FOLDER)
    with terminal.step("asking for the Pulumi CLI"):
        reason = _install()
    if reason is None:
        return str(FOLDER)
    terminal.line(f"no Pulumi CLI here and none to be had ({reason}): this is a rehearsal, not `pulumi up`")
    return None


def _install() -> str | None:
    """Runs the official installer through the Automation API; None, or why it failed, in one line.

    In a folder beside, which gets its name when it is complete: a run that is ended leaves no CLI that is cut off.
    """
    part = FOLDER.with_name(f"{FOLDER.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    command = [sys.executable, "-c", _INSTALLER, str(part)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        if done.returncode == 0:
            shutil.rmtree(FOLDER, ignore_errors=True)
            part.rename(FOLDER)
            return None
    except subprocess.TimeoutExpired:
        return f"its download took more than {INSTALL_SECONDS} s"
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return (done.stderr.strip().splitlines() or ["its installer failed"])[-1][:160]


def workspace_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What to add to the CLI's environment: a file backend and a passphrase, only where the user has no login.

    The passphrase is generated once and kept in a 0600 file; it protects the keys in the state.
    """
    added = {"PULUMI_SKIP_UPDATE_CHECK": "true"}
    if _has_login(environment):
        return added
    state = PROJECT / ".state" / "pulumi"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    added["PULUMI_BACKEND_URL"] = f"file://{state}"
    if not ({"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & environment.keys()):
        passphrase = PROJECT / ".state" / "passphrase"
        if not passphrase.exists():
            _make_passphrase(passphrase)
        added["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(passphrase)
    return added


def _make_passphrase(path: Path) -> None:
    """Writes a new one, 0600 and whole at once. Of two first runs the later one takes what the other has made."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent) as file:
        file.write(secrets.token_urlsafe(32))
        file.flush()
        with contextlib.suppress(FileExistsError):
            os.link(file.name, path)


def _has_login(environment: Mapping[str, str]) -> bool:
    home = Path(environment.get("PULUMI_HOME") or Path.home() / ".pulumi")
    known = environment.get("PULUMI_BACKEND_URL") or environment.get("PULUMI_ACCESS_TOKEN")
    return bool(known) or (home / "credentials.json").exists()
