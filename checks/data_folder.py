"""A stack's data directory on its machine: whose it is, and what of it is removed when the stack ends.

Runs on the machine, as a program on standard input (see `checks.bundle`): it imports the standard library alone
and is given one JSON object, an `Order`. A file in the directory, the marker, says which stack took it. Only what
the program has made is ever removed, entry by entry, and no link is followed out of the directory.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

PROJECT = "seatable-vllm"
MARKER = ".seatable-vllm.json"
ADOPT = ".seatable-vllm.adopt"
"""Whoever writes the stack's name into this file hands the directory over to the stack; the next `up` takes it."""

KEYS = {"vllm": ("config.yaml", "config.yaml.??????", "watchdog.py", "watchdog.py.??????"),
        "edge": ("releases", "live", ".live")}  # fmt: skip
"""What holds keys, or is of no use without the stack, by folder; question marks are a write cut off."""

CERTIFICATES = ("live", "ca", "given", "acme", "aws", "roots.pem", "policy.json", "ca.pem", "source", "renew",
                ".lock", "*.part", ".part.*")  # fmt: skip
CACHES = ("vllm", "huggingface")
BESIDE_MODELS = (".partial", ".lock", ".lost", ".made")
FETCHED = "models/.made"
"""A line for each model that was fetched into `models`."""

FOLDERS = ("models", "cache", "vllm", "edge", "certificates")
TRACES = ("models/.lost", "models/.lock", "models/.partial", "models/.made", "vllm/watchdog.py", "edge/releases",
          "certificates/renew")  # fmt: skip
"""What nobody but this program makes; earlier versions of it wrote no marker."""

NO_DATA = ("lost+found", MARKER, ADOPT)
MODEL = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)?")


class Refused(Exception):  # noqa: N818 - reads as what happened
    """Why not, and what to do about it; the text of a failure's last three lines."""

    def __init__(self, phase: str, cause: str, change: str) -> None:
        super().__init__(f"phase: {phase}\ncause: {cause}\nchange: {change}")


@dataclass(frozen=True)
class Order:
    """What is to be done, with which directory.

    do: `take` it for the stack; `clear` it of keys; `purge` all that the stack made. data: its absolute path.
    stack: the stack's name. owner: a text that this state of the stack alone has; None: there is no state, and
    the name decides. ours: whether its place alone says that it is the stack's. adopt: whether the disk was given
    to the stack, with whatever is on it. unit: name of the timer that renews the stack's certificate. units:
    folder where systemd has it.
    """

    do: str
    data: str
    stack: str
    owner: str | None = None
    ours: bool = False
    adopt: bool = False
    unit: str = ""
    units: str = "/etc/systemd/system"


def main(text: str) -> int:
    """Carries out an order in JSON; 1, with phase, cause and change on standard error, where that cannot be."""
    order = Order(**json.loads(text))
    try:
        if order.do == "take":
            take(order)
        else:
            clear(order)
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    except OSError as error:
        full = f"{PROJECT}: disk nearly full: " if error.errno == errno.ENOSPC else ""
        cause = f"{full}{PROJECT}:machine.data_dir {order.data}: {error.strerror} ({error.filename})"
        print(Refused("machine ready", cause, "see to that there, or name another folder"), file=sys.stderr)
        return 1
    return 0


# Taking it


def take(order: Order) -> None:
    """Makes the directory the stack's, or refuses before anything is written."""
    data = Path(order.data)
    setting = f"{PROJECT}:machine.data_dir {data}"
    if os.path.lexists(data) and not _is_folder(data):
        raise Refused("machine ready", f"{setting} is not a folder", "name a folder, or one that is not there yet")
    if not order.ours:
        _refuse_containers(order, setting)
    _require_readable(data, setting)
    there = _entries(data)
    marker = _marker(data)
    found = _judge(order, marker, there, setting)
    made = _make(data, setting)
    before = marker or {}
    _write_marker(
        data,
        {
            "project": PROJECT,
            "stack": order.stack,
            "owner": order.owner,
            "made": bool(before.get("made", made or order.ours)),
            "found": before.get("found", found),
        },
    )
    if not marker:
        _note_earlier_models(data)
    if os.path.lexists(data / ADOPT):
        (data / ADOPT).unlink()


def _judge(order: Order, marker: dict[str, object] | None, there: list[str], setting: str) -> list[str]:
    """Refuses what is another's. The folders with names like ours that are there and not ours."""
    data = Path(order.data)
    handed_over = order.ours or order.adopt or _handed_over(data, order)
    if marker:
        if not (handed_over or _is_of(marker, order)):
            raise Refused("machine ready", f"{setting} is that of {_told(marker, order)}", _ways(data, order))
        return []
    if not there or order.ours or _is_earlier(order, there):
        return []
    if not handed_over:
        raise Refused(
            "machine ready",
            f"{setting} holds what this stack did not make, such as {_foreign_first(there)}",
            _ways(data, order),
        )
    return _found(data, setting)


def _is_folder(path: Path) -> bool:
    """Whether it is one; False too where this user may not look."""
    return os.path.isdir(path)  # noqa: PTH112 - pathlib's raises there


def _entries(data: Path) -> list[str]:
    """What is in the directory beside the program's own notes; nothing where it is not there."""
    if not _is_folder(data):
        return []
    return sorted(path.name for path in data.iterdir() if path.name not in NO_DATA)


def _marker(data: Path) -> dict[str, object] | None:
    try:
        known = json.loads((data / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and known.get("project") == PROJECT else None


def _is_of(marker: dict[str, object], order: Order) -> bool:
    """Whether the marker is the stack's. One that was taken down has no owner until the next `up`."""
    same = order.owner is None or marker.get("owner") in (None, order.owner)
    return marker.get("stack") == order.stack and same


def _told(marker: dict[str, object], order: Order) -> str:
    if marker.get("stack") != order.stack:
        return f"the stack {marker.get('stack')}"
    return f"a stack {order.stack} that another state has made, on another computer or before this state"


def _ways(data: Path, order: Order) -> str:
    line = f"echo {order.stack} > {shlex.quote(str(data / ADOPT))}"
    return (
        "name another folder; or, if this stack is to have this one, write so there and run up again: "
        f"{line} (what is there now stays, at scripts/down --purge too, unless this program made it)"
    )


def _handed_over(data: Path, order: Order) -> bool:
    try:
        return (data / ADOPT).read_text().strip() == order.stack
    except OSError:
        return False


def _refuse_containers(order: Order, setting: str) -> None:
    """Another stack that is up with this directory keeps it, whatever any file says."""
    for stack, owner in _containers(order.data):
        if stack != order.stack:
            raise Refused(
                "machine ready",
                f"{setting} is that of the stack {stack} on this machine",
                "give this stack a folder of its own",
            )
        if owner and owner != order.owner:
            raise Refused(
                "machine ready",
                f"{setting} is in use by a stack {stack} that another state has made",
                f"deploy it from where that state is; if that is lost, scripts/down {stack} and then up again",
            )


def _containers(data: str) -> list[tuple[str, str]]:
    """Stack and owner of the containers that were made for this directory."""
    form = '{{.Label "seatable-vllm.stack"}}\t{{.Label "seatable-vllm.owner"}}'
    ask = ["docker", "ps", "--all", "--filter", f"label=seatable-vllm.data-dir={data}", "--format", form]
    lines = [line.partition("\t") for line in _output(ask).splitlines() if "\t" in line]
    return [(stack, owner) for stack, _, owner in lines]


def _is_earlier(order: Order, there: list[str]) -> bool:
    """Whether an earlier version of the program, which wrote no marker, made this for the stack."""
    data = Path(order.data)
    if set(there) <= {*FOLDERS} and _has_traces(data):
        return True
    return any(stack == order.stack for stack, _ in _containers(order.data))


def _has_traces(data: Path) -> bool:
    return any(os.path.lexists(data / trace) for trace in TRACES)


def _found(data: Path, setting: str) -> list[str]:
    """The folders with names like ours that are not. Refused where a file of ours would take another's place."""
    if not _has_traces(data):
        taken = [*_named(data, KEYS), *_named(data, {"certificates": CERTIFICATES, "cache": CACHES})]
        if taken:
            raise Refused(
                "machine ready",
                f"{setting} cannot be adopted: {_some(taken)} would be overwritten",
                "move it away, or name another folder",
            )
    return [name for name in FOLDERS if os.path.lexists(data / name)]


def _require_readable(data: Path, setting: str) -> None:
    """Refuses a directory that this user may not look into, or not write, unless it is a new disk."""
    if not _is_folder(data) or (os.access(data, os.R_OK | os.X_OK) and not _entries(data)):
        return
    if not os.access(data, os.R_OK | os.W_OK | os.X_OK):
        raise _not_ours_to_write(setting)


def _not_ours_to_write(setting: str) -> Refused:
    user = _user()
    return Refused(
        "machine ready", f"{setting} is not {user}'s to write", f"give it to {user}, or name another folder"
    )


def _make(data: Path, setting: str) -> bool:
    """Sees that the directory is there and can be written; whether it was made just now."""
    made = not _is_folder(data)
    give = ["chown", f"{os.getuid()}:{os.getgid()}", str(data)]
    if made:
        try:
            data.mkdir(parents=True)
        except OSError:
            if not (_sudo(["mkdir", "-p", str(data)]) and _sudo(give)):
                user = _user()
                raise Refused(
                    "machine ready",
                    f"{setting} cannot be made by {user}, who has no sudo without a password",
                    f"make it there and give it to {user}, or name a folder that {user} may write",
                ) from None
    elif not os.access(data, os.W_OK):
        _sudo(give)  # a new disk, mounted there
    if not os.access(data, os.W_OK):
        raise _not_ours_to_write(setting)
    return made


def _user() -> str:
    return _output(["id", "-un"]).strip()


def _write_marker(data: Path, marker: dict[str, object]) -> None:
    text = json.dumps(marker, indent=1) + "\n"
    path, part = data / MARKER, data / f"{MARKER}.part"
    if path.exists() and path.read_text() == text:
        return
    part.write_text(text)
    part.chmod(0o644)
    part.replace(path)


def _note_earlier_models(data: Path) -> None:
    """Notes the models that an earlier version fetched, by the marks that it left beside them."""
    if _is_inside(data, "models/.lost") and not os.path.lexists(data / FETCHED):
        models = sorted(_below(data / "models" / ".lost"))
        (data / FETCHED).write_text("".join(f"{model}\n" for model in models))


def _below(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


# Clearing it


def clear(order: Order) -> None:
    """Removes what the order names of what the stack made; says what is left and why."""
    data = Path(order.data)
    _forget_timer(order)
    marker = _marker(data)
    if not _is_folder(data):
        return
    if marker and not (order.ours or _is_of(marker, order)):
        print(f"left alone: {data} is that of {_told(marker, order)}")
        return
    if not marker and not _has_traces(data) and not order.ours:
        if _entries(data):
            print(f"left alone: {data} holds nothing that this program made")
        return
    purge = order.do == "purge"
    if purge and not marker:
        _note_earlier_models(data)
    found = (marker or {"found": [] if order.ours else ["cache"]}).get("found")
    kept = found if isinstance(found, list) else []
    _remove_all(data, _made(data, kept, purge=purge))
    _remove_empty(data, [] if marker is None else kept, purge=purge)
    if not purge:
        if marker:
            _write_marker(data, {**marker, "owner": None})
        return
    print(f"removed: weights, caches and all else that {order.stack} made in {data}")
    left = _left(data)
    if left:
        print(f"kept: {_some(left)} in {data}, which this program did not make")
    for name in (MARKER, f"{MARKER}.part", ADOPT):
        if os.path.lexists(data / name):
            (data / name).unlink()
    if (marker and marker.get("made")) or order.ours:
        _rmdir(data)


def _made(data: Path, found: list[str], *, purge: bool) -> list[str]:
    """What the stack made, as paths below the directory. found: folders that were there before it."""
    made = _named(data, KEYS)
    if not purge:
        return made
    made += _named(data, {"certificates": CERTIFICATES})
    whole = "cache" not in found and _is_inside(data, "cache")
    made += ["cache"] if whole else _named(data, {"cache": CACHES})
    if _is_inside(data, FETCHED):
        names = (data / FETCHED).read_text(errors="replace").splitlines()
        made += [f"models/{name}" for name in dict.fromkeys(names) if MODEL.fullmatch(name)]
    made += _named(data, {"models": BESIDE_MODELS})
    return made


def _named(data: Path, patterns: dict[str, tuple[str, ...]]) -> list[str]:
    """The entries of folders that have a name of ours; none of a folder that is a link: they are elsewhere."""
    found = []
    for folder, names in patterns.items():
        if _is_inside(data, folder) and (data / folder).is_dir():
            inside = sorted(path.name for path in (data / folder).iterdir())
            found += [f"{folder}/{name}" for name in inside if any(fnmatch(name, each) for each in names)]
    return found


def _is_inside(data: Path, relative: str) -> bool:
    """Whether an entry is there and is no link, nor reached through one."""
    parts = relative.split("/")
    paths = [data.joinpath(*parts[: length + 1]) for length in range(len(parts))]
    return not any(path.is_symlink() for path in paths) and paths[-1].exists()


def _parents_are_folders(data: Path, relative: str) -> bool:
    parent = relative.rpartition("/")[0]
    return not parent or _is_inside(data, parent)


def _remove_all(data: Path, relatives: list[str]) -> None:
    """Removes entries. The engine writes its cache as root: sudo or Docker helps where the user may not."""
    left = [each for each in relatives if _parents_are_folders(data, each) and not _remove(data / each)]
    if left and _sudo(["rm", "-rf", "--", *(str(data / each) for each in left)]):
        return
    if left:
        images = _output(["docker", "images", "--quiet"]).split()[:1]
        for image in images:
            run = ["docker", "run", "--rm", "--user", "0:0", "--network", "none", "--volume", f"{data}:/data"]
            rights = ["--security-opt", "no-new-privileges", "--cap-drop", "ALL", "--cap-add", "DAC_OVERRIDE"]
            _output([*run, *rights, "--entrypoint", "rm", image, "-rf", "--", *(f"/data/{each}" for each in left)])
    left = [each for each in left if os.path.lexists(data / each)]
    if left:
        raise Refused("data removed", f"{_some(left)} in {data} could not be removed",
                      "run this again as root, or as the user who ran up")  # fmt: skip


def _remove(path: Path) -> bool:
    """Removes one entry; a link itself, never what it leads to. False where this user may not."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(str(path))
        elif os.path.lexists(path):
            path.unlink()
    except OSError:
        return not os.path.lexists(path)
    return True


def _remove_empty(data: Path, found: list[str], *, purge: bool) -> None:
    """Removes folders of the stack that are empty now, and were not there before it."""
    for name in FOLDERS if purge else KEYS:
        if name in found or not _is_inside(data, name) or not (data / name).is_dir():
            continue
        if name == "models":
            for owner in (data / name).iterdir():
                _rmdir(owner)
        _rmdir(data / name)


def _rmdir(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        return
    try:
        path.rmdir()
    except OSError:
        if not any(path.iterdir()):
            _sudo(["rmdir", "--", str(path)])


def _left(data: Path) -> list[str]:
    """What stays: entries of the directory, and of folders with names like ours what is in them."""
    left = []
    for name in _entries(data):
        within = name in FOLDERS and _is_inside(data, name) and (data / name).is_dir()
        inside = sorted(path.name for path in (data / name).iterdir()) if within else []
        left += [f"{name}/{each}" for each in inside] or [name]
    return left


def _forget_timer(order: Order) -> None:
    """Takes the timer away that renews the stack's certificate, where it is that of this directory."""
    if not order.unit:
        return
    timer, service = (Path(order.units, f"{order.unit}.{kind}") for kind in ("timer", "service"))
    renews = f"{order.data}/certificates/renew".replace("%", "%%")
    if not timer.exists() or (service.exists() and renews not in service.read_text(errors="replace")):
        return
    _as_root(["systemctl", "disable", "--now", timer.name])
    _as_root(["rm", "-f", "--", str(timer), str(service)])
    _as_root(["systemctl", "daemon-reload"])
    if timer.exists():
        print(f"kept: the timer {order.unit}, which needs sudo; it removes itself")


# Helpers


def _foreign_first(there: list[str]) -> str:
    return _some(sorted(there, key=lambda name: name in FOLDERS))


def _some(names: list[str]) -> str:
    """A few of the names, in words."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _sudo(command: list[str]) -> bool:
    """Runs it as root where sudo asks for no password; whether that worked."""
    return shutil.which("sudo") is not None and _ends_well(["sudo", "-n", *command])


def _as_root(command: list[str]) -> bool:
    return _ends_well(command) if os.geteuid() == 0 else _sudo(command)


def _ends_well(command: list[str]) -> bool:
    return _ran(command)[0] == 0


def _output(command: list[str]) -> str:
    return _ran(command)[1]


def _ran(command: list[str]) -> tuple[int, str]:
    """Status and output of a command."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError:
        return 127, ""
    return done.returncode, done.stdout
