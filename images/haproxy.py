"""The recipe of the HAProxy image: Debian with its haproxy package, run like the official image."""

from pathlib import Path

from catalog.images import HAPROXY
from images import pins, rootfs
from images.recipe import Recipe, mark
from images.shell import Shell

USER_ID = 99
"""The user and group number of `haproxy` in the official image: files given to it suit both."""

SETTINGS = """\
USER haproxy
WORKDIR /var/lib/haproxy
STOPSIGNAL SIGUSR1
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
"""
"""As in the official image: without root, and a stop lets running answers end (SIGUSR1)."""


def tree(work: Path, shell: Shell) -> Path:
    """Makes the file system of the image below `work`; returns its root."""
    root = work / "haproxy"
    rootfs.debootstrap(root, ["haproxy"], shell)
    for command in (
        ["groupmod", "--gid", str(USER_ID), "haproxy"],
        ["usermod", "--uid", str(USER_ID), "--gid", str(USER_ID), "haproxy"],
        ["chown", "-R", "haproxy:haproxy", "/var/lib/haproxy"],
        ["haproxy", "-v"],
    ):
        rootfs.run_inside(root, "HAProxy", command, shell)
    return root


def recipe() -> Recipe:
    """The recipe for the image that the catalog names."""
    files = (Path(__file__), Path(rootfs.__file__))
    return Recipe(HAPROXY.made or "", mark(files, (pins.DEBIAN_SUITE,)), tree, SETTINGS)
