"""The program that brings the data volume into use on the machine: found by its id, formatted if blank, mounted.

From then on a unit of systemd does it at every start, before Docker: no container ever begins on the empty folder
under a disk that is missing.
"""

import base64
import shlex

UNIT = "seatable-vllm-data.service"
MOUNT_PROGRAM = "/usr/local/sbin/seatable-vllm-data"

LABEL = "seatable-vllm"
"""The file system's label; ext4 takes 16 characters."""

DISK_SECONDS = 90
"""Patience for a disk that EC2 is still attaching."""

GROW_SECONDS = 60
"""Patience for a disk that EC2 has grown, and that the machine still sees as it was."""

UNNAMED = "/dev/nvme1n1"
"""Where the disk is taken from on a machine whose disks have no names at all, under conditions; see below."""

_MOUNT = """\
#!/bin/bash
# Mounts the stack's data volume. Called by systemd before Docker, and by `up` with the GiB that it is to have.
set -euo pipefail
volume={volume} data={data} label={label}
fail() {{ echo "cause: $1" >&2; echo "change: $2" >&2; exit 1; }}

# The name that udev gives to the disk, else the disk whose own serial number it is.
named() {{
  local disk="/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$volume" serial
  if [ -b "$disk" ]; then readlink -f "$disk"; return; fi
  for serial in /sys/block/nvme*/device/serial; do
    [ -r "$serial" ] || continue  # where there is no such disk, the pattern itself
    if [ "$(tr -d '[:space:]' < "$serial" 2>/dev/null)" = "$volume" ]; then
      disk=${{serial#/sys/block/}}; disk=/dev/${{disk%%/*}}
      if [ -b "$disk" ]; then echo "$disk"; return; fi
    fi
  done
  return 1
}}

number() {{ printf '%d:%d' $((0x$(stat -L -c %t "$1"))) $((0x$(stat -L -c %T "$1"))); }}
mounted() {{ awk '{{print $3}}' /proc/self/mountinfo | grep -qxF "$(number "$1")"; }}

# Nothing (blank: no mark of any kind, and zeros where marks are), the type of a file system and its label, or
# `other`; partitions are other too.
holds() {{
  local told status=0
  told=$(blkid -p -o export "$1" 2>/dev/null) || status=$?
  if [ $status -eq 2 ] && [ -z "$told" ] && cmp -s -n 1048576 "$1" /dev/zero; then echo blank
  elif [ $status -ne 0 ] || grep -q '^PTTYPE=' <<< "$told"; then echo other
  else echo "$(sed -n 's/^TYPE=//p' <<< "$told") $(sed -n 's/^LABEL=//p' <<< "$told")"; fi
}}

# Only where no disk of this machine has a name or number of EC2's, so that none can be mistaken for another; and
# only one that nobody uses, and that is blank or was formatted by this program.
unnamed() {{
  local disk={unnamed}
  [ -b "$disk" ] || return 1
  compgen -G '/dev/disk/by-id/nvme-Amazon*' >/dev/null && return 1
  [ ! -s "/sys/block/${{disk##*/}}/device/serial" ] || return 1
  mounted "$disk" && return 1
  case $(holds "$disk") in blank | "ext4 $label") echo "$disk";; *) return 1;; esac
}}

if mountpoint -q "$data"; then
  disk=$(named) && [ "$(number "$disk")" != "$(mountpoint -d "$data")" ] &&
    fail "another disk than $volume is mounted at $data" "unmount it there, then run up again"
else
  mkdir -p "$data"
  for second in $(seq {seconds}); do
    disk=$(named) && break
    # Names come later than disks do, so the unnamed one is not taken in the first seconds.
    if [ "$second" -gt 10 ]; then disk=$(unnamed) && break; fi
    sleep 1
  done
  [ -n "$disk" ] ||
    fail "the data volume $volume is not at this machine" "see its attachment in EC2, then run up again"
  ! mounted "$disk" ||
    fail "the data volume $volume is mounted elsewhere on the machine" "unmount it there, then run up again"
  case $(holds "$disk") in
    blank) echo "formatting $disk ($volume)"; mkfs.ext4 -q -m 0 -L "$label" "$disk";;
    "ext4 "* | "xfs "*) ;;
    *) fail "the data volume $volume holds something that is no file system of ours: $(holds "$disk")" \\
      "empty it yourself, or name another snapshot in seatable-vllm:machine.data_disk.snapshot";;
  esac
  mount "$disk" "$data"
fi
disk=$(findmnt -n -o SOURCE --target "$data")
# A volume that has grown since. The machine learns of that a moment after EC2's answer.
bytes=$((${{1:-0}} << 30))
for second in $(seq {grow_seconds}); do
  size=$(blockdev --getsize64 "$disk")
  [ "$size" -lt "$bytes" ] || break
  sleep 1
done
grow=true
case $(findmnt -n -o FSTYPE --target "$data") in
  ext4) grow="resize2fs $disk";;
  xfs) grow="xfs_growfs $data";;
esac
problem=
[ "$size" -ge "$bytes" ] ||
  problem="the machine still sees $((size >> 30)) GiB of the data volume $volume, which has $1"
told=$($grow 2>&1 >/dev/null) ||
  problem="the file system of $volume could not be grown: ${{told##*$'\n'}}"
# At a start of the machine a small disk is better than none.
[ -z "$problem" ] || [ $# -eq 0 ] ||
  fail "$problem" "reboot the machine, which grows it again, then run up again; nothing on the disk is lost"
[ -z "$problem" ] || echo "warning: $problem"
echo "$volume is mounted at $data"
"""

_UNIT = """\
[Unit]
Description=The data volume of seatable-vllm
After=local-fs.target systemd-udev-settle.service
Before=docker.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={program}
TimeoutStartSec=300

[Install]
WantedBy=multi-user.target
"""

_DOCKER_DROP_IN = f"""\
# Without the disk no container may begin: it would write to the empty folder under it.
[Unit]
Requires={UNIT}
After={UNIT}
"""


def mount_program(volume: str, data: str) -> str:
    """The program that stays on the machine. volume: id as EC2 writes it. data: where its files are to be."""
    return _MOUNT.format(
        volume=shlex.quote(volume.replace("-", "")),  # as the disk itself has it
        data=shlex.quote(data),
        label=LABEL,
        seconds=DISK_SECONDS,
        grow_seconds=GROW_SECONDS,
        unnamed=UNNAMED,
    )


def disk_program(volume: str, data: str, gib: int) -> str:
    """A bash program that puts the disk into use, now and at every start, and grows its file system.

    It can be repeated. volume: id of the EBS volume. data: the folder where it is to be mounted. gib: its size.
    """
    files = {
        MOUNT_PROGRAM: ("0755", mount_program(volume, data)),
        f"/etc/systemd/system/{UNIT}": ("0644", _UNIT.format(program=MOUNT_PROGRAM)),
        "/etc/systemd/system/docker.service.d/10-seatable-vllm-data.conf": ("0644", _DOCKER_DROP_IN),
    }
    puts = "".join(
        f"put {shlex.quote(path)} {mode} {base64.b64encode(text.encode()).decode()}\n"
        for path, (mode, text) in files.items()
    )
    return f"""\
set -euo pipefail
fail() {{ echo "phase: data disk" >&2; echo "cause: $1" >&2; echo "change: $2" >&2; exit 1; }}
sudo -n true 2>/dev/null || fail "$(id -un) has no sudo without a password on the machine" \\
  "name another AMI in seatable-vllm:machine.ami, or give it that right"
put() {{
  local part
  sudo -n mkdir -p "$(dirname "$1")"
  part=$(sudo -n mktemp "$1.XXXXXX")
  base64 -d <<< "$3" | sudo -n tee "$part" >/dev/null
  sudo -n chmod "$2" "$part"
  sudo -n mv -f "$part" "$1"
}}
{puts}if ! told=$(sudo -n {MOUNT_PROGRAM} {gib} 2>&1); then
  echo "phase: data disk" >&2
  echo "$told" >&2
  exit 1
fi
echo "$told"
sudo -n systemctl daemon-reload
sudo -n systemctl enable --quiet {UNIT}
sudo -n systemctl start {UNIT}
"""
