"""Any OpenAI-style client: the two environment variables its SDKs read, and a request to try by hand."""

import json
import shlex

from clients.endpoint import ClientEndpoint

QUESTION = "What is the capital of France?"


def env(endpoint: ClientEndpoint) -> str:
    """Shell lines for the `openai` SDK, LiteLLM and whatever else reads OPENAI_*."""
    return (
        f"OPENAI_BASE_URL='{endpoint.base_url}'\n"
        f"OPENAI_API_KEY='{endpoint.key}'\n"
        f"OPENAI_MODEL='{endpoint.model}'\n"
    )


def curl(endpoint: ClientEndpoint) -> str:
    """One line for a shell that asks the model a question.

    The key goes to curl on standard input (printf is part of the shell): every user of the computer can read
    the arguments of a program.
    """
    body = json.dumps(
        {"model": endpoint.model, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    )
    interface = f"--interface {endpoint.source} " if endpoint.source else ""
    header = shlex.quote(f'header = "Authorization: Bearer {endpoint.key}"')
    return (
        f"printf %s {header} | curl -sS -K - {interface}{endpoint.base_url}/chat/completions"
        f" -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    )
