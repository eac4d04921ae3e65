"""One library of empty functions in place of the CUDA libraries that PyTorch links and a CPU never calls.

PyTorch on PyPI is built for CUDA: the loader wants 12 libraries (2.7 GB) before it starts. It binds every
symbol at once and by version, so empty files do not do; the functions must exist, each with its version.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from images.shell import Shell

REPLACED = (
    "libcublas.so.13",
    "libcublasLt.so.13",
    "libcudnn.so.9",
    "libcufft.so.12",
    "libcufile.so.0",
    "libcurand.so.10",
    "libcusolver.so.12",
    "libcusparse.so.12",
    "libcusparseLt.so.0",
    "libnccl.so.2",
    "libnvrtc.so.13",
    "libnvshmem_host.so.3",
)
"""What the libraries of torch 2.13.0 need (readelf -d) besides libcudart and libcupti, which are real here:
those two are called while PyTorch looks for a GPU."""

VERSIONS = frozenset(REPLACED) | {"NVSHMEM"}
"""Versions of the symbols to define: each library's version is its name, but for NVSHMEM."""

PLAIN_PREFIXES = ("cuFile", "cusparseLt", "nccl")
"""Beginnings of the symbols that come without a version: those of libcufile, libcusparseLt and NCCL."""

_NEEDED = re.compile(r"^\s+U (?P<name>\w+)(?:@+(?P<version>\S+))?$", re.MULTILINE)
LIBRARY = "libcuda_stand_in.so"


@dataclass(frozen=True)
class StandIn:
    """The two inputs of the linker.

    source: C with one empty function for each symbol.
    version_script: which symbols have which version; empty if none has one.
    """

    source: str
    version_script: str


def stand_in(nm_listing: str) -> StandIn:
    """The stand-in for everything in a listing of `nm -D --undefined-only` that REPLACED would define."""
    names: set[str] = set()
    versions: dict[str, set[str]] = {}
    for match in _NEEDED.finditer(nm_listing):
        name, version = match["name"], match["version"]
        if version in VERSIONS:
            versions.setdefault(version, set()).add(name)
        elif version is not None or not name.startswith(PLAIN_PREFIXES):
            continue
        names.add(name)
    source = "".join(f"void {name}(void) {{}}\n" for name in sorted(names))
    script = "".join(
        f"{version} {{ global: {' '.join(f'{name};' for name in sorted(versions[version]))} }};\n"
        for version in sorted(versions)
    )
    return StandIn(source, script)


def install(torch_libraries: Path, into: Path, shell: Shell) -> None:
    """Compiles the stand-in for the libraries in one folder, and puts it with all its names into another."""
    libraries = sorted(str(path) for path in torch_libraries.glob("*.so"))
    listing = shell.run("CUDA stand-in", ["nm", "-D", "--undefined-only", "--with-symbol-versions", *libraries])
    parts = stand_in(listing)
    source, script = into / "stand_in.c", into / "stand_in.map"
    source.write_text(parts.source)
    script.write_text(parts.version_script)
    compiler = ["gcc", "-shared", "-fPIC", "-nostdlib", f"-Wl,--version-script={script}"]
    shell.run("CUDA stand-in", [*compiler, "-o", str(into / LIBRARY), str(source)])
    source.unlink()
    script.unlink()
    for name in REPLACED:
        (into / name).symlink_to(LIBRARY)
