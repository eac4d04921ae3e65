"""SeaTable AI: the `.env` of releases up to 6.1, the `seatable_config.yaml` of 6.2 and later.

SeaTable AI calls the endpoint through LiteLLM as `hosted_vllm`, sends the model id verbatim and bills by it.
"""

import yaml

from clients.endpoint import CA_FILE, SAVE_CA, ClientEndpoint

TIMEOUT_SECONDS = 180
"""SeaTable's own patience for one answer; a longer one here would not be used."""

_TIMEOUT = f"SEATABLE_AI_LLM_TIMEOUT={TIMEOUT_SECONDS}"
"""The one line about the model that every release from 6.1 on reads from `.env`."""

MOVED = tuple(f"SEATABLE_AI_LLM_{name}" for name in ("TYPE", "URL", "KEY", "MODEL"))
"""Lines of `.env` that 6.2 replaced by `LLM_MODELS`: its upgrade script asks for them to be moved there."""

RESTART_6_1 = "docker compose up -d"
RESTART_6_2 = "docker compose up -d --force-recreate seatable-ai"
"""Without --force-recreate the container keeps reading the file that was there when it was made."""


def _trust(endpoint: ClientEndpoint) -> str:
    """How the container of SeaTable AI is made to trust a private CA. Nothing in it looks at the host's roots.

    LiteLLM's client reads SSL_CERT_FILE, and `requests` REQUESTS_CA_BUNDLE. Both take the place of the public
    roots, so the file has those too.
    """
    if not endpoint.private_ca:
        return ""
    return (
        "# The endpoint has a certificate of a private CA, which SeaTable AI has to be told of:\n"
        f"#   {SAVE_CA}   # on the computer that runs Pulumi; bring it over\n"
        f"#   cat /etc/ssl/certs/ca-certificates.crt {CA_FILE} > /opt/seatable-compose/ca-bundle.pem\n"
        "# and for the service seatable-ai, in a compose file of yours that .env lists in COMPOSE_FILE:\n"
        "#   volumes: ['/opt/seatable-compose/ca-bundle.pem:/ca-bundle.pem:ro']\n"
        "#   environment: {SSL_CERT_FILE: /ca-bundle.pem, REQUESTS_CA_BUNDLE: /ca-bundle.pem}\n"
    )


def env(endpoint: ClientEndpoint) -> str:
    """Lines for the `.env` beside SeaTable's compose files, releases up to 6.1."""
    return (
        # An .env without a newline at its end would else take the first line for a part of its last value.
        f"\n# SeaTable up to 6.1: append to .env on the SeaTable AI host, then: {RESTART_6_1}\n"
        f"{_trust(endpoint)}"
        "SEATABLE_AI_LLM_TYPE='hosted_vllm'\n"
        f"SEATABLE_AI_LLM_URL='{endpoint.base_url}'\n"
        f"SEATABLE_AI_LLM_KEY='{endpoint.key}'\n"
        f"SEATABLE_AI_LLM_MODEL='{endpoint.model}'\n"
        f"{_TIMEOUT}\n"
    )


def config_yaml(endpoint: ClientEndpoint) -> str:
    """The block for `/opt/seatable-server/seatable/conf/seatable_config.yaml`, release 6.2 and later."""
    model = {
        "type": "hosted_vllm",
        "url": endpoint.base_url,
        "key": endpoint.key,
        "model": endpoint.model,
    }
    block: str = yaml.safe_dump({"global": {"LLM_MODELS": [model]}}, sort_keys=False, width=1000)
    return (
        "# SeaTable 6.2 and later: put into /opt/seatable-server/seatable/conf/seatable_config.yaml,\n"
        f"# then: {RESTART_6_2}\n"
        f"# .env beside the compose files: {_TIMEOUT} stays there (180 is the default);\n"
        f"# take out {', '.join(MOVED)}\n"
        f"{_trust(endpoint)}{block}"
    )
