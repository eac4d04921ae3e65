"""One private vLLM endpoint per stack: machine, name, engine, edge, proof, settings for the clients."""

import pulumi

from components.certificates import certificates_for
from components.client_settings import ClientSettings
from components.dns import dns_for
from components.edge import Edge
from components.inference import Inference
from components.keys import Keys
from components.machine import machine_for
from components.readiness import Readiness
from components.stack_config import hugging_face_token, load_settings
from settings import SettingsError

try:
    settings = load_settings()
    machine = machine_for(settings)
except SettingsError as error:
    raise pulumi.RunError(str(error)) from None

dns = dns_for(settings, machine)

certificates = certificates_for(settings, machine)

keys = Keys(
    "keys",
    {
        "generations": {client: settings.generations(client) for client in settings.clients},
        "prober": settings.domain is not None,
    },
)

inference = Inference(
    "inference",
    {
        "machine": machine,
        "model": settings.model,
        "images": settings.images,
        "port": settings.ports.engine,
        "key": keys.engine,
        "hugging_face_token": hugging_face_token(),
    },
)

edge = Edge(
    "edge",
    {
        "machine": machine,
        "inference": inference,
        "clients": settings.clients,
        "keys": keys,
        "images": settings.images,
        "certificates": certificates,
        "port": settings.ports.edge,
        "loopback_port": settings.ports.loopback,
        "answer_seconds": settings.edge.answer_seconds,
    },
)

readiness = Readiness(
    "readiness",
    {
        "machine": machine,
        "inference": inference,
        "edge": edge,
        "certificates": certificates,
        "model": settings.model,
        "key": keys.prober or keys.newest(settings.proving_client()),
        "source": settings.local_source(settings.proving_client()),
        "engine_port": settings.ports.engine,
    },
)

client_settings = ClientSettings(
    "client-settings",
    {
        "settings": settings,
        "machine": machine,
        "inference": inference,
        "edge": edge,
        "certificates": certificates,
        "keys": keys,
        "readiness": readiness,
        "dns": dns,
    },
)

for name, value in client_settings.outputs.items():
    pulumi.export(name, value)
