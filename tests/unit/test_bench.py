"""Unit tier: what the benchmarks count, ask for and print, with the fast upstream that they bring themselves.

It does NOT prove any figure of a benchmark, nor that the busy loops take the processor from an edge.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from scripts.commands import bench, bench_soak, bench_start
from scripts.commands.bench import Deployed, Measured
from scripts.commands.bench_client import Place, Stream, Wanted, missing, models_seconds, stream
from scripts.commands.bench_edge import FastEdge, upstream
from scripts.commands.bench_soak import Cell, engine_wanted, fast_wanted, soak
from scripts.commands.bench_speed import Row, compare, models, streams
from scripts.commands.bench_start import Start
from scripts.commands.errors import CommandError
from settings import parse

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import FakeCommand, FakeEndpoint


@pytest.fixture(scope="module")
def fast() -> Iterator[Place]:
    """The fast upstream, which asks for no key."""
    with upstream() as port:
        yield Place("127.0.0.1", port, "k", "fast")


def at(endpoint: FakeEndpoint) -> Place:
    return Place("127.0.0.1", endpoint.port, endpoint.key, endpoint.model)


# One request


def test_a_stream_is_asked_for_with_as_many_tokens_as_are_counted_later(fake_endpoint: FakeEndpoint) -> None:
    place = Place("127.0.0.1", fake_endpoint.port, fake_endpoint.key, "a model")
    with contextlib.closing(place.connection()) as connection:
        stream(connection, place, Wanted(7, numbered=True, gap_ms=2, prompt="Count."))
        stream(connection, place, Wanted(8, gap_ms=2))
    numbered, other = (json.loads(asked.body) for asked in fake_endpoint.asked)
    assert numbered == {
        "gap_ms": 2,
        "model": "a model",
        "messages": [{"role": "user", "content": "Count."}],
        "max_tokens": 7,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "return_token_ids": True,
        "stream_options": {"include_usage": True},
    }
    assert "gap_ms" not in other, "vLLM knows no such parameter"
    assert other["max_tokens"] == 8


def test_a_stream_of_the_fast_upstream_is_whole(fast: Place) -> None:
    with contextlib.closing(fast.connection()) as connection:
        seen = stream(connection, fast, Wanted(5, numbered=True, gap_ms=1))
        assert (seen.outcome, seen.reason) == ("whole", "")
        assert stream(connection, fast, Wanted(5)).outcome == "whole"


def test_what_comes_within_a_millisecond_is_one_piece() -> None:
    assert Stream("whole", "", [0.1, 0.1005, 0.102, 0.2]).bursts == 3
    assert Stream("failed", "", []).bursts == 0


def test_an_answer_that_did_not_begin_has_failed_and_one_that_ends_early_is_cut(
    fake_endpoint: FakeEndpoint, fast: Place
) -> None:
    fake_endpoint.answers["*"] = fake_endpoint.always(403, "no")
    with contextlib.closing(at(fake_endpoint).connection()) as connection:
        refused = stream(connection, at(fake_endpoint), Wanted(1))
    assert (refused.outcome, refused.reason) == ("failed", "answered 403: no")
    fake_endpoint.answers["*"] = fake_endpoint.always(200, "data: {}\n\n")
    with contextlib.closing(at(fake_endpoint).connection()) as connection:
        assert stream(connection, at(fake_endpoint), Wanted(1)).outcome == "cut"
    nobody = Place("127.0.0.1", 1, "k", "m")
    assert stream(nobody.connection(), nobody, Wanted(1)).outcome == "failed"


def events(*tokens: int, end: str = "data: [DONE]\n\n") -> bytes:
    parts = [json.dumps({"choices": [{"token_ids": [token]}]}) for token in tokens]
    return "".join([": a keep-alive\n\n", *(f"data: {part}\n\n" for part in parts), end]).encode()


@pytest.mark.parametrize(
    ("text", "numbered", "expected"),
    [
        (events(0, 1), True, ""),
        (events(5, 4), False, ""),
        (events(1, 0), True, "tokens out of order: [1, 0]"),
        (events(0), True, "1 tokens of 2"),
        (events(0, 1, 2), False, "3 tokens of 2"),
        (events(0, 1, end=""), True, "no [DONE] after 2 events"),
        (b"", True, "no [DONE] after 0 events"),
        (events(0, 1, end='data: {"choices": [{}], "usage": {}}\n\ndata: [DONE]\n\n'), True, ""),
        (b"data: [1]\n\ndata: [DONE]\n\n", True, "an event is not what it should be: "),
        (b'data: {"cho\n\ndata: [DONE]\n\n', True, "an event is not what it should be: "),
    ],
)
def test_a_stream_is_whole_with_every_token_in_order_and_an_end(
    text: bytes, numbered: bool, expected: str
) -> None:
    found = missing(text, Wanted(2, numbered=numbered))
    assert found == expected or (expected.endswith(": ") and found.startswith(expected))


def test_a_list_of_models_that_is_refused_is_no_measurement(fake_endpoint: FakeEndpoint, fast: Place) -> None:
    with contextlib.closing(fast.connection()) as connection:
        assert models_seconds(connection, fast) > 0
    fake_endpoint.answers["*"] = fake_endpoint.always(401, "no key")
    with contextlib.closing(at(fake_endpoint).connection()) as connection, pytest.raises(OSError, match="401"):
        models_seconds(connection, at(fake_endpoint))
    (asked,) = fake_endpoint.asked
    assert asked.headers["authorization"] == f"Bearer {fake_endpoint.key}"


# Comparisons


def test_pairs_are_compared_by_medians_and_the_worst_of_twenty() -> None:
    few = compare("a name", "ms", [(2.0, 3.0), (4.0, 8.0), (6.0, 7.0)], "an aim")
    assert few == Row("a name", "ms", 3, 4.0, 7.0, None, None, 1.0, 1.75, "an aim")
    many = compare("a name", "ms", [(float(each), float(each)) for each in range(1, 21)])
    assert many.direct_p95 == pytest.approx(19.95)
    assert (many.added, many.ratio) == (0, 1)


def test_both_sides_are_asked_equally_often_and_what_warms_up_is_not_counted(
    fast: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def seconds(_: http.client.HTTPConnection, place: Place) -> float:
        asked.append(place.model)
        return 0.001 if place.model == "past" else 0.003

    monkeypatch.setattr("scripts.commands.bench_speed.models_seconds", seconds)
    past, through = (Place("127.0.0.1", fast.port, "k", model) for model in ("past", "through"))
    row = models("what", past, through, 4, "an aim")
    assert (row.name, row.unit, row.repeats, row.aim) == ("GET /v1/models, what", "ms", 4, "an aim")
    assert [row.direct, row.edge, row.ratio] == pytest.approx([1, 3, 3])
    assert asked == ["past", "through"] * 9


def test_streams_are_compared_by_first_event_rate_and_pieces_and_a_cut_one_ends_the_measurement(
    fast: Place, fake_endpoint: FakeEndpoint
) -> None:
    aims = ("first", "rate", "pieces")
    first, rate, pieces = streams("x", fast, fast, wanted=Wanted(3, numbered=True, gap_ms=10), pairs=2, aims=aims)
    assert [row.name for row in (first, rate, pieces)] == [
        "first event of a stream, x",
        "tokens per second, x",
        "pieces of a stream, x",
    ]
    assert [row.aim for row in (first, rate, pieces)] == ["first", "rate", "pieces"]
    assert (pieces.unit, pieces.repeats) == ("number", 2)
    assert 0 < rate.direct < 3 / 0.03, "three tokens, and a pause of 10 ms behind each"
    fake_endpoint.answers["*"] = fake_endpoint.always(503, "busy")
    with pytest.raises(CommandError, match=f"port {fake_endpoint.port} is failed: answered 503: busy"):
        streams("x", at(fake_endpoint), fast, wanted=Wanted(3), pairs=1, aims=aims)
    nobody = Place("127.0.0.1", 1, "k", "m")
    with pytest.raises(CommandError, match="the endpoint does not answer as it should"):
        models("x", nobody, fast, 1)


# The soak


def test_each_way_of_the_soak_sends_every_stream_once_and_says_what_became_of_it(
    fast: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy: list[list[int]] = []

    @contextlib.contextmanager
    def loops(processes: list[int]) -> Iterator[str]:
        busy.append(processes)
        yield "a note"

    monkeypatch.setattr(bench_soak, "haproxy_processes", lambda name: [7] if name == "edge" else [])
    monkeypatch.setattr(bench_soak, "busy_cores", loops)
    monkeypatch.setattr(bench_soak, "waited_seconds", lambda _: 2.0)
    numbers: list[int] = []

    def wanted(number: int) -> Wanted:
        numbers.append(number)
        return Wanted(2, numbered=number != 3)

    cells = list(soak("fast", fast, "edge", wanted, 10))
    told = [(cell.busy, cell.at_once, cell.whole, cell.cut, cell.failed, cell.note) for cell in cells]
    assert told == [
        (False, 1, 10, 0, 0, ""),
        (False, 8, 10, 0, 0, ""),
        (True, 1, 10, 0, 0, "a note"),
        (True, 8, 10, 0, 0, "a note"),
    ]
    assert sorted(numbers) == sorted([*range(10)] * 4)
    assert busy == [[7], [7]]
    assert {(cell.upstream, cell.planned, cell.waited_seconds) for cell in cells} == {("fast", 10, 0.0)}
    nobody = Place("127.0.0.1", 1, "k", "m")
    lost = next(iter(soak("fast", nobody, "edge", wanted, 5)))
    assert (lost.failed, len(lost.reasons)) == (5, 3)
    assert lost.reasons[0].startswith("failed: ConnectionRefusedError after 0 bytes")


def test_the_soak_sends_short_and_long_prompts_with_and_without_pauses() -> None:
    asked = [fast_wanted(number) for number in range(4)]
    assert [(each.gap_ms, len(each.prompt)) for each in asked] == [(0, 6), (1, 6), (0, 40_000), (1, 40_000)]
    assert {(each.tokens, each.numbered) for each in asked} == {(64, True)}
    assert engine_wanted(1) != engine_wanted(2)
    assert (engine_wanted(1).tokens, engine_wanted(1).numbered) == (64, False)


# The command

ROW = Row("GET /v1/models, vLLM", "ms", 3, 4.0, 7.0, None, 9.5, 3.0, 1.75, "added <= 0.25")
CELL = Cell("fast", True, 8, 10, whole=8, cut=1, failed=1, seconds=3.2, waited_seconds=1.25, note="a note",
            reasons=["cut: no [DONE]"])  # fmt: skip


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A deployed stack, and figures of it."""
    before = signal.getsignal(signal.SIGTERM)
    place = Place("127.0.0.1", 1, "k", "m")
    memory = iter([10.0, 12.0])
    monkeypatch.setattr(bench, "deployed_stack", lambda stack: Deployed(stack, place, place, "the-edge"))
    monkeypatch.setattr(bench, "resident_mb", lambda _: next(memory))
    monkeypatch.setattr(bench, "image_of", lambda _: "an-image")
    monkeypatch.setattr(bench, "fast_edge", lambda _: contextlib.nullcontext(FastEdge(place, place, "fast-edge")))
    monkeypatch.setattr(bench, "_speed", lambda *_: [ROW])
    monkeypatch.setattr(bench, "_soak", lambda *_: [CELL])
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("options", "cells"), [([], 0), (["--soak"], 1)])
def test_the_soak_is_done_only_when_it_is_asked_for(
    options: list[str], cells: int, measured: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["gpu1", "--json", *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["stack"] == "gpu1"
    assert told["edge_memory_mb"] == {"before": 10.0, "after": 12.0}
    assert [row["ratio"] for row in told["compared"]] == [1.75]
    assert len(told["soak"]) == cells


def test_a_pipe_gets_lines_of_words(capsys: pytest.CaptureFixture[str]) -> None:
    bench._print(Measured("gpu1", [ROW], (10.0, None), [CELL]))
    assert capsys.readouterr().out.splitlines() == [
        "GET /v1/models, vLLM: unit ms, direct 4, edge 7, p95 edge 9.5, added +3, ratio 1.750, aim added <= 0.25",
        "resident memory of the edge, MB: before 10, after -, aim <= 40",
        "",
        "fast: cores busy, at once 8, streams 10, whole 8, cut 1, failed 1, seconds 3, edge waited, s 1.2",
        "fast, busy cores, 8 at once: 8 of 10 whole, 1 cut, 1 failed: cut: no [DONE]",
        "fast, busy cores, 8 at once: 8 of 10 whole, 1 cut, 1 failed: a note",
    ]


def test_the_engine_is_asked_with_its_own_key_and_the_edge_as_a_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = {"agents": {"kind": "openai", "cidrs": ["127.0.0.2/32"]}}
    settings = parse({"clients": clients, "ports": {"edge": 8090, "engine": 8091}})
    outputs = {
        "endpoint": "http://127.0.0.1:8090/v1", "clients": {"agents": {"key": "of the client"}}, "model": "m",
        "max_model_len": "512", "tool_parser": "none",
    }  # fmt: skip
    monkeypatch.setattr(bench, "stack_settings", lambda _: settings)
    monkeypatch.setattr(bench, "outputs_of", lambda _: outputs)
    monkeypatch.setattr(bench, "data_dir", lambda *_: tmp_path)
    with pytest.raises(CommandError, match=r"cannot be read from .*vllm/config\.yaml: FileNotFoundError"):
        bench.deployed_stack("gpu1")
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "config.yaml").write_text("api-key: [of the engine]\n")
    found = bench.deployed_stack("gpu1")
    assert found.direct == Place("127.0.0.1", 8091, "of the engine", "m")
    assert found.edge == Place("127.0.0.1", 8090, "of the client", "m", "127.0.0.2")
    assert found.container == "seatable-vllm-gpu1-edge"
    monkeypatch.setattr(bench, "stack_settings", lambda _: SimpleNamespace(domain=object()))
    with pytest.raises(CommandError, match="gpu1 has a domain"):
        bench.deployed_stack("gpu1")


# A start


def test_a_start_is_told_against_what_it_cannot_do_without() -> None:
    assert Start(44.0, 40.0, 5.5, 4.0, 6).lines() == [
        "machine answers to first token: 44.0 s, vLLM's own start 40.0 s, ratio 1.10, aim <= 1.1",
        "up that changes nothing: 5.5 s, the CLI's own 4.0 s, added +1.5 s, aim added <= 2",
        "ssh called by it: 6 times, aim <= 6",
    ]
    rehearsed: dict[str, Any] = Start(44.0, 40.0, 5.5, None, 6).as_json()
    assert (rehearsed["ratio"], rehearsed["cli"]) == (1.1, None)


def test_each_connection_is_counted_and_made_with_its_arguments(
    tmp_path: Path, fake_command: FakeCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_command.add("ssh", "exit 7")
    monkeypatch.setenv("PATH", fake_command.environment["PATH"])
    counting = tmp_path / "counting"
    counting.mkdir()
    environment = bench_start._counting(counting)
    statuses = [subprocess.run(["ssh", "-p", "22", "a host"], env=environment, check=False) for _ in range(2)]
    assert [each.returncode for each in statuses] == [7, 7]
    assert fake_command.calls == [["ssh", "-p", "22", "a host"]] * 2
    assert len((counting / "calls").read_text().splitlines()) == 2
