"""GPUs by name: how much memory CUDA finds on them, and what they can calculate with.

A name is read as people write it and as nvidia-smi prints it; gpus.json has the cards since Turing.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from catalog.sizing import Gpu

CUDA_SHARE = 0.985
"""What CUDA finds of a box's memory: 39.38 of 40 GiB on A100 (vLLM issue 16570), 79.11 of 80 on H100 (29049)."""
MIG_SHARE = 0.95
"""What a MIG slice has of the size in its name: 4,864 MiB of 1g.5gb (NVIDIA's MIG guide, A100)."""
NEAR = 3
"""Names that are proposed in place of an unknown one."""
LEAST_KNOWN = 8.0
"""Compute capability that a card of an unknown name is counted with."""

_FILE = Path(__file__).with_suffix(".json")
_FRAME = r"^\s*GPU \d+:\s*|\s*\(UUID:[^)]*\)\s*$|\s*\(nvgpu\)"
"""What `nvidia-smi -L` writes around a name."""
_BRANDS = re.compile(
    r"\b(nvidia|geforce|tesla|jetson|dgx|corporation|blackwell|generation|edition|server|workstation|max q|active|"
    r"tensor core|graphics|gpu|sff|design|with|sxm\d?|pcie?|hbm\d?e?|ac|developer kit)\b"
)
"""Words that say nothing about memory."""
_SIZE = re.compile(r"\b(\d+) ?(gb|gib|g|mib)\b")


@dataclass(frozen=True)
class _Card:
    name: str
    gigabytes: int
    """On the box."""
    mib: int
    capability: float
    nvlink: bool

    def gpu(self, mib: int | None = None, note: str = "") -> Gpu:
        return Gpu(self.name, int((mib or self.mib) * CUDA_SHARE), self.capability, self.nvlink, note)


@functools.cache
def _cards() -> dict[str, tuple[_Card, ...]]:
    """The cards by the words of their names, those of one name by size, the smallest first."""
    found: dict[str, tuple[_Card, ...]] = {}
    for row in json.loads(_FILE.read_text())["gpus"]:
        card = _Card(*row)
        key = _words(card.name)
        found[key] = tuple(sorted((*found.get(key, ()), card), key=lambda each: each.gigabytes))
    return found


class UnknownGpuError(ValueError):
    """A GPU that is not in the table. The text says how to describe it."""


def gpu(name: str, memory_mib: int, capability: float, *, nvlink: bool) -> Gpu:
    """A GPU as EC2's API or nvidia-smi describes it: memory in MiB."""
    short = re.sub(r"^NVIDIA | SXM.*$| Blackwell Server Edition$", "", name)
    # With error correction a T4 has less than EC2's API says, and much less than other GPUs lose.
    memory = _cards()[_words(short)][0].mib if short in ("T4", "T4G") else memory_mib
    return Gpu(short, int(memory * CUDA_SHARE), capability, nvlink)


def parse_gpu(text: str) -> tuple[Gpu, int]:
    """A GPU and how many from what a person writes or nvidia-smi prints.

    "L4", "2x L40S 48", "RTX 4060 Ti 16GB", "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-...)", "NVIDIA L4, 23034 MiB",
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb". A card that is not in the table needs its memory, "NAME 32GB", and may have
    its compute capability after that. Of a name with several sizes the smallest counts where none is written, and
    `Gpu.note` has that. Raises UnknownGpuError for all others, with the nearest names.
    """
    count, plain = 1, re.sub(_FRAME, "", " ".join(text.split())).strip(" ,")
    if found := re.match(r"(\d+)\s*x\s+(.+)", plain, re.IGNORECASE):
        count, plain = int(found[1]), found[2]
    if count < 1:
        raise UnknownGpuError(f'"{text}" is no number of GPUs; write 1x or more, such as "2x {plain}"')
    if sliced := re.search(r"\bMIG (\d+\w*\.)?\d+g\.(\d+)gb", plain, re.IGNORECASE):
        return _slice(text, plain[: sliced.start()].strip(), sliced[0], int(sliced[2])), count
    return _whole(text, plain), count


def _whole(text: str, plain: str) -> Gpu:
    words = _words(plain)
    capability = None
    if found := re.search(r" (\d{1,2}\.\d)$", words):
        words, capability = words[: found.start()], float(found[1])
    unit = _SIZE.search(words)
    # A Grace Hopper's name has the memory of its processor in it.
    written = None if unit is None or unit[0] == "480gb" else unit
    name = " ".join(_SIZE.sub("", words).split())
    mib = int(written[1]) if written and written[2] == "mib" else None
    gigabytes = int(written[1]) if written and mib is None else None
    cards = _named(name)
    if not cards and written is None and (found := re.fullmatch(r"(.+) (\d+)", name)):
        # A size without its unit, where the rest is the name of a card, or where a capability follows.
        shorter = _named(found[1])
        if shorter or capability is not None:
            cards, name, gigabytes = shorter, found[1], int(found[2])
    if capability is not None and (gigabytes or mib):
        memory = mib or (gigabytes or 0) * 1024
        return Gpu(_shown(plain), int(memory * CUDA_SHARE), capability, bool(cards) and cards[0].nvlink)
    if cards and capability is None:
        return _of_size(cards, gigabytes, mib)
    if gigabytes or mib:
        note = (
            f"{_shown(plain)} is not in the table: counted with compute capability {LEAST_KNOWN}; "
            "write its own after the memory"
        )
        return Gpu(_shown(plain), int((mib or (gigabytes or 0) * 1024) * CUDA_SHARE), LEAST_KNOWN, note=note)
    raise UnknownGpuError(_unknown(text, name))


def _of_size(cards: tuple[_Card, ...], gigabytes: int | None, mib: int | None) -> Gpu:
    """Of the cards of one name that with this memory, or the smallest."""
    if mib:
        return _shown_size(cards, cards[0].gpu(mib), round(mib / 1024))
    if gigabytes:
        exact = next((card for card in cards if card.gigabytes == gigabytes), None)
        return _shown_size(cards, exact.gpu() if exact else cards[0].gpu(gigabytes * 1024), gigabytes)
    smallest, sizes = cards[0], [str(card.gigabytes) for card in cards]
    if len(cards) == 1:
        return smallest.gpu()
    note = (
        f"{smallest.name} is sold with {', '.join(sizes[:-1])} or {sizes[-1]} GB: counted with {sizes[0]}; "
        f'for another write "{smallest.name} {sizes[-1]}GB"'
    )
    return _shown_size(cards, smallest.gpu(note=note), smallest.gigabytes)


def _shown_size(cards: tuple[_Card, ...], found: Gpu, gigabytes: int) -> Gpu:
    """The size belongs to a name that has several."""
    return replace(found, name=f"{found.name} {gigabytes}") if len(cards) > 1 else found


def _slice(text: str, name: str, profile: str, gigabytes: int) -> Gpu:
    """A part of a GPU."""
    cards = _named(" ".join(_SIZE.sub("", _words(name)).split()))
    if not cards:
        raise UnknownGpuError(
            f'"{text}" is a slice of a GPU that is not named; write the GPU before it, such as '
            f'"NVIDIA A100-SXM4-40GB {profile}"'
        )
    return Gpu(f"{cards[0].name} {profile}", int(gigabytes * 1024 * MIG_SHARE), cards[0].capability)


def _words(name: str) -> str:
    """The words of a name that tell one card from another, in lower case."""
    plain = re.sub(r"[-_,()/\s]+", " ", name.casefold())
    plain = re.sub(r"\b(rtx|gtx)(?=\d|a\d)", r"\1 ", plain)
    plain = re.sub(r"(?<=\d)(ti|super)(?=super|\b)", r" \1", plain).replace("tisuper", "ti super")
    plain = re.sub(r"\bnotebook|\bmobile", "laptop", _BRANDS.sub(" ", plain))
    return " ".join(plain.split())


def _named(name: str) -> tuple[_Card, ...]:
    """The cards of this name; "4090" is an RTX 4090, and a Quadro may be written without that word."""
    cards = _cards()
    guesses = (name, f"rtx {name}", f"gtx {name}", f"quadro {name}", name.removeprefix("quadro "))
    return next((cards[guess] for guess in guesses if guess in cards), ())


def _shown(plain: str) -> str:
    """The name as it was written, without figures."""
    return re.sub(r"[ ,]+\d+ ?(GB|GiB|G|MiB)?([ ,]+\d+\.\d+)?$", "", plain, flags=re.IGNORECASE)


def _unknown(text: str, name: str) -> str:
    names = {key: cards[0].name for key, cards in _cards().items()}
    near = [names[key] for key in difflib.get_close_matches(name, names, n=NEAR, cutoff=0.5)]
    proposed = " or ".join(f'"{each}"' for each in near)
    hint = f"did you mean {proposed}? Else" if near else "it is not in the table;"
    return (
        f'"{text}" is no GPU this program knows; {hint} write its memory after the name, as in "RTX 9090 32GB", '
        'and its compute capability too where you know it, as in "RTX 9090 32GB 12.0" '
        "(developer.nvidia.com/cuda-gpus)"
    )
