"""What this machine must have before an image can be made on it: Debian's tools, root, room on the disk."""

import os
import platform
import shutil
from collections.abc import Iterable
from pathlib import Path

from images import ImageUnavailable
from images.shell import Shell, find

GB = 1000**3
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""The keys that Debian signs its archive with. Ubuntu has them in a package of their own."""

TOOLS = {"debootstrap": "debootstrap", "gcc": "gcc", "nm": "binutils", "strip": "binutils"}
"""Programs that recipes run, and the Debian and Ubuntu packages that have them."""

INSTEAD = "or name images that this machine can get, with the setting seatable-vllm:images"


def require_builder(shell: Shell) -> None:
    """Sees that the tools are there and installs those that are missing; the error names what cannot be had."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        machine = f"{platform.system()} {platform.machine()}"
        raise ImageUnavailable(f"images are made on Linux x86_64 only, this is {machine}: use one, {INSTEAD}")
    if os.geteuid() != 0:
        raise ImageUnavailable(f"making images needs root (debootstrap and chroot): run it as root, {INSTEAD}")
    packages = missing_packages()
    if packages and find("apt-get") is None:
        names = ", ".join(packages)
        raise ImageUnavailable(f"making images needs {names}, and there is no apt-get to install it: {INSTEAD}")
    if packages:
        _install(packages, shell)


def missing_packages(keyring: Path = KEYRING) -> list[str]:
    """The packages whose programs or keys are not on this machine, in alphabetical order."""
    packages = {package for program, package in TOOLS.items() if find(program) is None}
    if not keyring.exists():
        packages.add("debian-archive-keyring")
    return sorted(packages)


def require_room(folders: Iterable[Path], gigabytes: int) -> None:
    """Raises ImageUnavailable, with both figures, if a folder's disk has less than `gigabytes` (10^9) free."""
    for folder in folders:
        free = shutil.disk_usage(folder).free
        if free < gigabytes * GB:
            raise ImageUnavailable(
                f"{folder} has {free / GB:.1f} GB free and {gigabytes} GB are needed: make room there, {INSTEAD}"
            )


def _install(packages: list[str], shell: Shell) -> None:
    # Another apt (unattended upgrades) may hold the lock for a while.
    apt = ["apt-get", "-qq", "-y", "-o", "DPkg::Lock::Timeout=120"]
    install = [*apt, "install", "--no-install-recommends", *packages]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    activity = f"installing {', '.join(packages)}"
    try:
        shell.run(activity, install, quiet)
    except ImageUnavailable:
        # Fails on a new machine until it has fetched the package lists once.
        shell.run("fetching the package lists", [*apt, "update"], quiet)
        shell.run(activity, install, quiet)
