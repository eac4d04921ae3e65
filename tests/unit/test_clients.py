"""Unit tier: the settings texts that clients get, read the way their readers read them.

Expectations: consumers.md S22, S23, S25 (SeaTable), section 7 (`OPENAI_*`), the issue (a curl line that works when
pasted). It does NOT prove that SeaTable, the SDKs or curl work with them: the live tier uses the emitted texts.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from clients import openai, seatable
from clients.blocks import blocks
from clients.endpoint import ClientEndpoint

if TYPE_CHECKING:
    from tests.conftest import FakeCommand

KEY = "".join(["Ab3", "z" * 58, "9Xy"])
ENDPOINT = ClientEndpoint("http://127.0.0.1:8080/v1", KEY, "HuggingFaceTB/SmolLM2-135M-Instruct", 8192)


def sourced(text: str) -> Mapping[str, str]:
    """The variables that a shell has after reading this text."""
    done = subprocess.run(
        ["bash", "-euc", "set -a; source /dev/stdin; exec env -0"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    return dict(item.split("=", 1) for item in done.stdout.split("\0") if item)


def quoted(text: str) -> dict[str, str]:
    """The raw text right of each `=`; comments left out."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all("=" in line for line in lines), lines
    return dict(line.split("=", 1) for line in lines)


# SeaTable up to 6.1


def test_the_env_block_of_seatable_6_1_is_the_one_of_its_manual() -> None:
    lines = [line for line in seatable.env(ENDPOINT).splitlines() if line and not line.startswith("#")]
    assert lines == [
        "SEATABLE_AI_LLM_TYPE='hosted_vllm'",
        "SEATABLE_AI_LLM_URL='http://127.0.0.1:8080/v1'",
        f"SEATABLE_AI_LLM_KEY='{KEY}'",
        "SEATABLE_AI_LLM_MODEL='HuggingFaceTB/SmolLM2-135M-Instruct'",
        "SEATABLE_AI_LLM_TIMEOUT=180",
    ]


def test_the_env_block_means_the_same_to_a_shell() -> None:
    found = sourced(seatable.env(ENDPOINT))
    assert found["SEATABLE_AI_LLM_KEY"] == KEY
    assert found["SEATABLE_AI_LLM_URL"] == ENDPOINT.base_url
    assert found["SEATABLE_AI_LLM_MODEL"] == ENDPOINT.model


def test_the_env_block_says_how_to_restart_and_ends_in_a_newline_so_that_it_can_be_appended() -> None:
    text = seatable.env(ENDPOINT)
    comments = " ".join(line for line in text.splitlines() if line.startswith("#"))
    assert "docker compose up -d" in comments
    assert text.endswith("\n")


# SeaTable 6.2 and later


def test_the_yaml_block_of_seatable_6_2_is_the_one_of_its_manual() -> None:
    assert yaml.safe_load(seatable.config_yaml(ENDPOINT)) == {
        "global": {
            "LLM_MODELS": [
                {
                    "type": "hosted_vllm",
                    "url": "http://127.0.0.1:8080/v1",
                    "key": KEY,
                    "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
                }
            ]
        }
    }


def test_the_yaml_block_names_its_file_and_the_restart_that_makes_it_count() -> None:
    comments = " ".join(line for line in seatable.config_yaml(ENDPOINT).splitlines() if line.startswith("#"))
    assert "/opt/seatable-server/seatable/conf/seatable_config.yaml" in comments
    assert "docker compose up -d --force-recreate seatable-ai" in comments


MOVED_IN_6_2 = ("TYPE", "URL", "KEY", "MODEL")
"""Lines of `.env` that SeaTable 6.2 replaced; its manual still has the one of the timeout there."""


@pytest.mark.parametrize(
    "endpoint", [ENDPOINT, ClientEndpoint("https://gpu.lan/v1", KEY, "o/m", 512, private_ca=True)]
)
def test_the_yaml_block_takes_out_of_env_what_it_replaces_and_leaves_the_timeout(endpoint: ClientEndpoint) -> None:
    comments = [line for line in seatable.config_yaml(endpoint).splitlines() if line.startswith("#")]
    (removed,) = [line for line in comments if "take out" in line]
    assert re.findall(r"SEATABLE_AI_LLM_([A-Z]+)", removed) == list(MOVED_IN_6_2)
    assert any("SEATABLE_AI_LLM_TIMEOUT=180 stays there" in line for line in comments)


def test_the_page_takes_the_same_lines_out_and_leaves_the_timeout() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "seatable.md").read_text()
    assert "SEATABLE_AI_LLM_*" not in page
    (said,) = re.findall(r"take out the lines that this file replaces: (.*?)\. `([A-Z_]+)` stays", page, re.DOTALL)
    assert tuple(name.rpartition("_")[2] for name in re.findall(r"`([A-Z_]+)`", said[0])) == MOVED_IN_6_2
    assert said[1] == "SEATABLE_AI_LLM_TIMEOUT"


@pytest.mark.parametrize("key", ["1" * 64, "1e" + "5" * 62, "0x" + "1" * 62, "null" + "0" * 60, "0" * 64])
def test_a_key_that_looks_like_a_number_stays_a_text(key: str) -> None:
    endpoint = ClientEndpoint(ENDPOINT.base_url, key, ENDPOINT.model, 8192)
    assert yaml.safe_load(seatable.config_yaml(endpoint))["global"]["LLM_MODELS"][0]["key"] == key
    assert sourced(seatable.env(endpoint))["SEATABLE_AI_LLM_KEY"] == key


@pytest.mark.parametrize("model", ["owner/1.5", "1/2", "o/null", "0wner/1e5", "owner/v1.0_-x"])
def test_a_model_id_arrives_letter_for_letter_in_every_text(model: str) -> None:
    endpoint = ClientEndpoint(ENDPOINT.base_url, KEY, model, 8192)
    assert yaml.safe_load(seatable.config_yaml(endpoint))["global"]["LLM_MODELS"][0]["model"] == model
    assert sourced(seatable.env(endpoint))["SEATABLE_AI_LLM_MODEL"] == model
    assert sourced(openai.env(endpoint))["OPENAI_MODEL"] == model


def test_a_long_url_is_not_folded_over_two_lines() -> None:
    endpoint = ClientEndpoint(f"https://{'a' * 200}.example.com/v1", KEY, ENDPOINT.model, 8192)
    assert f"url: {endpoint.base_url}\n" in seatable.config_yaml(endpoint)


# OpenAI-style clients


def test_the_openai_block_sets_what_the_sdks_read() -> None:
    found = sourced(openai.env(ENDPOINT))
    assert (found["OPENAI_BASE_URL"], found["OPENAI_API_KEY"]) == (ENDPOINT.base_url, KEY)


@pytest.mark.parametrize("text", [seatable.env(ENDPOINT), openai.env(ENDPOINT)], ids=["seatable", "openai"])
def test_texts_in_env_blocks_are_in_single_quotes(text: str) -> None:
    for name, value in quoted(text).items():
        assert (value[0], value[-1]) == ("'", "'") or value.isdigit(), name


# curl


SENT_FROM = replace(ENDPOINT, source="127.0.0.2")


@pytest.fixture
def curl_call(request: pytest.FixtureRequest, fake_command: FakeCommand) -> tuple[list[str], str]:
    """The arguments and the standard input that curl gets when the emitted line is pasted into a shell."""
    endpoint = getattr(request, "param", ENDPOINT)
    fake_command.add("curl", f"cat > '{fake_command.folder}/stdin'")
    subprocess.run(["bash", "-euc", openai.curl(endpoint)], check=True, env=fake_command.environment)
    (call,) = fake_command.calls
    return call, (fake_command.folder / "stdin").read_text()


def test_the_curl_line_is_one_line() -> None:
    assert "\n" not in openai.curl(ENDPOINT)


def test_the_key_is_in_no_argument_of_curl_but_on_its_standard_input(curl_call: tuple[list[str], str]) -> None:
    arguments, given = curl_call
    assert not any(KEY in argument for argument in arguments)
    assert given == f'header = "Authorization: Bearer {KEY}"'
    assert arguments[arguments.index("-K") + 1] == "-"


@pytest.mark.parametrize(
    ("curl_call", "options"),
    [
        (ENDPOINT, []),
        (SENT_FROM, ["--interface", "127.0.0.2"]),
        (replace(SENT_FROM, private_ca=True), ["--cacert", "seatable-vllm-ca.pem", "--interface", "127.0.0.2"]),
    ],
    ids=["plain", "from an address of its own", "with a private CA"],
    indirect=["curl_call"],
)
def test_curl_asks_the_model_for_the_capital_of_france_through_the_endpoint(
    curl_call: tuple[list[str], str], options: list[str]
) -> None:
    arguments, _ = curl_call
    address = "http://127.0.0.1:8080/v1/chat/completions"
    header = ["-H", "Content-Type: application/json"]
    assert arguments[:-1] == ["curl", "-sS", "-K", "-", *options, address, *header, "-d"]
    assert json.loads(arguments[-1]) == {
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0,
    }


def test_the_key_is_given_to_curl_by_a_command_of_the_shell_itself() -> None:
    # printf is built in: no other program gets the key as an argument.
    first = openai.curl(ENDPOINT).partition("|")[0].split()[0]
    known = subprocess.run(["bash", "-c", f"type -t {first}"], capture_output=True, text=True, check=True)
    assert known.stdout.strip() == "builtin"


# All of one client


def test_a_seatable_client_gets_both_blocks_of_seatable_and_the_general_ones() -> None:
    assert set(blocks("seatable", ENDPOINT)) == {"key", "openai_env", "curl", "seatable_yaml", "seatable_env"}


def test_another_client_gets_no_block_of_seatable() -> None:
    assert set(blocks("openai", ENDPOINT)) == {"key", "openai_env", "curl"}


def test_every_text_of_a_client_holds_its_key_and_is_thus_a_secret_as_a_whole() -> None:
    assert all(KEY in text for text in blocks("seatable", ENDPOINT).values())
    assert blocks("seatable", ENDPOINT)["key"] == KEY


def test_no_text_promises_a_patience_that_seatable_does_not_have() -> None:
    assert seatable.TIMEOUT_SECONDS == 180


# A private CA


PRIVATE = ClientEndpoint("https://gpu.lan/v1", KEY, "owner/model", 8192, private_ca=True)


def test_with_a_private_ca_the_openai_block_names_the_file_that_its_sdk_reads() -> None:
    assert sourced(openai.env(PRIVATE))["SSL_CERT_FILE"] == "seatable-vllm-ca.pem"
    assert "SSL_CERT_FILE" not in openai.env(ENDPOINT)


@pytest.mark.parametrize("text", [seatable.env, seatable.config_yaml])
def test_with_a_private_ca_seatables_text_says_where_it_goes_in_comments(text: Any) -> None:
    told = text(PRIVATE)
    for word in ("ca_certificate", "seatable-ai", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "ca-certificates.crt"):
        assert word in told
    plain = ClientEndpoint("https://gpu.lan/v1", KEY, "owner/model", 8192)
    kept = [line for line in told.splitlines() if not line.startswith("#")]
    assert kept == [line for line in text(plain).splitlines() if not line.startswith("#")]
    assert "private CA" not in text(plain)
