"""The keys: one per client and generation, and the engine's own, which never leaves the machine."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import pulumi
import pulumi_random as random

TYPE = "seatable-vllm:index:Keys"

LENGTH = 64
"""Characters. Letters and digits alone: others break SeaTable's `.env` and need quoting everywhere."""


class KeysArgs(TypedDict):
    """Who gets keys."""

    generations: Mapping[str, Sequence[int]]
    """Valid generations of each client's key, oldest first. A new number is a new key."""
    prober: bool
    """Whether the last gate needs a key of its own, because no client may come from the machine itself."""


class Keys(pulumi.ComponentResource):
    """Generated keys, as Pulumi secrets."""

    engine: pulumi.Output[str]
    """What the edge shows to vLLM in place of a client's key."""
    clients: Mapping[str, Sequence[pulumi.Output[str]]]
    """The valid keys of each client, oldest first."""
    prober: pulumi.Output[str] | None
    """The last gate's own key; it is never handed out, and valid on the machine itself alone."""

    def __init__(self, name: str, args: KeysArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        self.engine = self._key(f"{name}-engine")
        self.clients = {
            client: [self._key(f"{name}-{client}-{generation}") for generation in generations]
            for client, generations in args["generations"].items()
        }
        self.prober = self._key(f"{name}-prober") if args["prober"] else None
        self.register_outputs({})

    def newest(self, client: str) -> pulumi.Output[str]:
        """The key to hand out to this client."""
        return self.clients[client][-1]

    def _key(self, name: str) -> pulumi.Output[str]:
        made = random.RandomPassword(name, length=LENGTH, special=False, opts=pulumi.ResourceOptions(parent=self))
        return pulumi.Output.secret(made.result)
