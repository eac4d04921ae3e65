"""Unit tier: `scripts/plan`, with a hub of this test's own on the loopback.

Does not prove that the real hub answers like this one, nor that prices are today's.
"""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from catalog.models import KNOWN_MODELS
from catalog.sizing import Latent
from scripts.commands import plan
from scripts.commands.errors import CommandError
from scripts.commands.model_files import find

QWEN = "Qwen/Qwen3-14B"
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288,
    "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 151936, "max_position_embeddings": 40960,
}  # fmt: skip
INDEX = {"metadata": {"total_size": 16381470720}, "weight_map": {}}
Reply = tuple[int, Mapping[str, str], str]


def reply(body: object = "", status: int = 200, **headers: str) -> Reply:
    text = body if isinstance(body, str) else json.dumps(body)
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, text


MISSING = reply("Entry not found", 404, X_Error_Code="EntryNotFound")


class Hub:
    """A hub: what it answers by the end of a path, and the tokens it was shown."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.tokens: list[str | None] = []
        self.address = ""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.tokens.append(self.headers.get("authorization"))
            found = next((each for end, each in served.replies.items() if self.path.endswith(end)), MISSING)
            status, headers, text = found
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(text.encode())

        do_HEAD = do_GET  # noqa: N815 - the name that the server looks for

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        served.address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield served
        server.shutdown()


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    plan.main([*arguments, "--json"])
    loaded: dict[str, Any] = json.loads(capsys.readouterr().out)
    return loaded


def test_machines_that_hold_the_model_come_first_and_the_cheapest_on_top(
    capsys: pytest.CaptureFixture[str],
) -> None:
    machines = planned(capsys, QWEN, "--all")["machines"]
    fitting = [each for each in machines if each["fits"]]
    assert fitting == machines[: len(fitting)]
    assert 0 < len(fitting) < len(machines)
    prices = [each["usd_per_hour"] for each in fitting if each["usd_per_hour"] is not None]
    assert prices == sorted(prices)
    assert all(
        each["usd_per_month"] == pytest.approx(each["usd_per_hour"] * 730)
        for each in fitting
        if each["usd_per_hour"]
    )


def test_a_machine_that_does_not_fit_says_why_and_what_would_help(capsys: pytest.CaptureFixture[str]) -> None:
    (machine,) = planned(capsys, "Qwen/Qwen3-8B", "--gpu", "L4 24")["machines"]
    assert not machine["fits"]
    assert "GiB are left" in machine["why"]
    assert machine["levers"][0]["name"] == "max-model-len"
    longest = machine["longest_context"]
    (shorter,) = planned(capsys, "Qwen/Qwen3-8B", "--gpu", "L4 24", "--context", str(longest))["machines"]
    (longer,) = planned(capsys, "Qwen/Qwen3-8B", "--gpu", "L4 24", "--context", str(longest + 16))["machines"]
    assert (shorter["fits"], longer["fits"]) == (True, False)


def test_more_users_need_a_larger_machine(capsys: pytest.CaptureFixture[str]) -> None:
    alone = planned(capsys, QWEN, "--context", "32768")["machines"][0]
    together = planned(capsys, QWEN, "--context", "32768", "--users", "8")["machines"][0]
    assert together["requests_at_once"] >= 8 > alone["requests_at_once"]
    assert together["usd_per_hour"] > alone["usd_per_hour"]


def test_no_machine_is_shown_that_vllm_does_not_run_on(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {each["machine"] for each in planned(capsys, QWEN, "--all")["machines"]}
    assert "g6.xlarge" in shown
    assert not [name for name in shown if name.startswith(("p3", "g6f", "g5g"))]


def test_where_nothing_holds_it_the_status_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["deepseek-ai/DeepSeek-V3.1", "--gpu", "L4"]) == 1
    assert "No machine holds it" in capsys.readouterr().out
    assert plan.main([QWEN, "--gpu", "H100"]) == 0


@pytest.mark.parametrize("model", KNOWN_MODELS)
def test_every_known_model_is_planned_without_a_net(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("asked the net")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    plan.main([model])
    assert capsys.readouterr().out.count("\n") > 5


def test_a_folder_is_read_where_it_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with (tmp_path / "model-1.safetensors").open("wb") as weights:
        weights.truncate(3 << 30)
    found = planned(capsys, str(tmp_path), "--gpu", "L4")
    assert found["weights_bytes"] == 3 << 30
    assert found["tool_parser"] == "hermes"


def test_the_weights_of_a_folder_that_are_not_there_yet_are_those_of_its_index(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(INDEX))
    assert find(str(tmp_path)).shape.weights_bytes == 16381470720
    (tmp_path / "model-1.safetensors").write_bytes(b"x" * 7)
    assert find(str(tmp_path)).shape.weights_bytes == 7


def test_a_model_of_the_hub_is_read_by_its_config_and_index(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.replies = {"/config.json": reply(CONFIG), "/model.safetensors.index.json": reply(INDEX)}
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert plan.main(["some/Qwen3-copy", "--gpu", "L40S"]) == 0
    assert set(hub.tokens) == {"Bearer hf_secret"}
    assert find("some/Qwen3-copy").shape.weights_bytes == 16381470720


def test_weights_in_one_file_are_as_large_as_the_hub_says(hub: Hub) -> None:
    hub.replies = {
        "/config.json": reply(CONFIG),
        "/model.safetensors": reply("", 302, Location="/else", X_Linked_Size="4000000000"),
    }
    assert find("some/model").shape.weights_bytes == 4_000_000_000


MISTRAL = {
    "dim": 4096, "n_layers": 36, "n_heads": 32, "n_kv_heads": 32, "head_dim": 128, "hidden_dim": 12288,
    "vocab_size": 131072, "kv_lora_rank": 256, "qk_rope_head_dim": 64, "qk_nope_head_dim": 64, "v_head_dim": 128,
    "moe": {"num_experts": 128, "num_experts_per_tok": 4, "expert_hidden_dim": 2048, "num_shared_experts": 1},
}  # fmt: skip


def test_mistrals_own_files_count_where_vllm_takes_them(hub: Hub, tmp_path: Path) -> None:
    index = {"metadata": {"total_size": 120_000_000_000}}
    hub.replies = {
        "/config.json": reply(CONFIG),
        "/params.json": reply(MISTRAL),
        "/consolidated.safetensors.index.json": reply(index),
        "/model.safetensors.index.json": reply(INDEX),
    }
    found = find("mistralai/Mistral-Small-4").shape
    assert found.layers == (Latent(256 + 64),) * 36
    assert (found.weights_bytes, found.architecture) == (120_000_000_000, "MistralLarge3ForCausalLM")
    del hub.replies["/consolidated.safetensors.index.json"]
    assert find("somebody/else").shape.weights_bytes == 16381470720, "params.json alone is not taken"
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "params.json").write_text(json.dumps(MISTRAL))
    for name, size in (("model-1.safetensors", 5), ("consolidated-1.safetensors", 3)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert find(str(tmp_path)).shape.weights_bytes == 3
    (tmp_path / "params.json").unlink()
    assert find(str(tmp_path)).shape.weights_bytes == 5, "the same weights are not counted twice"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_type": "falcon_h1"}, "layers of model_type falcon_h1"),
        ({"kv_cache_window": 7, "compress_rate": 4}, "compress_rate, kv_cache_window"),
        ({"model_type": "minicpm3", "kv_lora_rank": 256}, "layers of model_type minicpm3"),
    ],
)
def test_a_model_whose_cache_is_not_known_is_uncertain_wherever_it_is_shown(
    changed: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **changed}))
    (tmp_path / "model.safetensors").write_bytes(b"x" * 4096)
    found = planned(capsys, str(tmp_path), "--gpu", "L4")
    assert any(said in doubt for doubt in found["uncertain"])
    assert "; uncertain: " in found["machines"][0]["why"]
    plan.main([str(tmp_path), "--gpu", "L4"])
    shown = capsys.readouterr().out
    assert "L4       uncertain" in shown
    assert any(line.startswith("uncertain: ") and said in line for line in shown.splitlines())


def test_a_model_that_was_compared_is_not_called_uncertain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "sliding_window": None, "max_window_layers": 36}))
    (tmp_path / "model.safetensors").write_bytes(b"x" * 4096)
    assert planned(capsys, str(tmp_path), "--gpu", "L4")["uncertain"] == []


def test_what_was_assumed_of_a_gpu_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    line = "GPU 0: NVIDIA GeForce RTX 5060 Ti (UUID: GPU-1234)"
    (machine,) = planned(capsys, "Qwen/Qwen2.5-7B-Instruct", "--gpu", line)["machines"]
    assert machine["gpu"] == "RTX 5060 Ti 8"
    plan.main(["Qwen/Qwen2.5-7B-Instruct", "--gpu", line])
    assert machine["gpu_note"] in capsys.readouterr().out
    assert "8 or 16 GB: counted with 8" in machine["gpu_note"]


@pytest.mark.parametrize(
    ("replies", "cause", "change"),
    [
        ({"/config.json": reply("", 401, X_Error_Code="RepoNotFound")}, "knows no model some/model", "OWNER/NAME"),
        ({"/config.json": reply("", 404)}, "knows no model some/model", "OWNER/NAME"),
        ({"/config.json": reply("", 401, X_Error_Code="GatedRepo")}, "is gated", "HF_TOKEN"),
        ({"/config.json": reply("", 403)}, "is gated", "licence"),
        ({}, "has no config.json", "not a folder of GGUF"),
        ({"/config.json": reply("{\"a\": ")}, "is no JSON", "cut off"),
        ({"/config.json": reply("[]")}, "is no JSON object", "not the real one"),
        ({"/config.json": reply(CONFIG)}, "no safetensors", "GGUF"),
        ({"/config.json": reply("", 503)}, "answered 503", "again later"),
        (
            {"/config.json": reply({**CONFIG, "architectures": ["NewForCausalLM"]}), "index.json": reply(INDEX)},
            "NewForCausalLM, which vLLM 0.32 does not serve",
            "seatable-vllm:images.vllm",
        ),
        (
            {"/config.json": reply({**CONFIG, "num_hidden_layers": None}), "index.json": reply(INDEX)},
            "num_hidden_layers",
            "another model",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_model_of_the_hub_is_named(
    replies: dict[str, Reply], cause: str, change: str, hub: Hub
) -> None:
    hub.replies = replies
    with pytest.raises(CommandError) as raised:
        plan.main(["some/model"])
    first, second = str(raised.value).split("\nchange: ")
    assert cause in first
    assert change in second


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(CommandError, match=r"cannot be reached for some/model") as raised:
            plan.main(["some/model"])
    assert "HTTPS_PROXY" in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuchfolder"], "no id of a model"),
        (["./there/is/none"], "no folder"),
        ([QWEN, "--gpu", "Voodoo 3"], "--gpu:"),
    ],
)
def test_what_is_asked_wrongly_is_said(arguments: list[str], said: str) -> None:
    with pytest.raises(CommandError) as raised:
        plan.main(arguments)
    assert said in str(raised.value)


def test_a_folder_without_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"has no config\.json"):
        plan.main([str(tmp_path)])


def test_the_picture_has_a_bar_of_the_right_length_for_each_machine(tmp_path: Path) -> None:
    file = tmp_path / "plan.svg"
    plan.main(
        [
            "Qwen/Qwen3-8B",
            "--context",
            "32768",
            "--gpu",
            "L40S",
            "--gpu",
            "L4",
            "--gpu",
            "T4",
            "--picture",
            str(file),
        ]
    )
    drawn = ElementTree.fromstring(file.read_text())  # noqa: S314 - our own
    texts = [each.text or "" for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "Qwen/Qwen3-8B" in texts[0]
    for name in ("L40S", "L4", "T4", "22 GiB, context does not fit"):
        assert name in texts
    assert any(re.fullmatch(r"\d+ GiB on 15", text) for text in texts)
    bars: dict[str, float] = {}
    for each in drawn.iter("{http://www.w3.org/2000/svg}rect"):
        if each.get("height") == "18":
            bars[str(each.get("y"))] = bars.get(str(each.get("y")), 0.0) + float(str(each.get("width")))
    large, small, _ = bars.values()
    assert large / small == pytest.approx(45776 / 22888, rel=0.01)


def test_a_picture_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="--picture"):
        plan.main([QWEN, "--gpu", "L4", "--picture", str(tmp_path / "none" / "x.svg")])
