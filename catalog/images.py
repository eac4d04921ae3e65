"""The container images: the official ones, and the names of those made where none can be pulled.

Each is a full version. A registry may still give a newer image under it, when what it is built upon has changed:
`scripts/up --pull` asks for that.
"""

from dataclasses import dataclass

VLLM_VERSION = "0.32.0"
"""The vLLM that options, routes and log texts in this repository were checked against."""


@dataclass(frozen=True)
class ImageSource:
    """Where one image comes from.

    official: reference that is pulled.
    made: local name of the stand-in that `images/` builds from packages; None where there is no recipe.
    """

    official: str
    made: str | None


VLLM_GPU = ImageSource(f"vllm/vllm-openai:v{VLLM_VERSION}", made=None)
VLLM_CPU = ImageSource(f"vllm/vllm-openai-cpu:v{VLLM_VERSION}", made=f"seatable-vllm/vllm-cpu:{VLLM_VERSION}")
HAPROXY = ImageSource("haproxy:3.2.25", made="seatable-vllm/haproxy:debian")
"""3.2 is a long-term branch; the recipe takes the one of Debian bookworm, 2.6. The configuration suits both."""
LEGO = ImageSource("goacme/lego:v4.31.0", made="seatable-vllm/lego:debian")
"""ACME client. The last branch with the commands `run` and `renew`, which Debian's 4.9 has too; 5 has others."""
PYTHON = ImageSource("python:3.13.16-slim-trixie", made=None)
"""Fetches weights while vLLM's image is still being pulled; the packages that it is given have wheels for 3.13."""
