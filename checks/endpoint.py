"""The acceptance checks of an endpoint: each one request, each one verdict that names what is wrong.

A check raises Failed with the reason, or returns what it saw. `run` goes through all of them in an order in
which the first failure is the one to mend first.
"""

from __future__ import annotations

import functools
import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

REQUEST_SECONDS = 180
"""Patience for one answer: SeaTable AI waits as long."""

ENGINE_PATHS = (
    "/metrics", "/invocations", "/tokenize", "/detokenize", "/generative_scoring", "/docs", "/redoc",
    "/openapi.json", "/version", "/health", "/load", "/ping", "/kv_event_sources", "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
)  # fmt: skip
"""Routes that vLLM serves without asking for a key; none may be reached through the edge."""


SERVES_NOBODY = (401, 403, 502, 503, 504)
"""Statuses of the edge that any request of this client gets: its key, its address, an engine that is away."""


HELD_BACK = 0.9
"""A stream whose first piece comes later than this part of its whole time was collected on the way."""


TELLING_SECONDS = 0.2
"""A stream that is over sooner says nothing of who held what back."""


STREAMS_HELD_BACK = 3
"""So many streams, one after another, come in bursts where something collects them; a busy computer has one."""


TOOL_CALL_TOKENS = 1024
"""Enough for a model that thinks before it calls; others need some twenty."""

JSON_TOKENS = 1024
"""Likewise; an object that was asked for in words needs some ten."""

_WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
"""A tool with one possible call."""


class Failed(Exception):  # noqa: N818 - reads as the verdict it is
    """A check did not pass; the text says what was seen and what was wanted."""

    for_all = False
    """Whether every other check would fail for the same reason."""


class NotServed(Failed):
    """Nobody answers, or whoever does refuses all that this client asks."""

    for_all = True


@dataclass(frozen=True)
class Target:
    """One endpoint as one client sees it.

    base_url: ends in /v1. key: that client's key. source: local address to send from, or None. address: where to
    connect in place of the URL's host, or None. ca: PEM of what to trust where the system's roots do not, or "".
    """

    base_url: str
    key: str
    model: str
    max_model_len: int
    tools: bool
    source: str | None = None
    address: str | None = None
    ca: str = ""


@dataclass(frozen=True)
class Answer:
    """What came back: HTTP status, text, and when each piece of it arrived, in seconds after the request."""

    status: int
    text: str
    arrivals: tuple[float, ...] = ()

    def json(self) -> Any:
        """The body as JSON; Failed where it is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            raise Failed(f"the answer is no JSON: {self.text[:120]!r}") from None


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check."""

    name: str
    passed: bool
    detail: str
    skipped: bool = False
    """Whether it was not looked at; detail then says why not."""


class Untrusted(NotServed):
    """The certificate that was shown is not one for this name that can be trusted."""


class _Secure(http.client.HTTPSConnection):
    """HTTPS to an address that need not be the one that the name leads to."""

    def __init__(self, target: Target, context: ssl.SSLContext, seconds: float) -> None:
        url = urlsplit(target.base_url)
        super().__init__(url.hostname or "", url.port, timeout=seconds)
        self._seconds = seconds
        self._source = (target.source, 0) if target.source else None
        self._address = target.address or self.host
        self._trusting = context

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self._seconds, self._source)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._trusting.wrap_socket(plain, server_hostname=self.host)


@functools.lru_cache(maxsize=None)  # noqa: UP033 - the short form came with Python 3.9
def _trusting(ca: str) -> ssl.SSLContext:
    """What is trusted: the system's roots, and this PEM, down to a certificate that stands in it itself."""
    context = ssl.create_default_context()
    if ca:
        context.load_verify_locations(cadata=ca)
        context.verify_flags |= 0x80000  # X509_V_FLAG_PARTIAL_CHAIN; ssl has a name for it since Python 3.10
    return context


def ask(
    target: Target,
    method: str,
    path: str,
    *,
    key: str | None,
    body: object = None,
    seconds: float = REQUEST_SECONDS,
) -> Answer:
    """One request to the endpoint. path: from the host's root. seconds: patience. Failed where nothing answers."""
    url = urlsplit(target.base_url)
    source = (target.source, 0) if target.source else None
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        connection = _Secure(target, _trusting(target.ca), seconds)
    else:
        connection = http.client.HTTPConnection(
            url.hostname or "", url.port, timeout=seconds, source_address=source
        )
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    try:
        begin = time.monotonic()
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        pieces, arrivals = [], []
        while piece := response.read1(65536):
            pieces.append(piece)
            arrivals.append(time.monotonic() - begin)
    except ssl.SSLCertVerificationError as error:
        raise Untrusted(f"the certificate for {url.hostname} is refused: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        raise NotServed(f"{method} {path}: no answer from {url.netloc}: {error}") from error
    finally:
        connection.close()
    return Answer(response.status, b"".join(pieces).decode(errors="replace"), tuple(arrivals))


def _expect(answer: Answer, status: int, what: str, *, ours: bool = True) -> Answer:
    """The answer, where it has this status. ours: whether the client's own requests would get the same."""
    if answer.status != status:
        kind = NotServed if ours and answer.status in SERVES_NOBODY else Failed
        raise kind(f"{what}: answered {answer.status}, wanted {status}: {answer.text[:200]}")
    return answer


def _chat(target: Target, content: str, **options: Any) -> Answer:
    body = {"model": target.model, "messages": [{"role": "user", "content": content}], **options}
    return ask(target, "POST", "/v1/chat/completions", key=target.key, body=body)


def _room(target: Target, tokens: int) -> int:
    """So many tokens for an answer, and half of the context at most: vLLM refuses more than it serves."""
    return min(tokens, target.max_model_len // 2)


def certificate_is_valid(target: Target) -> str:
    """The certificate is for the name and not ended, and somebody vouches for it; says who."""
    ended = ""
    for ca, vouching in (("", "publicly trusted"), (target.ca, "not publicly trusted: clients need its CA")):
        connection = _Secure(target, _trusting(ca), REQUEST_SECONDS)
        try:
            connection.connect()
            shown = connection.sock.getpeercert() if isinstance(connection.sock, ssl.SSLSocket) else None
        except ssl.SSLCertVerificationError as error:
            ended = error.verify_message
        except OSError as error:
            raise NotServed(f"no TLS with {target.base_url}: {error}") from error
        else:
            return f"{vouching}; good until {(shown or {}).get('notAfter', '?')}"
        finally:
            connection.close()
    raise Untrusted(f"the certificate for {urlsplit(target.base_url).hostname} is refused: {ended}")


def key_is_asked_for(target: Target) -> str:
    """No key and a wrong key are refused with 401."""
    _expect(ask(target, "GET", "/v1/models", key=None), 401, "without a key")
    _expect(ask(target, "GET", "/v1/models", key="x" * 64), 401, "with a wrong key", ours=False)
    return "401 without a key and with a wrong one"


def model_is_listed(target: Target) -> str:
    """The list of models is exactly the configured id, with the configured context."""
    answer = _expect(ask(target, "GET", "/v1/models", key=target.key), 200, "the list of models")
    models = answer.json()["data"]
    names = [model["id"] for model in models]
    if names != [target.model]:
        raise Failed(f"the list of models is {names}, wanted {[target.model]}")
    served = models[0]["max_model_len"]
    if served != target.max_model_len:
        raise Failed(f"the model is served with {served} tokens of context, wanted {target.max_model_len}")
    return f"{target.model}, {served} tokens"


def completion_is_real(target: Target) -> str:
    """A chat completion of one token reports that one token."""
    answer = _expect(_chat(target, "Say OK.", max_tokens=1, temperature=0), 200, "a chat completion").json()
    usage, reason = answer["usage"], answer["choices"][0]["finish_reason"]
    if usage["completion_tokens"] != 1 or reason != "length":
        raise Failed(f"one token was asked for: usage {usage}, finish_reason {reason!r}")
    return f"{usage['prompt_tokens']} tokens in, 1 out"


def unknown_model_is_refused(target: Target) -> str:
    """A name that is not served is answered with 404, so that a typing error in a client shows."""
    body = {"model": "no/such-model", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    answer = ask(target, "POST", "/v1/chat/completions", key=target.key, body=body)
    _expect(answer, 404, "an unknown model")
    return "404"


def tools_are_understood(target: Target) -> str:
    """A request with tools is accepted: agents send them with every request."""
    tool = {
        "type": "function",
        "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
    }
    answer = _chat(target, "Say OK.", max_tokens=8, temperature=0, tools=[tool], tool_choice="auto")
    if not target.tools:
        return "off for this model (seatable-vllm:model.tool_parser)"
    _expect(answer, 200, "a request with tools")
    return "200"


def tool_call_is_made(target: Target) -> str:
    """A call of a tool that is asked for by name comes as a call, with the arguments that its schema allows.

    The engine holds the model to the schema, so a small model passes too. What a model calls of its own accord,
    this does not say.
    """
    if not target.tools:
        return "off for this model (seatable-vllm:model.tool_parser)"
    named: dict[str, Any] = {"type": "function", "function": {"name": _WEATHER["function"]["name"]}}
    answer = _chat(
        target,
        "What is the weather in Paris?",
        max_tokens=_room(target, TOOL_CALL_TOKENS),
        temperature=0,
        tools=[_WEATHER],
        tool_choice=named,
    )
    choice = _expect(answer, 200, "a forced tool call").json()["choices"][0]
    calls = choice["message"].get("tool_calls") or []
    if not calls:
        text = str(choice["message"].get("content"))[:120]
        raise Failed(f"a forced tool call came back as text ({choice['finish_reason']}): {text!r}")
    called = calls[0]["function"]
    try:
        arguments = json.loads(called["arguments"])
    except ValueError:
        arguments = None
    if called["name"] != named["function"]["name"] or arguments != {"city": "Paris"}:
        raise Failed(f"get_weather(city='Paris') was forced, and {called['name']}({called['arguments']!r}) called")
    return f"{called['name']}({called['arguments']})"


def json_is_answered(target: Target) -> str:
    """An answer that was asked for as a JSON object is one: SDKs, automations and agents read it as such.

    The engine holds the model to the form, so a small model passes too, if it comes to an end.
    """
    remedy = "remove structured-outputs-config from seatable-vllm:model.extra_args"
    tokens = _room(target, JSON_TOKENS)
    answer = _chat(
        target,
        'Answer with {"city": "Paris"}',
        max_tokens=tokens,
        temperature=0,
        response_format={"type": "json_object"},
    )
    if answer.status != 200:
        raise Failed(
            f"a request for a JSON object: answered {answer.status}, wanted 200: {answer.text[:200]}. If that is "
            f"about structured outputs, {remedy}"
        )
    choice = answer.json()["choices"][0]
    text = choice["message"].get("content") or ""
    if choice["finish_reason"] == "length":
        raise Failed(
            f"a JSON object was not finished within {tokens} tokens: {text[:120]!r}. If the model thinks before "
            "it answers, switch that off or set reasoning-parser in seatable-vllm:model.extra_args; else take "
            "a larger model"
        )
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Failed(
            f"a JSON object was asked for, and the answer is none: {text[:120]!r}. If it holds thoughts, set "
            f"reasoning-parser in seatable-vllm:model.extra_args; else {remedy}"
        )
    return json.dumps(found)[:80]


def stream_arrives_whole(target: Target) -> str:
    """A stream comes in pieces, as it is made, and ends in [DONE].

    One that came whole and in bursts is asked for again; every other fault is told at the first.
    """
    for _ in range(STREAMS_HELD_BACK):
        answer = _chat(target, "Count to ten.", max_tokens=24, temperature=0, stream=True)
        _expect(answer, 200, "a stream")
        if not answer.text.rstrip().endswith("data: [DONE]"):
            raise Failed(f"the stream does not end in [DONE]: ...{answer.text[-120:]!r}")
        first, last = answer.arrivals[0], answer.arrivals[-1]
        if len(answer.arrivals) >= 3 and (last <= TELLING_SECONDS or first <= HELD_BACK * last):
            return f"{answer.text.count('data: ') - 1} events, the first after {first:.2f} s of {last:.2f} s"
    raise Failed(
        f"{STREAMS_HELD_BACK} streams came in bursts, the last one in {len(answer.arrivals)} pieces, the first"
        f" after {first:.2f} s of {last:.2f} s: something on the way holds them back"
    )


def long_prompt_is_refused_in_words(target: Target) -> str:
    """A prompt longer than the context is answered with 400 and a JSON error, not by hanging up."""
    answer = _chat(target, "word " * (target.max_model_len + 16), max_tokens=1)
    _expect(answer, 400, "a prompt longer than the context").json()
    return "400 with a reason"


def engine_is_not_reached(target: Target) -> str:
    """Nothing of the engine but the listed doors can be reached, with a good key either."""
    for path in ENGINE_PATHS:
        for method in ("GET", "POST"):
            _expect(ask(target, method, path, key=target.key, body={}), 404, f"{method} {path}")
    return f"{len(ENGINE_PATHS)} routes are 404"


CHECKS: tuple[Callable[[Target], str], ...] = (
    key_is_asked_for,
    model_is_listed,
    completion_is_real,
    unknown_model_is_refused,
    tools_are_understood,
    tool_call_is_made,
    json_is_answered,
    stream_arrives_whole,
    long_prompt_is_refused_in_words,
    engine_is_not_reached,
)
"""All checks, the one to mend first standing first."""

GATE_CHECKS = (key_is_asked_for, model_is_listed, completion_is_real, engine_is_not_reached)
"""What the last gate of `up` asks: quick, and enough to say that the endpoint works and is locked."""


def run(target: Target, checks: tuple[Callable[[Target], str], ...] = CHECKS) -> Iterator[Verdict]:
    """The verdicts, one after the other, that on the certificate first where there is one.

    A check that cannot read an answer fails; it never raises. After a failure that all would have in common the
    others are not run.
    """
    ended = ""
    for check in (certificate_is_valid, *checks) if target.base_url.startswith("https:") else checks:
        name = check.__name__.replace("_", " ")
        if ended:
            yield Verdict(name, False, f"not looked at because of: {ended}", skipped=True)
            continue
        try:
            yield Verdict(name, True, check(target))
        except Failed as failure:
            ended = name if failure.for_all else ""
            yield Verdict(name, False, str(failure))
        except (KeyError, IndexError, TypeError) as error:
            yield Verdict(name, False, f"the answer lacks a part: {error!r}")
