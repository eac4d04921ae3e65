"""All settings texts of one client, by output name."""

from collections.abc import Mapping
from typing import Literal

from clients import openai, seatable
from clients.endpoint import ClientEndpoint

Kind = Literal["seatable", "openai"]


def blocks(kind: Kind, endpoint: ClientEndpoint) -> Mapping[str, str]:
    """The client's key and every text to paste. All of them hold the key."""
    texts = {"key": endpoint.key, "openai_env": openai.env(endpoint), "curl": openai.curl(endpoint)}
    if kind == "seatable":
        texts |= {"seatable_yaml": seatable.config_yaml(endpoint), "seatable_env": seatable.env(endpoint)}
    return texts
