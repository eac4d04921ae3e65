"""The image of a whole Linux machine: Debian with systemd, sshd and Docker, and a registry to pull from."""

from pathlib import Path

from images import pins, rootfs
from images.build import build
from images.daemon import DockerDaemon
from images.recipe import Recipe, mark
from images.shell import Shell

IMAGE = "seatable-vllm-tests/machine:1"
USER = "ubuntu"
PACKAGES = (
    *("systemd-sysv", "dbus", "openssh-server", "docker.io", "iptables", "iproute2", "sudo", "curl"),
    *("ca-certificates", "procps", "python3", "docker-registry"),
)
MASKED = (
    *("systemd-udevd.service", "systemd-logind.service", "getty.target", "docker-registry.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer"),
)

INIT = """\
#!/bin/sh
export container=docker
for mount in /proc/sys /sys /sys/fs/cgroup /sys/fs/cgroup/*; do mount -o remount,bind,rw $mount 2>/dev/null; done
exec /lib/systemd/systemd --system
"""

HOST_KEYS = """\
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
"""
"""Each machine makes its keys at its first boot, as a cloud's does."""

REGISTRY = """\
version: 0.1
storage: {filesystem: {rootdirectory: /srv/registry}}
http: {addr: ":5000"}
log: {level: error}
"""

SETTINGS = """\
STOPSIGNAL SIGRTMIN+3
CMD ["/sbin/start-machine"]
"""


def tree(work: Path, shell: Shell) -> Path:
    """Makes the machine's file system below `work`; returns its root."""
    root = work / "machine"
    rootfs.debootstrap(root, PACKAGES, shell)
    for command in (
        ["useradd", "--create-home", "--shell", "/bin/bash", "--groups", "docker", USER],
        ["systemctl", "mask", *MASKED],
        ["systemctl", "set-default", "multi-user.target"],
    ):
        rootfs.run_inside(root, "machine", command, shell)
    for path, text, mode in (
        ("etc/sudoers.d/90-ubuntu", f"{USER} ALL=(ALL) NOPASSWD:ALL\n", 0o440),
        ("sbin/start-machine", INIT, 0o755),
        ("etc/systemd/system/ssh.service.d/keys.conf", HOST_KEYS, 0o644),
        ("etc/registry.yml", REGISTRY, 0o644),
        ("etc/machine-id", "", 0o444),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).unlink(missing_ok=True)
        (root / path).write_text(text)
        (root / path).chmod(mode)
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    return root


def machine_image() -> str:
    """The image, made if it is not there: a minute or two on two cores."""
    files = (Path(__file__), Path(rootfs.__file__))
    build(Recipe(IMAGE, mark(files, (pins.DEBIAN_SUITE,)), tree, SETTINGS), DockerDaemon(), lambda _: None)
    return IMAGE
