"""The last gate: `up` ends only when a real completion came through the edge, or with the reason why not."""

import json
from typing import TypedDict

import pulumi

from catalog.forecast import tokens_on_cpu
from catalog.vllm import Device
from checks.bundle import gate_program
from checks.cache import held_in
from components.certificates import Certificates
from components.edge import Edge
from components.inference import Inference
from components.machine import Machine
from components.machine.machine import PYTHON
from settings import Model

TYPE = "seatable-vllm:index:Readiness"

DEADLINE_SECONDS = 1800
"""Patience for a start with the weights on the disk. A crash loop ends it at once."""


class ReadinessArgs(TypedDict):
    """What is to be proved, and with whose key."""

    machine: Machine
    """The machine the gate runs on."""
    inference: Inference
    """The engine that is waited for."""
    edge: Edge
    """The way that the request takes."""
    certificates: Certificates | None
    """What the edge has to show, or None where it speaks plain HTTP."""
    model: Model
    """What must be served."""
    key: pulumi.Input[str]
    """A client's key that is valid from the machine itself."""
    source: str | None
    """Local address to send from, or None for any."""
    engine_port: int
    """Where the engine itself answers on the machine; it is asked how much it holds."""


class Capacity(TypedDict):
    """How much an engine holds at once."""

    tokens: int
    """Tokens of keys and values: prompts and answers of all requests together."""
    requests: int
    """Requests of the longest prompt plus answer."""
    forecast_tokens: int | None
    """What was forecast; None where only the engine can know, as on a GPU."""


def capacity_of(printed: str, model: Model, device: Device) -> Capacity | None:
    """By what the gate printed."""
    held = held_in(printed)
    if held is None:
        return None
    tokens, requests = held
    forecast = tokens_on_cpu(model.name, model.context_tokens, model.extra_args) if device == "cpu" else None
    return {"tokens": tokens, "requests": requests, "forecast_tokens": forecast}


class Readiness(pulumi.ComponentResource):
    """The proof that the endpoint works."""

    proved: pulumi.Resource
    """Done when the checks have passed."""
    capacity: pulumi.Output[Capacity | None]
    """What the engine found room for when it began; None where it did not say."""

    def __init__(self, name: str, args: ReadinessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        inference, edge = args["inference"], args["edge"]
        model, source, certificates = args["model"], args["source"], args["certificates"]

        def order(key: str, ca: str) -> str:
            target = {
                "base_url": edge.base_url,
                "key": key,
                "model": model.name,
                "max_model_len": model.context_tokens,
                "tools": model.parser is not None,
                "source": source,
                # The name may lead elsewhere from here, or to an address that cannot be reached from inside.
                "address": "127.0.0.1" if certificates else None,
                "ca": ca,
            }
            return json.dumps(
                {
                    "engine": inference.container_name,
                    "edge": edge.container_name,
                    "deadline_seconds": DEADLINE_SECONDS,
                    "engine_port": args["engine_port"],
                    "target": target,
                }
            )

        ran = args["machine"].run(
            f"{name}-gate",
            {
                "program": pulumi.Output.all(
                    key=pulumi.Output.secret(args["key"]), ca=certificates.ca if certificates else ""
                ).apply(lambda known: gate_program(order(known["key"], known["ca"]))),
                "interpreter": PYTHON,
                "triggers": [inference.container.id, edge.generation],
            },
            parent=self,
            depends_on=[inference.container, inference.limited, edge.active],
        )
        self.proved = ran.resource
        # The order has a key in it, what the gate says has none.
        printed = pulumi.Output.unsecret(ran.stdout)
        self.capacity = pulumi.Output.all(printed=printed, device=args["machine"].device).apply(
            lambda known: capacity_of(known["printed"] or "", model, known["device"])
        )
        self.register_outputs({})
