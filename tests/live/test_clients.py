"""The clients that users have, with the settings they are handed: openai, LiteLLM as SeaTable AI has it, curl.

What this does NOT prove: that the answers are good (the model is a small one), or that SeaTable AI itself, which
is not public, does nothing else; what is known of it is LiteLLM's `hosted_vllm` with the settings of
`seatable_config.yaml`, or up to release 6.1 of `.env`.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import dotenv
import httpx
import openai
import pytest
import yaml

from checks.endpoint import CHECKS
from tests.live.harness import LOOPBACK, Deployment, garbage_waits, pace

# LiteLLM would else ask the network for prices when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
SEATABLE_SECONDS = 180
"""SeaTable AI's patience."""

AGENTS = "127.0.0.2"

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


def sdk(deployment: Deployment, key: str, *, source: str = LOOPBACK, **options: Any) -> openai.OpenAI:
    """The OpenAI SDK for this key, sending from this address, asking once."""
    transport = httpx.HTTPTransport(local_address=source)
    settings: dict[str, Any] = {"base_url": deployment.base_url, "max_retries": 0, **options}
    return openai.OpenAI(api_key=key, http_client=httpx.Client(transport=transport, timeout=180), **settings)


@pytest.fixture(autouse=True)
def _garbage_waits() -> Iterator[None]:
    """No library is made to close an old stream in the middle of a new request."""
    with garbage_waits():
        yield


@pytest.fixture
def client(deployment: Deployment) -> Iterator[openai.OpenAI]:
    """The OpenAI SDK with the key of `seatable`."""
    with sdk(deployment, deployment.key()) as each:
        yield each


@pytest.fixture
def messages() -> Any:
    """A question whose answer is known."""
    return QUESTION


# --- openai


def test_openai_lists_exactly_the_model_it_is_told(client: openai.OpenAI, deployment: Deployment) -> None:
    """SeaTable bills by this id, letter for letter."""
    assert [model.id for model in client.models.list()] == [deployment.outputs()["model"]] == [MODEL]


def test_openai_gets_an_answer_with_its_usage(client: openai.OpenAI, messages: Any) -> None:
    """Usage must be in every answer: it is what is billed."""
    answer = client.chat.completions.create(model=MODEL, messages=messages, temperature=0, max_tokens=40)
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_openai_gets_a_plain_completion(client: openai.OpenAI) -> None:
    """The older of the two doors."""
    answer = client.completions.create(model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=8)
    assert "Paris" in answer.choices[0].text


def test_openai_streams_the_same_answer_in_pieces(client: openai.OpenAI, messages: Any) -> None:
    """Greedy, so that the stream and the whole answer must agree."""
    asked: dict[str, Any] = {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 40}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    events = list(stream)
    pieces = [choice.delta.content for event in events for choice in event.choices if choice.delta.content]
    assert "".join(pieces) == whole
    assert len(pieces) > 3
    assert events[-1].usage is not None


def test_openai_may_send_tools_with_every_request(client: openai.OpenAI, messages: Any) -> None:
    """Agents do; without its two options vLLM would answer 400."""
    answer = client.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, max_tokens=40, tools=[WEATHER], tool_choice="auto"
    )
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")


def test_openai_gets_a_tool_call_with_the_arguments_that_the_tool_takes(client: openai.OpenAI) -> None:
    """A named tool with a strict schema, so that it does not hang on what a small model thinks of it."""
    question: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    named: Any = {"type": "function", "function": {"name": "get_weather"}}
    answer = client.chat.completions.create(
        model=MODEL, messages=question, temperature=0, max_tokens=60, tools=[WEATHER], tool_choice=named
    )
    calls = answer.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls if call.type == "function"] == ["get_weather"]
    assert calls[0].type == "function"
    assert json.loads(calls[0].function.arguments)["city"] in ("Paris", "Berlin")


def test_openai_names_a_wrong_key_as_such(deployment: Deployment, messages: Any) -> None:
    """AuthenticationError is what clients tell their users to look at the key for."""
    with sdk(deployment, "x" * 64) as wrong, pytest.raises(openai.AuthenticationError):
        wrong.chat.completions.create(model=MODEL, messages=messages)


def test_openai_names_a_key_from_a_wrong_address_as_such(deployment: Deployment, messages: Any) -> None:
    """PermissionDeniedError, with the edge's own words."""
    with (
        sdk(deployment, deployment.key(), source=AGENTS) as elsewhere,
        pytest.raises(openai.PermissionDeniedError, match="not allowed from this address"),
    ):
        elsewhere.chat.completions.create(model=MODEL, messages=messages)


def test_openai_names_a_wrong_model_as_such(client: openai.OpenAI, messages: Any) -> None:
    """NotFoundError that says which one."""
    with pytest.raises(openai.NotFoundError, match="no/such-model"):
        client.chat.completions.create(model="no/such-model", messages=messages)


def test_openai_names_a_base_url_without_its_v1_as_such(deployment: Deployment, messages: Any) -> None:
    """The commonest mistake in a settings form: not a door, so 404 and not some answer of vLLM's."""
    base_url = deployment.base_url.removesuffix("/v1")
    with sdk(deployment, deployment.key(), base_url=base_url) as short, pytest.raises(openai.NotFoundError):
        short.chat.completions.create(model=MODEL, messages=messages)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_openai_names_a_prompt_that_is_too_long_as_such(
    client: openai.OpenAI, deployment: Deployment, stream: bool
) -> None:
    """BadRequestError with the limit in it: agents shorten their history by these words."""
    limit = deployment.outputs()["max_model_len"]
    long: Any = [{"role": "user", "content": "word " * (limit + 16)}]
    with pytest.raises(openai.BadRequestError, match=rf"maximum context length is {limit}"):
        client.chat.completions.create(model=MODEL, messages=long, stream=stream)


def test_every_client_of_the_stack_gets_on_with_its_own_settings(deployment: Deployment, messages: Any) -> None:
    """`agents` sends from an address of its own."""
    for name, source in (("seatable", LOOPBACK), ("agents", AGENTS)):
        settings = dotenv.dotenv_values(stream=io.StringIO(deployment.outputs()["clients"][name]["openai_env"]))
        key, base_url = settings["OPENAI_API_KEY"] or "", settings["OPENAI_BASE_URL"]
        with sdk(deployment, key, source=source, base_url=base_url) as each:
            answer = each.chat.completions.create(
                model=settings["OPENAI_MODEL"] or "", messages=messages, max_tokens=1
            )
        assert answer.usage is not None


# --- LiteLLM, as SeaTable AI has it


def from_yaml(deployment: Deployment) -> dict[str, Any]:
    """What SeaTable 6.2 and later reads."""
    (model,) = yaml.safe_load(deployment.output("seatable_yaml"))["global"]["LLM_MODELS"]
    assert model["type"] == "hosted_vllm"
    return {"model": f"{model['type']}/{model['model']}", "api_base": model["url"], "api_key": model["key"]}


def from_env(deployment: Deployment) -> dict[str, Any]:
    """What SeaTable up to 6.1 reads."""
    values = dotenv.dotenv_values(stream=io.StringIO(deployment.output("seatable_env")))
    assert values["SEATABLE_AI_LLM_TYPE"] == "hosted_vllm"
    assert values["SEATABLE_AI_LLM_TIMEOUT"] == str(SEATABLE_SECONDS)
    return {
        "model": f"{values['SEATABLE_AI_LLM_TYPE']}/{values['SEATABLE_AI_LLM_MODEL']}",
        "api_base": values["SEATABLE_AI_LLM_URL"],
        "api_key": values["SEATABLE_AI_LLM_KEY"],
    }


SETTINGS: dict[str, Callable[[Deployment], dict[str, Any]]] = {
    "seatable_yaml": from_yaml,
    "seatable_env": from_env,
}


@pytest.fixture(scope="session")
def litellm() -> Any:
    """The library, imported only where it is used: it takes seconds."""
    import litellm  # noqa: PLC0415

    return litellm


@pytest.mark.parametrize("output", SETTINGS)
def test_seatable_ai_gets_an_answer_with_the_settings_it_is_handed(
    deployment: Deployment, litellm: Any, messages: Any, output: str
) -> None:
    """The model's id arrives at vLLM as it is listed, without LiteLLM's prefix."""
    asked = SETTINGS[output](deployment)
    answer = litellm.completion(**asked, messages=messages, timeout=SEATABLE_SECONDS, temperature=0, max_tokens=40)
    assert "Paris" in answer.choices[0].message.content
    assert answer.model.removeprefix("hosted_vllm/") == MODEL
    assert answer.usage.completion_tokens > 0


@pytest.mark.parametrize("output", SETTINGS)
def test_seatable_ai_may_stream(deployment: Deployment, litellm: Any, messages: Any, output: str) -> None:
    """In pieces, and whole."""
    asked = {**SETTINGS[output](deployment), "messages": messages, "temperature": 0, "max_tokens": 40}
    pieces = [
        event.choices[0].delta.content or ""
        for event in litellm.completion(**asked, timeout=SEATABLE_SECONDS, stream=True)
    ]
    assert "Paris" in "".join(pieces)
    assert len([piece for piece in pieces if piece]) > 3


def test_seatable_ai_is_told_what_is_wrong(deployment: Deployment, litellm: Any, messages: Any) -> None:
    """LiteLLM's own names for a wrong key, a wrong model and a prompt that is too long."""
    asked = {**from_yaml(deployment), "timeout": SEATABLE_SECONDS, "max_tokens": 1}
    long = [{"role": "user", "content": "word " * (deployment.outputs()["max_model_len"] + 16)}]
    for wrong, error in (
        ({"api_key": "x" * 64, "messages": messages}, litellm.AuthenticationError),
        ({"model": "hosted_vllm/no/such-model", "messages": messages}, litellm.NotFoundError),
        ({"messages": long}, litellm.BadRequestError),
    ):
        with pytest.raises(error):
            litellm.completion(**{**asked, **wrong})


# --- shells


def shell(program: str, script: str, **environment: str) -> str:
    """What a script prints that is pasted into this shell; it must end well and without a complaint."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "SEATABLE_"))}
    done = subprocess.run(
        [program],
        input=script,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=pace.of(300),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("program", ["sh", "bash"])
def test_the_curl_line_answers_when_it_is_pasted(deployment: Deployment, program: str) -> None:
    """The line that `up` ends with, as it stands, on this computer."""
    answer = json.loads(shell(program, deployment.output("curl")))
    assert "choices" in answer, answer
    assert "Paris" in answer["choices"][0]["message"]["content"]


def test_the_curl_line_answers_as_the_readme_has_it(deployment: Deployment) -> None:
    """bash -c "$(scripts/output STACK curl)"."""
    form = f'bash -c "$(cd "{deployment.checkout.path}" && scripts/output {deployment.stack} curl)"'
    answer = json.loads(shell("bash", form))
    assert "choices" in answer, answer
    assert "Paris" in answer["choices"][0]["message"]["content"]


def test_the_curl_line_at_the_end_of_up_is_the_output_of_that_name(deployment: Deployment) -> None:
    """So that what is tested here is what a person pastes."""
    done = deployment.checkout.run("up", deployment.stack, *deployment.how, "--show-secrets")
    printed = done.stdout.split("\n--- try it\n")[1].strip()
    assert printed == deployment.output("curl").strip()
    assert "\n" not in printed


def test_each_curl_line_answers_from_its_clients_own_address(deployment: Deployment) -> None:
    """One that is pasted where the client is, which here is an address of this computer."""
    for name, source in (("seatable", LOOPBACK), ("agents", AGENTS)):
        line = deployment.outputs()["clients"][name]["curl"]
        if "--interface" not in line:
            line = line.replace("| curl ", f"| curl --interface {source} ")
        assert "Paris" in shell("sh", line)


@pytest.mark.parametrize("program", ["sh", "bash"])
def test_the_openai_settings_work_when_they_are_sourced(deployment: Deployment, program: str) -> None:
    """The SDK finds its address and its key in the environment."""
    client = next(iter(deployment.outputs()["clients"]))
    source = str(deployment.settings["clients"][client]["cidrs"][0]).removesuffix("/32")
    python = f"""
import os, httpx, openai
transport = httpx.HTTPTransport(local_address={source!r})
with openai.OpenAI(max_retries=0, http_client=httpx.Client(transport=transport, timeout=180)) as client:
    messages = [{{"role": "user", "content": "What is the capital of France?"}}]
    answer = client.chat.completions.create(model=os.environ["OPENAI_MODEL"], messages=messages, temperature=0)
    print(answer.choices[0].message.content)
"""
    sourced = f"set -a\n{deployment.output('openai_env')}\nset +a\n"
    assert "Paris" in shell(program, f"{sourced}exec {sys.executable} - <<'PYTHON'\n{python}\nPYTHON\n")


def test_the_seatable_lines_can_be_appended_to_an_env_file(deployment: Deployment) -> None:
    """By the line in the README, to a file that is there; read as Compose and as a shell read it."""
    file = deployment.checkout.path / ".env"
    file.write_text("COMPOSE_FILE='caddy.yml,seatable-server.yml'\nSEATABLE_SERVER_HOSTNAME=x\n")
    try:
        appended = f"cd '{deployment.checkout.path}' && scripts/output {deployment.stack} seatable_env >> .env"
        assert shell("sh", appended) == ""
        values = dotenv.dotenv_values(file)
        told = shell("sh", f"set -a; . '{file}'; exec env -0").split("\0")
    finally:
        file.unlink()
    sourced = dict(item.split("=", 1) for item in told if item)
    key = deployment.key()
    wanted = {
        "COMPOSE_FILE": "caddy.yml,seatable-server.yml",
        "SEATABLE_SERVER_HOSTNAME": "x",
        "SEATABLE_AI_LLM_TYPE": "hosted_vllm",
        "SEATABLE_AI_LLM_URL": deployment.base_url,
        "SEATABLE_AI_LLM_KEY": key,
        "SEATABLE_AI_LLM_MODEL": MODEL,
        "SEATABLE_AI_LLM_TIMEOUT": str(SEATABLE_SECONDS),
    }
    assert values == wanted
    assert {name: sourced.get(name) for name in wanted} == wanted


# --- the project's own check


@pytest.mark.parametrize("client_name", ["seatable", "agents"])
def test_the_checks_pass_for_each_client(deployment: Deployment, client_name: str) -> None:
    """From an address of its own."""
    done = deployment.checkout.run("check", deployment.stack, "--client", client_name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert done.stdout.count("\nok ") == len(CHECKS), done.stdout
