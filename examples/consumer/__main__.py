"""A program's `.env`, written from the outputs of an endpoint's stack, and written again when they change."""

from collections.abc import Mapping

import pulumi
from pulumi_command import local

config = pulumi.Config()
reference = config.require("endpoint")
client = config.require("client")
endpoint = pulumi.StackReference("endpoint", stack_name=reference)


def settings_of(clients: Mapping[str, Mapping[str, str]]) -> str:
    """The lines OPENAI_* of the client; RunError where the endpoint has none of this name."""
    if client not in clients:
        known = ", ".join(sorted(clients))
        raise pulumi.RunError(f"endpoint-consumer:client: {reference} has no client {client!r}, but {known}")
    return clients[client]["openai_env"]


env_file = local.Command(
    "env-file",
    # The text comes on standard input, as it holds the key: every user of the computer sees arguments. The file
    # takes the old one's place at once, so that nobody reads half of it.
    create='umask 077 && part="$ENV_FILE.part" && rm -f "$part" && cat > "$part" && mv "$part" "$ENV_FILE" '
    '&& sh -c "$RESTART"',
    delete='rm -f "$ENV_FILE"',
    environment={"ENV_FILE": config.require("env_file"), "RESTART": config.get("restart") or ":"},
    # `clients` is a secret of that stack, and so is all that is made of it here.
    stdin=endpoint.require_output("clients").apply(settings_of),
    # Another path is another file: the old one is to be removed.
    opts=pulumi.ResourceOptions(replace_on_changes=["environment"], delete_before_replace=True),
)

pulumi.export("endpoint", endpoint.require_output("endpoint"))
pulumi.export("model", endpoint.require_output("model"))
pulumi.export("env_file", env_file.environment.apply(lambda known: (known or {})["ENV_FILE"]))
