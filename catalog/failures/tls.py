"""Certificates: lego and the ACME CA, Route 53, HAProxy's own complaints, and what a client says of them."""

from __future__ import annotations

from catalog.failures.failure import Failure

TLS: tuple[Failure, ...] = (
    Failure(
        "acme-rate-limit",
        r"acme:error:rateLimited|too many certificates|too many failed authorizations",
        "the certificate authority's rate limit is reached",
        "wait as long as the line says; until then set seatable-vllm:domain.tls to private-ca",
        passing=True,
    ),
    Failure(
        "acme-caa",
        r"acme:error:caa|CAA record for \S+ prevents issuance",
        "a CAA record of the name allows other certificate authorities alone",
        "add a CAA record for letsencrypt.org to the zone of seatable-vllm:domain.host",
    ),
    Failure(
        "acme-email",
        r"acme:error:(?:invalidContact|unsupportedContact|invalidEmail)",
        "the certificate authority does not take this e-mail address",
        "set seatable-vllm:domain.acme_email to one that gets mail",
    ),
    Failure(
        "acme-name",
        r"acme:error:(?:rejectedIdentifier|unsupportedIdentifier)",
        "the certificate authority does not issue for this name",
        "set seatable-vllm:domain.host to a name in a public zone of yours, or seatable-vllm:domain.tls to "
        "private-ca",
    ),
    Failure(
        "aws-credentials",
        r"NoCredentialProviders|no EC2 IMDS role found|InvalidClientTokenId|SignatureDoesNotMatch|ExpiredToken"
        r"|UnrecognizedClientException|failed to refresh cached credentials",
        "AWS does not know the credentials of the machine, or it has none",
        "give the machine a role or working credentials, or set seatable-vllm:domain.tls to another source",
    ),
    Failure(
        "aws-denied",
        r"AccessDenied|is not authorized to perform: route53:",
        "AWS does not allow the machine to write the proof into Route 53",
        "give its role or user the rights to change _acme-challenge.HOST in the zone of seatable-vllm:domain.zone",
    ),
    Failure(
        "zone-missing",
        r"NoSuchHostedZone|failed to determine (?:Route 53 )?hosted zone|could not find the start of authority",
        "Route 53 has no such hosted zone, or public DNS does not know it",
        "set seatable-vllm:domain.zone to the public zone that seatable-vllm:domain.host lies in",
    ),
    Failure(
        "proof-missing",
        r"No TXT records? found|Incorrect TXT record|Correct value not found for DNS challenge"
        r"|propagation: time limit exceeded",
        "the certificate authority asked public DNS for the proof and did not find it",
        "set seatable-vllm:domain.zone to the public zone that the name's NS records lead to",
    ),
    Failure(
        "domain-unknown",
        r"acme: error: .*(?:could not resolve URL|NXDOMAIN looking up|no valid A records found)|acme:error:dns",
        "public DNS does not know the name that the certificate is for",
        "make an A (and AAAA) record for seatable-vllm:domain.host that leads to the machine",
    ),
    Failure(
        "domain-elsewhere",
        r"acme:error:unauthorized|acme:error:incorrectResponse",
        "another server answers under the name that the certificate is for",
        "let the DNS records of seatable-vllm:domain.host lead to this machine, IPv4 and IPv6",
    ),
    Failure(
        "domain-unreachable",
        r"acme:error:connection",
        "the certificate authority cannot reach port 80 of the name",
        "open port 80 to the world, or set seatable-vllm:domain.tls to acme-dns",
    ),
    Failure(
        "clock-wrong",
        r"x509: certificate has expired or is not yet valid|certificate is not yet valid",
        "a clock is wrong: a certificate that was just made seems to be from the future, or a good one ended",
        "set the clock, on the machine and here: timedatectl set-ntp true; then scripts/up",
    ),
    Failure(
        "acme-unreachable",
        r"get directory at .*(?:no such host|connection refused|i/o timeout|deadline exceeded|unreachable)",
        "the certificate authority cannot be reached from the machine",
        "let the machine reach it (TCP 443), or set seatable-vllm:domain.tls to files or private-ca",
        passing=True,
    ),
    Failure(
        "acme-untrusted",
        r"get directory at .*x509: certificate signed by unknown authority",
        "the machine does not trust the certificate authority's own server",
        "apt-get install ca-certificates on the machine, or set seatable-vllm:domain.tls to private-ca",
    ),
    Failure(
        "certificate-expired",
        r"certificate has expired",
        "the endpoint's certificate has ended",
        "scripts/up renews it; with tls files, put a new one at seatable-vllm:domain.certificate",
    ),
    Failure(
        "certificate-other-name",
        r"Hostname mismatch, certificate is not valid for|IP address mismatch, certificate is not valid",
        "the endpoint's certificate is for another name",
        "set seatable-vllm:domain.host to the name that clients use, and seatable-vllm:domain.certificate to its "
        "certificate",
    ),
    Failure(
        "certificate-untrusted",
        r"(?:CERTIFICATE_VERIFY_FAILED.*|the certificate for \S+ is refused: )"
        r"(?:self-signed certificate|unable to get local issuer certificate)",
        "the endpoint's certificate comes from an authority that this computer does not trust",
        "trust the stack's own CA here, give the whole chain in seatable-vllm:domain.certificate, or set "
        "seatable-vllm:domain.tls to acme-dns",
    ),
    Failure(
        "certificate-other-key",
        r"inconsistencies between private key and certificate|No Private Key found in",
        "the private key does not belong to the certificate, or is not there",
        "set seatable-vllm:domain.key to the key that seatable-vllm:domain.certificate was made with",
    ),
    Failure(
        "certificate-unreadable",
        r"unable to (?:load|stat SSL) certificate from file",
        "the certificate's file is not there, or holds no certificate",
        "set seatable-vllm:domain.certificate to a PEM file: the certificate first, then its chain",
    ),
)
