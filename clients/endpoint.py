"""What every consumer is told of the endpoint."""

from dataclasses import dataclass

from settings.fallbacks import Fallback


@dataclass(frozen=True)
class ClientEndpoint:
    """One client's view of the endpoint.

    base_url: ends in /v1. key: this client's own. model: the id to send, letter for letter.
    source: the local address to send from, where it is not the usual one. private_ca: whether the client has to be
    given the CA (the output ca_certificate), because no system trusts it by itself. loopback: base URL on the
    machine itself, where no key is asked for, or None. fallbacks: the models that take over, in their order.
    """

    base_url: str
    key: str
    model: str
    max_model_len: int
    source: str | None = None
    private_ca: bool = False
    loopback: str | None = None
    fallbacks: tuple[Fallback, ...] = ()

    @property
    def base_urls(self) -> tuple[str, ...]:
        """Every address that the client may have been given."""
        return (self.base_url, self.loopback) if self.loopback else (self.base_url,)


CA_FILE = "seatable-vllm-ca.pem"
"""What the texts call the file that a client keeps the output ca_certificate in."""

SAVE_CA = f"scripts/output STACK ca_certificate > {CA_FILE}"
