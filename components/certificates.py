"""The certificate of a stack with a domain: one PEM file on the machine, renewed there, read by the edge."""

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import pulumi

from catalog import haproxy
from catalog.certificates import LETS_ENCRYPT, LETS_ENCRYPT_STAGING, route53_policy
from catalog.images import LEGO
from components import renewal
from components.image import ContainerImage
from components.machine import Machine
from components.stack_config import GivenFiles, aws_credentials, given_files
from settings import Domain, Images, Settings

TYPE = "seatable-vllm:index:Certificates"


class CertificatesArgs(TypedDict):
    """Which name, and where its certificate comes from."""

    machine: Machine
    """The machine that holds it, below certificates/ in its data directory."""
    domain: Domain
    """The name and the source."""
    images: Images
    """References that take the place of the pinned images."""
    port: int
    """TCP port that the edge listens on; a new certificate is looked for there."""
    given: GivenFiles
    """The texts of the files that the settings name."""
    aws_credentials: pulumi.Output[str] | None
    """A shared credentials file for Route 53, or None: the machine's own role."""


class Certificates(pulumi.ComponentResource):
    """A certificate that is valid."""

    host: str
    """The name it is for."""
    folder: str
    """Folder on the machine with the file that the edge reads, and nothing else."""
    present: pulumi.Resource
    """Done when the file is there."""
    not_after: pulumi.Output[str]
    """When it ends (UTC, ISO 8601), as of the last look of an `up`."""
    ca: pulumi.Output[str]
    """PEM of what a client has to trust; empty where the machine's own roots do already."""
    policy: str | None
    """The least that AWS has to allow for it (JSON); None where AWS is not asked."""

    def __init__(self, name: str, args: CertificatesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        self._args = args
        machine, domain = args["machine"], args["domain"]
        self.host = domain.host
        self.folder = f"{machine.data_dir}/certificates/live"
        self.policy = route53_policy(domain.host, domain.zone_id) if domain.tls == "acme-dns" else None
        image = self._image(name)
        program = pulumi.Output.all(
            image=image.reference if image else "",
            credentials=args["aws_credentials"],
            certificate=args["given"].certificate,
            key=args["given"].key,
        ).apply(self._program)
        ran = machine.run(
            f"{name}-present",
            # Where no timer can be had, the first `up` of a week renews; and it brings the outputs up to date.
            {"program": program, "triggers": [this_week()]},
            parent=self,
            depends_on=[image.present if image else machine.ready],
        )
        self.present = ran.resource
        facts = ran.last_line.apply(json.loads)
        self.not_after = pulumi.Output.unsecret(facts.apply(lambda known: str(known["not_after"])))
        self.ca = pulumi.Output.unsecret(facts.apply(lambda known: str(known["ca"])))
        self.register_outputs({"host": self.host, "not_after": self.not_after})

    def _image(self, name: str) -> ContainerImage | None:
        if not self._args["domain"].acme:
            return None
        return ContainerImage(
            f"{name}-image",
            {"machine": self._args["machine"], "source": LEGO, "override": self._args["images"].lego},
            pulumi.ResourceOptions(parent=self),
        )

    def _program(self, known: Mapping[str, str | None]) -> str:
        """The program for the machine, once everything is known that it holds."""
        machine, given = self._args["machine"], self._args["given"]
        return certificate_program(
            self._args["domain"],
            Known(
                image=known["image"] or "",
                certificate=known["certificate"],
                key=known["key"],
                roots=given.roots,
                credentials=known["credentials"],
            ),
            data_dir=machine.data_dir,
            edge=machine.container_name(haproxy.CONTAINER_ROLE),
            port=self._args["port"],
            unit=machine.container_name("certificate"),
        )


@dataclass(frozen=True)
class Known:
    """What the program is made from beside the settings: texts of files (PEM, credentials), lego's image."""

    image: str = ""
    certificate: str | None = None
    key: str | None = field(default=None, repr=False)
    roots: str | None = None
    credentials: str | None = field(default=None, repr=False)


def certificate_program(domain: Domain, known: Known, *, data_dir: str, edge: str, port: int, unit: str) -> str:
    """The program that a machine runs for this domain. edge: its container. unit: the name of the timer."""
    directory = directory_of(domain)
    made_for = renewal.Renewal(
        folder=f"{data_dir}/certificates",
        host=domain.host,
        source=f"{domain.tls} {directory}".strip(),
        edge=edge,
        port=port,
        unit=unit,
    )
    if domain.tls == "private-ca":
        obtain = renewal.private_ca()
    elif domain.tls == "files":
        obtain = renewal.given_files()
    else:
        obtain = renewal.acme(
            renewal.Acme(
                image=known.image,
                directory=directory,
                store=f"acme/{hashlib.sha256(directory.encode()).hexdigest()[:12]}",
                email=str(domain.acme_email),
                http=domain.tls == "acme-http",
                zone_id=domain.zone_id,
                resolvers=domain.resolvers or (),
                has_roots=known.roots is not None,
                has_credentials=known.credentials is not None,
            )
        )
    files = {
        "roots.pem": known.roots,
        "policy.json": route53_policy(domain.host, domain.zone_id) if domain.tls == "acme-dns" else None,
        "aws/credentials": known.credentials,
        "given/certificate.pem": known.certificate,
        "given/key.pem": known.key,
    }
    script = renewal.renew_program(made_for, obtain)
    return renewal.present_program(made_for, script, files, timer=domain.tls != "files")


def certificates_for(settings: Settings, machine: Machine) -> Certificates | None:
    """The certificate that the stack's settings ask for; None where they name no domain."""
    if settings.domain is None:
        return None
    return Certificates(
        "certificates",
        {
            "machine": machine,
            "domain": settings.domain,
            "images": settings.images,
            "port": settings.ports.edge,
            "given": given_files(settings.domain),
            "aws_credentials": aws_credentials(),
        },
    )


def directory_of(domain: Domain) -> str:
    """The ACME directory that the certificate comes from; empty where it comes from no ACME CA."""
    if not domain.acme:
        return ""
    return domain.acme_server or (LETS_ENCRYPT_STAGING if domain.acme_staging else LETS_ENCRYPT)


def this_week() -> str:
    """The year and week that it is, by ISO 8601."""
    year, week, _ = datetime.datetime.now(datetime.UTC).isocalendar()
    return f"{year}-W{week:02}"
