"""Following a pull: how far it is, whether it still moves, and in plain words why it failed."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from images import Say

STALL_S = 60.0
"""A pull without progress for this long is given up."""
SAY_EVERY_S = 1.0
MB = 1000**2

_STAGES = (
    "Pulling fs layer",
    "Waiting",
    "Downloading",
    "Verifying Checksum",
    "Download complete",
    "Extracting",
    "Pull complete",
    "Already exists",
)
"""Docker's words for the state of a layer, in the order in which a layer goes through them."""
_DOWNLOADING = _STAGES.index("Downloading")
_COMPLETE = _STAGES.index("Pull complete")

_REASONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("the disk of the Docker daemon is full", ("no space left on device",)),
    ("the registry's limit on pulls is reached", ("toomanyrequests", "too many requests", "rate limit")),
    ("the registry has no such image, or wants a login", ("denied", "unauthorized", "authentication required")),
    ("the registry has no such image", ("manifest unknown", "not found", "no matching manifest")),
    ("the registry's certificate is not trusted here", ("x509:",)),
    (
        "the registry cannot be reached",
        (
            "no such host",
            "name resolution",
            "server misbehaving",
            "connection refused",
            "connection reset",
            "network is unreachable",
            "no route to host",
            "proxyconnect",
            "timeout",
            "deadline exceeded",
            "request canceled",
            "eof",
        ),
    ),
)
"""Causes, and the words of the daemon that tell them, looked for from first to last."""


class PullFailed(Exception):  # noqa: N818 - as ImageUnavailable, which it becomes
    """A pull ended without the image; the text says why, as the end of a sentence."""


def reason(message: str) -> str:
    """Why a pull failed, from the daemon's message: the cause in plain words, then the message itself."""
    words = message.lower()
    told = " ".join(message.split())
    cause = next((cause for cause, marks in _REASONS if any(mark in words for mark in marks)), None)
    return f"{cause} ({told})" if cause else told


@dataclass
class _Layer:
    stage: int = 0
    current: int = 0
    size: int = 0

    @property
    def fetched(self) -> int:
        return self.current if self.stage <= _DOWNLOADING else self.size


class Progress:
    """How far the layers of one image are."""

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}

    def take(self, event: Mapping[str, Any]) -> bool:
        """Notes one event of the daemon; True if a layer got further by it."""
        name, status = event.get("id"), str(event.get("status", ""))
        if name is None or (status not in _STAGES and not status.startswith("Retrying")):
            return False
        if name not in self._layers:
            self._layers[name] = _Layer()
            return True
        layer = self._layers[name]
        detail = event.get("progressDetail") or {}
        # A retry starts the layer again: it may go through the same bytes once more, as progress.
        stage = _STAGES.index(status) if status in _STAGES else 0
        current = int(detail.get("current") or 0)
        further = (stage, current) > (layer.stage, layer.current)
        layer.stage, layer.current = stage, current
        if stage == _DOWNLOADING:
            layer.size = int(detail.get("total") or layer.size)
        return further

    def line(self) -> str:
        """Layers and megabytes, e.g. "3 of 6 layers, 45 of 120 MB"."""
        layers = self._layers.values()
        done = sum(layer.stage >= _COMPLETE for layer in layers)
        fetched = sum(layer.fetched for layer in layers) / MB
        size = sum(layer.size for layer in layers) / MB
        return f"{done} of {len(layers)} layers, {fetched:.0f} of {size:.0f} MB"


def follow(
    events: Iterable[Mapping[str, Any]], activity: str, say: Say, clock: Callable[[], float] = time.monotonic
) -> None:
    """Reads the events of a pull to their end, and says once a second how far it is.

    Raises PullFailed at the daemon's error, or when events come for STALL_S but nothing gets further.
    """
    progress = Progress()
    moved = said = clock()
    for event in events:
        if "error" in event:
            raise PullFailed(reason(str(event["error"])))
        now = clock()
        if progress.take(event):
            moved = now
        elif now - moved > STALL_S:
            raise PullFailed(f"no progress for {STALL_S:.0f} s at {progress.line()}")
        if now - said >= SAY_EVERY_S:
            said = now
            say(f"{activity}: {progress.line()}")
