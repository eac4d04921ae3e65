"""Unit tier: `scripts/check` against an endpoint of the test: what it prints, its status, and the way it takes.

Does NOT prove that a deployed endpoint passes: the live tier runs the command.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from scripts.commands import check
from scripts.commands.errors import CommandError
from settings import parse

if TYPE_CHECKING:
    from tests.conftest import FakeEndpoint

HERE = {"a": {"kind": "openai", "cidrs": ["127.0.0.1/32"]}, "b": {"kind": "openai", "cidrs": ["127.0.0.2/32"]}}
FAR = {"c": {"kind": "openai", "cidrs": ["10.0.0.0/8"]}}


class Command:
    """The command on a stack that the endpoint serves."""

    def __init__(self, endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        self.endpoint, self._monkeypatch = endpoint, monkeypatch
        self.outputs: dict[str, Any] = {
            "endpoint": endpoint.base_url, "model": endpoint.model, "max_model_len": endpoint.max_model_len,
            "tool_parser": "hermes", "clients": {name: {"key": endpoint.key} for name in "abc"},
        }  # fmt: skip
        self.devices: list[str] = []
        monkeypatch.setattr(check, "outputs_of", lambda _: self.outputs)
        monkeypatch.setattr(check, "cache_line", self._cache_line)
        self.stack({"clients": {**HERE, **FAR}})

    def _cache_line(self, stack: str, settings: object, device: str) -> str | None:
        self.devices.append(device)
        return f"much of {stack}" if device == "cpu" else None

    def stack(self, config: dict[str, Any]) -> None:
        self._monkeypatch.setattr(check, "stack_settings", lambda _: parse(config))


@pytest.fixture
def command(fake_endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(fake_endpoint, monkeypatch)


def test_every_check_is_a_line_below_whose_key_was_used_and_from_where(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.main(["s", "--client", "b"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == f"{command.endpoint.base_url} as b, from 127.0.0.2"
    assert {line[:7] for line in others} <= {"ok     ", "skipped"}
    assert {asked.source for asked in command.endpoint.asked} == {"127.0.0.2"}
    assert command.devices == ["gpu"]
    command.outputs["machine"] = {"device": "cpu"}
    assert check.main(["s"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].endswith(" as a, from 127.0.0.1")
    assert told[-1] == "held   much of s"


def test_one_check_that_fails_is_status_1_and_an_answer_that_repeats_the_key_does_not_show_it(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = command.endpoint
    endpoint.answers["GET /v1/models"] = endpoint.always(500, f"refused: {endpoint.key}")
    assert check.main(["s"]) == 1
    printed = capsys.readouterr().out
    assert "\nFAILED model is listed: " in printed
    assert "\nok     " in printed
    assert endpoint.key not in printed
    assert "***" in printed


def test_a_client_that_is_unknown_or_elsewhere_is_not_tried(command: Command) -> None:
    with pytest.raises(CommandError, match="there is no client 'x'; known: a, b, c"):
        check.main(["s", "--client", "x"])
    with pytest.raises(CommandError, match=r"c sends from .*10\.0\.0\.0/8.*, not from here"):
        check.main(["s", "--client", "c"])
    assert command.endpoint.asked == []


class Host:
    """A machine whose port is brought here, as itself."""

    def __init__(self, port: int) -> None:
        self.port, self.asked = port, list[int]()

    @contextlib.contextmanager
    def forwarded(self, port: int) -> Iterator[tuple[str, int]]:
        self.asked.append(port)
        yield "unix:///nowhere", self.port


def test_a_machine_behind_ssh_is_asked_through_a_tunnel_by_a_client_that_may_come_from_its_end(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host = Host(command.endpoint.port)
    command.stack({"machine": {"kind": "host", "ssh": "u@h"}, "clients": HERE, "ports": {"edge": 8090}})
    command.outputs["endpoint"] = "http://127.0.0.1:8090/v1"
    monkeypatch.setattr(check, "host_of", lambda *_: host)
    assert check.main(["s"]) == 0
    assert host.asked == [8090]
    assert capsys.readouterr().out.startswith(f"http://127.0.0.1:{command.endpoint.port}/v1 as a, from here\n")
    with pytest.raises(CommandError, match=r"sends from 127\.0\.0\.2.*name a client with 127\.0\.0\.1/32"):
        check.main(["s", "--client", "b"])
