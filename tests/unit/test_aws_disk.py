"""Unit tier: which disk of a machine on AWS is taken for the data volume, and when it is formatted.

The program runs as it is, but looks at disks that are files, through stand-ins for blkid, mount and the like. It
does NOT prove that a real file system is made or mounted, nor that systemd holds Docker back: real disks do.
"""

from __future__ import annotations

import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from components.machine.aws.disk import DISK_SECONDS, GROW_SECONDS, LABEL, disk_program, mount_program

if TYPE_CHECKING:
    from tests.conftest import FakeCommand

VOLUME = "vol-0123456789abcdef0"
SERIAL = VOLUME.replace("-", "")
BLANK, OURS = "", f"TYPE=ext4\nLABEL={LABEL}\n"


@dataclass(frozen=True)
class Machine:
    """A machine with disks that are files, below a folder."""

    folder: Path
    fake: FakeCommand

    def disk(self, name: str, holds: str = BLANK) -> Path:
        """A disk; `holds`: what blkid says of it."""
        disk = self.folder / "dev" / name
        disk.parent.mkdir(parents=True, exist_ok=True)
        disk.write_bytes(b"\0" * 2_000_000 if holds == BLANK else holds.encode() * 100_000)
        disk.with_name(f"{name}.blkid").write_text(holds)
        return disk

    def named(self, disk: Path, kind: str = "Elastic_Block_Store", serial: str = SERIAL) -> None:
        """The name that udev gives to a disk of EC2."""
        link = self.folder / "dev" / "disk" / "by-id" / f"nvme-Amazon_{kind}_{serial}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(disk)

    def serial(self, disk: str, serial: str) -> None:
        """The serial number that the kernel shows for a disk."""
        place = self.folder / "sys" / "block" / disk / "device" / "serial"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{serial}   \n")

    def run(self, *gib: str) -> subprocess.CompletedProcess[str]:
        """Runs the program, as systemd does or as `up` does with the disk's size. Its few seconds pass at once."""
        program = mount_program(VOLUME, str(self.folder / "data"))
        for real in ("/dev/disk/", "/dev/nvme", "/dev/$"):
            program = program.replace(real, f"{self.folder}{real}")
        program = program.replace("/sys/block/", f"{self.folder}/sys/block/").replace("[ -b ", "[ -e ")
        program = program.replace(f"seq {DISK_SECONDS}", "seq 12").replace(f"seq {GROW_SECONDS}", "seq 4")
        return subprocess.run(
            ["bash", "-s", *gib],
            input=program,
            capture_output=True,
            text=True,
            check=False,
            env=self.fake.environment,
        )

    @property
    def formatted(self) -> list[str]:
        """The disks that were formatted."""
        return [Path(call[-1]).name for call in self.fake.calls if call[0] == "mkfs.ext4"]

    @property
    def mounted(self) -> list[str]:
        """The disks that were mounted at the data folder."""
        return [Path(call[-2]).name for call in self.fake.calls if call[0] == "mount"]


@pytest.fixture
def machine(tmp_path: Path, fake_command: FakeCommand) -> Machine:
    """A machine without a data disk."""
    fake_command.add("blkid", '[ -s "${@: -1}.blkid" ] || exit 2; cat "${@: -1}.blkid"')
    fake_command.add("mountpoint", "exit 1")
    fake_command.add("findmnt", "echo ext4")
    fake_command.add("blockdev", f"echo {10 << 30}")
    fake_command.add("stat", "echo 1f")
    fake_command.add("awk", 'cat "$MOUNTED" 2>/dev/null || true')
    for name in ("mkfs.ext4", "mount", "sleep", "resize2fs"):
        fake_command.add(name)
    return Machine(tmp_path, fake_command)


def test_a_blank_disk_is_found_by_its_name_formatted_and_mounted(machine: Machine) -> None:
    machine.disk("nvme0n1", "PTTYPE=gpt\n")
    machine.named(machine.disk("nvme2n1"))
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert (machine.formatted, machine.mounted) == (["nvme2n1"], ["nvme2n1"])


@pytest.mark.parametrize("there", ["nothing", "a disk without a number"])
def test_a_look_at_a_machine_whose_disks_have_no_numbers_complains_of_no_file(
    machine: Machine, there: str
) -> None:
    machine.disk("nvme1n1")
    if there != "nothing":
        (machine.folder / "sys" / "block" / "nvme1n1" / "device").mkdir(parents=True)
    done = machine.run()
    assert machine.mounted == ["nvme1n1"]
    assert done.stderr == ""


def test_a_disk_without_a_name_is_found_by_its_serial_number(machine: Machine) -> None:
    machine.disk("nvme1n1")
    machine.disk("nvme2n1")
    machine.serial("nvme1n1", "vol0fedcba9876543210")
    machine.serial("nvme2n1", SERIAL)
    machine.run()
    assert machine.mounted == ["nvme2n1"]


def test_a_disk_with_the_number_of_another_volume_is_not_taken_for_ours(machine: Machine) -> None:
    machine.disk("nvme1n1")
    machine.serial("nvme1n1", "vol0fedcba9876543210")
    assert machine.run().returncode == 1
    assert (machine.formatted, machine.mounted) == ([], [])


@pytest.mark.parametrize("holds", [OURS, "TYPE=xfs\nLABEL=somebodys\n"])
def test_a_disk_with_a_file_system_is_mounted_as_it_is(holds: str, machine: Machine) -> None:
    machine.named(machine.disk("nvme1n1", holds))
    machine.run()
    assert (machine.formatted, machine.mounted) == ([], ["nvme1n1"])


@pytest.mark.parametrize("holds", ["PTTYPE=dos\n", "TYPE=swap\n", "TYPE=LVM2_member\n", "PTTYPE=gpt\nTYPE=ext4\n"])
def test_a_disk_that_holds_anything_else_is_never_touched(holds: str, machine: Machine) -> None:
    machine.named(machine.disk("nvme1n1", holds))
    done = machine.run()
    assert done.returncode == 1
    assert f"the data volume {SERIAL} holds something" in done.stderr
    assert (machine.formatted, machine.mounted) == ([], [])


def test_a_disk_with_data_that_nobody_knows_is_not_blank(machine: Machine) -> None:
    disk = machine.disk("nvme1n1")
    disk.write_bytes(b"somebody's" * 200_000)
    machine.named(disk)
    assert machine.run().returncode == 1
    assert machine.formatted == []


def test_the_unnamed_disk_is_taken_where_no_disk_has_a_name(machine: Machine) -> None:
    machine.disk("nvme1n1")
    machine.run()
    assert (machine.formatted, machine.mounted) == (["nvme1n1"], ["nvme1n1"])


def test_the_unnamed_disk_is_taken_again_when_it_is_ours(machine: Machine) -> None:
    machine.disk("nvme1n1", OURS)
    machine.run()
    assert (machine.formatted, machine.mounted) == ([], ["nvme1n1"])


@pytest.mark.parametrize("kind", ["EC2_NVMe_Instance_Storage", "Elastic_Block_Store"])
def test_where_disks_have_names_no_other_disk_is_taken_for_ours(kind: str, machine: Machine) -> None:
    # A GPU instance's own fast disk is blank too, and gone when it stops.
    machine.named(machine.disk("nvme1n1"), kind, "AWS0123456789ABCDEF")
    done = machine.run()
    assert done.returncode == 1
    assert "is not at this machine" in done.stderr
    assert (machine.formatted, machine.mounted) == ([], [])


def test_an_unnamed_disk_with_somebody_elses_file_system_is_left_alone(machine: Machine) -> None:
    machine.disk("nvme1n1", "TYPE=ext4\nLABEL=home\n")
    assert machine.run().returncode == 1
    assert machine.mounted == []


def test_a_disk_that_is_in_use_is_left_alone(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    used = machine.folder / "mounted"
    used.write_text("31:31\n")
    monkeypatch.setenv("MOUNTED", str(used))
    machine.named(machine.disk("nvme1n1", OURS))
    done = machine.run()
    assert done.returncode == 1
    assert "mounted elsewhere" in done.stderr
    assert machine.mounted == []


def test_what_is_mounted_already_is_left_as_it_is(machine: Machine) -> None:
    machine.named(machine.disk("nvme1n1", OURS))
    machine.fake.add("mountpoint", '[ "$1" = -q ] || echo 31:31')
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert (machine.formatted, machine.mounted) == ([], [])


def test_another_disk_in_its_place_is_named(machine: Machine) -> None:
    machine.named(machine.disk("nvme1n1", OURS))
    machine.fake.add("mountpoint", '[ "$1" = -q ] || echo 8:1')
    done = machine.run()
    assert done.returncode == 1
    assert f"another disk than {SERIAL} is mounted" in done.stderr


def test_a_volume_that_has_grown_has_its_file_system_grown(machine: Machine) -> None:
    machine.named(machine.disk("nvme1n1", OURS))
    machine.run()
    assert [call[0] for call in machine.fake.calls if call[0] == "resize2fs"] == ["resize2fs"]


def test_a_disk_that_has_grown_is_waited_for_until_the_machine_sees_it(machine: Machine) -> None:
    machine.named(machine.disk("nvme1n1", OURS))
    looks = machine.folder / "looks"
    sizes = f'echo >> {looks}; [ "$(wc -l < {looks})" -lt 3 ] && echo {8 << 30} || echo {10 << 30}'
    machine.fake.add("blockdev", sizes)
    done = machine.run("10")
    assert done.returncode == 0, done.stderr
    order = [call[0] for call in machine.fake.calls if call[0] in ("blockdev", "resize2fs")]
    assert order == ["blockdev", "blockdev", "blockdev", "resize2fs"]


def test_a_disk_that_stays_as_it_was_ends_up_and_not_the_machines_start(machine: Machine) -> None:
    machine.named(machine.disk("nvme1n1", OURS))
    done = machine.run("11")
    assert done.returncode == 1
    assert f"still sees 10 GiB of the data volume {SERIAL}, which has 11" in done.stderr
    assert machine.run().returncode == 0


def test_a_file_system_that_does_not_grow_says_why(machine: Machine) -> None:
    machine.named(machine.disk("nvme1n1", OURS))
    machine.fake.add("resize2fs", "echo 'resize2fs 1.47.0' >&2; echo blocks = 2; echo 'No room' >&2; exit 1")
    done = machine.run("10")
    assert done.returncode == 1
    assert f"cause: the file system of {SERIAL} could not be grown: No room\n" in done.stderr
    at_start = machine.run()
    assert at_start.returncode == 0
    assert "warning: the file system" in at_start.stdout


def run_disk_program(machine: Machine, mounting: str = "exit 0") -> subprocess.CompletedProcess[str]:
    """What `up` runs on the machine, whose files lie below the folder. mounting: bash in place of the mount."""
    machine.fake.add("sudo", f'shift\ncase $1 in */sbin/seatable-vllm-data) {mounting};; esac\nexec "$@"')
    for name in ("systemctl", "mount"):
        machine.fake.add(name)
    program = disk_program(VOLUME, "/srv/it's data", 10)
    for place in ("/etc/systemd/", "/usr/local/sbin/"):
        program = program.replace(place, f"{machine.folder}{place}")
    return subprocess.run(
        ["bash", "-s"], input=f"umask 077\n{program}", capture_output=True, text=True, check=False,
        env=machine.fake.environment,
    )  # fmt: skip


def test_the_program_stays_on_the_machine_for_root_to_run_and_docker_begins_only_after_the_disk(
    machine: Machine,
) -> None:
    done = run_disk_program(machine)
    assert done.returncode == 0, done.stderr
    units = machine.folder / "etc/systemd/system"
    program = machine.folder / "usr/local/sbin/seatable-vllm-data"
    unit, drop_in = units / "seatable-vllm-data.service", units / "docker.service.d/10-seatable-vllm-data.conf"
    made = {path for place in ("etc", "usr") for path in (machine.folder / place).rglob("*") if path.is_file()}
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in made} == {
        program: 0o755,
        unit: 0o644,
        drop_in: 0o644,
    }
    assert program.read_text() == mount_program(VOLUME, "/srv/it's data")
    assert f"ExecStart={program.relative_to(machine.folder)}".replace("=", "=/") in unit.read_text()
    assert "Before=docker.service" in unit.read_text()
    assert "Requires=seatable-vllm-data.service\nAfter=seatable-vllm-data.service" in drop_in.read_text()
    calls = [call[3:] for call in machine.fake.calls if call[:3] == ["sudo", "-n", "systemctl"]]
    assert ["enable", "--quiet", "seatable-vllm-data.service"] in calls
    (mounted,) = [call[3:] for call in machine.fake.calls if call[:3] == ["sudo", "-n", str(program)]]
    assert mounted == ["10"]


def test_a_mount_that_fails_ends_up_with_its_own_words(machine: Machine) -> None:
    done = run_disk_program(machine, "echo cause: no disk; echo change: attach it; exit 1")
    assert done.returncode != 0
    assert "phase: data disk" in done.stderr
    assert "cause: no disk" in done.stderr


def test_without_sudo_the_program_says_so(fake_command: FakeCommand) -> None:
    fake_command.add("sudo", "exit 1")
    done = subprocess.run(
        ["bash", "-s"],
        input=disk_program(VOLUME, "/srv/data", 10),
        capture_output=True,
        text=True,
        check=False,
        env=fake_command.environment,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("phase: data disk\ncause: ")
    assert "sudo" in done.stderr
