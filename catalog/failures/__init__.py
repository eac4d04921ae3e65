"""Why a deployment fails, in the words of those who run it: patterns over logs and error texts.

Pure, and without imports beyond the standard library: the gate takes this folder along to the machine.
Order matters, the first match wins: a precise cause stands before the general one that it also triggers. So SSH
stands before Docker, whose errors quote it, and what a CA refuses before what a socket says. AWS stands before
certificates, whose machine has credentials of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from catalog.failures.aws import AWS
from catalog.failures.docker import DOCKER
from catalog.failures.endpoint import ENDPOINT
from catalog.failures.failure import Failure
from catalog.failures.hub import HUB
from catalog.failures.last_error import last_error
from catalog.failures.ssh import SSH
from catalog.failures.tls import TLS
from catalog.failures.vllm import VLLM

__all__ = ["FAILURES", "Explanation", "Failure", "explain", "explain_engine", "without_tokens"]

FAILURES: tuple[Failure, ...] = (*SSH, *AWS, *TLS, *DOCKER, *HUB, *VLLM, *ENDPOINT)
"""Every known cause, in the order in which they are tried."""

UNEXPLAINED = "engine-process"
"""The failure that names no cause."""

_SECRET = re.compile(
    r"(?i)(\bbearer +)\S+|\b(?:hf_|sk-)[a-z0-9_-]{8,}"
    r"|\b(?<!sha256:)(?![0-9a-f]{40}\b)(?=[a-z]*[0-9])[a-z0-9]{32,}\b"
)
"""Tokens, and words of the form of our keys; 40 hex digits are a commit, and `sha256:` stands before a digest."""


@dataclass(frozen=True)
class Explanation:
    """A cause found in a text, with the line that shows it."""

    failure: Failure
    evidence: str

    def __str__(self) -> str:
        """A line each: cause, what to change, and the evidence where the cause is not the engine's own words."""
        seen = f"\nseen: {self.evidence}" if self.evidence else ""
        return f"cause: {self.failure.cause}\nchange: {self.failure.remedy}{seen}"


def explain(text: str) -> Explanation | None:
    """The first known cause in a log or an error text, or None.

    The evidence is cut at 300 characters, and a token in it is blotted out.
    """
    lines = text.splitlines()
    for failure in FAILURES:
        pattern = re.compile(failure.pattern)
        for line in lines:
            if pattern.search(line):
                return Explanation(failure, _shown(line))
    return None


def explain_engine(log: str) -> Explanation | None:
    """The cause that the log of vLLM shows: a known one, else the error that vLLM itself ended with; or None.

    What only says that a process of the engine has failed gives way to that process's own error.
    """
    found = explain(log)
    if found and found.failure.name != UNEXPLAINED:
        return found
    own = last_error(log)
    if not own:
        return found
    words, setting = own
    remedy = (
        f"correct {setting}"
        if setting
        else (
            "correct what vLLM names; most often it is an option in seatable-vllm:model.extra_args, or the model "
            "(seatable-vllm:model.name)"
        )
    )
    return Explanation(Failure("engine-error", "", f"vLLM: {_shown(words)}", remedy, passing=True), "")


def without_tokens(text: str) -> str:
    """A text in which everything that has the form of a token or of one of our keys is blotted out."""
    return _SECRET.sub(r"\1***", text)


def _shown(line: str) -> str:
    return without_tokens(line.strip())[:300]
