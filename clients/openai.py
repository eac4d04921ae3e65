"""Any OpenAI-style client: the two environment variables its SDKs read, and a request to try by hand."""

import json
import shlex

from clients.endpoint import CA_FILE, SAVE_CA, ClientEndpoint

QUESTION = "What is the capital of France?"


def env(endpoint: ClientEndpoint) -> str:
    """Shell lines for the `openai` SDK, LiteLLM and whatever else reads OPENAI_*."""
    ca = f"# private CA: {SAVE_CA}\nSSL_CERT_FILE='{CA_FILE}'\n" if endpoint.private_ca else ""
    return (
        f"OPENAI_BASE_URL='{endpoint.base_url}'\n"
        f"OPENAI_API_KEY='{endpoint.key}'\n"
        f"OPENAI_MODEL='{endpoint.model}'\n"
        f"{ca}"
    )


def curl(endpoint: ClientEndpoint) -> str:
    """One line for a shell that asks the model a question.

    The key goes to curl on standard input (printf is part of the shell): every user of the computer can read
    the arguments of a program.
    """
    body = json.dumps(
        {"model": endpoint.model, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    )
    trust = f"--cacert {CA_FILE} " if endpoint.private_ca else ""
    interface = f"--interface {endpoint.source} " if endpoint.source else ""
    header = shlex.quote(f'header = "Authorization: Bearer {endpoint.key}"')
    return (
        f"printf %s {header} | curl -sS -K - {trust}{interface}{endpoint.base_url}/chat/completions"
        f" -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    )
