"""Unit tier: GPUs by the names that people write and that nvidia-smi prints.

Does not prove the table's figures: NVIDIA and the cards have them. Nor that vLLM runs on a card.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from catalog import gpus
from catalog.gpus import UnknownGpuError, parse_gpu
from catalog.sizing import GIB

UUID = "(UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)"


@pytest.mark.parametrize(
    ("text", "name", "gigabytes", "capability"),
    [
        # As nvidia-smi -L and --query-gpu=name print them.
        (f"GPU 0: NVIDIA A100-SXM4-80GB {UUID}", "A100 80", 80, 8.0),
        (f"GPU 11: NVIDIA H100 80GB HBM3 {UUID}", "H100 80", 80, 9.0),
        ("NVIDIA A100-SXM4-40GB", "A100 40", 40, 8.0),
        ("NVIDIA A100-PCIE-40GB", "A100 40", 40, 8.0),
        ("NVIDIA A100 80GB PCIe", "A100 80", 80, 8.0),
        ("NVIDIA A800 40GB Active", "A800 40", 40, 8.0),
        ("NVIDIA H100 NVL", "H100 NVL", 94, 9.0),
        ("NVIDIA H200", "H200", 141, 9.0),
        ("NVIDIA H20-3e", "H20 3e", 141, 9.0),
        ("NVIDIA GH200 144G HBM3e", "GH200 144", 144, 9.0),
        ("NVIDIA B200", "B200", 180, 10.0),
        ("NVIDIA B300 SXM6 AC", "B300", 288, 10.3),
        ("NVIDIA GB10", "GB10", 128, 12.1),
        ("NVIDIA Thor", "Thor", 128, 11.0),
        ("Tesla T4", "T4", 16, 7.5),
        ("Tesla V100-SXM2-32GB", "V100 32", 32, 7.0),
        ("NVIDIA A10G", "A10G", 24, 8.6),
        ("NVIDIA L40S", "L40S", 48, 8.9),
        ("NVIDIA TITAN RTX", "TITAN RTX", 24, 7.5),
        ("Quadro RTX 8000", "Quadro RTX 8000", 48, 7.5),
        ("NVIDIA RTX A2000 12GB", "RTX A2000 12", 12, 8.6),
        ("NVIDIA RTX A6000", "RTX A6000", 48, 8.6),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", 48, 8.9),
        ("NVIDIA RTX 4000 SFF Ada Generation", "RTX 4000 Ada", 20, 8.9),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000", 96, 12.0),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000", 96, 12.0),
        ("NVIDIA RTX PRO 4000 Blackwell SFF Edition", "RTX PRO 4000", 24, 12.0),
        ("NVIDIA GeForce GTX 1660 SUPER", "GTX 1660 SUPER", 6, 7.5),
        ("NVIDIA GeForce RTX 2080 Ti", "RTX 2080 Ti", 11, 7.5),
        ("NVIDIA GeForce RTX 3090", "RTX 3090", 24, 8.6),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX 4070 Ti SUPER", 16, 8.9),
        ("NVIDIA GeForce RTX 5090 D", "RTX 5090 D", 32, 12.0),
        # A laptop's card has other memory than the card of its name.
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 Laptop", 16, 8.9),
        ("NVIDIA GeForce RTX 5090 Laptop GPU", "RTX 5090 Laptop", 24, 12.0),
        ("NVIDIA RTX 5000 Ada Generation Laptop GPU", "RTX 5000 Ada Laptop", 16, 8.9),
        ("NVIDIA RTX A5000 Laptop GPU", "RTX A5000 Laptop", 16, 8.6),
        # As people write them.
        ("a100 40", "A100 40", 40, 8.0),
        ("nvidia rtx 3080 12GB", "RTX 3080 12", 12, 8.6),
        ("RTX 4060 Ti 16", "RTX 4060 Ti 16", 16, 8.9),
        ("rtx4070tisuper", "RTX 4070 Ti SUPER", 16, 8.9),
        ("3090ti", "RTX 3090 Ti", 24, 8.6),
        ("DGX Spark", "Spark", 128, 12.1),
        ("Jetson AGX Orin 64GB", "AGX Orin 64", 64, 8.7),
    ],
)
def test_a_gpu_is_read_as_it_is_printed_and_written(
    text: str, name: str, gigabytes: int, capability: float
) -> None:
    found, count = parse_gpu(text)
    assert (found.name, found.capability, count, found.note) == (name, capability, 1, "")
    assert 0.9 * gigabytes < found.memory_bytes / GIB < 1.01 * gigabytes


@pytest.mark.parametrize(
    ("text", "gigabytes", "sizes"),
    [
        ("NVIDIA GeForce RTX 3080", 10, "10 or 12 GB"),
        ("NVIDIA GeForce RTX 4060 Ti", 8, "8 or 16 GB"),
        ("NVIDIA GeForce RTX 5060 Ti", 8, "8 or 16 GB"),
        ("NVIDIA A100", 40, "40, 64 or 80 GB"),
        ("NVIDIA H100 PCIe", 80, "80, 94 or 96 GB"),
        ("NVIDIA GeForce RTX 3080 Laptop GPU", 8, "8 or 16 GB"),
        ("Orin (nvgpu)", 4, "4, 8, 16, 32 or 64 GB"),
        # The 480 GB are its processor's.
        ("NVIDIA GH200 480GB", 96, "96 or 144 GB"),
    ],
)
def test_of_several_sizes_the_smallest_counts_and_that_is_said(text: str, gigabytes: int, sizes: str) -> None:
    found, _ = parse_gpu(text)
    assert 0.8 * gigabytes < found.memory_bytes / GIB < 1.01 * gigabytes
    assert f"is sold with {sizes}: counted with {gigabytes};" in found.note
    written = found.note.rpartition('write "')[2].rstrip('"')
    assert parse_gpu(written)[0].memory_bytes > found.memory_bytes, "what it proposes is understood"


@pytest.mark.parametrize("row", json.loads(Path(gpus.__file__).with_suffix(".json").read_text())["gpus"], ids=str)
def test_every_card_of_the_table_is_found_by_its_name_and_size(row: list[object]) -> None:
    name, gigabytes, mib, capability, nvlink = row
    found, _ = parse_gpu(f"GPU 0: NVIDIA {name} {gigabytes}GB {UUID}")
    assert found.name in (name, f"{name} {gigabytes}")
    assert (found.capability, found.nvlink, found.note) == (capability, nvlink, "")
    assert found.memory_mib == int(int(str(mib)) * gpus.CUDA_SHARE)
    # A wrong digit would stand out: no card keeps back more than an eighth of what is on its box.
    assert 0.875 < int(str(mib)) / 1024 / int(str(gigabytes)) <= 1.03


def test_memory_as_nvidia_smi_queries_it_is_taken_as_it_is() -> None:
    assert parse_gpu("NVIDIA L4, 23034 MiB")[0].memory_mib == 22_688
    assert parse_gpu("NVIDIA GeForce RTX 3080, 12288 MiB")[0].name == "RTX 3080 12"
    # A card with other memory than it is sold with keeps its name.
    assert parse_gpu("RTX 4090 48GB")[0].memory_mib == 48_414


def test_a_slice_has_the_memory_of_its_profile() -> None:
    found, _ = parse_gpu("NVIDIA A100-SXM4-40GB MIG 1g.5gb")
    assert (found.name, found.memory_mib, found.nvlink) == ("A100 MIG 1g.5gb", 4864, False)
    assert parse_gpu("NVIDIA H100 80GB HBM3 MIG 3g.40gb")[0].capability == 9.0
    with pytest.raises(UnknownGpuError, match="write the GPU before it") as raised:
        parse_gpu("  MIG 1g.10gb     Device  0: (UUID: MIG-c6d4f1ef)")
    assert "1g.10gb" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "near"),
    [("RTX 5095", '"RTX 5090"'), ("NVIDIA RTX 4050", '"RTX 5050"'), ("H1000", '"H100"'), ("A 100 SX", '"A100"')],
)
def test_an_unknown_gpu_is_answered_with_the_nearest_and_the_form_that_works(text: str, near: str) -> None:
    with pytest.raises(UnknownGpuError) as raised:
        parse_gpu(text)
    assert near in str(raised.value)
    assert 'as in "RTX 9090 32GB"' in str(raised.value)


def test_any_name_with_its_memory_is_a_gpu() -> None:
    plain, _ = parse_gpu("RTX 9090 32GB")
    assert (plain.name, plain.memory_mib) == ("RTX 9090", int(32 * 1024 * gpus.CUDA_SHARE))
    assert "counted with compute capability 8.0" in plain.note
    known, count = parse_gpu("4x Voodoo 5 32GB 12.0")
    assert (known.name, known.capability, known.note, count) == ("Voodoo 5", 12.0, "", 4)
    assert parse_gpu("Voodoo 32 8.9")[0].capability == 8.9


@pytest.mark.parametrize(
    ("name", "mib", "expected"),
    [
        ("L4", 22_888, ("L4", 22_544)),
        ("NVIDIA H100 SXM5", 81_559, ("H100", 80_335)),
        ("RTX PRO 6000 Blackwell Server Edition", 97_887, ("RTX PRO 6000", 96_418)),
        ("T4", 16_384, ("T4", 14_908)),
    ],
)
def test_of_what_a_box_has_cuda_finds_a_little_less_and_of_a_t4_much_less(
    name: str, mib: int, expected: tuple[str, int]
) -> None:
    found = gpus.gpu(name, mib, 7.5, nvlink=True)
    assert (found.name, found.memory_mib) == expected
    assert (found.capability, found.nvlink) == (7.5, True)
