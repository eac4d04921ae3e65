"""The endpoint's public name, and where its certificate comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from settings.words import (
    EmailAddress,
    FilePath,
    HostName,
    HttpsUrl,
    PemOrPath,
    Resolver,
    RulesError,
    Tree,
    ZoneId,
    ZoneName,
)


class Domain(Tree):
    """A name and a certificate: the edge listens on all addresses, with TLS and nothing else."""

    host: HostName
    """The name that clients use and that the certificate is for."""
    tls: TlsSource
    """Where the certificate comes from: an own CA on the machine, given files, or an ACME CA."""
    zone: ZoneName | None = None
    """acme-dns, and every source on a machine of kind aws: the Route 53 zone that the host lies in."""
    zone_id: ZoneId | None = None
    """Likewise: that zone's id; with it the machine need not be allowed to list zones."""
    adopt_record: bool = False
    """A machine of kind aws with a zone: whether a record of the host that is there already is taken over. It then
    leads to the machine, and goes with the stack; where it led before is not restored."""
    acme_email: EmailAddress | None = None
    """acme-*: where the CA writes to."""
    acme_staging: bool = False
    """acme-*: the CA's staging directory, for trying: no client trusts its certificates."""
    acme_server: HttpsUrl | None = None
    """acme-*: directory of another ACME CA; None: Let's Encrypt."""
    acme_ca: PemOrPath | None = None
    """acme-*: PEM of that CA's roots, as text or the path of a file; None: the machine's own roots."""
    resolvers: Annotated[list[Resolver], Field(min_length=1)] | None = None
    """acme-dns: DNS resolvers that know the public zone; None: those of the machine."""
    certificate: FilePath | None = None
    """files: PEM file with the certificate and its chain, on the computer that runs Pulumi."""
    key: FilePath | None = None
    """files: PEM file with its private key, without a passphrase; likewise."""

    @property
    def acme(self) -> bool:
        """Whether the certificate comes from an ACME CA."""
        return self.tls.startswith("acme-")

    @model_validator(mode="after")
    def _each_source_has_what_it_needs(self) -> Domain:
        problems = []
        given = self.model_dump(exclude_defaults=True)
        for setting, sources in BELONGS_TO.items():
            if setting in given and self.tls not in sources:
                problems.append(f"{setting}: is for tls {' or '.join(sources)}, not {self.tls}; remove it")
        for setting in NEEDED_BY[self.tls]:
            if setting not in given:
                problems.append(f"{setting}: missing, and tls {self.tls} needs it; {_FORMS[setting]}")
        if self.zone and not f".{self.host}".endswith(f".{self.zone}"):
            problems.append(f"zone: {self.zone} does not hold {self.host}; name the zone that the host lies in")
        if self.acme_staging and self.acme_server:
            problems.append(
                "acme_staging: is of Let's Encrypt, and acme_server names another CA; keep one of them"
            )
        if problems:
            raise RulesError("\n".join(problems))
        return self


_FORMS = {
    "zone": "write the Route 53 zone that holds the host, such as example.com",
    "acme_email": "write the address that the CA writes to, such as ops@example.com",
    "certificate": "write the path of the PEM file with the certificate and its chain",
    "key": "write the path of the PEM file with the certificate's key",
}
"""What is said of a setting that a source of certificates cannot do without."""

TlsSource = Literal["private-ca", "files", "acme-dns", "acme-http"]

_ACME: tuple[TlsSource, ...] = ("acme-dns", "acme-http")

BELONGS_TO: Mapping[str, tuple[TlsSource, ...]] = {
    "acme_email": _ACME,
    "acme_staging": _ACME,
    "acme_server": _ACME,
    "acme_ca": _ACME,
    "resolvers": ("acme-dns",),
    "certificate": ("files",),
    "key": ("files",),
}
"""Settings of a domain that only some sources of certificates have, wherever the endpoint runs.

`zone` and `zone_id` are not here: what they are good for depends on the machine, and so `Settings` has their rule.
"""

NEEDED_BY: Mapping[TlsSource, tuple[str, ...]] = {
    "private-ca": (),
    "files": ("certificate", "key"),
    "acme-dns": ("zone", "acme_email"),
    "acme-http": ("acme_email",),
}
"""What a source of certificates cannot do without."""
