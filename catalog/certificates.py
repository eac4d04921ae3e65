"""What we know of certificates: the CA's directories, how long things last, what a refusal of a CA means."""

import json
from dataclasses import dataclass

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
LETS_ENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
"""Its certificates are trusted by nobody, and its limits are 30,000 a week where production has 5."""

RENEW_DAYS = 30
"""A certificate with fewer days left is renewed. Let's Encrypt's last 90 days, from 2027 on 64, then 45."""

CA_DAYS = 3650
LEAF_DAYS = 365
"""Of a private CA. Its clients trust the CA, so the certificate under it may change without a word to them."""

TIMER_HOURS = 12
"""Between two looks of the timer at the certificate."""

AWS_REGION = "us-east-1"
"""Route 53 is one service for the whole world, and this is the region its requests are signed for."""


@dataclass(frozen=True)
class Refusal:
    """One known way in which a certificate is not issued.

    pattern: extended regular expression (grep -E) for one line of lego's output. cause, change: what is said.
    """

    pattern: str
    cause: str
    change: str


REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        r"rateLimited|too many certificates|too many failed authorizations|status code 429",
        "the CA's rate limit is reached",
        "wait as long as the line below says; until then try with seatable-vllm:domain.acme_staging: true",
    ),
    Refusal(
        r"NoCredentialProviders|no EC2 IMDS role found|failed to refresh cached credentials|"
        r"some credentials information are missing",
        "the machine has no AWS credentials",
        "give the machine a role, or set the secrets seatable-vllm:aws_access_key_id and aws_secret_access_key",
    ),
    Refusal(
        r"AccessDenied|not authorized to perform",
        "AWS does not allow this machine what Route 53 is asked for",
        "give its role or user the policy that the output route53_policy has; the README has it too",
    ),
    Refusal(
        r"InvalidClientTokenId|SignatureDoesNotMatch|ExpiredToken|UnrecognizedClient|InvalidAccessKeyId",
        "AWS does not know these credentials, or they have ended",
        "set the secrets seatable-vllm:aws_access_key_id and seatable-vllm:aws_secret_access_key anew",
    ),
    Refusal(
        r"NoSuchHostedZone|hosted zone .*not found|zone .* not found for domain|could not find zone|"
        r"could not find the start of authority|failed to determine.* hosted zone",
        "Route 53 has no such zone",
        "set seatable-vllm:domain.zone and zone_id to the public zone that the host lies in; where the machine's "
        "DNS has a private zone of that name, set seatable-vllm:domain.resolvers to public resolvers",
    ),
    Refusal(
        r"urn:ietf:params:acme:error:caa|CAA record",
        "a CAA record of the name allows other CAs alone",
        "add a CAA record for this CA (letsencrypt.org), or name another in seatable-vllm:domain.acme_server",
    ),
    Refusal(
        r"time limit exceeded",
        "the proof did not show up in the name's DNS servers in time",
        "check that seatable-vllm:domain.zone is the public zone that the name's NS records lead to; where the "
        "machine's DNS has a private zone of that name, set seatable-vllm:domain.resolvers to public resolvers",
    ),
    Refusal(
        r"certificate signed by unknown authority|failed to verify certificate",
        "the machine does not trust the ACME server itself",
        "set seatable-vllm:domain.acme_ca to the roots of that CA",
    ),
    Refusal(
        r"has expired or is not yet valid|badNonce.*clock",
        "the clock of the machine is wrong, or the ACME server's own certificate has ended",
        "set the machine's clock (timedatectl set-ntp true), then run up again",
    ),
    Refusal(
        r"bind: address already in use|bind: permission denied",
        "port 80 of the machine is taken, and tls acme-http needs it for a moment",
        "end the program on port 80, or set seatable-vllm:domain.tls to acme-dns",
    ),
    Refusal(
        r"acme:error:(dns|unauthorized|incorrectResponse)|NXDOMAIN|No TXT record|Correct value not found|"
        r"Incorrect TXT record",
        "the CA asked for the proof under this name and did not find it",
        "check that the DNS records of seatable-vllm:domain.host lead to this machine (acme-http), or that its "
        "zone is the public one (acme-dns)",
    ),
    Refusal(
        r"acme:error:connection|Timeout during connect|Connection refused.*challenge",
        "the CA could not reach port 80 of this name",
        "open port 80 to the world and let the name lead to this machine, or set domain.tls to acme-dns",
    ),
    Refusal(
        r"acme:error:(invalidContact|unsupportedContact|invalidEmail)|unable to parse email",
        "the CA does not take this e-mail address",
        "set seatable-vllm:domain.acme_email to one that gets mail",
    ),
    Refusal(
        r"acme:error:(rejectedIdentifier|unsupportedIdentifier|malformed)",
        "the CA does not issue for this name",
        "set seatable-vllm:domain.host to a name of a public zone of yours",
    ),
    Refusal(
        r"no such host|connection refused|network is unreachable|i/o timeout|context deadline exceeded",
        "the ACME server or Route 53 cannot be reached from the machine",
        "let the machine reach them (TCP 443), and check seatable-vllm:domain.acme_server if it is set",
    ),
)
"""The more telling ones stand first: a refusal often brings a line about a connection with it."""


def proof_record(host: str) -> str:
    """The name of the TXT record that proves the control of `host`."""
    return f"_acme-challenge.{host}"


def route53_policy(host: str, zone_id: str | None, *, listing: bool = False) -> str:
    """The least that an IAM role or user needs for this one name, as a policy in JSON.

    Without the zone's id it must also be allowed to look for the zone. listing: with the id too, where whoever
    uses the policy was not told it.
    """
    zone = f"arn:aws:route53:::hostedzone/{zone_id or '*'}"
    record = {
        "ForAllValues:StringEquals": {
            "route53:ChangeResourceRecordSetsNormalizedRecordNames": [proof_record(host)],
            "route53:ChangeResourceRecordSetsRecordTypes": ["TXT"],
            "route53:ChangeResourceRecordSetsActions": ["UPSERT", "DELETE"],
        }
    }
    statements = [
        {"Effect": "Allow", "Action": "route53:GetChange", "Resource": "arn:aws:route53:::change/*"},
        {"Effect": "Allow", "Action": "route53:ListResourceRecordSets", "Resource": zone},
        {"Effect": "Allow", "Action": "route53:ChangeResourceRecordSets", "Resource": zone, "Condition": record},
    ]
    if zone_id is None or listing:
        statements.append({"Effect": "Allow", "Action": "route53:ListHostedZonesByName", "Resource": "*"})
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=1)
