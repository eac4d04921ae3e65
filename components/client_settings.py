"""What the clients are told: every settings text, as a stack output; what has a key in it is secret as a whole."""

from collections.abc import Mapping
from typing import Any, TypedDict

import pulumi

from clients.blocks import KEYLESS, blocks, own_blocks
from clients.endpoint import ClientEndpoint
from clients.suitability import warnings
from components.certificates import Certificates
from components.dns import Dns
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
    certificates: Certificates | None
    """What the edge shows, or None where it speaks plain HTTP."""
    keys: Keys
    """Each client's keys; the newest one is handed out."""
    readiness: Readiness
    """Nothing is handed out before the endpoint is proved."""
    dns: Dns | None
    """The endpoint's name where the program sees to it, or None."""


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
        settings, machine, edge, dns = args["settings"], args["machine"], args["edge"], args["dns"]
        for line in warnings(settings):
            pulumi.log.warn(line)
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
                **machine.facts,
            },
            "capacity": args["readiness"].capacity,
            **({"dns": {"made": dns.made, "records": dns.records}} if dns else {}),
            **_tunnel(settings, machine),
            "clients": pulumi.Output.all(**per_client),
            **_certificate(settings, args["certificates"]),
            **({"loopback": loopback} if (loopback := _loopback_url(settings)) else {}),
            **_shortcuts(settings, per_client),
        }
        self.register_outputs({})

    @staticmethod
    def _texts(client: str, args: ClientSettingsArgs) -> pulumi.Output[Mapping[str, str]]:
        settings, base_url, certificates = args["settings"], args["edge"].base_url, args["certificates"]
        model, here = settings.model, settings.local_source(client)
        source = None if here == args["machine"].address else here

        def texts(known: Mapping[str, str]) -> Mapping[str, str]:
            return blocks(
                settings.clients[client].kind,
                ClientEndpoint(
                    base_url,
                    known["key"],
                    model.name,
                    model.context_tokens,
                    source,
                    private_ca=bool(known["ca"]),
                    loopback=_loopback_url(settings),
                    fallbacks=tuple(settings.clients[client].fallbacks),
                ),
            )

        ca = certificates.ca if certificates else ""
        return pulumi.Output.all(key=args["keys"].newest(client), ca=ca).apply(texts)


def _certificate(settings: Settings, certificates: Certificates | None) -> dict[str, pulumi.Input[Any]]:
    """The outputs that only a stack with a domain has."""
    if certificates is None or settings.domain is None:
        return {}
    told: dict[str, pulumi.Input[Any]] = {
        "certificate": {
            "host": certificates.host,
            "issuer": settings.domain.tls,
            "not_after": certificates.not_after,
        },
        "ca_certificate": certificates.ca,
    }
    return told | ({"route53_policy": certificates.policy} if certificates.policy else {})


def _tunnel(settings: Settings, machine: Machine) -> dict[str, pulumi.Input[Any]]:
    """The way to the port that only the machine itself reaches; none where clients come without one."""
    port = settings.ports.loopback or (None if settings.domain else settings.ports.edge)
    line = machine.tunnel(port) if port else None
    return {"tunnel": line} if line else {}


def _loopback_url(settings: Settings) -> str | None:
    port = settings.ports.loopback
    return f"http://127.0.0.1:{port}/v1" if port else None


def _shortcuts(
    settings: Settings, per_client: Mapping[str, pulumi.Output[Mapping[str, str]]]
) -> dict[str, pulumi.Input[Any]]:
    """The texts most people want, without a path through `clients`: those of the first client of each kind."""
    chosen = {"openai_env": next(iter(settings.clients)), "curl": settings.proving_client()}
    for client, each in reversed(settings.clients.items()):
        chosen |= dict.fromkeys(own_blocks(each.kind, loopback=settings.ports.loopback is not None), client)
    found = {name: per_client[client][name] for name, client in chosen.items()}
    # What stands beside the key in `clients` is secret with it; these hold none, and may be kept with other files.
    return {name: pulumi.Output.unsecret(text) if name in KEYLESS else text for name, text in found.items()}
