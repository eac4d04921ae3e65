"""PicoClaw, Archi and the libraries that others are built on, each with nothing but the settings it is handed.

LangChain's ChatOpenAI is made from Archi's file as Archi makes it (always streaming, keyless as `not-needed`), the
other libraries from `openai_env` as docs/openai.md says. PicoClaw itself is run where it is on PATH; else its
request is sent as its provider builds it.

What this does NOT prove: that Archi's containers start, that PicoClaw's answers are good (the model is a small
one), or anything over a network.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dotenv
import httpx
import openai
import pytest
import yaml
from langchain_openai import ChatOpenAI

from tests.live.harness import LOOPBACK, Deployment, free_ports, garbage_waits, pace

if TYPE_CHECKING:
    from tests.live.conftest import Shared

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
QUESTION = "What is the capital of France?"
FORCED: Any = {"type": "function", "function": {"name": "get_weather"}}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Berlin"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(autouse=True)
def _garbage_waits() -> Iterator[None]:
    """No library is made to close an old stream in the middle of a new request."""
    with garbage_waits():
        yield


@pytest.fixture(scope="module")
def stack(_shared: Shared) -> Iterator[Deployment]:
    """The shared stack with one client of each kind more, and a listener without a key; put back at the end."""
    deployment = _shared.get()
    clients, ports = deployment.settings["clients"], deployment.settings["ports"]
    more = {name: {"kind": name, "cidrs": ["127.0.0.1/32"]} for name in ("archi", "openai", "picoclaw")}
    (loopback,) = free_ports(1)
    deployment.configure(clients={**clients, **more}, ports={**ports, "loopback": loopback})
    try:
        deployment.up()
        yield deployment
    finally:
        deployment.configure(clients=clients, ports=ports)
        deployment.up()


def too_long(stack: Deployment) -> str:
    """A prompt that does not fit."""
    return "word " * (int(stack.outputs()["max_model_len"]) + 16)


def one_city(arguments: str | Mapping[str, Any]) -> bool:
    """Whether a call has the one argument, with one of the values that its schema allows."""
    found = json.loads(arguments) if isinstance(arguments, str) else arguments
    return list(found) == ["city"] and found["city"] in ("Paris", "Berlin")


# --- Archi


def as_archi(stack: Deployment, output: str, **changed: Any) -> ChatOpenAI:
    """The chat model that Archi's provider makes of the file: `openai` with usage, `local` without a key."""
    chat = yaml.safe_load(stack.output(output))["services"]["chat_app"]
    name = chat["default_provider"]
    provider = chat["providers"][name]
    made: dict[str, Any] = {"model": chat["default_model"], "base_url": provider["base_url"], "streaming": True}
    if name == "openai":
        secrets = dotenv.dotenv_values(stream=io.StringIO(stack.output("archi_env")))
        made |= {"api_key": secrets["OPENAI_API_KEY"], "stream_options": {"include_usage": True}}
    else:
        assert provider["mode"] == "openai_compat"
        made["api_key"] = "not-needed"
    return ChatOpenAI(**(made | {"temperature": 0, "max_retries": 0} | changed))


ARCHI = pytest.mark.parametrize("output", ["archi_yaml", "archi_loopback_yaml"])


@ARCHI
def test_archi_gets_an_answer_whole_and_in_pieces(stack: Deployment, output: str) -> None:
    model = as_archi(stack, output, max_tokens=40)
    assert "Paris" in str(model.invoke(QUESTION).content)
    pieces = [str(each.content) for each in model.stream(QUESTION) if each.content]
    assert "Paris" in "".join(pieces)
    assert len(pieces) > 3


def test_archi_is_told_the_usage(stack: Deployment) -> None:
    """It shows it to its users."""
    answer = as_archi(stack, "archi_yaml", max_tokens=8).invoke(QUESTION)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 8


@ARCHI
def test_archis_agents_may_send_tools_and_get_calls(stack: Deployment, output: str) -> None:
    """Of their own accord without a tool_choice, as its agents do; and forced, as the small model would not."""
    model = as_archi(stack, output, max_tokens=60)
    assert model.bind_tools([WEATHER]).invoke(QUESTION).response_metadata["finish_reason"]
    (call,) = model.bind_tools([WEATHER], tool_choice="get_weather").invoke("The weather in Paris?").tool_calls
    assert call["name"] == "get_weather"
    assert one_city(call["args"])


@ARCHI
def test_archi_is_told_of_a_chat_that_is_too_long(stack: Deployment, output: str) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        as_archi(stack, output).invoke(too_long(stack))


def test_archi_is_told_of_a_wrong_key_on_either_listener(stack: Deployment) -> None:
    for output in ("archi_yaml", "archi_loopback_yaml"):
        with pytest.raises(openai.AuthenticationError):
            as_archi(stack, output, api_key="x" * 64).invoke(QUESTION)
    with pytest.raises(openai.AuthenticationError):
        as_archi(stack, "archi_yaml", api_key="not-needed").invoke(QUESTION)


# --- libraries with the variables of openai_env


@pytest.fixture
def variables(stack: Deployment, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """openai_env of the client of that kind, in the environment."""
    text = stack.outputs()["clients"]["openai"]["openai_env"]
    found = {name: value or "" for name, value in dotenv.dotenv_values(stream=io.StringIO(text)).items()}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def test_the_openai_sdk_works_with_the_variables_alone(stack: Deployment, variables: Mapping[str, str]) -> None:
    """Chat, stream, tools, and its names for a prompt that is too long and a wrong key."""
    with openai.OpenAI(max_retries=0) as client:
        ask = client.chat.completions.create
        asked: dict[str, Any] = {"model": variables["OPENAI_MODEL"], "temperature": 0, "max_tokens": 60}
        question: Any = [{"role": "user", "content": QUESTION}]
        assert "Paris" in ask(**asked, messages=question).choices[0].message.content
        events = ask(**asked, messages=question, stream=True)
        assert "Paris" in "".join(event.choices[0].delta.content or "" for event in events)
        forced = (
            ask(**asked, messages=question, tools=[WEATHER], tool_choice=FORCED).choices[0].message.tool_calls[0]
        )
        assert (forced.function.name, one_city(forced.function.arguments)) == ("get_weather", True)
        with pytest.raises(openai.BadRequestError, match="maximum context length"):
            ask(**asked, messages=[{"role": "user", "content": too_long(stack)}])
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="x" * 64).chat.completions.create(**asked, messages=question)


def test_langchain_works_with_the_variables_alone(stack: Deployment, variables: Mapping[str, str]) -> None:
    model = ChatOpenAI(model=variables["OPENAI_MODEL"], temperature=0, max_retries=0)
    assert "Paris" in str(model.invoke(QUESTION).content)
    assert "Paris" in "".join(str(each.content) for each in model.stream(QUESTION))
    (call,) = model.bind_tools([WEATHER], tool_choice="get_weather").invoke("The weather in Paris?").tool_calls
    assert one_city(call["args"])
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        model.invoke(too_long(stack))
    wrong: Any = "x" * 64
    with pytest.raises(openai.AuthenticationError):
        ChatOpenAI(model=MODEL, api_key=wrong, max_retries=0).invoke(QUESTION)


def test_litellm_works_as_the_page_says(stack: Deployment, variables: Mapping[str, str]) -> None:
    litellm: Any = importlib.import_module("litellm")  # only here: it takes seconds

    asked: dict[str, Any] = {
        "model": f"hosted_vllm/{variables['OPENAI_MODEL']}",
        "api_base": variables["OPENAI_BASE_URL"],
        "api_key": variables["OPENAI_API_KEY"],
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": 60,
    }
    assert "Paris" in litellm.completion(**asked).choices[0].message.content
    pieces = [each.choices[0].delta.content or "" for each in litellm.completion(**asked, stream=True)]
    assert "Paris" in "".join(pieces)
    # As soon as there are tools, LiteLLM 1.106 wants its extra `mcp`, unless it is told to look for no servers.
    tools = {"tools": [WEATHER], "tool_choice": FORCED, "_skip_mcp_handler": True}
    forced = litellm.completion(**asked, **tools).choices[0].message.tool_calls[0]
    # It takes `strict` out of the schema, so that what a small model fills in is its own affair.
    assert forced.function.name == "get_weather"
    for wrong, error in (
        ({"messages": [{"role": "user", "content": too_long(stack)}]}, litellm.BadRequestError),
        ({"api_key": "x" * 64}, litellm.AuthenticationError),
    ):
        with pytest.raises(error):
            litellm.completion(**{**asked, **wrong})
    # Without a key LiteLLM sends a word of its own, which the other listener takes.
    keyless = {**asked, "api_base": stack.outputs()["loopback"], "api_key": None}
    assert "Paris" in litellm.completion(**keyless).choices[0].message.content


# --- PicoClaw


def handed_to_picoclaw(stack: Deployment, output: str, folder: Path) -> dict[str, Any]:
    """Its two files, laid down as a user does, and the entry of the model in the first."""
    folder.mkdir()
    (folder / "config.json").write_text(stack.output(output))
    if output == "picoclaw_json":
        security = folder / ".security.yml"
        security.touch(mode=0o600)
        security.write_text(stack.output("picoclaw_security"))
    config = json.loads((folder / "config.json").read_text())
    (entry,) = config["model_list"]
    return {**entry, **config["agents"]["defaults"]}


PICOCLAW = pytest.mark.parametrize("output", ["picoclaw_json", "picoclaw_loopback_json"])


@PICOCLAW
def test_a_request_as_picoclaw_builds_it_is_answered(stack: Deployment, output: str, tmp_path: Path) -> None:
    """Always with tools, `auto` and max_tokens; a Bearer header only where there is a key."""
    told = handed_to_picoclaw(stack, output, tmp_path / "p")
    headers = {}
    if output == "picoclaw_json":
        (key,) = yaml.safe_load((tmp_path / "p" / ".security.yml").read_text())["model_list"]["vllm"]["api_keys"]
        headers = {"Authorization": f"Bearer {key}"}
    body = {
        "model": told["model"],
        "messages": [{"role": "user", "content": QUESTION}],
        "tools": [WEATHER],
        "tool_choice": "auto",
        "max_tokens": told["max_tokens"],
        "temperature": 0,
    }
    url = f"{told['api_base']}/chat/completions"
    answer = httpx.post(url, json=body, headers=headers, timeout=told["request_timeout"])
    assert answer.status_code == 200, answer.text
    long = {**body, "messages": [{"role": "user", "content": too_long(stack)}]}
    refused = httpx.post(url, json=long, headers=headers, timeout=told["request_timeout"])
    # By these words PicoClaw shortens its history and tries again.
    assert (refused.status_code, "maximum context length" in refused.text) == (400, True)
    wrong = httpx.post(url, json=body, headers={"Authorization": f"Bearer {'x' * 64}"}, timeout=60)
    assert wrong.status_code == 401


@PICOCLAW
def test_picoclaw_itself_answers(stack: Deployment, output: str, tmp_path: Path) -> None:
    program = shutil.which("picoclaw")
    if program is None:
        pytest.skip("picoclaw is not on PATH")
    handed_to_picoclaw(stack, output, tmp_path / "p")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PICOCLAW_HOME": str(tmp_path / "p"),
                   "PICOCLAW_CONFIG": str(tmp_path / "p" / "config.json")}  # fmt: skip
    done = subprocess.run(
        [program, "agent", "-m", QUESTION],
        env=environment,
        capture_output=True,
        text=True,
        timeout=pace.of(300),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    name = "picoclaw" if output == "picoclaw_json" else "_loopback"
    assert f"client={name} POST" in stack.log(stack.edge)


# --- the listener without a key


def test_the_doctor_finds_the_listener_without_a_key_well(stack: Deployment) -> None:
    done = stack.checkout.run("doctor", stack.stack)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"port {stack.settings['ports']['loopback']} (loopback): the stack's own" in done.stdout


# --- files that are there already

SEED: Mapping[str, tuple[str, str, str]] = {
    "picoclaw": (
        '{"agents": {"defaults": {"model": "m"}}, "providers": {"vllm": {"api_base": "http://localhost:8000/v1"}}}',
        "FAILED providers:",
        "picoclaw_json",
    ),
    "archi": (
        "archi: {pipeline_map: {}}\nservices:\n  vllm: {model: Qwen/Qwen3-8B, tool_parser: hermes}\n",
        "FAILED services.vllm:",
        "archi_yaml",
    ),
}


@pytest.mark.parametrize("client", SEED)
def test_an_old_file_is_refused_and_what_to_write_instead_is_taken(
    stack: Deployment, client: str, tmp_path: Path
) -> None:
    text, wrong, output = SEED[client]
    file = tmp_path / "file"
    file.write_text(text)
    form = ("check", stack.stack, "--client", client, "--file", str(file))
    refused = stack.checkout.run(*form)
    assert refused.returncode == 1
    assert wrong in refused.stdout
    assert stack.output(output) in refused.stdout
    assert stack.key(client) not in refused.stdout
    file.write_text(stack.output(output))
    taken = stack.checkout.run(*form)
    assert (taken.returncode, LOOPBACK in taken.stdout) == (0, True), taken.stdout + taken.stderr
