"""No request of a client ends the engine, whatever parameter it carries: every one that the running vLLM has.

The parameters are read from the request models inside the container, so a newer vLLM adds rows by itself; values
are made from each one's type, valid and invalid; those that a type does not suggest are written down here. The
requests go through the edge, several at a time. These tables are the tier `vllm`.
What this does not prove: which error an invalid value is answered with, combinations of parameters beyond those
listed, requests that are heavy on purpose (each is answered with two tokens), what only a GPU does, models that
read pictures (test_media.py), and the routes that a client has to be given (responses, embeddings).
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.live.conftest import Shared
from tests.live.harness import Deployment, docker_client, wait_until

READ_MODELS = """
import json
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
models = {"/v1/chat/completions": ChatCompletionRequest, "/v1/completions": CompletionRequest}
print(json.dumps({path: model.model_json_schema() for path, model in models.items()}))
"""
"""Runs inside the engine's container."""

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"

THREADS = 16
"""Requests at a time: the engine computes them together."""

BATCH = 64
"""Requests between two looks at the engine."""

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
HUGE = {"type": "array", "minItems": 10**9}
BOUNDED = {"type": "array", "maxItems": 10**9}
HUGE_TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"a": HUGE}, "required": ["a"]}},
}
SHORT = [{"role": "system", "content": ""}, {"role": "user", "content": "Hi"}]
"""Without a system message the template writes one that is twice as long as all of this."""
LONG = "word " * 20000
"""Longer than the context."""

OF_A_TYPE: Mapping[str, Sequence[Any]] = {
    "boolean": (True, False, "yes"),
    "integer": (0, 5, -1, 1 << 31, 10**30, 1.5, "x"),
    "number": (0, 0.5, -1, 1e308, float("nan"), float("inf"), "x"),
    "string": ("", "word", "\0", "\ud800", "x" * 5000, 7),
    "array": ([], [0], [-1], [10**9], ["a"], [None], [{}], "x"),
    "object": ({}, {"x": 1}, {"0": -100}, {"9999999": 1}, {"1": "x"}, {"\ud800": 1}, "x"),
    "null": (None,),
}
"""Values by the type that a parameter has in its schema: usual ones, the borders, and such of another type."""

OF_A_NAME: Mapping[str, Sequence[Any]] = {
    "n": (2, 65),
    "stop": (["e"], ["x"] * 1000, "\n", ["\ud800"]),
    "bad_words": (["hello", "a b"], ["x" * 5000], ["\0"], ["\ud800"]),
    "tools": (
        [TOOL],
        [TOOL, TOOL],
        [{"type": "function"}],
        [{**TOOL, "function": {"name": ""}}],
        [{**TOOL, "function": {"name": "look", "description": "\ud800"}}],
    ),
    "tool_choice": ("auto", "required", {"type": "function", "function": {"name": "none_such"}}),
    "response_format": (
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
        {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "no such"}}},
        {"type": "json_schema", "json_schema": {"name": "s", "schema": {"$ref": "#/$defs/none"}}},
        {"type": "json_schema", "json_schema": {"name": "s", "schema": {"$ref": "#"}}},
        {"type": "json_schema", "json_schema": {"name": "s", "schema": HUGE}},
        {"type": "json_schema", "json_schema": {"name": "s"}},
        {"type": "structural_tag", "format": {}},
        {"type": "no such"},
    ),
    "structured_outputs": (
        {"json": SCHEMA},
        {"json": HUGE},
        {"json": BOUNDED},
        {"json": {**BOUNDED, "uniqueItems": True}},
        {"json": {"type": "object", "minProperties": 10**9}},
        {"json": "{"},
        {"json": {"type": "string", "pattern": "("}},
        {"json": {"type": "string", "pattern": "(((a{1,99}){1,99}){1,99}){1,99}"}},
        {"json": {"type": "integer", "minimum": 5, "maximum": 1}},
        {"regex": "[a-z]+"},
        {"regex": "("},
        {"regex": "(a+)+$"},
        {"regex": "\\p{Greek}(?=x)"},
        {"choice": ["yes", "no"]},
        {"choice": []},
        {"choice": [""]},
        {"choice": ["x"] * 2000},
        {"grammar": 'root ::= "yes" | "no"'},
        {"grammar": "root ::= root"},
        {"grammar": "root ::= nothing"},
        {"grammar": "\0"},
        {"grammar": "\ud800"},
        {"regex": "\ud800"},
        {"regex": "(((a{1,99}){1,99}){1,99}){1,99}"},
        {"json_object": True},
        {"json_object": True, "regex": "a"},
        {"structural_tag": "{}"},
    ),
    "chat_template": ("{{ 1 }}", "{% for x in range(10**9) %}{% endfor %}", "{{ ''.__class__ }}", "{%"),
    "chat_template_kwargs": (
        {"add_generation_prompt": False},
        {"tokenize": True},
        {"conversation": []},
        {"tools": 1},
    ),
    "documents": ([{"title": "t", "text": "x"}], [{}]),
    "messages": (
        [{"role": "system", "content": "x"}],
        [{"role": "no such", "content": "x"}],
        [{"role": "assistant", "content": None, "tool_calls": []}],
        [{"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]}],
        [{"role": "tool", "content": "x", "tool_call_id": "none"}],
        [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/"}}]}],
        [{"role": "user", "content": [{"type": "no such"}]}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": "\ud800"}],
        [{"role": "user", "content": LONG}],
        [{"role": "user", "content": "x"}] * 2000,
    ),
    "prompt": ("", "x", "\ud800", [1, 2, 3], [[1], [2]], ["a", "b"], [[]], [], [10**9], LONG, ["x"] * 100),
    "prompt_embeds": ("AAAA", "no base64!"),
    "stream": (True,),
    "stream_options": ({"include_usage": True}, {"continuous_usage_stats": True}),
    "truncate_prompt_tokens": (3, 8191, 8192, 100000),
    "logit_bias": ({"1": 1000}, {str(token): 1 for token in range(2000)}),
    "allowed_token_ids": ([1, 2], list(range(2000))),
    "stop_token_ids": ([2], list(range(2000))),
    "repetition_detection": (
        {"max_pattern_size": 3, "min_count": 2},
        {"max_pattern_size": 10**9, "min_pattern_size": 1, "min_count": 2},
    ),
    "vllm_xargs": ({"a": "b"}, {"a": ["b", 1]}),
    "kv_transfer_params": ({"do_remote_prefill": True, "remote_host": "127.0.0.1", "remote_port": 1},),
    "mm_processor_kwargs": ({"images": ["http://127.0.0.1:1/"]},),
}
"""Values that a parameter's type does not suggest, by its name in either model."""

TOGETHER: Sequence[tuple[str, Mapping[str, Any]]] = (
    *((CHAT, {"logprobs": True, "top_logprobs": count}) for count in (0, 1, 5, 20, 21, -1, 10**6)),
    *((CHAT, {"logprobs": True, "top_logprobs": 2, "stream": stream, "n": 2}) for stream in (True, False)),
    (CHAT, {"logprobs": True, "logprob_token_ids": [1, 2]}),
    (CHAT, {"logprobs": True, "logprob_token_ids": [10**9]}),
    (CHAT, {"logprobs": True, "return_tokens_as_token_ids": True}),
    (CHAT, {"logprobs": True, "prompt_logprobs": 2, "temperature": 1.0, "top_k": 5, "top_p": 0.5}),
    (CHAT, {"use_beam_search": True, "n": 2, "temperature": 0}),
    (CHAT, {"use_beam_search": True, "n": 2, "stream": True}),
    (CHAT, {"use_beam_search": True, "n": 3, "logprobs": True, "top_logprobs": 1}),
    *((CHAT, {"use_beam_search": True, "n": count}) for count in (16, 10**9)),
    (CHAT, {"use_beam_search": True, "length_penalty": float("nan"), "n": 2}),
    *((CHAT, {"request_id": "the-same"}) for _ in range(4)),
    (CHAT, {"echo": True, "logprobs": True}),
    (CHAT, {"echo": True, "continue_final_message": True, "add_generation_prompt": False}),
    (CHAT, {"continue_final_message": True, "add_generation_prompt": True}),
    (CHAT, {"tools": [TOOL], "tool_choice": "required"}),
    (CHAT, {"tools": [HUGE_TOOL], "tool_choice": "required"}),
    (CHAT, {"tools": [HUGE_TOOL], "tool_choice": {"type": "function", "function": {"name": "look"}}}),
    (CHAT, {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look"}}, "stream": True}),
    (CHAT, {"tools": [TOOL], "response_format": {"type": "json_object"}}),
    (CHAT, {"min_tokens": 2, "stop": ["e"], "stop_token_ids": [2], "ignore_eos": True}),
    (CHAT, {"allowed_token_ids": [5], "logit_bias": {"5": -100}, "bad_words": ["a"], "min_tokens": 2}),
    (CHAT, {"frequency_penalty": 2, "presence_penalty": 2, "repetition_penalty": 2, "temperature": 1}),
    (CHAT, {"top_k": 1, "top_p": 1e-9, "min_p": 1, "temperature": 2, "seed": 1}),
    (CHAT, {"temperature": 1, "n": 16, "logprobs": True, "top_logprobs": 20}),
    (TEXT, {"logprobs": 5, "echo": True}),
    (TEXT, {"logprobs": 5, "echo": True, "max_tokens": 0}),
    (TEXT, {"logprobs": 5, "stream": True}),
    (TEXT, {"logprobs": 0, "prompt_logprobs": 0}),
    (TEXT, {"logprobs": 2, "prompt": [[1, 2], [3]], "n": 2}),
    (TEXT, {"use_beam_search": True, "n": 2}),
    (TEXT, {"use_beam_search": True, "n": 2, "logprobs": 2, "echo": True}),
    (TEXT, {"suffix": "x", "echo": True}),
    (TEXT, {"structured_outputs": {"choice": ["yes"]}, "logprobs": 1}),
)
"""Parameters that only do something in company, and those that were reported to end the engine."""

BROKEN_OFF = {http.client.BAD_GATEWAY, http.client.GATEWAY_TIMEOUT}
"""What the edge answers for an engine that ended or hangs. Other errors are vLLM's own, to that request alone:
500 for what its validation lets pass (a lone surrogate in `stop`, `top_k` of 31 digits), 503 for `n` beyond its
queue."""

NOT_SENT = {"model"}
"""Which model is asked is not a parameter of the sampling; other names are 404 (test_clients)."""

Request = tuple[str, Mapping[str, Any]]
"""A path and what differs there from a plain request."""


@pytest.fixture(scope="module")
def models(_shared: Shared) -> dict[str, Any]:
    """The schema of each request model of the vLLM that runs, by its path."""
    engine = docker_client().containers.get(_shared.get().engine)
    status, (output, errors) = engine.exec_run(["python3", "-c", READ_MODELS], demux=True)
    assert status == 0, errors
    read: dict[str, Any] = json.loads(output.decode().splitlines()[-1])
    return read


def types(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The plain schemas that a schema allows, references and alternatives resolved."""
    if "$ref" in schema:
        yield from types(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    for each in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from types(each, definitions)
    if "type" in schema or "enum" in schema or "const" in schema:
        yield schema


def values(name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Any]:
    """What a parameter is tried with, each value once."""
    found = [*OF_A_NAME.get(name, ()), None]
    for each in types(schema, definitions):
        found += OF_A_TYPE.get(each.get("type", ""), ("x", 1))
        found += [*each.get("enum", ()), *([each["const"]] if "const" in each else [])]
        for inner, its in each.get("properties", {}).items():
            kinds = [kind.get("type", "") for kind in types(its, definitions)]
            found += [{inner: value} for kind in kinds for value in OF_A_TYPE.get(kind, ("x", 1))[:2]]
    return list({json.dumps(value): value for value in found}.values())


class Engine:
    """The engine of the shared stack, under requests through the edge."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._key = deployment.key()
        self._model = deployment.outputs()["model"]
        self._before = deployment.container(deployment.engine)

    def problems(self, requests: Sequence[Request]) -> list[str]:
        """Which of these have no answer; AssertionError naming the request that ended the engine."""
        found: list[str] = []
        with ThreadPoolExecutor(THREADS) as pool:
            for begin in range(0, len(requests), BATCH):
                batch = requests[begin : begin + BATCH]
                found += filter(None, pool.map(self.problem, batch))
                if state := self.state():
                    pytest.fail(f"{state}, by {self.culprit(batch)}\n" + "\n".join(found))
        return found + [f"then: {each}" for path in (CHAT, TEXT) if (each := self.refused(path))]

    def problem(self, request: Request) -> str:
        """Why the engine did not answer this one; empty where it did."""
        path, changed = request
        written = f"{path} {json.dumps(changed)[:200]}"
        try:
            answer = self._deployment.ask("POST", path, key=self._key, body=self.body(path, changed))
        except (OSError, http.client.HTTPException) as error:
            return f"{written}: {error!r}"
        return f"{written}: {answer.status} {answer.text[:300]}" if answer.status in BROKEN_OFF else ""

    def body(self, path: str, changed: Mapping[str, Any]) -> dict[str, Any]:
        """A request that is answered with two tokens, or with one that holds an e where it lacks that bound."""
        plain: dict[str, Any] = {"model": self._model}
        if path == TEXT:
            plain |= {"prompt": "A river is", "max_tokens": 2}
        else:
            # The newer name, so that the older one can be tried without a bound of its own.
            plain |= {"messages": SHORT, "max_completion_tokens": 2}
        bound = {"stop": ["e"]} if {"max_tokens", "max_completion_tokens"} & set(changed) else {}
        return {**plain, **bound, **changed}

    def refused(self, path: str) -> str:
        """What is wrong with the answer to a plain request, or nothing."""
        try:
            answer = self._deployment.ask("POST", path, key=self._key, body=self.body(path, {}))
        except (OSError, http.client.HTTPException) as error:
            return f"{path}: {error!r}"
        return "" if answer.status == http.client.OK else f"{path}: {answer.status} {answer.text[:300]}"

    def state(self) -> str:
        """What has become of the engine, or nothing where it is as before."""
        if (now := self._deployment.container(self._deployment.engine)) != self._before:
            return f"the engine was restarted: {now}"
        try:
            health = self._deployment.ask("GET", "/health", port=self._deployment.engine_port)
        except (OSError, http.client.HTTPException) as error:
            return f"the engine does not answer: {error!r}"
        return "" if health.status == http.client.OK else f"the engine is not healthy: {health}"

    def culprit(self, requests: Sequence[Request]) -> str:
        """The first of these that ends an engine by itself. Leaves one that serves."""
        found = "none of them alone"
        for each in requests:
            self._serving()
            problem = self.problem(each)
            if state := self.state():
                found = f"{each[0]} {json.dumps(each[1])[:500]}: {problem or 'answered'}, {state}"
                break
        self._serving()
        return found

    def _serving(self) -> None:
        wait_until(lambda: not self.refused(TEXT), "the engine serves again")
        self._before = self._deployment.container(self._deployment.engine)


@pytest.fixture
def engine(deployment: Deployment) -> Engine:
    """The shared stack's engine."""
    return Engine(deployment)


@pytest.mark.vllm
@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_no_parameter_of_a_request_ends_the_engine_whatever_its_value(
    path: str, models: dict[str, Any], engine: Engine
) -> None:
    schema = models[path]
    of_chat = models[CHAT]["properties"] if path != CHAT else {}
    # What both routes have alike is read by the same code.
    parameters = {
        name: each
        for name, each in schema["properties"].items()
        if name not in NOT_SENT and of_chat.get(name) != each
    }
    assert {"logprobs", "echo" if path == CHAT else "prompt"} <= set(parameters)
    requests = [
        (path, {name: value})
        for name, each in parameters.items()
        for value in values(name, each, schema.get("$defs", {}))
    ]
    problems = engine.problems(requests)
    print(f"{path}: {len(parameters)} parameters, {len(requests)} requests")
    assert not problems, "\n".join(problems)


@pytest.mark.vllm
def test_parameters_that_need_each_other_end_no_engine(engine: Engine) -> None:
    problems = engine.problems(TOGETHER)
    assert not problems, "\n".join(problems)


def test_what_was_reported_to_end_the_engine_is_answered(deployment: Deployment, engine: Engine) -> None:
    def choices(path: str, **changed: Any) -> Any:
        answer = deployment.ask("POST", path, key=deployment.key(), body=engine.body(path, changed))
        assert answer.status == http.client.OK, answer.text
        return answer.json()["choices"]

    (first, *_) = choices(CHAT, logprobs=True, top_logprobs=2)[0]["logprobs"]["content"]
    assert len(first["top_logprobs"]) == 2
    assert choices(TEXT, prompt_logprobs=1, logprobs=1, echo=True)[0]["text"].startswith("A river is")
    assert len(choices(CHAT, use_beam_search=True, n=2)) == 2
    assert choices(CHAT, echo=True)[0]["message"]["content"]
