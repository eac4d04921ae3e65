"""What the clients are told: every settings text, as stack outputs that are secret as a whole."""

from collections.abc import Mapping
from typing import Any, TypedDict

import pulumi

from clients.blocks import blocks
from clients.endpoint import ClientEndpoint
from components.edge import Edge
from components.inference import Inference
from components.keys import Keys
from components.machine import Machine
from components.readiness import Readiness
from settings import Settings

TYPE = "seatable-vllm:index:ClientSettings"


class ClientSettingsArgs(TypedDict):
    """Everything that the texts are made from."""

    settings: Settings
    """The stack's settings."""
    machine: Machine
    """Where the endpoint runs."""
    inference: Inference
    """What serves them."""
    edge: Edge
    """Where clients connect."""
    keys: Keys
    """Each client's keys; the newest one is handed out."""
    readiness: Readiness
    """Nothing is handed out before the endpoint is proved."""


class ClientSettings(pulumi.ComponentResource):
    """The stack's outputs."""

    outputs: dict[str, pulumi.Input[Any]]
    """Every stack output by name."""

    def __init__(self, name: str, args: ClientSettingsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(
            TYPE,
            name,
            None,
            pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[args["readiness"]])),
        )
        settings, machine, edge = args["settings"], args["machine"], args["edge"]
        per_client = {client: self._texts(client, args) for client in settings.clients}
        proved = args["readiness"].proved.urn
        self.outputs = {
            "endpoint": proved.apply(lambda _: edge.base_url),
            "model": settings.model.name,
            "max_model_len": settings.model.context_tokens,
            "tool_parser": settings.model.parser or "none",
            "vision": settings.model.vision,
            "image": args["inference"].container.image,
            "allowed": {client: list(each.cidrs) for client, each in settings.clients.items()},
            "machine": {
                "kind": machine.kind,
                "address": machine.address,
                "identity": machine.identity,
                "device": machine.device,
            },
            **({"tunnel": tunnel} if (tunnel := machine.tunnel(settings.ports.edge)) else {}),
            "clients": pulumi.Output.all(**per_client),
            **_shortcuts(settings, per_client),
        }
        self.register_outputs({})

    @staticmethod
    def _texts(client: str, args: ClientSettingsArgs) -> pulumi.Output[Mapping[str, str]]:
        settings, base_url, machine_address = args["settings"], args["edge"].base_url, args["machine"].address
        model = settings.model

        here = settings.local_source(client)
        source = None if here == machine_address else here

        def texts(key: str) -> Mapping[str, str]:
            return blocks(
                settings.clients[client].kind,
                ClientEndpoint(base_url, key, model.name, model.context_tokens, source),
            )

        return args["keys"].newest(client).apply(texts)


def _shortcuts(
    settings: Settings, per_client: Mapping[str, pulumi.Output[Mapping[str, str]]]
) -> dict[str, pulumi.Input[Any]]:
    """The texts most people want, without a path through `clients`: those of the first client of each kind."""
    chosen = {"openai_env": next(iter(settings.clients)), "curl": settings.proving_client()}
    for client in settings.clients:
        if settings.clients[client].kind == "seatable":
            chosen |= {"seatable_yaml": client, "seatable_env": client}
            break
    return {name: per_client[client][name] for name, client in chosen.items()}
