"""An endpoint as one client of a stack sees it, put together from the stack's outputs."""

from typing import Any

from checks.endpoint import Target
from scripts.commands.errors import CommandError
from settings import Settings


def client_target(settings: Settings, outputs: dict[str, Any], client: str) -> Target:
    """What to check, with this client's key and from one of its addresses."""
    if client not in outputs["clients"]:
        raise CommandError(f"there is no client {client!r}; known: {', '.join(outputs['clients'])}")
    return Target(
        base_url=outputs["endpoint"],
        key=outputs["clients"][client]["key"],
        model=outputs["model"],
        max_model_len=int(outputs["max_model_len"]),
        tools=outputs["tool_parser"] != "none",
        source=settings.local_source(client),
        ca=outputs.get("ca_certificate", ""),
    )
