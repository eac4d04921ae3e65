"""What every consumer is told of the endpoint."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClientEndpoint:
    """One client's view of the endpoint.

    base_url: ends in /v1. key: this client's own. model: the id to send, letter for letter.
    source: the local address to send from, where it is not the usual one.
    """

    base_url: str
    key: str
    model: str
    max_model_len: int
    source: str | None = None
