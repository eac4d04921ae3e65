"""A small Debian system in a folder: the base of every made image.

It has the packages of the suite's last point release, without the security updates since then: it is for
rehearsals and tests, where the official images cannot be pulled.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from images import pins
from images.host import KEYRING
from images.shell import ISOLATED, Shell

LEFT_OUT = (
    "etc/hostname",  # this machine's, copied by debootstrap; Docker gives each container its own
    "etc/resolv.conf",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/cache/debconf",
    "var/lib/apt/lists",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
)
"""Not needed in a container, relative to the root."""


def debootstrap(root: Path, packages: Sequence[str], shell: Shell) -> None:
    """Makes the folder `root` a minimal Debian with `packages`, checked against the keys of its archive.

    Measured: 35 to 45 s on 2 cores, mostly unpacking.
    """
    # dpkg otherwise waits for the disk after each file (4 to 8 s); a build that loses power starts again anyway.
    options = root / "etc/dpkg/dpkg.cfg.d/seatable-vllm"
    # Not Path.mkdir: these folders become part of the image, so they need the shell's umask.
    shell.run("Debian", ["mkdir", "-p", str(options.parent)])
    options.write_text("force-unsafe-io\n")
    command = [
        "debootstrap",
        "--variant=minbase",
        "--force-check-gpg",
        f"--keyring={KEYRING}",
        f"--include={','.join(packages)}",
        pins.DEBIAN_SUITE,
        str(root),
    ]
    shell.run("Debian", [*ISOLATED, *command])
    options.unlink()
    slim(root)


def slim(root: Path) -> None:
    """Removes what no container needs, but keeps the licences of the packages."""
    licenses = root / "usr/share/licenses"
    licenses.mkdir(exist_ok=True)
    licenses.chmod(0o755)
    for doc in (root / "usr/share/doc").glob("*/copyright"):
        kept = licenses / doc.parent.name
        shutil.copyfile(doc, kept)
        kept.chmod(0o644)
    for path in (root / name for name in LEFT_OUT):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def run_inside(root: Path, activity: str, command: Sequence[str], shell: Shell) -> str:
    """Runs a command of the system in `root`, with that folder as its root; returns its output."""
    # Without byte code: what a check imports must not leave anything in the image.
    return shell.run(
        activity,
        [*ISOLATED, "chroot", str(root), *command],
        {"PYTHONDONTWRITEBYTECODE": "1", "HOME": "/root", "LANG": "C.UTF-8"},
    )
