"""GPUs by name: how much memory CUDA finds on them, and what they can calculate with."""

from __future__ import annotations

import difflib
import re

from catalog.sizing import Gpu

CUDA_SHARE = 0.985
"""What CUDA finds of a box's memory: 39.38 of 40 GiB on A100 (vLLM issue 16570), 79.11 of 80 on H100 (29049)."""

_GPUS = {
    # name: (GB on the box, MiB by EC2's API or nvidia-smi, compute capability, NVLink between several)
    "T4": (16, 15136, 7.5, False),
    "T4G": (16, 15136, 7.5, False),
    "RTX 2080 Ti": (11, 11264, 7.5, False),
    "A2": (16, 15356, 8.6, False),
    "A10": (24, 22888, 8.6, False),
    "A10G": (24, 22888, 8.6, False),
    "A30": (24, 24576, 8.0, False),
    "A40": (48, 45634, 8.6, False),
    "A100 40": (40, 40960, 8.0, True),
    "A100": (80, 81920, 8.0, True),
    "RTX 3060": (12, 12288, 8.6, False),
    "RTX 3090": (24, 24576, 8.6, False),
    "RTX A4000": (16, 16376, 8.6, False),
    "RTX A5000": (24, 24564, 8.6, False),
    "RTX A6000": (48, 49140, 8.6, False),
    "L4": (24, 22888, 8.9, False),
    "L40": (48, 45776, 8.9, False),
    "L40S": (48, 45776, 8.9, False),
    "RTX 4060 Ti": (16, 16380, 8.9, False),
    "RTX 4080": (16, 16376, 8.9, False),
    "RTX 4090": (24, 24564, 8.9, False),
    "RTX 6000 Ada": (48, 49140, 8.9, False),
    "RTX 5070 Ti": (16, 16303, 12.0, False),
    "RTX 5080": (16, 16303, 12.0, False),
    "RTX 5090": (32, 32607, 12.0, False),
    "RTX PRO 4500": (32, 32607, 12.0, False),
    "RTX PRO 6000": (96, 97887, 12.0, False),
    "H100": (80, 81559, 9.0, True),
    "H100 NVL": (94, 95830, 9.0, True),
    "H200": (141, 143771, 9.0, True),
    "B200": (180, 183359, 10.0, True),
    "B300": (288, 275040, 10.3, True),
    "V100": (16, 16384, 7.0, True),
}
"""Compute capabilities: NVIDIA's table of CUDA GPUs. T4: 14.56 GiB seen by CUDA, with error correction on."""


_ADORNMENT = r"^NVIDIA | SXM.*$| Blackwell Server Edition$"


class UnknownGpuError(ValueError):
    """A GPU that is not in the table. The text says how to describe it."""


def gpu(name: str, memory_mib: int, capability: float, *, nvlink: bool) -> Gpu:
    """A GPU as EC2's API or nvidia-smi describes it: memory in MiB."""
    short = re.sub(_ADORNMENT, "", name)
    # With error correction a T4 has less than EC2's API says, and much less than other GPUs lose.
    memory = _GPUS[short][1] if short in ("T4", "T4G") else memory_mib
    return Gpu(short, int(memory * CUDA_SHARE), capability, nvlink)


def parse_gpu(text: str) -> tuple[Gpu, int]:
    """A GPU and how many from what a person writes: "L4", "L4 24", "2x L40S 48", or "NAME GB CAPABILITY".

    Raises UnknownGpuError where the name is not in the table and the text has no figures that make up for it.
    """
    count, plain = 1, " ".join(text.split())
    if found := re.match(r"(\d+)\s*x\s+(.+)", plain, re.IGNORECASE):
        count, plain = int(found[1]), found[2]
    if count < 1:
        raise UnknownGpuError(f'"{text}" is no number of GPUs; write 1x or more, such as "2x {plain}"')
    exact = _lookup(plain)
    if exact:
        return exact, count
    described = re.fullmatch(r"(.+?) (\d+) ?(?:GB|GiB)?(?: (\d+\.\d+))?", plain, re.IGNORECASE)
    if described:
        name, gigabytes, capability = described[1], int(described[2]), described[3]
        known = _lookup(f"{name} {gigabytes}") or _lookup(name)
        if known and capability is None and _nominal(known.name) == gigabytes:
            return known, count
        if known and capability is None:
            return Gpu(known.name, int(gigabytes * 1024 * CUDA_SHARE), known.capability, known.nvlink), count
        if capability is not None:
            return Gpu(name, int(gigabytes * 1024 * CUDA_SHARE), float(capability)), count
    near = difflib.get_close_matches(plain, _GPUS, n=1, cutoff=0.5)
    hint = f'did you mean "{near[0]}"? Else' if near else "it is not in the table;"
    raise UnknownGpuError(
        f'"{text}" is no GPU this program knows; {hint} describe it as NAME GB CAPABILITY, such as '
        '"RTX 9090 32 12.0" '
        "(developer.nvidia.com/cuda-gpus has the capability)"
    )


def _lookup(name: str) -> Gpu | None:
    plain = re.sub(r"^(nvidia|geforce|tesla)\s+", "", name, flags=re.IGNORECASE).casefold()
    plain = re.sub(r"^(nvidia|geforce|tesla)\s+", "", plain)
    for each, (_, memory, capability, nvlink) in _GPUS.items():
        if plain == each.casefold():
            return Gpu(each, int(memory * CUDA_SHARE), capability, nvlink)
    return None


def _nominal(name: str) -> int:
    return _GPUS[name][0]
