"""One request to an endpoint as benchmark and soak make it: how long it took, and whether it came whole."""

import contextlib
import http.client
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Any, Literal

ANSWER_SECONDS = 180
"""Patience for the next bytes of an answer: SeaTable AI waits as long."""

SAME_BURST_SECONDS = 0.001
"""Bytes that come closer together than this were sent together."""

Outcome = Literal["whole", "cut", "failed"]
"""cut: the answer began with 200 and did not come whole. failed: it did not begin, or not with 200."""


@dataclass(frozen=True)
class Place:
    """Where requests go, and as whom.

    host, port: TCP. key: sent as the bearer. model: its id. source: local address to send from, or None.
    """

    host: str
    port: int
    key: str = field(repr=False)
    model: str
    source: str | None = None

    def connection(self) -> http.client.HTTPConnection:
        """A connection that stays open from request to request; made with the first one."""
        source = (self.source, 0) if self.source else None
        return http.client.HTTPConnection(self.host, self.port, timeout=ANSWER_SECONDS, source_address=source)

    @property
    def headers(self) -> dict[str, str]:
        """What every request bears."""
        return {"authorization": f"Bearer {self.key}", "content-type": "application/json"}


@dataclass(frozen=True)
class Wanted:
    """One stream to ask for.

    tokens: how many it has. numbered: the tokens are 0, 1, 2 ... (the fast upstream's), and any other order is a
    cut. gap_ms: pause between two events, in milliseconds; the fast upstream's alone. prompt: text of any length.
    """

    tokens: int
    numbered: bool = False
    gap_ms: int = 0
    prompt: str = "Tell a long story about a river."

    def body(self, model: str) -> dict[str, Any]:
        """The request: exactly this many tokens, each by its number, and a count of them at the end.

        The pace stands in the body, as the edge passes no query on.
        """
        pace = {"gap_ms": self.gap_ms} if self.numbered else {}
        return pace | {
            "model": model,
            "messages": [{"role": "user", "content": self.prompt}],
            "max_tokens": self.tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "return_token_ids": True,
            "stream_options": {"include_usage": True},
        }


@dataclass(frozen=True)
class Stream:
    """What came of one stream.

    reason: why it is not whole, else empty. arrivals: seconds after the request at which bytes of the body came,
    the first one being the first whole event.
    """

    outcome: Outcome
    reason: str
    arrivals: list[float]

    @property
    def bursts(self) -> int:
        """In how many pieces it came: as many as tokens when each is passed on as it is made, fewer when held."""
        pauses = (after - before for before, after in itertools.pairwise(self.arrivals))
        return bool(self.arrivals) + sum(pause > SAME_BURST_SECONDS for pause in pauses)


def models_seconds(connection: http.client.HTTPConnection, place: Place) -> float:
    """Seconds that GET /v1/models took, from sending to the last byte. OSError where it is not answered 200."""
    begin = time.perf_counter()
    connection.request("GET", "/v1/models", headers=place.headers)
    response = connection.getresponse()
    text = response.read()
    seconds = time.perf_counter() - begin
    if response.status != http.client.OK:
        raise OSError(f"GET /v1/models at port {place.port}: {response.status} {text[:120]!r}")
    return seconds


def stream(connection: http.client.HTTPConnection, place: Place, wanted: Wanted) -> Stream:
    """Asks for one stream and reads it to its end. It never raises for what a server or a proxy did."""
    text, arrivals, begun = bytearray(), [], False
    begin = time.perf_counter()
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(wanted.body(place.model)), place.headers)
        response = connection.getresponse()
        begun = response.status == http.client.OK
        while piece := response.read1(65536):
            text += piece
            if b"\n\n" in text:
                arrivals.append(time.perf_counter() - begin)
        problem = "" if begun else f"answered {response.status}: {text[:120].decode(errors='replace')}"
    except (OSError, http.client.HTTPException) as error:
        problem = f"{type(error).__name__} after {len(text)} bytes: {error}"
    problem = problem or missing(bytes(text), wanted)
    if problem:
        with contextlib.suppress(OSError):
            connection.close()  # the next request opens it again
    outcome: Outcome = "whole" if not problem else "cut" if begun else "failed"
    return Stream(outcome, problem, arrivals)


def missing(text: bytes, wanted: Wanted) -> str:
    """What a stream lacks, or an empty text: every token, in its order, and [DONE] after them."""
    # A line that begins with a colon is a keep-alive, not an event.
    events = [line[6:] for line in text.split(b"\n") if line.startswith(b"data: ")]
    if events[-1:] != [b"[DONE]"]:
        return f"no [DONE] after {len(events)} events"
    try:
        parts = [json.loads(event) for event in events[:-1]]
        tokens = [token for part in parts for choice in part["choices"] for token in choice.get("token_ids") or ()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"an event is not what it should be: {error!r}"
    if len(tokens) != wanted.tokens:
        return f"{len(tokens)} tokens of {wanted.tokens}"
    if wanted.numbered and tokens != list(range(wanted.tokens)):
        return f"tokens out of order: {tokens}"
    return ""
