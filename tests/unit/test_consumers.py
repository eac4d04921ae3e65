"""Unit tier: PicoClaw's and Archi's settings against their formats, and what is said of files of older ones.

The formats are JSON schemas written from PicoClaw's `pkg/config` (cf67dd38; its loader refuses fields it does not
know) and Archi's loader and providers (f4775da). It does NOT prove that the two programs work with the texts; the
live tier sends their requests.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from clients import archi, openai, picoclaw, seatable
from clients.blocks import KEYLESS, PROBLEMS, Kind, blocks, own_blocks
from clients.endpoint import CA_FILE, ClientEndpoint
from scripts.commands import client_file
from scripts.commands.errors import CommandError
from settings import Fallback, parse

KEY = "".join(["Ab3", "z" * 58, "9Xy"])
ENDPOINT = ClientEndpoint(
    "https://llm.example.com/v1",
    KEY,
    "RedHatAI/gemma-3-12b-it-quantized.w4a16",
    65536,
    loopback="http://127.0.0.1:18080/v1",
)
PLAIN = dataclasses.replace(ENDPOINT, loopback=None)
CLOUD = Fallback(provider="openrouter", model="meta-llama/llama-3.3-70b-instruct")
SECOND = Fallback(provider="vllm", model="Qwen/Qwen3-8B", base_url="https://llm2.example.com:8443/v1")
THIRD = Fallback(provider="openai", model="Qwen/Qwen3-8B", base_url="https://llm3.example.com/v1")
WITH_FALLBACKS = dataclasses.replace(ENDPOINT, fallbacks=(CLOUD, SECOND, THIRD))

PAGES = Path(__file__).resolve().parents[2] / "docs"


def strict(properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """An object with exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


TEXT = {"type": "string", "minLength": 1}
TOKENS = {"type": "integer", "minimum": 1}
URL = {"type": "string", "pattern": "^https?://[^/]+/v1$"}

PICOCLAW_DEFAULTS = {"model_name": TEXT, "max_tokens": TOKENS, "context_window": TOKENS}
PICOCLAW_ENTRY = {
    "model_name": {**TEXT, "not": {"const": "local-model"}},
    "provider": TEXT,
    "model": {"type": "string", "pattern": "^[^/ ][^ ]*$"},
    "api_base": URL,
    "request_timeout": TOKENS,
    "enabled": {"const": True},
}
PICOCLAW_CONFIG = strict(
    {
        "version": {"const": 3},
        "agents": strict(
            {
                "defaults": strict(
                    {**PICOCLAW_DEFAULTS, "model_fallbacks": {"type": "array", "minItems": 1, "items": TEXT}},
                    required=list(PICOCLAW_DEFAULTS),
                )
            }
        ),
        "model_list": {
            "type": "array",
            "minItems": 1,
            "items": strict(PICOCLAW_ENTRY, required=[name for name in PICOCLAW_ENTRY if name != "api_base"]),
        },
    }
)
PICOCLAW_SECURITY = strict(
    {
        "model_list": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": strict({"api_keys": {"type": "array", "minItems": 1, "items": TEXT}}),
        }
    }
)


def _provider(**way: Any) -> dict[str, Any]:
    models = {"type": "array", "minItems": 1, "items": TEXT}
    return strict({"enabled": {"const": True}, "base_url": URL, **way, "default_model": TEXT, "models": models})


ARCHI_CONFIG = strict(
    {
        "name": TEXT,
        "services": strict(
            {
                "chat_app": strict(
                    {
                        "agent_class": TEXT,
                        "agents_dir": TEXT,
                        "default_provider": {"enum": ["openai", "local"]},
                        "default_model": TEXT,
                        "providers": {
                            "oneOf": [
                                strict({"openai": _provider()}),
                                strict({"local": _provider(mode={"enum": ["ollama", "openai_compat"]})}),
                            ]
                        },
                    }
                )
            }
        ),
        "data_manager": strict({"embedding_name": {"enum": ["OpenAIEmbeddings", "HuggingFaceEmbeddings"]}}),
    }
)


# PicoClaw


@pytest.mark.parametrize("text", [picoclaw.config_json, picoclaw.loopback_json])
def test_picoclaws_file_is_of_its_schema_and_names_an_entry_that_is_there(
    text: Callable[[ClientEndpoint], str],
) -> None:
    tree = json.loads(text(ENDPOINT))
    jsonschema.validate(tree, PICOCLAW_CONFIG)
    assert tree["agents"]["defaults"]["model_name"] in [entry["model_name"] for entry in tree["model_list"]]


def test_picoclaws_key_is_in_a_file_of_its_own_under_the_name_of_its_entry() -> None:
    tree = yaml.safe_load(picoclaw.security_yml(ENDPOINT))
    jsonschema.validate(tree, PICOCLAW_SECURITY)
    (entry,) = json.loads(picoclaw.config_json(ENDPOINT))["model_list"]
    assert tree["model_list"][entry["model_name"]]["api_keys"] == [KEY]
    assert KEY not in picoclaw.config_json(ENDPOINT)


@pytest.mark.parametrize("text", [picoclaw.config_json, picoclaw.loopback_json])
def test_picoclaws_fallbacks_are_names_of_entries_of_their_own_in_the_order_of_the_setting(
    text: Callable[[ClientEndpoint], str],
) -> None:
    tree = json.loads(text(WITH_FALLBACKS))
    jsonschema.validate(tree, PICOCLAW_CONFIG)
    own, *others = tree["model_list"]
    assert own == json.loads(text(ENDPOINT))["model_list"][0]
    assert tree["agents"]["defaults"]["model_fallbacks"] == [entry["model_name"] for entry in others]
    assert [(entry["provider"], entry["model"], entry.get("api_base")) for entry in others] == [
        ("openrouter", "meta-llama/llama-3.3-70b-instruct", None),
        ("vllm", "Qwen/Qwen3-8B", "https://llm2.example.com:8443/v1"),
        ("openai", "Qwen/Qwen3-8B", "https://llm3.example.com/v1"),
    ]
    # Entries of one name would share the requests in place of one taking over from the other.
    assert len({entry["model_name"] for entry in tree["model_list"]}) == 4


def test_without_fallbacks_picoclaw_is_given_none() -> None:
    assert "model_fallbacks" not in picoclaw.config_json(ENDPOINT)


def test_a_fallbacks_key_has_its_place_in_the_security_file_and_is_no_value_until_it_is_written() -> None:
    text = picoclaw.security_yml(WITH_FALLBACKS)
    assert yaml.safe_load(text) == yaml.safe_load(picoclaw.security_yml(ENDPOINT))
    hashes_removed = re.sub(r"^  # (?!Each)", "  ", text, flags=re.MULTILINE)
    tree = yaml.safe_load(hashes_removed)
    jsonschema.validate(tree, PICOCLAW_SECURITY)
    names = [entry["model_name"] for entry in json.loads(picoclaw.config_json(WITH_FALLBACKS))["model_list"]]
    assert list(tree["model_list"]) == names


@pytest.mark.parametrize("key", ["1" * 64, "1e" + "5" * 62, "null" + "0" * 60])
def test_a_key_that_looks_like_a_number_stays_a_text_for_picoclaw(key: str) -> None:
    text = picoclaw.security_yml(dataclasses.replace(ENDPOINT, key=key))
    assert yaml.safe_load(text)["model_list"]["vllm"]["api_keys"] == [key]


@pytest.mark.parametrize(
    ("context", "answer"), [(256, 64), (4096, 1024), (8192, 2048), (32768, 8192), (65536, 8192), (1048576, 8192)]
)
def test_picoclaw_leaves_most_of_what_is_served_to_prompt_and_tools(context: int, answer: int) -> None:
    tree = json.loads(picoclaw.config_json(dataclasses.replace(ENDPOINT, max_model_len=context)))
    assert tree["agents"]["defaults"]["context_window"] == context
    assert tree["agents"]["defaults"]["max_tokens"] == answer


@pytest.mark.parametrize("text", [picoclaw.loopback_json, archi.loopback_yaml])
def test_a_text_for_the_listener_without_a_key_needs_that_listener(text: Callable[[ClientEndpoint], str]) -> None:
    assert "http://127.0.0.1:18080/v1" in text(ENDPOINT)
    assert KEY not in text(ENDPOINT)
    with pytest.raises(ValueError, match=r"ports\.loopback"):
        text(PLAIN)


# Archi


@pytest.mark.parametrize("text", [archi.config_yaml, archi.loopback_yaml])
def test_archis_file_is_of_its_schema_and_its_default_provider_is_configured(
    text: Callable[[ClientEndpoint], str],
) -> None:
    tree = yaml.safe_load(text(ENDPOINT))
    jsonschema.validate(tree, ARCHI_CONFIG)
    chat = tree["services"]["chat_app"]
    assert chat["providers"][chat["default_provider"]]["models"] == [chat["default_model"]] == [ENDPOINT.model]


def test_archis_key_is_in_its_env_alone() -> None:
    lines = [line for line in archi.env(ENDPOINT).splitlines() if line and not line.startswith("#")]
    assert lines == [f"OPENAI_API_KEY={KEY}"]
    assert archi.env(ENDPOINT).startswith("\n")  # an .env without a newline at its end is no trap
    assert KEY not in archi.config_yaml(ENDPOINT)


def test_archi_sends_neither_key_nor_documents_to_openai() -> None:
    assert yaml.safe_load(archi.config_yaml(ENDPOINT))["data_manager"]["embedding_name"] == "HuggingFaceEmbeddings"


def test_archi_without_a_key_speaks_openais_protocol_on_the_hosts_network() -> None:
    text = archi.loopback_yaml(ENDPOINT)
    assert yaml.safe_load(text)["services"]["chat_app"]["providers"]["local"]["mode"] == "openai_compat"
    assert "--hostmode" in text


def test_archis_file_says_how_long_a_chat_may_be_as_archi_does_not_ask() -> None:
    assert "65536 tokens" in archi.config_yaml(ENDPOINT)


# All kinds


@pytest.mark.parametrize("kind", ["seatable", "openai", "picoclaw", "archi"])
def test_only_the_texts_that_are_said_to_be_keyless_hold_no_key(kind: Kind) -> None:
    texts = blocks(kind, ENDPOINT)
    assert {name for name, text in texts.items() if KEY not in text} == KEYLESS & set(texts)


@pytest.mark.parametrize("kind", ["seatable", "openai", "picoclaw", "archi"])
@pytest.mark.parametrize("endpoint", [ENDPOINT, PLAIN], ids=["loopback", "plain"])
def test_a_kinds_own_texts_are_those_it_is_said_to_have(kind: Kind, endpoint: ClientEndpoint) -> None:
    names = own_blocks(kind, loopback=endpoint.loopback is not None)
    assert set(blocks(kind, endpoint)) == {"key", "openai_env", "curl", *names}
    assert any("loopback" in name for name in names) == (kind in PROBLEMS and endpoint.loopback is not None)


@pytest.mark.parametrize("text", [picoclaw.security_yml, archi.env])
def test_with_a_private_ca_the_text_with_the_key_says_where_it_goes(text: Callable[[ClientEndpoint], str]) -> None:
    told = text(dataclasses.replace(ENDPOINT, private_ca=True))
    assert f"SSL_CERT_FILE={CA_FILE}" in told or f"SSL_CERT_FILE=/{CA_FILE}" in told
    kept = [line for line in told.splitlines() if not line.startswith("#")]
    assert kept == [line for line in text(ENDPOINT).splitlines() if not line.startswith("#")]
    assert "private CA" not in text(ENDPOINT)


# Files that are there already


def picoclaw_file(**changes: Any) -> str:
    """The emitted file with these paths (a__b for a.b, model_list__entry) set, or removed by None."""
    tree = json.loads(picoclaw.config_json(ENDPOINT))
    tree["model_list"] = {"entry": tree["model_list"][0]}
    return json.dumps(_back(_changed(tree, changes)))


def archi_file(**changes: Any) -> str:
    """The same of Archi's."""
    return yaml.safe_dump(_changed(yaml.safe_load(archi.config_yaml(ENDPOINT)), changes))


def _changed(tree: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    for path, value in changes.items():
        *steps, last = path.split("__")
        place = tree
        for step in steps:
            place = place.setdefault(step, {})
        if value is None:
            del place[last]
        else:
            place[last] = value
    return tree


def _back(tree: dict[str, Any]) -> dict[str, Any]:
    return {**tree, "model_list": list(tree["model_list"].values())}


SEED_PICOCLAW = """
{"agents": {"defaults": {"model": "meta-llama/Llama-3.2-3B-Instruct"}},
 "providers": {"vllm": {"api_base": "http://localhost:8000/v1", "api_key": "your-secret-key"}}}
"""
SEED_ARCHI = """
archi:
  pipeline_map:
    CMSCompOpsAgent: {models: {required: {agent_model: vllm/Qwen/Qwen3-8B}}}
services:
  vllm: {model: Qwen/Qwen3-8B, tool_parser: hermes}
"""


def test_what_is_handed_out_is_found_without_a_problem() -> None:
    assert picoclaw.problems(picoclaw.config_json(ENDPOINT), ENDPOINT) == []
    assert picoclaw.problems(picoclaw.loopback_json(ENDPOINT), ENDPOINT) == []
    assert picoclaw.problems(picoclaw.config_json(WITH_FALLBACKS), WITH_FALLBACKS) == []
    assert archi.problems(archi.config_yaml(ENDPOINT), ENDPOINT) == []
    assert archi.problems(archi.loopback_yaml(ENDPOINT), ENDPOINT) == []


def test_picoclaws_old_format_is_told_part_by_part() -> None:
    found = picoclaw.problems(SEED_PICOCLAW, ENDPOINT)
    assert [line.partition(":")[0] for line in found] == ["providers", "agents.defaults.model", "version"]
    assert "your-secret-key" not in " ".join(found)


def test_archis_old_format_is_told_part_by_part() -> None:
    found = archi.problems(SEED_ARCHI, ENDPOINT)
    assert [line.partition(":")[0] for line in found] == ["archi", "services.vllm"]


@pytest.mark.parametrize(
    ("changes", "place", "way_out"),
    [
        ({"model_list__entry__api_key": "k"}, "model_list[0].api_key", ".security.yml"),
        ({"version": 2}, "version", "version 3"),
        ({"agents__defaults__model_name": "other"}, "agents.defaults.model_name", "vllm"),
        ({"agents__defaults__model_name": None}, "agents.defaults.model_name", "vllm"),
        ({"agents__defaults__max_tokens": 65536}, "agents.defaults.max_tokens", "8192"),
        ({"agents__defaults__max_tokens": "8192"}, "agents.defaults.max_tokens", "8192"),
        ({"agents__defaults__context_window": 131072}, "agents.defaults.context_window", "65536"),
        ({"agents__defaults__context_window": None}, "agents.defaults.context_window", "65536"),
        ({"model_list__entry__provider": None}, "model_list (vllm).provider", "vllm"),
        ({"model_list__entry__model": "vllm/auto"}, "model_list (vllm).model", ENDPOINT.model),
        ({"model_list__entry__enabled": None}, "model_list (vllm).enabled", "true"),
        (
            {"model_list__entry__api_base": "https://llm.example.com"},
            "model_list (vllm).api_base",
            ENDPOINT.base_url,
        ),
        ({"model_list__entry__api_base": None}, "model_list (vllm).api_base", ENDPOINT.base_url),
        (
            {"model_list__entry__model_name": "local-model", "agents__defaults__model_name": "local-model"},
            "model_list (local-model).model_name",
            "vllm",
        ),
        (
            {"agents__defaults__model_fallbacks": ["vllm", "openrouter/a/b"]},
            "agents.defaults.model_fallbacks",
            "'openrouter/a/b'",
        ),
        ({"agents__defaults__model_fallbacks": "vllm"}, "agents.defaults.model_fallbacks", "not a list of names"),
        ({"agents__defaults__model_fallbacks": [7]}, "agents.defaults.model_fallbacks", "not a list of names"),
    ],
    ids=repr,
)
def test_one_mistake_in_picoclaws_file_is_one_problem_with_its_way_out(
    changes: Mapping[str, Any], place: str, way_out: str
) -> None:
    (line,) = picoclaw.problems(picoclaw_file(**changes), ENDPOINT)
    assert line.startswith(f"{place}: ")
    assert way_out in line


@pytest.mark.parametrize("name", ["backup", "deepseek/deepseek-chat", "deepseek-chat"])
def test_a_fallback_that_picoclaw_finds_in_its_list_is_no_problem(name: str) -> None:
    backup = {"model_name": "backup", "provider": "deepseek", "model": "deepseek-chat", "enabled": True}
    changes = {"model_list__backup": backup, "agents__defaults__model_fallbacks": [name]}
    assert picoclaw.problems(picoclaw_file(**changes), ENDPOINT) == []


def test_picoclaws_own_number_of_tokens_is_reckoned_with_where_none_is_set() -> None:
    small = dataclasses.replace(ENDPOINT, max_model_len=8192)
    text = picoclaw_file(agents__defaults__max_tokens=None, agents__defaults__context_window=8192)
    (line,) = picoclaw.problems(text, small)
    assert "32768" in line


CHAT = "services__chat_app__"


@pytest.mark.parametrize(
    ("changes", "place", "way_out"),
    [
        ({"name": None}, "name", "requires"),
        ({f"{CHAT}agent_class": None}, "services.chat_app.agent_class", "requires"),
        ({f"{CHAT}agents_dir": None}, "services.chat_app.agents_dir", "requires"),
        ({f"{CHAT}default_provider": None}, "services.chat_app.default_provider", "requires"),
        ({f"{CHAT}default_model": None}, "services.chat_app.default_model", "requires"),
        ({f"{CHAT}provider": "openai"}, "services.chat_app.provider", "default_provider"),
        ({f"{CHAT}model": "m"}, "services.chat_app.model", "default_model"),
        ({f"{CHAT}default_provider": "vllm"}, "services.chat_app.default_provider", "openai"),
        ({f"{CHAT}default_provider": "gemini"}, "services.chat_app.default_provider", "openai"),
        ({f"{CHAT}default_model": f"vllm/{ENDPOINT.model}"}, "services.chat_app.default_model", "openai"),
        ({f"{CHAT}default_model": "Qwen/Qwen3:8B"}, "services.chat_app.default_model", ENDPOINT.model),
        ({"services__vllm": {"model": "m"}}, "services.vllm", "providers"),
        (
            {f"{CHAT}providers__openai__base_url": "https://api.openai.com/v1"},
            "services.chat_app.providers.openai.base_url",
            ENDPOINT.base_url,
        ),
        ({f"{CHAT}providers__openai__enabled": False}, "services.chat_app.providers.openai.enabled", "true"),
        ({"data_manager__embedding_name": None}, "data_manager.embedding_name", "HuggingFaceEmbeddings"),
    ],
    ids=repr,
)
def test_one_mistake_in_archis_file_is_one_problem_with_its_way_out(
    changes: Mapping[str, Any], place: str, way_out: str
) -> None:
    (line,) = archi.problems(archi_file(**changes), ENDPOINT)
    assert line.startswith(f"{place}: ")
    assert way_out in line


def test_archis_local_provider_needs_the_other_protocol_and_a_listener_without_a_key() -> None:
    keyless = yaml.safe_load(archi.loopback_yaml(ENDPOINT))
    (line,) = archi.problems(yaml.safe_dump(keyless), PLAIN)
    assert "ports.loopback" in line
    del keyless["services"]["chat_app"]["providers"]["local"]["mode"]
    (line,) = archi.problems(yaml.safe_dump(keyless), ENDPOINT)
    assert "openai_compat" in line


@pytest.mark.parametrize("problems", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "null", "\x00", "{}", '{"agents": 7}', '{"agents": {"defaults": []}, "version": 3}',
     '{"version": 3, "model_list": {"a": 1}}', '{"version": 3, "model_list": [7, null]}', '{"services": [1]}',
     '{"services": {"chat_app": "x", "vllm": null}}', '{"archi": null, "name": {}}', "a: b: c", "- [",
     "!!python/name:x"],
)  # fmt: skip
def test_whatever_is_in_a_file_is_told_as_problems_and_never_a_stack_trace(
    problems: Callable[[str, ClientEndpoint], list[str]], text: str
) -> None:
    found = problems(text, ENDPOINT)
    assert found
    assert all("\n" not in line for line in found)


def test_what_is_no_yaml_is_not_quoted_as_a_key_may_stand_in_it() -> None:
    (line,) = archi.problems(f"a: 1\nOPENAI_API_KEY: {KEY}: x\n", ENDPOINT)
    assert "line 2" in line
    assert KEY not in line


# scripts/check --file


def outputs(kind: Kind) -> dict[str, Any]:
    """The outputs of a stack that the command reads."""
    return {
        "endpoint": ENDPOINT.base_url,
        "model": ENDPOINT.model,
        "max_model_len": ENDPOINT.max_model_len,
        "loopback": ENDPOINT.loopback,
        "clients": {"me": blocks(kind, ENDPOINT)},
    }


@pytest.mark.parametrize(("kind", "seed"), [("picoclaw", SEED_PICOCLAW), ("archi", SEED_ARCHI)])
def test_an_old_file_is_refused_with_the_new_one_shown_and_no_key(
    kind: Kind, seed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text(seed)
    assert client_file.look_through(file, kind, outputs(kind), "me") == 1
    printed = capsys.readouterr().out
    for name, text in blocks(kind, ENDPOINT).items():
        assert (text in printed) == (name in KEYLESS), name
    assert KEY not in printed
    assert printed.startswith("FAILED ")


@pytest.mark.parametrize("kind", ["picoclaw", "archi"])
def test_a_right_file_is_status_0(kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text(next(text for name, text in blocks(kind, ENDPOINT).items() if name in KEYLESS))
    assert client_file.look_through(tmp_path / "file", kind, outputs(kind), "me") == 0
    assert capsys.readouterr().out.startswith("ok ")


def test_a_key_in_the_wrong_file_is_told_and_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text(archi.config_yaml(ENDPOINT) + f"# {KEY}\n")
    assert client_file.look_through(tmp_path / "file", "archi", outputs("archi"), "me") == 1
    printed = capsys.readouterr().out
    assert "archi_env" in printed
    assert KEY not in printed


def test_a_file_that_cannot_be_looked_through_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="kind seatable"):
        client_file.look_through(tmp_path / "file", "seatable", outputs("seatable"), "me")
    with pytest.raises(CommandError, match="cannot be read"):
        client_file.look_through(tmp_path / "none", "archi", outputs("archi"), "me")
    (tmp_path / "file").write_bytes(b"\xff\xfe")
    with pytest.raises(CommandError, match="cannot be read"):
        client_file.look_through(tmp_path / "file", "archi", outputs("archi"), "me")


# The pages in docs/

SHOWN = dataclasses.replace(ENDPOINT, key="KEY")
"""The endpoint of the pages."""

ON_PAGES: Mapping[str, tuple[Callable[[ClientEndpoint], str], ...]] = {
    "seatable": (seatable.config_yaml, seatable.env),
    "picoclaw": (picoclaw.config_json, picoclaw.security_yml),
    "archi": (archi.config_yaml, archi.env, archi.loopback_yaml),
    "openai": (openai.env,),
}


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text()


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in ON_PAGES.items() for text in texts])
def test_a_page_shows_each_text_as_the_program_makes_it(name: str, text: Callable[[ClientEndpoint], str]) -> None:
    shown = re.findall(r"^```[a-z]+\n(.*?)^```$", page(name), re.MULTILINE | re.DOTALL)
    assert text(SHOWN) in shown


@pytest.mark.parametrize("name", ON_PAGES)
def test_a_page_says_what_to_paste_to_start_again_to_test_and_what_errors_mean(name: str) -> None:
    headings = "\n".join(re.findall(r"^## .*", page(name), re.MULTILINE))
    for part in ("Paste this", "Start that again", "Test with this", "What an error means"):
        assert part in headings


@pytest.mark.parametrize("name", ON_PAGES)
def test_a_page_names_every_text_of_its_kind(name: Kind) -> None:
    for text in own_blocks(name, loopback=True) or ("openai_env", "curl"):
        assert f" {text}" in page(name), text


@pytest.mark.parametrize("name", ON_PAGES)
def test_the_client_that_a_page_shows_is_one_that_a_stack_takes(name: str) -> None:
    block = re.findall(r"^```yaml\n(seatable-vllm:clients:\n.*?)^```$", page(name), re.MULTILINE | re.DOTALL)[0]
    clients = yaml.safe_load(block)["seatable-vllm:clients"]
    assert [each["kind"] for each in clients.values()] == [name]
    parse({"clients": clients, "domain": {"host": "llm.example.com", "tls": "private-ca"}})
