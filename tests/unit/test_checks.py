"""Unit tier: the acceptance checks against a small HTTP server on the loopback address that is wrong in one way.

Each check passes against an endpoint that does everything right, and fails, with the reason, for the fault that
it exists for (consumers.md section 7). It does NOT prove that vLLM and HAProxy behave like that server: the live
tier runs the same checks against the real ones.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog.failures import explain
from checks import endpoint, gate
from checks.diagnosis import client_finding
from checks.endpoint import CHECKS, GATE_CHECKS, Failed, Target, Verdict, run

if TYPE_CHECKING:
    from tests.conftest import FakeEndpoint

Check = Callable[[Target], str]


def target(fake: FakeEndpoint, **changes: Any) -> Target:
    """The fake endpoint as its client sees it."""
    values: dict[str, Any] = {
        "base_url": fake.base_url,
        "key": fake.key,
        "model": fake.model,
        "max_model_len": fake.max_model_len,
        "tools": True,
    }
    return Target(**{**values, **changes})


def refusal(check: Check, fake: FakeEndpoint, **changes: Any) -> str:
    """The reason for which this check fails."""
    with pytest.raises(Failed) as failed:
        check(target(fake, **changes))
    assert fake.key not in str(failed.value)
    return str(failed.value)


@contextlib.contextmanager
def cut_connection() -> Iterator[int]:
    """The port of a server that sends the beginning of a chunked answer to its one visitor and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            visitor, _ = server.accept()
            with visitor:
                visitor.recv(65536)
                visitor.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\ndata: half")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


# Against an endpoint that is right


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_right_endpoint_passes(check: Check, fake_endpoint: FakeEndpoint) -> None:
    assert check(target(fake_endpoint))


def test_every_check_gives_one_verdict_in_the_order_of_the_list(fake_endpoint: FakeEndpoint) -> None:
    verdicts = list(run(target(fake_endpoint)))
    assert [verdict.name.replace(" ", "_") for verdict in verdicts] == [check.__name__ for check in CHECKS]
    assert all(verdict.passed for verdict in verdicts)


def test_the_gate_asks_for_locks_model_and_a_real_completion() -> None:
    assert set(GATE_CHECKS) <= set(CHECKS)
    assert {endpoint.key_is_asked_for, endpoint.model_is_listed, endpoint.completion_is_real,
            endpoint.engine_is_not_reached} <= set(GATE_CHECKS)  # fmt: skip


def test_requests_leave_from_the_address_that_the_clients_key_belongs_to(fake_endpoint: FakeEndpoint) -> None:
    endpoint.model_is_listed(target(fake_endpoint, source="127.0.0.2"))
    assert {asked.source for asked in fake_endpoint.asked} == {"127.0.0.2"}


# Each check fails for the reason it exists


@pytest.mark.parametrize("status", [200, 403, 404, 500])
def test_an_endpoint_that_does_not_answer_401_without_a_key_fails(
    status: int, fake_endpoint: FakeEndpoint
) -> None:
    right = fake_endpoint.right_answer
    other = fake_endpoint.always(status)
    fake_endpoint.answers["*"] = lambda asked: right(asked) if "authorization" in asked.headers else other(asked)
    reason = refusal(endpoint.key_is_asked_for, fake_endpoint)
    assert "without a key" in reason
    assert str(status) in reason


def test_an_endpoint_that_takes_any_key_fails(fake_endpoint: FakeEndpoint) -> None:
    right, open_door = fake_endpoint.right_answer, fake_endpoint.always(200)
    fake_endpoint.answers["*"] = lambda asked: (
        open_door(asked) if "authorization" in asked.headers else right(asked)
    )
    assert "with a wrong key" in refusal(endpoint.key_is_asked_for, fake_endpoint)


def test_another_model_than_the_configured_one_fails(fake_endpoint: FakeEndpoint) -> None:
    reason = refusal(endpoint.model_is_listed, fake_endpoint, model="owner/other")
    assert "owner/other" in reason
    assert fake_endpoint.model in reason


@pytest.mark.parametrize(
    "listed", [["a", "b"], [], ["Owner/Small-Model"], ["owner/small-model", "another"], ["owner/small-model"] * 2]
)
def test_a_list_of_models_that_is_not_exactly_the_configured_one_fails(
    listed: list[str], fake_endpoint: FakeEndpoint
) -> None:
    models = [{"id": name, "max_model_len": fake_endpoint.max_model_len} for name in listed]
    fake_endpoint.answers["GET /v1/models"] = fake_endpoint.always(200, {"data": models})
    assert "list of models" in refusal(endpoint.model_is_listed, fake_endpoint)


def test_another_context_than_the_configured_one_fails(fake_endpoint: FakeEndpoint) -> None:
    reason = refusal(endpoint.model_is_listed, fake_endpoint, max_model_len=1024)
    assert "512" in reason
    assert "1024" in reason


def test_a_key_that_is_not_accepted_fails_with_the_status(fake_endpoint: FakeEndpoint) -> None:
    assert "401" in refusal(endpoint.model_is_listed, fake_endpoint, key="another")


@pytest.mark.parametrize(("tokens", "finish"), [(0, "length"), (2, "length"), (1, "stop"), (1, None)], ids=str)
def test_a_completion_that_is_not_the_one_token_asked_for_fails(
    tokens: int, finish: str | None, fake_endpoint: FakeEndpoint
) -> None:
    body = {"usage": {"prompt_tokens": 3, "completion_tokens": tokens}, "choices": [{"finish_reason": finish}]}
    fake_endpoint.answers["POST /v1/chat/completions"] = fake_endpoint.always(200, body)
    assert "one token was asked for" in refusal(endpoint.completion_is_real, fake_endpoint)


def test_a_completion_asks_for_the_configured_model_by_its_exact_id(fake_endpoint: FakeEndpoint) -> None:
    # An empty name is accepted by vLLM and proves nothing (consumers.md F2).
    endpoint.completion_is_real(target(fake_endpoint))
    assert [asked.json()["model"] for asked in fake_endpoint.asked] == [fake_endpoint.model]


@pytest.mark.parametrize("status", [502, 503])
def test_an_engine_that_is_away_fails_the_completion_with_the_edges_words(
    status: int, fake_endpoint: FakeEndpoint
) -> None:
    fake_endpoint.answers["POST /v1/chat/completions"] = fake_endpoint.always(
        status, {"error": {"message": "is starting"}}
    )
    reason = refusal(endpoint.completion_is_real, fake_endpoint)
    assert str(status) in reason
    assert "is starting" in reason


@pytest.mark.parametrize("status", [200, 400])
def test_an_unknown_model_that_is_not_answered_with_404_fails(status: int, fake_endpoint: FakeEndpoint) -> None:
    fake_endpoint.answers["POST /v1/chat/completions"] = fake_endpoint.always(status, {"choices": []})
    assert "unknown model" in refusal(endpoint.unknown_model_is_refused, fake_endpoint)


def test_a_request_with_tools_that_is_refused_fails_where_tools_are_promised(fake_endpoint: FakeEndpoint) -> None:
    fake_endpoint.answers["POST /v1/chat/completions"] = fake_endpoint.always(
        400, '"auto" tool choice requires --enable-auto-'
    )
    assert "requires --enable-auto" in refusal(endpoint.tools_are_understood, fake_endpoint)


def test_a_request_with_tools_may_be_refused_where_none_are_promised(fake_endpoint: FakeEndpoint) -> None:
    fake_endpoint.answers["POST /v1/chat/completions"] = fake_endpoint.always(
        400, '"auto" tool choice requires --enable-auto-'
    )
    assert "tool_parser" in endpoint.tools_are_understood(target(fake_endpoint, tools=False))


def test_the_request_with_tools_is_one_that_agents_send(fake_endpoint: FakeEndpoint) -> None:
    endpoint.tools_are_understood(target(fake_endpoint))
    wanted = fake_endpoint.asked[0].json()
    assert wanted["tools"][0]["type"] == "function"
    assert wanted["tool_choice"] == "auto"


def forced(endpoint_: FakeEndpoint, message: Mapping[str, Any], finish_reason: str = "stop") -> str:
    """The reason for refusing this answer to a forced tool call."""
    choice = {"message": message, "finish_reason": finish_reason}
    endpoint_.answers["POST /v1/chat/completions"] = endpoint_.always(200, {"choices": [choice]})
    return refusal(endpoint.tool_call_is_made, endpoint_)


def called(name: str, arguments: str) -> dict[str, Any]:
    return {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}],
    }


def test_a_forced_tool_call_that_comes_back_as_text_fails_and_shows_it(fake_endpoint: FakeEndpoint) -> None:
    for message in ({"content": "<tool_call>{}"}, {"content": "<tool_call>{}", "tool_calls": []}):
        reason = forced(fake_endpoint, message, "length")
        assert "<tool_call>" in reason
        assert "length" in reason


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("other", '{"city": "Paris"}'), ("get_weather", '{"city": "Rome"}'), ("get_weather", '{"city": "Par'),
     ("get_weather", "")],
)  # fmt: skip
def test_a_forced_tool_call_of_another_tool_or_with_other_arguments_fails(
    name: str, arguments: str, fake_endpoint: FakeEndpoint
) -> None:
    assert f"{name}({arguments!r})" in forced(fake_endpoint, called(name, arguments))


def test_the_forced_tool_call_names_its_tool_and_can_be_made_in_one_way_only(fake_endpoint: FakeEndpoint) -> None:
    endpoint.tool_call_is_made(target(fake_endpoint))
    (asked,) = fake_endpoint.asked
    wanted = asked.json()
    assert wanted["tool_choice"] == {
        "type": "function",
        "function": {"name": wanted["tools"][0]["function"]["name"]},
    }
    parameters = wanted["tools"][0]["function"]["parameters"]
    assert [len(each["enum"]) for each in parameters["properties"].values()] == [1]
    assert parameters["required"] == list(parameters["properties"])


def test_no_tool_call_is_asked_for_where_none_are_promised(fake_endpoint: FakeEndpoint) -> None:
    assert "tool_parser" in endpoint.tool_call_is_made(target(fake_endpoint, tools=False))
    assert fake_endpoint.asked == []


def json_answer(content: object, finish: str = "stop") -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        ("Paris", "structured-outputs-config"),
        ("<think>Hm.</think>{}", "reasoning-parser"),
        ("```json\n{}\n```", "structured-outputs-config"),
        ("[1]", "structured-outputs-config"),
        ("null", "structured-outputs-config"),
        ("", "structured-outputs-config"),
        (None, "structured-outputs-config"),
    ],
    ids=repr,
)
def test_an_answer_that_is_no_json_object_fails_with_what_to_set(
    content: object, remedy: str, fake_endpoint: FakeEndpoint
) -> None:
    fake_endpoint.answers["POST /v1/chat/completions"] = fake_endpoint.always(200, json_answer(content))
    reason = refusal(endpoint.json_is_answered, fake_endpoint)
    assert remedy in reason
    assert repr(content or "") in reason


def test_a_json_object_that_comes_to_no_end_fails_with_the_tokens_it_had(fake_endpoint: FakeEndpoint) -> None:
    body = json_answer('{"city": "Par', "length")
    fake_endpoint.answers["POST /v1/chat/completions"] = fake_endpoint.always(200, body)
    assert "within 256 tokens" in refusal(endpoint.json_is_answered, fake_endpoint)


def test_a_refused_request_for_json_fails_with_the_engines_words_and_what_to_remove(
    fake_endpoint: FakeEndpoint,
) -> None:
    refused = fake_endpoint.always(400, {"error": {"message": "structured outputs are not supported"}})
    fake_endpoint.answers["POST /v1/chat/completions"] = refused
    reason = refusal(endpoint.json_is_answered, fake_endpoint)
    assert "answered 400" in reason
    assert "not supported" in reason
    assert "structured-outputs-config" in reason


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_no_check_asks_for_more_tokens_than_the_smallest_context_has(
    check: Check, fake_endpoint: FakeEndpoint
) -> None:
    """vLLM answers 400 to a max_tokens over what is served; 256 is the least that a stack can set."""
    fake_endpoint.max_model_len = 256
    assert check(target(fake_endpoint))


def test_there_are_as_many_checks_as_the_readme_says() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    words = ("nine", "ten", "eleven", "twelve")
    assert f"`scripts/check [stack] [--client NAME]`: {words[len(CHECKS) - 9]} checks" in readme


EVENTS = [f"data: {{}}{n}\n\n" for n in range(24)]


def test_a_stream_that_does_not_end_in_done_fails(fake_endpoint: FakeEndpoint) -> None:
    fake_endpoint.answers["POST /v1/chat/completions"] = fake_endpoint.always(200, chunks=EVENTS)
    assert "[DONE]" in refusal(endpoint.stream_arrives_whole, fake_endpoint)


@pytest.mark.parametrize(
    "chunks", [None, ["".join([*EVENTS, "data: [DONE]\n\n"])], ["".join(EVENTS), "data: [DONE]\n\n"]], ids=repr
)
def test_a_stream_that_something_on_the_way_held_back_fails(
    chunks: list[str] | None, fake_endpoint: FakeEndpoint
) -> None:
    whole = "".join([*EVENTS, "data: [DONE]\n\n"])
    fake_endpoint.answers["POST /v1/chat/completions"] = fake_endpoint.always(200, whole, chunks)
    assert "holds them back" in refusal(endpoint.stream_arrives_whole, fake_endpoint)


@pytest.mark.parametrize("bursts", range(endpoint.STREAMS_HELD_BACK + 1))
def test_only_streams_that_come_in_bursts_again_and_again_were_held_back(
    bursts: int, fake_endpoint: FakeEndpoint
) -> None:
    """A computer that is busy with other things takes its time to read, and finds all pieces at once."""
    burst = fake_endpoint.always(200, "".join([*EVENTS, "data: [DONE]\n\n"]))
    fake_endpoint.answers["POST /v1/chat/completions"] = lambda asked: (
        burst(asked) if len(fake_endpoint.asked) <= bursts else fake_endpoint.right_answer(asked)
    )
    if bursts < endpoint.STREAMS_HELD_BACK:
        assert "24 events" in endpoint.stream_arrives_whole(target(fake_endpoint))
        assert len(fake_endpoint.asked) == bursts + 1
    else:
        assert "holds them back" in refusal(endpoint.stream_arrives_whole, fake_endpoint)


@pytest.mark.parametrize("before", [0, 1], ids=["at once", "after a stream in bursts"])
@pytest.mark.parametrize(
    ("status", "chunks", "words"),
    [(503, ["{}"], "answered 503"), (200, EVENTS, "[DONE]")],
    ids=["an error", "no end"],
)
def test_a_stream_that_is_wrong_in_another_way_is_not_asked_for_again(
    before: int, status: int, chunks: list[str], words: str, fake_endpoint: FakeEndpoint
) -> None:
    burst = fake_endpoint.always(200, "".join([*EVENTS, "data: [DONE]\n\n"]))
    wrong = fake_endpoint.always(status, chunks=chunks)
    fake_endpoint.answers["*"] = lambda asked: wrong(asked) if len(fake_endpoint.asked) > before else burst(asked)
    assert words in refusal(endpoint.stream_arrives_whole, fake_endpoint)
    assert len(fake_endpoint.asked) == before + 1


def test_a_stream_that_is_cut_in_the_middle_fails_and_is_no_stack_trace(fake_endpoint: FakeEndpoint) -> None:
    with cut_connection() as port:
        reason = refusal(endpoint.stream_arrives_whole, fake_endpoint, base_url=f"http://127.0.0.1:{port}/v1")
    assert "no answer" in reason


def test_a_too_long_prompt_that_is_answered_fails(fake_endpoint: FakeEndpoint) -> None:
    fake_endpoint.answers["POST /v1/chat/completions"] = fake_endpoint.always(200, {"choices": []})
    assert "longer than the context" in refusal(endpoint.long_prompt_is_refused_in_words, fake_endpoint)


def test_a_too_long_prompt_that_is_refused_without_json_fails(fake_endpoint: FakeEndpoint) -> None:
    fake_endpoint.answers["POST /v1/chat/completions"] = fake_endpoint.always(400, "<html>Bad Request</html>")
    assert "no JSON" in refusal(endpoint.long_prompt_is_refused_in_words, fake_endpoint)


def test_the_long_prompt_is_longer_than_the_context(fake_endpoint: FakeEndpoint) -> None:
    endpoint.long_prompt_is_refused_in_words(target(fake_endpoint))
    content = fake_endpoint.asked[0].json()["messages"][0]["content"]
    assert len(content.split()) > fake_endpoint.max_model_len


OPEN_ROUTES = ("/detokenize", "/docs", "/generative_scoring", "/health", "/invocations", "/is_scaling_elastic_ep",
               "/kv_event_sources", "/load", "/metrics", "/openapi.json", "/ping", "/redoc", "/scale_elastic_ep",
               "/tokenize", "/version")  # fmt: skip
"""What vLLM 0.32.0 answers without a key (vllm-0.32.0-routes-without-key.tsv)."""


@pytest.mark.parametrize("path", OPEN_ROUTES)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_open_route_of_the_engine_that_can_be_reached_fails(
    method: str, path: str, fake_endpoint: FakeEndpoint
) -> None:
    fake_endpoint.answers[f"{method} {path}"] = fake_endpoint.always(200, "reached")
    reason = refusal(endpoint.engine_is_not_reached, fake_endpoint)
    assert f"{method} {path}" in reason


def test_the_engines_routes_are_tried_with_a_good_key(fake_endpoint: FakeEndpoint) -> None:
    endpoint.engine_is_not_reached(target(fake_endpoint))
    assert {asked.headers["authorization"] for asked in fake_endpoint.asked} == {f"Bearer {fake_endpoint.key}"}


# Whatever comes back, a verdict and no stack trace


@pytest.mark.parametrize(
    "body",
    ["", "<html></html>", "null", "[]", "7", '"text"', "{}", '{"data": null}', '{"data": 7}', '{"data": [null]}',
     '{"data": [7]}', '{"data": "text"}', '{"choices": [], "usage": null}', '{"choices": null, "usage": {}}',
     '{"choices": [{}], "usage": {"completion_tokens": 1}}', "\x00\ufffd"],
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_a_failed_verdict(body: str, fake_endpoint: FakeEndpoint) -> None:
    fake_endpoint.answers["*"] = fake_endpoint.always(200, body)
    verdicts = list(run(target(fake_endpoint)))
    assert len(verdicts) == len(CHECKS)
    needs_a_body = {"model is listed", "completion is real", "stream arrives whole", "key is asked for"}
    failed = {verdict.name for verdict in verdicts if not verdict.passed}
    assert needs_a_body <= failed
    assert all(verdict.detail for verdict in verdicts)


def test_an_endpoint_that_is_not_there_is_a_failed_verdict_that_names_it(fake_endpoint: FakeEndpoint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    verdicts = list(run(target(fake_endpoint, base_url=f"http://127.0.0.1:{port}/v1")))
    assert len(verdicts) == len(CHECKS)
    assert f"127.0.0.1:{port}" in verdicts[0].detail
    assert [verdict.skipped for verdict in verdicts] == [False] + [True] * (len(CHECKS) - 1)
    assert not any(verdict.passed for verdict in verdicts)


@pytest.mark.parametrize("status", [401, 403, 502, 503, 504])
def test_what_every_request_would_be_answered_is_told_once(status: int, fake_endpoint: FakeEndpoint) -> None:
    fake_endpoint.answers["*"] = fake_endpoint.always(status)
    verdicts = list(run(target(fake_endpoint)))
    failed = [verdict for verdict in verdicts if not verdict.passed and not verdict.skipped]
    assert len(failed) == 1
    assert f"answered {status}" in failed[0].detail
    others = {verdict.detail for verdict in verdicts if verdict.skipped}
    assert others == {f"not looked at because of: {failed[0].name}"}


def test_an_answer_to_another_key_says_nothing_of_the_clients_own(fake_endpoint: FakeEndpoint) -> None:
    asked = {None: 401, "x" * 64: 403}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoint, "ask", lambda *_, key, **__: endpoint.Answer(asked.get(key, 200), "{}"))
        verdicts = list(run(target(fake_endpoint)))
    assert "with a wrong key: answered 403" in verdicts[0].detail
    assert not any(verdict.skipped for verdict in verdicts)


def test_a_certificate_that_is_refused_is_the_one_failure_of_all_checks(
    fake_endpoint: FakeEndpoint, secure: int
) -> None:
    verdicts = list(run(behind_tls(fake_endpoint, secure)))
    assert [verdict.name for verdict in verdicts if not verdict.skipped] == ["certificate is valid"]
    assert "is refused: self-signed certificate" in verdicts[0].detail
    found = explain(verdicts[0].detail)
    assert found
    assert found.failure.name == "certificate-untrusted"


def test_a_server_without_tls_is_told_as_such_and_not_sent_to_the_engines_log(fake_endpoint: FakeEndpoint) -> None:
    verdicts = list(run(target(fake_endpoint, base_url=fake_endpoint.base_url.replace("http:", "https:"))))
    assert verdicts[0].detail.startswith("no TLS with https://")
    finding = client_finding("engine", verdicts[0])
    assert finding.problem
    assert "does not speak TLS" in finding.problem.cause
    assert "docker logs" not in finding.problem.change
    cut = client_finding("engine", Verdict("x", False, "no TLS with https://h/v1: [Errno 104] Connection reset"))
    assert cut.problem
    assert "docker logs" not in cut.problem.change


def test_a_failed_check_does_not_keep_the_next_ones_from_being_run(fake_endpoint: FakeEndpoint) -> None:
    fake_endpoint.answers["GET /v1/models"] = fake_endpoint.always(500)
    verdicts: list[Verdict] = list(run(target(fake_endpoint)))
    assert [verdict.passed for verdict in verdicts].count(True) == len(CHECKS) - 2


# TLS


@pytest.fixture(scope="module")
def own_ca(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Certificate and key for llm.example.com that nobody trusts by itself."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "c.pem", folder / "k.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/O=test", "-addext", "subjectAltName=DNS:llm.example.com", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.fixture
def secure(fake_endpoint: FakeEndpoint, own_ca: tuple[Path, Path]) -> Iterator[int]:
    """The port at which the fake endpoint is behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*own_ca)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    visitor, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=pass_on, args=[visitor], daemon=True).start()

        def pass_on(visitor: socket.socket) -> None:
            with contextlib.suppress(OSError), context.wrap_socket(visitor, server_side=True) as inside:
                request = inside.recv(65536)
                with socket.create_connection(("127.0.0.1", fake_endpoint.port)) as plain:
                    plain.sendall(request)
                    plain.shutdown(socket.SHUT_WR)
                    while piece := plain.recv(65536):
                        inside.sendall(piece)

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])


def behind_tls(fake: FakeEndpoint, port: int, host: str = "llm.example.com", ca: str = "") -> Target:
    return target(fake, base_url=f"https://{host}:{port}/v1", address="127.0.0.1", ca=ca)


def test_a_private_certificate_is_taken_with_its_ca_alone_and_said_to_be_private(
    fake_endpoint: FakeEndpoint, secure: int, own_ca: tuple[Path, Path]
) -> None:
    trusted = behind_tls(fake_endpoint, secure, ca=own_ca[0].read_text())
    assert "not publicly trusted: clients need its CA" in endpoint.certificate_is_valid(trusted)
    assert endpoint.ask(trusted, "GET", "/v1/models", key=trusted.key).status == 200
    with pytest.raises(endpoint.Untrusted):
        endpoint.certificate_is_valid(behind_tls(fake_endpoint, secure))
    with pytest.raises(endpoint.Untrusted):
        endpoint.ask(behind_tls(fake_endpoint, secure), "GET", "/v1/models", key=trusted.key)


def test_a_certificate_of_another_name_is_refused_whoever_made_it(
    fake_endpoint: FakeEndpoint, secure: int, own_ca: tuple[Path, Path]
) -> None:
    other = behind_tls(fake_endpoint, secure, "other.example.com", own_ca[0].read_text())
    with pytest.raises(endpoint.Untrusted, match=r"other\.example\.com"):
        endpoint.certificate_is_valid(other)


def test_the_certificate_is_the_first_thing_that_is_checked_where_there_is_one(
    fake_endpoint: FakeEndpoint, secure: int
) -> None:
    verdicts = list(run(behind_tls(fake_endpoint, secure), ()))
    assert [(verdict.name, verdict.passed) for verdict in verdicts] == [("certificate is valid", False)]
    assert not list(run(target(fake_endpoint), ()))


def test_the_gate_waits_for_no_certificate_that_is_refused(
    fake_endpoint: FakeEndpoint, secure: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_docker", lambda *_: "running 0 0 2026-11-21T10:58:02Z")
    order = gate.Order("engine", "edge", behind_tls(fake_endpoint, secure), deadline_seconds=1000)
    with pytest.raises(gate.GateFailed, match=r"phase: certificate\ncause: .*llm\.example\.com"):
        gate.wait(order, print)
