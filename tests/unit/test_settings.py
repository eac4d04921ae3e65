"""Unit tier: the configuration of a stack, in plain Python.

What is held up: DESIGN section 3 and the issue: what is accepted, what each default is, that every refusal names
key, value and way out, that all of them come at once, and that no error text shows what may be a secret.
It does NOT prove that the Pulumi CLI hands a stack file over as the loader expects it (engine tier), nor that
vLLM likes the values (live tier).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.models import SMOLLM2
from settings import NAMESPACE, SECRETS, AwsMachine, Settings, SettingsError, parse

PROJECT = Path(__file__).resolve().parent.parent.parent
STACK_FILES = sorted(PROJECT.glob("Pulumi.*.yaml"))
LOOPBACK = {"seatable": {"kind": "seatable", "cidrs": ["127.0.0.1/32"]}}


def with_cidrs(*cidrs: object) -> dict[str, object]:
    """A stack whose client `other` has these networks; `seatable` keeps the stack reachable."""
    return {"clients": {**LOOPBACK, "other": {"kind": "openai", "cidrs": list(cidrs)}}}


def problems(values: dict[str, Any]) -> list[str]:
    """The lines of the refusal without its heading."""
    with pytest.raises(SettingsError) as refused:
        parse(values)
    return str(refused.value).splitlines()[1:]


def the_problem(values: dict[str, Any]) -> str:
    """The one line of a refusal that has a single reason."""
    lines = problems(values)
    assert len(lines) == 1, lines
    return lines[0]


def domain(**values: object) -> dict[str, Any]:
    """A stack with a domain that has these settings."""
    return {"domain": {"host": "llm.example.com", "tls": "private-ca", **values}}


def acme(**values: object) -> dict[str, Any]:
    """The same with a certificate by DNS; None: without that setting."""
    settings = {"tls": "acme-dns", "zone": "example.com", "acme_email": "ops@example.com", **values}
    return domain(**{key: value for key, value in settings.items() if value is not None})


def cidrs_of(settings: Settings) -> list[str]:
    return settings.clients["other"].cidrs


# What is accepted, and the defaults


def test_a_stack_without_any_configuration_is_the_local_endpoint() -> None:
    settings = parse({})
    assert settings.machine.kind == "local"
    assert settings.machine.gpus == "auto"
    assert settings.machine.data_dir is None
    assert settings.model.name == SMOLLM2
    assert {name: (client.kind, client.cidrs) for name, client in settings.clients.items()} == {
        "seatable": ("seatable", ["127.0.0.1/32"])
    }
    assert (settings.ports.edge, settings.ports.engine) == (8080, 18000)
    assert (settings.images.vllm, settings.images.haproxy) == (None, None)
    assert settings.generations("seatable") == [1]


def test_a_complete_tree_is_taken_as_it_is_written() -> None:
    settings = parse(
        {
            "machine": {"kind": "local", "gpus": "none", "data_dir": "/srv/seatable vllm"},
            "model": {
                "name": "RedHatAI/gemma-3-12b-it-quantized.w4a16",
                "revision": "a" * 40,
                "max_model_len": 32768,
                "tool_parser": "pythonic",
                "extra_args": {"gpu-memory-utilization": 0.85, "limit-mm-per-prompt": {"image": 5}},
            },
            "clients": {
                "seatable": {"kind": "seatable", "cidrs": ["127.0.0.1/32"]},
                "agents": {"kind": "openai", "cidrs": ["198.51.100.0/28", "2001:db8::10/128"]},
            },
            "key_generations": {"agents": [3, 4]},
            "ports": {"edge": 8443, "engine": 18001},
            "images": {"vllm": f"mirror.example.com:5000/vllm@sha256:{'0' * 64}", "haproxy": "haproxy:3.2"},
        }
    )
    assert settings.machine.data_dir == "/srv/seatable vllm"
    assert settings.model.context_tokens == 32768
    assert settings.model.parser == "pythonic"
    assert settings.model.extra_args == {"gpu-memory-utilization": 0.85, "limit-mm-per-prompt": {"image": 5}}
    assert settings.generations("agents") == [3, 4]
    assert settings.generations("seatable") == [1]
    assert settings.ports.edge == 8443
    assert settings.images.haproxy == "haproxy:3.2"


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ({}, 8192),
        ({"max_model_len": 4096}, 4096),
        ({"name": "RedHatAI/gemma-3-12b-it-quantized.w4a16"}, 65536),
        ({"name": "RedHatAI/gemma-3-12b-it-quantized.w4a16", "max_model_len": 131072}, 131072),
        ({"name": "owner/a-model-nobody-knows"}, 65536),
    ],
)
def test_the_context_is_the_models_limit_and_65536_at_most_unless_it_is_set(
    model: dict[str, object], tokens: int
) -> None:
    assert parse({"model": model}).model.context_tokens == tokens


@pytest.mark.parametrize(
    ("model", "parser"),
    [
        ({}, "hermes"),
        ({"tool_parser": "none"}, None),
        ({"tool_parser": "mistral"}, "mistral"),
        ({"name": "RedHatAI/gemma-3-12b-it-quantized.w4a16"}, "pythonic"),
        ({"name": "owner/a-model-nobody-knows"}, None),
    ],
)
def test_tools_are_on_wherever_a_parser_is_known_and_off_on_request(
    model: dict[str, object], parser: str | None
) -> None:
    assert parse({"model": model}).model.parser == parser


def test_no_setting_can_be_changed_after_it_was_checked() -> None:
    settings = parse({})
    with pytest.raises(ValueError, match="frozen"):
        settings.ports.edge = 1  # type: ignore[misc]


def test_the_proving_client_is_one_whose_key_works_from_this_computer() -> None:
    settings = parse(
        {
            "clients": {
                "far": {"kind": "seatable", "cidrs": ["198.51.100.10/32"]},
                "near": {"kind": "openai", "cidrs": ["2001:db8::1/128", "127.0.0.2/32"]},
            }
        }
    )
    assert settings.proving_client() == "near"
    assert settings.local_source("near") == "127.0.0.2"
    assert settings.local_source("far") is None


@pytest.mark.parametrize("cidr", ["127.0.0.0/8", "127.0.0.0/24", "127.0.0.8/29", "127.0.0.2/31", "127.9.9.9/32"])
def test_the_address_that_proves_the_endpoint_lies_in_the_clients_own_network(cidr: str) -> None:
    settings = parse({"clients": {"seatable": {"kind": "seatable", "cidrs": [cidr]}}})
    source = settings.local_source("seatable")
    assert source is not None
    assert ipaddress.ip_address(source) in ipaddress.ip_network(cidr)


# A PicoClaw's fallbacks


CLOUD = {"provider": "openrouter", "model": "meta-llama/llama-3.3-70b-instruct"}


def with_fallbacks(*fallbacks: object, kind: str = "picoclaw") -> dict[str, Any]:
    """Settings of a client with these fallbacks."""
    agents = {"kind": kind, "cidrs": ["127.0.0.2/32"], "fallbacks": list(fallbacks)}
    return {"clients": {**LOOPBACK, "agents": agents}}


def test_fallbacks_keep_their_order() -> None:
    second = {"provider": "vllm", "model": "Qwen/Qwen3-8B", "base_url": "https://llm2.example.com/v1"}
    for order in ([CLOUD, second], [second, CLOUD]):
        found = parse(with_fallbacks(*order)).clients["agents"].fallbacks
        assert [(each.provider, each.model) for each in found] == [
            (each["provider"], each["model"]) for each in order
        ]


@pytest.mark.parametrize(
    ("fallback", "place", "words"),
    [
        ("openrouter/a/b", "", "write {provider: openrouter, model: a/b}"),
        ("deepseek-chat", "", "write {provider: PROVIDER, model: deepseek-chat}"),
        (7, "", "write a map"),
        ({"provider": "openrouter"}, ".model", "missing"),
        ({"model": "a/b"}, ".provider", "missing"),
        ({**CLOUD, "provider": "openroute"}, ".provider", "'openrouter'"),
        ({**CLOUD, "provider": "claude-cli"}, ".provider", "'anthropic'"),
        ({**CLOUD, "model": "a b"}, ".model", "as the provider lists it"),
        ({**CLOUD, "model": "/models/a"}, ".model", "as the provider lists it"),
        ({**CLOUD, "model": ""}, ".model", "as the provider lists it"),
        ({**CLOUD, "base_url": "llm2.example.com"}, ".base_url", "https://llm2.example.com/v1"),
        ({**CLOUD, "base_url": "https://user:word@llm2.example.com/v1"}, ".base_url", "without key"),
        ({"provider": "vllm", "model": "a/b"}, ".base_url", "missing"),
        ({"provider": "azure", "model": "a"}, ".base_url", "missing"),
    ],
    ids=repr,
)
def test_a_fallback_that_picoclaw_could_not_ask_is_refused_with_the_right_form(
    fallback: object, place: str, words: str
) -> None:
    line = the_problem(with_fallbacks(CLOUD, fallback))
    assert line.startswith(f"seatable-vllm:clients.agents.fallbacks.1{place}: ")
    assert words in line


def test_a_key_of_a_fallback_has_no_place_in_a_stacks_file_and_is_not_repeated() -> None:
    line = the_problem(with_fallbacks({**CLOUD, "api_keys": ["sk-looks-secret"]}))
    assert line.startswith("seatable-vllm:clients.agents.fallbacks.0.api_keys: ")
    assert "looks-secret" not in line


@pytest.mark.parametrize(
    "values",
    [
        with_fallbacks({**CLOUD, "base_url": "https://me:looks-secret@llm2.example.com/v1"}),
        {"domain": {"host": "llm.example.com", "tls": "acme-http", "acme_email": "ops@example.com",
                    "acme_server": "https://me:looks-secret@ca.example.com/directory"}},
    ],
    ids=["a fallback", "an ACME server"],
)  # fmt: skip
def test_a_password_in_an_address_is_not_repeated(values: dict[str, Any]) -> None:
    assert "looks-secret" not in the_problem(values)


@pytest.mark.parametrize("kind", ["seatable", "archi", "openai"])
def test_fallbacks_of_a_client_that_is_no_picoclaw_are_refused(kind: str) -> None:
    line = the_problem(with_fallbacks(CLOUD, kind=kind))
    assert line.startswith("seatable-vllm:clients.agents.fallbacks: ")
    assert f"of kind {kind}; remove them" in line


SAME_MODEL = {"provider": "vllm", "model": SMOLLM2, "base_url": "https://llm2.example.com/v1"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (CLOUD, CLOUD),
        (CLOUD, {**CLOUD, "model": CLOUD["model"].upper()}),
        (CLOUD, {**CLOUD, "base_url": "https://llm2.example.com/v1"}),
    ],
)
def test_two_fallbacks_that_picoclaw_would_take_for_one_are_refused(
    first: Mapping[str, str], second: Mapping[str, str]
) -> None:
    line = the_problem(with_fallbacks(first, second))
    assert line.startswith("seatable-vllm:clients.agents.fallbacks: ")
    assert "provider openai" in line
    parse(with_fallbacks(first, {**second, "provider": "openai", "base_url": "https://llm2.example.com/v1"}))


@pytest.mark.parametrize("model", [SMOLLM2, SMOLLM2.lower()])
def test_a_fallback_that_would_take_the_endpoints_own_requests_is_refused(model: str) -> None:
    """PicoClaw keeps the fallbacks' addresses by provider and model, and looks there for the first model too."""
    line = the_problem(with_fallbacks({**SAME_MODEL, "model": model}))
    assert line.startswith("seatable-vllm:clients.agents.fallbacks.0: ")
    assert "every request" in line
    parse(with_fallbacks({**SAME_MODEL, "provider": "openai"}))
    parse(with_fallbacks(SAME_MODEL) | {"model": {"name": "owner/other"}})


# Networks of clients


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("198.51.100.10/32", "198.51.100.10/32"),
        ("198.51.100.0/28", "198.51.100.0/28"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2001:db8::10/128", "2001:db8::10/128"),
        ("2001:0DB8:0:0::10/128", "2001:db8::10/128"),
        ("fc00::/7", "fc00::/7"),
        ("::1/128", "::1/128"),
    ],
)
def test_a_network_is_kept_in_its_canonical_form(written: str, canonical: str) -> None:
    assert cidrs_of(parse(with_cidrs(written))) == [canonical]


@pytest.mark.parametrize(
    ("base", "bits", "narrowest"), [("10.32.64.128", 32, 8), ("fd00:1:2:3:4:5:6:7", 128, 7)], ids=["v4", "v6"]
)
def test_every_length_of_a_network_is_accepted_only_if_it_is_no_wider_than_the_private_ones(
    base: str, bits: int, narrowest: int
) -> None:
    for length in range(bits + 1):
        network = str(ipaddress.ip_network(f"{base}/{length}", strict=False))
        if length >= narrowest:
            assert cidrs_of(parse(with_cidrs(network))) == [network]
        else:
            assert f"'{network}'" in the_problem(with_cidrs(network))


@pytest.mark.parametrize("wide", ["0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/1", "8000::/1", "203.0.113.7/0"])
def test_a_network_as_wide_as_the_world_is_refused_with_key_value_and_way_out(wide: str) -> None:
    line = the_problem(with_cidrs("198.51.100.0/28", wide))
    assert line.startswith("seatable-vllm:clients.other.cidrs.1: ")
    assert f"'{wide}'" in line
    assert "name the addresses" in line


@pytest.mark.parametrize(
    "written",
    ["198.51.100.10/28", "10.0.0.1/8", "198.51.100.255/31", "2001:db8::10/64", "2001:db8::1/127", "fd00::1/7"],
)
def test_host_bits_are_refused_and_both_ways_out_that_the_text_offers_are_accepted(written: str) -> None:
    line = the_problem(with_cidrs(written))
    assert line.startswith("seatable-vllm:clients.other.cidrs.0: ")
    assert f"'{written}'" in line
    offers = [word.strip(";,.") for word in line.partition("write ")[2].split() if "/" in word]
    assert len(offers) == 2
    for offer in offers:
        assert cidrs_of(parse(with_cidrs(offer))) == [offer]
    address = ipaddress.ip_address(written.partition("/")[0])
    assert all(address in ipaddress.ip_network(offer) for offer in offers)


@pytest.mark.parametrize("written", ["198.51.100.10", "2001:db8::10", "127.0.0.1"])
def test_an_address_without_length_is_refused_and_the_offered_network_is_this_one_address(written: str) -> None:
    line = the_problem(with_cidrs(written))
    assert line.startswith("seatable-vllm:clients.other.cidrs.0: ")
    assert f"'{written}'" in line
    offer = line.rpartition("write ")[2].strip()
    assert cidrs_of(parse(with_cidrs(offer))) == [offer]
    assert ipaddress.ip_network(offer).num_addresses == 1


@pytest.mark.parametrize(
    "junk",
    [
        "",
        " ",
        "localhost",
        "seatable.example.com/32",
        "198.51.100.300/32",
        "198.51.100.0/33",
        "198.51.100/24",
        "198.51.100.010/32",
        "2001:db8::10/129",
        "2001:db8:::10/128",
        "198.51.100.10/-1",
        "198.51.100.10/32 0.0.0.0/0",
        "198.51.100.10/32\n",
        " 198.51.100.10/32",
        "198.51.100.10/32/32",
        "198.51.100.10/",
        "/32",
        "::ffff:198.51.100.10/129",
        "fe80::1%eth0/128",
        "*",
    ],
)
def test_what_is_no_network_is_refused_with_key_value_and_an_example(junk: str) -> None:
    line = the_problem(with_cidrs(junk))
    assert line.startswith("seatable-vllm:clients.other.cidrs.0: ")
    assert repr(junk) in line
    assert "198.51.100.10/32" in line


@pytest.mark.parametrize("junk", [5, 1.5, None, True, ["198.51.100.10/32"]])
def test_a_network_that_is_not_text_is_refused_with_key_and_way_out(junk: object) -> None:
    line = the_problem(with_cidrs(junk))
    assert line.startswith("seatable-vllm:clients.other.cidrs.0: ")
    assert "198.51.100.10/32" in line


# Every other refusal


@pytest.mark.parametrize(
    ("values", "key", "value", "way_out"),
    [
        ({"machine": {"kind": "azure"}}, "machine.kind", "'azure'", "use local"),
        ({"machine": {"kind": "Local"}}, "machine.kind", "'Local'", "use local"),
        ({"machine": {"gpus": "all"}}, "machine.gpus", "'all'", "'auto' or 'none'"),
        ({"machine": {"data_dir": "srv/data"}}, "machine.data_dir", "'srv/data'", "absolute folder"),
        ({"machine": {"data_dir": "~/data"}}, "machine.data_dir", "'~/data'", "absolute folder"),
        ({"machine": {"data_dir": "/srv/a:b"}}, "machine.data_dir", "'/srv/a:b'", "without a colon"),
        ({"machine": {"data_dir": "/"}}, "machine.data_dir", "'/'", "absolute folder"),
        ({"machine": {"data_dir": "/srv/../etc"}}, "machine.data_dir", "'/srv/../etc'", "without . or .."),
        ({"machine": {"data_dir": "/srv/a\nb"}}, "machine.data_dir", r"'/srv/a\nb'", "absolute folder"),
        ({"machine": None}, "machine", "an empty value", "write a map"),
        ({"machine": "local"}, "machine", "'local'", "write a map"),
        ({"model": {"name": "gpt2"}}, "model.name", "'gpt2'", "OWNER/NAME"),
        ({"model": {"name": "a/b/c"}}, "model.name", "'a/b/c'", "OWNER/NAME"),
        ({"model": {"name": "../secrets/x"}}, "model.name", "'../secrets/x'", "OWNER/NAME"),
        ({"model": {"name": "owner/../x"}}, "model.name", "'owner/../x'", "OWNER/NAME"),
        ({"model": {"name": ""}}, "model.name", "''", "OWNER/NAME"),
        ({"model": {"revision": ""}}, "model.revision", "''", "write a commit"),
        ({"model": {"revision": 1234567}}, "model.revision", "1234567", "in quotes"),
        ({"model": {"tool_parser": "zzzzzz"}}, "model.tool_parser", "'zzzzzz'", "xlam. Write none"),
        ({"model": {"max_model_len": 8193}}, "model.max_model_len", "8193", "8192 or less"),
        ({"model": {"max_model_len": 0}}, "model.max_model_len", "0", "256"),
        ({"model": {"max_model_len": -1}}, "model.max_model_len", "-1", "256"),
        ({"model": {"max_model_len": "8192"}}, "model.max_model_len", "'8192'", "whole number"),
        ({"model": {"max_model_len": 1024.5}}, "model.max_model_len", "1024.5", "whole number"),
        ({"model": {"max_model_len": True}}, "model.max_model_len", "True", "whole number"),
        ({"ports": {"edge": 80}}, "ports.edge", "80", "1024"),
        ({"ports": {"edge": 65536}}, "ports.edge", "65536", "65535"),
        ({"ports": {"engine": "18000"}}, "ports.engine", "'18000'", "whole number"),
        ({"ports": {"edge": 9000, "engine": 9000}}, "ports.edge", "9000", "each its own"),
        ({"ports": {"edge": 18000}}, "ports.edge", "18000", "each its own"),
        ({"clients": {**LOOPBACK, "b": {"kind": "x", "cidrs": ["::1/128"]}}}, "clients.b.kind", "'x'", "'openai'"),
        (
            {"clients": {**LOOPBACK, "b": {"kind": "openai", "cidrs": []}}},
            "clients.b.cidrs",
            "empty list",
            "at least 1",
        ),
        ({"clients": {**LOOPBACK, "b": {"kind": "openai"}}}, "clients.b.cidrs", "missing", "name the networks"),
        ({"clients": {**LOOPBACK, "b": {"cidrs": ["::1/128"]}}}, "clients.b.kind", "missing", "write seatable"),
        ({"clients": {}}, "clients", "empty map", "at least 1"),
        ({"clients": {"b": {"kind": "openai", "cidrs": ["::1/128"]}}}, "clients", "", '"127.0.0.1/32"'),
        ({"key_generations": {"nobody": [1]}}, "key_generations.nobody", "", "Remove the entry"),
        ({"key_generations": {"seatable": [2, 1]}}, "key_generations.seatable", "[2, 1]", "oldest first"),
        ({"key_generations": {"seatable": [1, 1]}}, "key_generations.seatable", "[1, 1]", "must rise"),
        ({"key_generations": {"seatable": []}}, "key_generations.seatable", "empty list", "at least 1"),
        ({"key_generations": {"seatable": [1, 2, 3]}}, "key_generations.seatable", "a list", "at most 2"),
        ({"key_generations": {"seatable": [0]}}, "key_generations.seatable.0", "0", "1"),
        ({"ports": {"loopback": 8080}}, "ports.loopback", "8080", "each its own"),
        ({"ports": {"loopback": 80}}, "ports.loopback", "80", "1024"),
        (
            {"clients": {"b": {"kind": "openai", "cidrs": ["127.0.0.1/32"], "routes": ["messages"]}}},
            "clients.b.routes.0",
            "'messages'",
            "'responses'",
        ),
        (
            {"clients": {"b": {"kind": "openai", "cidrs": ["127.0.0.1/32"], "routes": "responses"}}},
            "clients.b.routes",
            "'responses'",
            "list",
        ),
        (
            {"clients": {"b": {"kind": "openai", "cidrs": ["127.0.0.1/32"], "origins": ["app.example.com"]}}},
            "clients.b.origins.0",
            "'app.example.com'",
            "https://",
        ),
        (
            {"clients": {"b": {"kind": "openai", "cidrs": ["127.0.0.1/32"], "origins": ["*"]}}},
            "clients.b.origins.0",
            "'*'",
            "https://",
        ),
        (
            {"clients": {"b": {"kind": "openai", "cidrs": ["127.0.0.1/32"], "origins": ["https://x.example/"]}}},
            "clients.b.origins.0",
            "x.example/",
            "nothing behind",
        ),
        ({"edge": {"answer_seconds": 10}}, "edge.answer_seconds", "10", "30"),
        ({"edge": {"answer_seconds": 7200}}, "edge.answer_seconds", "7200", "3600"),
        (domain(host="https://x.example"), "domain.host", "'https://x.example'", "llm.example.com"),
        (domain(host="*.example.com"), "domain.host", "'*.example.com'", "llm.example.com"),
        (domain(host="198.51.100.1"), "domain.host", "'198.51.100.1'", "llm.example.com"),
        (domain(host="LLM.example.com"), "domain.host", "'LLM.example.com'", "small letters"),
        (domain(host="a.example.com."), "domain.host", "'a.example.com.'", "llm.example.com"),
        (domain(tls="off"), "domain.tls", "'off'", "'private-ca'"),
        ({"domain": {"host": "a.example.com"}}, "domain.tls", "missing", "acme-dns"),
        ({"domain": {"tls": "private-ca"}}, "domain.host", "missing", "llm.example.com"),
        (domain(zone="example.com"), "domain.zone", "private-ca", "remove it"),
        (domain(tls="files", key="k"), "domain.certificate", "missing", "needs it"),
        (domain(tls="files", certificate="c"), "domain.key", "missing", "needs it"),
        (domain(tls="acme-http"), "domain.acme_email", "missing", "needs it"),
        (domain(tls="acme-http", acme_email="x"), "domain.acme_email", "'x'", "e-mail"),
        (domain(adopt_record=True), "domain.adopt_record", "kind aws", "remove it"),
        (acme(adopt_record=True), "domain.adopt_record", "kind aws", "remove it"),
        (acme(zone=None), "domain.zone", "missing", "needs it"),
        (acme(zone="other.org"), "domain.zone", "other.org", "does not hold llm.example.com"),
        (acme(zone="m.example.com"), "domain.zone", "m.example.com", "does not hold llm.example.com"),
        (acme(zone_id="z 1"), "domain.zone_id", "'z 1'", "Z0123456789ABC"),
        (acme(acme_server="http://ca"), "domain.acme_server", "'http://ca'", "https://"),
        (
            domain(tls="acme-http", acme_email="o@example.com", resolvers=["9.9.9.9"]),
            "domain.resolvers",
            "acme-http",
            "is for tls acme-dns",
        ),
        (acme(resolvers=[]), "domain.resolvers", "empty list", "at least 1"),
        (acme(resolvers="9.9.9.9:53"), "domain.resolvers", "'9.9.9.9:53'", "write a list"),
        (
            acme(resolvers=["9.9.9.9", "https://dns.example/dns-query"]),
            "domain.resolvers.1",
            "'https:",
            "9.9.9.9:53",
        ),
        (acme(resolvers=["9.9.9.9 --tls"]), "domain.resolvers.0", "--tls", "ADDRESS:PORT"),
        (acme(resolvers=["2620:fe::fe"]), "domain.resolvers.0", "'2620:fe::fe'", "[2620:fe::fe]:53"),
        (acme(resolvers=[9]), "domain.resolvers.0", "9", "ADDRESS:PORT"),
        (acme(acme_server="https://ca.example", acme_staging=True), "domain.acme_staging", "", "keep one"),
        ({"aws_access_key_id": None}, "aws_secret_access_key", "missing", "scripts/secret aws_secret_access_key"),
        ({"aws_secret_access_key": None}, "aws_access_key_id", "missing", "scripts/secret aws_access_key_id"),
        ({"images": {"vllm": ""}}, "images.vllm", "''", "NAME:TAG"),
        ({"images": {"haproxy": "haproxy 3.2"}}, "images.haproxy", "'haproxy 3.2'", "NAME:TAG"),
        ({"images": {"haproxy": "--privileged"}}, "images.haproxy", "'--privileged'", "NAME:TAG"),
    ],
)
def test_a_refusal_names_key_value_and_way_out(
    values: dict[str, object], key: str, value: str, way_out: str
) -> None:
    line = the_problem(values)
    assert line.startswith(f"seatable-vllm:{key}: ")
    assert value in line
    assert way_out in line


@pytest.mark.parametrize("name", ["", "Agents", "a b", "1st", "-a", "a_b", "a.b", "a" * 32, "ünicode"])
def test_a_client_name_that_cannot_be_a_resource_name_is_refused(name: str) -> None:
    line = the_problem({"clients": {**LOOPBACK, name: {"kind": "openai", "cidrs": ["::1/128"]}}})
    assert line.startswith(f"seatable-vllm:clients.{name}: ")
    assert repr(name) in line
    assert "a-z, 0-9 and -" in line


@pytest.mark.parametrize("name", ["a", "agents", "agents-2", "engine", "a" * 31])
def test_a_client_may_have_any_name_of_small_letters_digits_and_dashes(name: str) -> None:
    settings = parse({"clients": {**LOOPBACK, name: {"kind": "openai", "cidrs": ["::1/128"]}}})
    assert name in settings.clients


@pytest.mark.parametrize("parser", ["hermess", "", "Hermes", "gpt"])
def test_a_tool_parser_that_vllm_does_not_have_is_refused_with_key_value_and_way_out(parser: str) -> None:
    # DESIGN section 3: refuse "an unknown parser". vLLM itself notices only after the container was replaced.
    line = the_problem({"model": {"tool_parser": parser}})
    assert line.startswith("seatable-vllm:model.tool_parser: ")
    assert repr(parser) in line
    assert "hermes" in line


@pytest.mark.parametrize(
    "parser", ["hermes", "pythonic", "mistral", "llama3_json", "qwen3_coder", "gemma4", "openai", "granite-20b-fc"]
)
def test_every_kind_of_parser_name_that_vllm_has_is_accepted(parser: str) -> None:
    assert parse({"model": {"tool_parser": parser}}).model.parser == parser


@pytest.mark.parametrize(
    "option",
    ["host", "port", "api-key", "model", "config", "served-model-name", "max-model-len", "revision", "uds",
     "tool-call-parser", "enable-auto-tool-choice", "allowed-local-media-path", "allowed-media-domains",
     "middleware", "hf-token", "ssl-keyfile", "ssl-certfile", "root-path"],
)  # fmt: skip
@pytest.mark.parametrize("spelling", ["{}", "--{}", "-{}"])
def test_an_option_that_the_program_owns_is_refused_however_it_is_spelled(option: str, spelling: str) -> None:
    for written in {spelling.format(option), spelling.format(option.replace("-", "_"))}:
        lines = problems({"model": {"extra_args": {written: "some value"}}})
        prefix = f"seatable-vllm:model.extra_args.{written}: not free to set; "
        reasons = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
        assert len(reasons) == 1
        assert len(reasons[0]) > 10
        assert not any("some value" in line for line in lines)


def test_an_option_is_written_with_dashes_as_vllm_lists_it() -> None:
    line = the_problem({"model": {"extra_args": {"--max_num_seqs": 8}}})
    assert line.startswith("seatable-vllm:model.extra_args.--max_num_seqs: ")
    assert line.endswith("write the option as max-num-seqs")
    assert parse({"model": {"extra_args": {"max-num-seqs": 8}}}).model.extra_args == {"max-num-seqs": 8}


@pytest.mark.parametrize("host", ["files.example.com", "fileserver", "a-1.b.example.com", "xn--bcher-kva.example"])
def test_a_host_to_fetch_pictures_from_is_a_name(host: str) -> None:
    assert parse({"model": {"media_domains": [host]}}).model.media_domains == [host]
    assert not parse({}).model.media_domains


@pytest.mark.parametrize(
    "host",
    ["", "*", "*.example.com", "https://files.example.com", "files.example.com/", "files.example.com:443",
     "Files.example.com", "198.51.100.7", "[2001:db8::1]", "2001:db8::1", "user@files.example.com", "localhost",
     "x.localhost", ".example.com", "files.example.com.", "a..b", "-a.example", "files.example.com\n", 7,
     None, True],
)  # fmt: skip
def test_what_vllm_would_never_match_or_what_is_the_engine_itself_is_no_host_to_fetch_from(host: object) -> None:
    line = the_problem({"model": {"media_domains": [host]}})
    assert line.startswith("seatable-vllm:model.media_domains.0: ")
    assert "files.example.com" in line


def test_the_publishers_code_runs_only_from_a_pinned_revision() -> None:
    line = the_problem({"model": {"extra_args": {"trust-remote-code": True}}})
    assert line.startswith("seatable-vllm:model.extra_args.trust-remote-code: ")
    assert "model.revision" in line
    pinned = {"revision": "a" * 40, "extra_args": {"trust-remote-code": True}}
    assert parse({"model": pinned}).model.extra_args == {"trust-remote-code": True}


@pytest.mark.parametrize("hatch", ["enable-tokenizer-info-endpoint", "profiler-config"])
def test_an_option_that_opens_an_escape_hatch_of_the_engine_is_refused(hatch: str) -> None:
    # DESIGN section 3: refuse "VLLM_SERVER_DEV_MODE-like escape hatches"; vllm.md 4.2 names these two with it.
    assert the_problem({"model": {"extra_args": {hatch: True}}}).startswith(
        f"seatable-vllm:model.extra_args.{hatch}: "
    )


@pytest.mark.parametrize("place", ["env", "environment", "extra_env", "envs"])
def test_no_environment_variable_of_the_engine_can_be_set(place: str) -> None:
    for values in ({place: {"VLLM_SERVER_DEV_MODE": "1"}}, {"model": {place: {"VLLM_SERVER_DEV_MODE": "1"}}}):
        assert "there is no such setting" in the_problem(values)


# Unknown keys, wrong types, everything at once


def test_an_unknown_setting_is_refused_with_the_list_of_those_that_exist() -> None:
    line = the_problem({"client": LOOPBACK})
    assert line.startswith("seatable-vllm:client: there is no such setting; ")
    for known in Settings.model_fields:
        assert known in line


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"machine": {"gpu": "none"}}, "machine.gpu"),
        ({"model": {"max-model-len": 1024}}, "model.max-model-len"),
        ({"clients": {"seatable": {**LOOPBACK["seatable"], "cidr": "x"}}}, "clients.seatable.cidr"),
        ({"ports": {"http": 80}}, "ports.http"),
        ({"images": {"nginx": "nginx"}}, "images.nginx"),
    ],
)
def test_an_unknown_key_inside_a_setting_is_refused_by_its_full_name(values: dict[str, object], key: str) -> None:
    line = the_problem(values)
    assert line.startswith(f"seatable-vllm:{key}: there is no such setting")


@pytest.mark.parametrize("wrong", [None, 5, "text", ["list"], True, 1.5])
@pytest.mark.parametrize("key", sorted(Settings.model_fields))
def test_a_setting_of_the_wrong_type_is_refused_and_never_a_stack_trace(key: str, wrong: object) -> None:
    assert the_problem({key: wrong}).startswith(f"seatable-vllm:{key}: ")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"model": {"name": {"a": 1}}}, "model.name"),
        (with_cidrs({"a": 1}), "clients.other.cidrs.0"),
        ({"images": {"vllm": {"a": 1}}}, "images.vllm"),
        ({"machine": {"data_dir": {"a": 1}}}, "machine.data_dir"),
    ],
)
def test_a_map_in_the_place_of_a_text_is_refused_in_a_sentence_that_begins_with_its_key(
    values: dict[str, object], key: str
) -> None:
    assert the_problem(values).startswith(f"seatable-vllm:{key}: ")


def test_all_problems_of_a_stack_are_reported_at_once() -> None:
    lines = problems(
        {
            "machine": {"kind": "moon", "gpus": "many"},
            "model": {"name": "gpt2", "max_model_len": "long"},
            "clients": {
                "seatable": {"kind": "seatable", "cidrs": ["0.0.0.0/0", "198.51.100.10/28", "junk"]},
                "Agents": {"kind": "other", "cidrs": []},
            },
            "ports": {"edge": 1},
            "images": {"vllm": "A B"},
            "typo": 1,
            "tpyo": 2,
        }
    )
    keys = [line.partition(": ")[0].removeprefix("seatable-vllm:") for line in lines]
    wanted = {"machine.kind", "machine.gpus", "model.name", "model.max_model_len", "clients.seatable.cidrs.0",
              "clients.seatable.cidrs.1", "clients.seatable.cidrs.2", "clients.Agents", "clients.Agents.kind",
              "clients.Agents.cidrs", "ports.edge", "images.vllm", "typo", "tpyo"}  # fmt: skip
    assert set(keys) == wanted
    assert len(keys) == len(wanted)


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        (
            {"model": {"name": "gpt2", "extra_args": {"api-key": "x"}}},
            {"model.name", "model.extra_args.api-key"},
        ),
        (
            {"model": {"max_model_len": "long", "extra_args": {"host": "x", "port": 1}}},
            {"model.max_model_len", "model.extra_args.host", "model.extra_args.port"},
        ),
        ({"ports": {"edge": 80}, "key_generations": {"nobody": [1]}}, {"ports.edge", "key_generations.nobody"}),
        (
            {"images": {"vllm": ""}, "clients": {"b": {"kind": "openai", "cidrs": ["::1/128"]}}},
            {"images.vllm", "clients"},
        ),
        (
            {"model": {"extra_args": {"dtype": None, "host": "x"}}},
            {"model.extra_args.dtype", "model.extra_args.host"},
        ),
        (
            {"clients": {"a": {"kind": "openai", "cidrs": ["x"]}}, "key_generations": {"nobody": [1]}},
            {"clients.a.cidrs.0", "key_generations.nobody"},
        ),
        (
            {"key_generations": {"seatable": [0], "nobody": [1]}},
            {"key_generations.seatable.0", "key_generations.nobody"},
        ),
    ],
)
def test_a_wrong_value_does_not_hide_a_broken_rule_beside_it(values: dict[str, object], keys: set[str]) -> None:
    # The issue: "All problems of a stack reported together".
    lines = problems(values)
    assert {line.partition(": ")[0].removeprefix("seatable-vllm:") for line in lines} == keys


@pytest.mark.parametrize(
    "values",
    [
        {"ports": {"edge": 1, "engine": 8080}},
        {"ports": {"edge": 18000, "engine": "x"}},
        {"model": {"name": "no slash", "max_model_len": 100_000}},
        {"clients": {"a": {"kind": "x", "cidrs": ["127.0.0.1/32"]}}, "key_generations": {"a": [1, 2]}},
        {"clients": {"a": {"kind": "openai", "cidrs": ["127.0.0.1"]}}, "key_generations": {"a": [1, 2]}},
        {"model": {"revision": 5, "extra_args": {"trust-remote-code": True}}},
    ],
)
def test_a_wrong_value_brings_no_complaint_about_what_nobody_wrote(values: dict[str, object]) -> None:
    # The rules are tried on what is left; a default in the place of the wrong value must not break them.
    assert the_problem(values)


def test_several_owned_options_are_all_named() -> None:
    lines = problems({"model": {"max_model_len": 9000, "extra_args": {"host": 1, "port": 2, "model": 3}}})
    assert len(lines) == 4


# Secrets


def looks_secret() -> str:
    """What a user might paste into the wrong place; put together here, so that no file holds such a text."""
    return "hf_" + "Zz9" * 8


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"extra_args": {"api-key": looks_secret()}}},
        {"model": {"extra_args": {"hf_token": looks_secret()}}},
        {"model": {"extra_args": {"--hf-token": [looks_secret()]}}},
        {"model": {"extra_args": {"x": {"y": looks_secret()}, "host": 1}}},
        {"model": {"extra_args": looks_secret()}},
        {"model": {"extra_args": [looks_secret()]}},
        {"model": {"extra_args": {"x": None, "y": looks_secret()}}},
        {"model": {"hf_token": looks_secret()}},
        {"clients": {"seatable": {**LOOPBACK["seatable"], "key": looks_secret()}}},
        {"token": looks_secret()},
        {"token": {"value": looks_secret()}},
    ],
)
def test_no_refusal_shows_a_value_that_may_be_a_secret(values: dict[str, object]) -> None:
    assert looks_secret() not in "\n".join(problems(values))


def test_the_hugging_face_token_is_never_part_of_the_tree() -> None:
    settings = parse({"hugging_face_token": looks_secret()})
    assert "hugging_face_token" in SECRETS
    assert looks_secret() not in repr(settings)
    assert looks_secret() not in settings.model_dump_json()


def test_a_refusal_of_something_else_does_not_show_the_hugging_face_token() -> None:
    assert looks_secret() not in "\n".join(problems({"hugging_face_token": looks_secret(), "ports": 1}))


# Pulumi.yaml and the stack files


def stack_values(path: Path) -> dict[str, Any]:
    """Our keys of a stack file, without their namespace."""
    config = yaml.safe_load(path.read_text()).get("config") or {}
    prefix = f"{NAMESPACE}:"
    return {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}


def project_schema() -> dict[str, Any]:
    schema: dict[str, Any] = yaml.safe_load((PROJECT / "Pulumi.yaml").read_text())["config"]
    return schema


def test_the_namespace_of_the_settings_is_the_projects_name() -> None:
    assert yaml.safe_load((PROJECT / "Pulumi.yaml").read_text())["name"] == NAMESPACE


def test_the_projects_schema_declares_exactly_the_settings_that_have_a_default() -> None:
    # A declared key without default is an error for every stack that leaves it out (pulumi-python-style.md 2).
    schema = project_schema()
    assert set(schema) == set(Settings.model_fields)
    assert all("default" in entry for entry in schema.values())
    assert all(not Settings.model_fields[key].is_required() for key in schema)


def test_the_defaults_of_the_projects_schema_and_of_the_loader_are_equal() -> None:
    assert parse({key: entry["default"] for key, entry in project_schema().items()}) == parse({})


@pytest.mark.parametrize("key", sorted(Settings.model_fields))
def test_each_default_of_the_schema_alone_changes_nothing(key: str) -> None:
    assert parse({key: project_schema()[key]["default"]}) == parse({})


def test_the_types_of_the_projects_schema_are_those_that_pulumi_knows() -> None:
    python = {"string": str, "whole number": int, "boolean": bool, "array": list, "object": dict}
    for key, entry in project_schema().items():
        assert isinstance(entry["default"], python[entry["type"]]), key
        assert entry["description"]
        assert not entry.get("secret")


def test_there_are_stack_files_to_check() -> None:
    assert {path.name for path in STACK_FILES} >= {
        "Pulumi.local.yaml",
        "Pulumi.second.yaml",
        "Pulumi.dev.yaml",
        "Pulumi.prod.yaml",
    }


@pytest.mark.parametrize("path", STACK_FILES, ids=lambda path: path.name)
def test_every_stack_file_in_the_repository_can_be_used(path: Path) -> None:
    ours = stack_values(path)
    assert parse({key: value for key, value in ours.items() if key not in SECRETS})
    for key in SECRETS & set(ours):
        assert set(ours[key]) == {"secure"}, "a secret is in git in the clear"


def test_no_two_stacks_of_this_computer_take_the_same_port() -> None:
    taken: dict[int, str] = {}
    for path in STACK_FILES:
        values = stack_values(path)
        if values.get("machine", {}).get("kind", "local") != "local":
            continue
        ports = parse({"ports": values.get("ports", {})}).ports
        for port in (ports.edge, ports.engine):
            assert port not in taken, f"{path.name} and {taken[port]} both want {port}"
            taken[port] = path.name


def test_every_line_of_a_refusal_is_one_sentence_with_its_key_in_front() -> None:
    for line in problems({"machine": 1, "model": {"name": ""}, "clients": [], "ports": {"x": 1}, "nope": 1}):
        assert re.match(r"seatable-vllm:[a-z_.]+: \S", line), line


# A domain


def test_with_a_domain_the_edge_is_at_the_port_of_https_unless_it_is_set() -> None:
    assert parse(domain()).ports.edge == 443
    assert parse(domain() | {"ports": {"engine": 18001}}).ports.edge == 443
    assert parse(domain() | {"ports": {"edge": 8443}}).ports.edge == 8443
    assert parse({"ports": {"engine": 18001}}).ports.edge == 8080


def test_with_a_domain_clients_need_not_come_from_this_computer_and_are_not_looked_for_here() -> None:
    far = {"far": {"kind": "seatable", "cidrs": ["198.51.100.10/32", "2001:db8::10/128"]}}
    settings = parse(domain() | {"clients": far})
    assert settings.proving_client() == "far"
    assert settings.local_source("far") is None
    assert "clients" in the_problem({"clients": far})


@pytest.mark.parametrize(
    "host", ["llm.example.com", "gpu", "localhost", "a-1.b", "xn--bcher-kva.example", "1a.2b"]
)
def test_a_host_may_be_any_name_of_dns_in_small_letters(host: str) -> None:
    parsed = parse(domain(host=host)).domain
    assert parsed
    assert parsed.host == host


@pytest.mark.parametrize("zone", ["example.com", "llm.example.com", "com"])
def test_a_zone_holds_the_host_when_the_host_is_it_or_lies_in_it(zone: str) -> None:
    assert parse(acme(zone=zone)).domain


def test_all_problems_of_a_domain_are_reported_beside_those_of_the_rest() -> None:
    lines = problems(acme(zone=None, acme_email="x", key="k") | {"ports": {"engine": 1, "edge": 9}, "typo": 1})
    keys = {line.partition(": ")[0].removeprefix("seatable-vllm:") for line in lines}
    assert keys == {"domain.zone", "domain.acme_email", "domain.key", "ports.engine", "typo"}


def test_a_wrong_port_does_not_hide_another() -> None:
    keys = {line.partition(": ")[0] for line in problems({"ports": {"edge": 80, "engine": 81, "loopback": 82}})}
    assert keys == {f"seatable-vllm:ports.{name}" for name in ("edge", "engine", "loopback")}


def test_port_80_is_kept_for_the_ca_that_asks_there() -> None:
    values = domain(tls="acme-http", acme_email="ops@example.com") | {"ports": {"edge": 80}}
    assert "80" in the_problem(values)
    assert parse(domain() | {"ports": {"edge": 80}})


def test_the_roots_of_a_ca_may_be_given_as_text() -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    assert parse(acme(acme_ca=pem, acme_server="https://ca.example/dir")).domain


AWS = {"kind": "aws", "instance_types": ["g6.xlarge"], "admin_cidrs": ["8.8.8.8/32"]}
ON_AWS = {
    "clients": {"seatable": {"kind": "seatable", "cidrs": ["1.1.1.1/32"]}},
    "domain": {"host": "llm.example.com", "tls": "private-ca", "zone": "example.com"},
}


@pytest.mark.parametrize(
    ("machine", "key"),
    [
        ({**AWS, "admin_cidrs": []}, "machine.admin_cidrs"),
        ({**AWS, "market": "spot", "reservation": "cr-0123456789abcdef0"}, "machine.reservation"),
        ({**AWS, "zones": ["eu-west-1a", "us-east-1a"]}, "machine.zones"),
        ({**AWS, "kind": "awss"}, "machine.kind"),
        ({**AWS, "kind": "gcp"}, "machine.kind"),
    ],
)
def test_a_machine_that_breaks_a_rule_is_the_one_problem_of_its_stack(machine: object, key: str) -> None:
    """A rule between the machine and another setting goes by the kind that is meant."""
    (line,) = problems({**ON_AWS, "machine": machine})
    assert line.startswith(f"seatable-vllm:{key}: ")


@pytest.mark.parametrize(
    ("widest", "wider"), [("8.8.0.0/16", "8.8.0.0/15"), ("2001:4860::/32", "2001:4860::/31")], ids=["v4", "v6"]
)
def test_a_login_is_open_to_one_provider_or_office_at_most(widest: str, wider: str) -> None:
    machine = parse({**ON_AWS, "machine": {**AWS, "admin_cidrs": [widest]}}).machine
    assert isinstance(machine, AwsMachine)
    assert machine.admin_cidrs == [widest]
    line = the_problem({**ON_AWS, "machine": {**AWS, "admin_cidrs": [wider]}})
    assert line.startswith(f"seatable-vllm:machine.admin_cidrs.0: '{wider}' is wide for a login")
    assert line.endswith(f"/{widest.partition('/')[2]} or longer")


def test_a_machine_that_breaks_a_rule_hides_no_mistake_elsewhere() -> None:
    local = {"seatable": {"kind": "seatable", "cidrs": ["127.0.0.1/32"]}}
    lines = problems({**ON_AWS, "machine": {**AWS, "admin_cidrs": []}, "clients": local})
    assert [line.split(": ")[0] for line in lines] == [
        "seatable-vllm:machine.admin_cidrs",
        "seatable-vllm:clients.seatable.cidrs",
    ]


@pytest.mark.parametrize(
    ("more", "setting"),
    [
        ({"zones": ["eu-west-1a"]}, "machine.zones: eu-west-1a"),
        ({"zones": ["eu-central-1a"], "placed": {"instance_type": "g6.xlarge", "zone": "eu-west-1b"}},
         "machine.placed.zone: eu-west-1b"),
        ({"zones": ["eu-central-2a"]}, "machine.zones: eu-central-2a"),
    ],
)  # fmt: skip
def test_a_zone_of_another_region_is_named_with_its_setting(more: dict[str, Any], setting: str) -> None:
    machine = AwsMachine(**{**AWS, **more})
    found = machine.zone_elsewhere("eu-central-1")
    assert found
    assert found[0] == f"seatable-vllm:{setting} is not in aws:region eu-central-1"
    local = AwsMachine(**{**AWS, "zones": ["us-west-2-lax-1a", "us-west-2a"]})  # type: ignore[arg-type]
    assert local.zone_elsewhere("us-west-2") is None
