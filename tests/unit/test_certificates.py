"""Unit tier: the programs that keep a certificate, with openssl for real and stand-ins for docker and systemd.

Does NOT prove that a CA issues anything, that HAProxy takes a new file, or that systemd runs the timer: the first
two are for the live tier, where a real CA and a real HAProxy answer.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from catalog.certificates import LETS_ENCRYPT, LETS_ENCRYPT_STAGING, REFUSALS, route53_policy
from components.certificates import Known, certificate_program, directory_of, this_week
from components.renewal import SYSTEMD, UNITS
from settings import Domain

if TYPE_CHECKING:
    from tests.conftest import FakeCommand

HOST = "llm.example.com"
PRIVATE = Domain(host=HOST, tls="private-ca")
ACME = Domain(host=HOST, tls="acme-dns", zone="example.com", acme_email="ops@example.com", zone_id="Z1")
SECRET = "s3cr3t" * 6


def program(data: Path, domain: Domain = PRIVATE, known: Known | None = None) -> str:
    """The program of a stack whose edge is not there yet, on a machine whose systemd lies beside the data."""
    text = certificate_program(
        domain, known or Known(image="lego:1"), data_dir=str(data), edge="the-edge", port=8443, unit="the-unit"
    )
    return on_another_systemd(text, data.parent)


def on_another_systemd(text: str, folder: Path) -> str:
    return text.replace(SYSTEMD, str(folder / "systemd")).replace(UNITS, str(folder / "units"))


def run(text: str, fake: FakeCommand) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-s"], input=text, capture_output=True, text=True, check=False, env=fake.environment
    )


def renew(data: Path, fake: FakeCommand, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = data / "certificates" / "renew"
    script.write_text(on_another_systemd(script.read_text(), data.parent))
    return subprocess.run([script, *arguments], capture_output=True, text=True, check=False, env=fake.environment)


def openssl(*arguments: str | Path) -> str:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def data(tmp_path: Path, fake_command: FakeCommand) -> Path:
    """A data directory of a machine where docker knows no container."""
    fake_command.add("docker", "exit 1")
    return tmp_path / "data"


def facts(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return told


# A private CA


def test_a_private_ca_signs_for_its_host_alone_and_its_key_is_the_owners(
    data: Path, fake_command: FakeCommand
) -> None:
    told = facts(run(program(data), fake_command))
    folder = data / "certificates"
    ca, edge = folder / "ca" / f"{HOST}.pem", folder / "live" / "edge.pem"
    assert (told["host"], told["ca"]) == (HOST, ca.read_text())
    text = openssl("x509", "-in", ca, "-noout", "-text")
    assert "CA:TRUE" in text
    assert re.search(rf"Permitted:\s+DNS:{re.escape(HOST)}", text)
    assert "prime256v1" in openssl("x509", "-in", edge, "-noout", "-text")
    assert "OK" in openssl("verify", "-CAfile", ca, "-verify_hostname", HOST, edge)
    for path in folder.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path
    assert [path.name for path in (folder / "live").iterdir()] == ["edge.pem"]
    assert (folder / "ca" / f"{HOST}.key").read_text() not in edge.read_text()


def test_a_second_run_keeps_the_certificate_and_a_forced_one_renews_it_under_the_same_ca(
    data: Path, fake_command: FakeCommand
) -> None:
    first = facts(run(program(data), fake_command))
    edge = data / "certificates" / "live" / "edge.pem"
    before = edge.read_text()
    assert facts(run(program(data), fake_command)) == first
    assert edge.read_text() == before
    assert renew(data, fake_command, "--force").returncode == 0
    assert edge.read_text() != before
    assert (data / "certificates" / "ca.pem").read_text() == first["ca"]


def test_another_host_gets_another_certificate(data: Path, fake_command: FakeCommand) -> None:
    run(program(data), fake_command)
    told = facts(run(program(data, Domain(host="other.example.com", tls="private-ca")), fake_command))
    edge = data / "certificates" / "live" / "edge.pem"
    assert "other.example.com" in openssl("x509", "-in", edge, "-noout", "-text")
    assert "other.example.com" in openssl("x509", "-in", data / "certificates/ca.pem", "-noout", "-text")
    assert told["host"] == "other.example.com"


def test_a_certificate_that_soon_ends_is_renewed(data: Path, fake_command: FakeCommand) -> None:
    run(program(data), fake_command)
    edge = data / "certificates" / "live" / "edge.pem"
    short = openssl(
        "req", "-x509", "-key", edge, "-days", "20", "-subj", "/O=x", "-addext", f"subjectAltName=DNS:{HOST}"
    )
    edge.write_text(short + edge.read_text().partition("-----END CERTIFICATE-----\n")[2])
    before = edge.read_text()
    assert renew(data, fake_command).returncode == 0
    assert edge.read_text() != before


@pytest.mark.parametrize("name", ["it's $(touch pwned)", 'a "quoted" * name', "ünï 100%"])
def test_a_weird_data_directory_breaks_nothing(name: str, tmp_path: Path, fake_command: FakeCommand) -> None:
    fake_command.add("docker", "exit 1")
    text = certificate_program(
        PRIVATE, Known(), data_dir=str(tmp_path / name), edge="the-edge", port=8443, unit="the-unit"
    )
    assert facts(run(on_another_systemd(text, tmp_path), fake_command))["host"] == HOST
    assert (tmp_path / name / "certificates" / "live" / "edge.pem").exists()
    assert not list(tmp_path.rglob("pwned"))


# Given files: what is told of who vouches for them


def given_pair(data: Path, fake: FakeCommand) -> tuple[Known, str]:
    """A certificate with its chain and its key, of a CA made for it, and that CA."""
    ca = facts(run(program(data.parent / "made"), fake))["ca"]
    pem = (data.parent / "made" / "certificates" / "live" / "edge.pem").read_text()
    leaf, end, key = pem.partition("-----END CERTIFICATE-----\n")
    return Known(certificate=leaf + end + ca, key=key), ca


FILES = Domain(host=HOST, tls="files", certificate="c", key="k")


def test_files_that_this_system_does_not_vouch_for_are_told_with_their_chain_and_without_the_key(
    data: Path, fake_command: FakeCommand
) -> None:
    known, ca = given_pair(data, fake_command)
    assert facts(run(program(data, FILES, known), fake_command))["ca"] == ca
    assert "PRIVATE" not in (data / "certificates" / "ca.pem").read_text()


@pytest.mark.parametrize("umask", ["000", "077"])
def test_given_files_are_their_owners_alone_wherever_they_are(
    umask: str, data: Path, fake_command: FakeCommand
) -> None:
    known, _ = given_pair(data, fake_command)
    facts(run(f"umask {umask}\n{program(data, FILES, known)}", fake_command))
    folder = data / "certificates"
    names = ("given/certificate.pem", "given/key.pem", "ca.pem", "live/edge.pem", "source")
    private = dict.fromkeys(names, 0o600)
    assert modes(folder) == {**private, ".lock": 0o600, "renew": 0o700}
    # A timer runs it with the umask of systemd, and the day after it may run for the first time.
    (folder / "live/edge.pem").unlink()
    by_timer = ["bash", "-c", f'umask {umask}; exec "$0" --timer', str(folder / "renew")]
    subprocess.run(by_timer, env=fake_command.environment, check=True, capture_output=True)
    assert modes(folder) == {**private, ".lock": 0o600, "renew": 0o700}
    folders = [path for path in folder.rglob("*") if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in [folder, *folders]} == {0o700}
    assert (folder / "given/key.pem").read_text() == known.key


NOW = datetime.datetime.now(datetime.UTC)


def pair(begin: int = -10, end: int = 90, host: str = HOST, passphrase: bytes | None = None) -> Known:
    """A certificate that is valid from and until so many days from now, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "somebody")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + datetime.timedelta(days=begin))
        .not_valid_after(NOW + datetime.timedelta(days=end))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    locked = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    text = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, locked).decode()
    return Known(certificate=made.public_bytes(pem).decode(), key=text)


def refused_pairs() -> dict[str, tuple[Known, str]]:
    """Files that cannot be used, each with what is said of them."""
    good, other = pair(), pair()
    return {
        "expired": (pair(-90, -1), "has ended on"),
        "expired for years": (pair(-900, -400), "has ended on"),
        "not valid yet": (pair(1, 90), "is not valid before"),
        "another host": (pair(host="other.example.com"), f"is not for {HOST} but for DNS:other.example.com"),
        "a parent of the host": (pair(host="example.com"), f"is not for {HOST} but for DNS:example.com"),
        "another key": (replace(good, key=other.key), "is not the key of seatable-vllm:domain.certificate"),
        "a key with a passphrase": (pair(passphrase=b"x"), "without a passphrase"),
        "no key": (replace(good, key="nothing"), "holds no private key"),
        "no certificate": (replace(good, certificate=good.key), "holds no certificate"),
    }


REFUSED = refused_pairs()


@pytest.mark.parametrize("what", list(REFUSED))
def test_given_files_that_cannot_be_used_never_take_the_place_of_what_the_edge_has(
    what: str, data: Path, fake_command: FakeCommand
) -> None:
    edge = data / "certificates" / "live" / "edge.pem"
    edge.parent.mkdir(parents=True)
    edge.write_text("what the edge has")
    known, words = REFUSED[what]
    done = run(program(data, FILES, known), fake_command)
    assert done.returncode != 0
    phase, cause, change = done.stderr.splitlines()[-3:]
    assert phase == "phase: certificate"
    assert words in cause
    assert change.startswith(
        "change: give the files of a valid certificate for llm.example.com in seatable-vllm:domain"
    )
    assert edge.read_text() == "what the edge has"
    assert str(known.key).splitlines()[-2:][0] not in done.stderr


def test_given_files_for_all_names_of_the_domain_are_taken(data: Path, fake_command: FakeCommand) -> None:
    known = pair(end=1, host="*.example.com")
    assert facts(run(program(data, FILES, known), fake_command))["host"] == HOST


def test_files_that_this_system_vouches_for_need_no_ca(data: Path, fake_command: FakeCommand) -> None:
    known, ca = given_pair(data, fake_command)
    (data.parent / "roots.pem").write_text(ca)
    text = f"export SSL_CERT_FILE={data.parent}/roots.pem\n{program(data, FILES, known)}"
    assert facts(run(text, fake_command))["ca"] == ""


# ACME, with a lego that does what a test says


def lego(fake: FakeCommand, log: str = "", status: int = 1, more: str = "") -> None:
    """A docker whose `run` prints this log and ends with this status; it knows no container."""
    fake.add("docker", f'[ "$1" = run ] || exit 1\n{more}\nprintf "%s\\n" {shlex.quote(log)}\nexit {status}')


def issuing(data: Path, fake: FakeCommand, host: str = HOST) -> None:
    """A docker that issues: the same certificate each time, put where lego would put its own."""
    store, issued = data / "certificates" / "acme", pair(host=host)
    pem = data.parent / "issued.pem"
    pem.write_text(f"{issued.certificate}{issued.key}")
    lego(fake, status=0, more=f"""\
for place in {shlex.quote(str(store))}/*; do
  mkdir -p "$place/certificates"
  cp {shlex.quote(str(pem))} "$place/certificates/{HOST}.crt"
  cp {shlex.quote(str(pem))} "$place/certificates/{HOST}.key"
done""")  # fmt: skip


def test_lego_is_asked_for_this_name_and_told_no_secret_in_its_arguments_or_environment(
    data: Path, fake_command: FakeCommand
) -> None:
    issuing(data, fake_command)
    known = Known(image="lego:1", credentials=f"[default]\naws_secret_access_key = {SECRET}\n", roots="the roots")
    assert facts(run(program(data, ACME, known), fake_command))["host"] == HOST
    (call,) = [call for call in fake_command.calls if call[:2] == ["docker", "run"]]
    folder, (store,) = data / "certificates", (data / "certificates" / "acme").iterdir()
    place = call.index("lego:1")
    assert " ".join(call[2:place]).replace(str(folder), "FOLDER").replace(store.name, "STORE") == (
        "--rm --name the-edge-lego --network host --user "
        f"{os.getuid()}:{os.getgid()} "
        "--security-opt no-new-privileges --pids-limit 16384 --cap-drop ALL --read-only "
        "--volume FOLDER/acme/STORE:/state "
        "--volume FOLDER/roots.pem:/roots.pem:ro --env LEGO_CA_CERTIFICATES=/roots.pem "
        "--env AWS_REGION=us-east-1 --env AWS_HOSTED_ZONE_ID=Z1 "
        "--volume FOLDER/aws:/aws:ro --env AWS_SHARED_CREDENTIALS_FILE=/aws/credentials"
    )
    assert " ".join(call[place + 1 :]) == (
        f"--path /state --accept-tos --email ops@example.com --server {LETS_ENCRYPT} --key-type ec256 "
        f"--domains {HOST} --dns route53 run"
    )
    assert not any(SECRET in word for call in fake_command.calls for word in call)
    assert modes(folder) == {
        "aws/credentials": 0o600, "ca.pem": 0o600, "live/edge.pem": 0o600, "policy.json": 0o600, "renew": 0o700,
        "roots.pem": 0o600, "source": 0o600, ".lock": 0o600,
        f"acme/{store.name}/certificates/{HOST}.crt": 0o600, f"acme/{store.name}/certificates/{HOST}.key": 0o600,
    }  # fmt: skip
    assert SECRET in (folder / "aws" / "credentials").read_text()
    assert json.loads((folder / "policy.json").read_text()) == json.loads(route53_policy(HOST, "Z1"))


def test_by_port_80_lego_may_bind_it_and_write_to_its_folder_and_nothing_more(
    data: Path, fake_command: FakeCommand
) -> None:
    issuing(data, fake_command)
    domain = Domain(host=HOST, tls="acme-http", acme_email="ops@example.com")
    facts(run(program(data, domain, Known(image="lego:1")), fake_command))
    (call,) = [call for call in fake_command.calls if call[:2] == ["docker", "run"] and "lego:1" in call]
    words = " ".join(call)
    assert "--user 0:0 " in words
    assert re.findall(r"--cap-(?:add|drop) \S+", words) == [
        "--cap-drop ALL", "--cap-add NET_BIND_SERVICE", "--cap-add DAC_OVERRIDE",
    ]  # fmt: skip
    assert words.endswith(f"--domains {HOST} --http --http.port :80 run")
    assert "AWS" not in words


def modes(folder: Path) -> dict[str, int]:
    """The mode of every file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in files}


def test_what_is_not_given_any_more_does_not_stay_on_the_disk(data: Path, fake_command: FakeCommand) -> None:
    issuing(data, fake_command)
    known = Known(image="lego:1", credentials=f"[default]\naws_secret_access_key = {SECRET}\n", roots="the roots")
    facts(run(program(data, ACME, known), fake_command))
    facts(run(program(data, ACME, Known(image="lego:1")), fake_command))
    folder = data / "certificates"
    assert not {"aws/credentials", "roots.pem", "given/key.pem"} & set(modes(folder))
    assert not any(SECRET in path.read_text() for path in folder.rglob("*") if path.is_file())


def test_lego_asks_the_given_resolvers_at_the_first_time_and_at_a_renewal_and_else_those_of_the_machine(
    data: Path, fake_command: FakeCommand
) -> None:
    issuing(data, fake_command)
    given = ["9.9.9.9:53", "[2620:fe::fe]:53", "dns.example.net"]
    facts(run(program(data, ACME.model_copy(update={"resolvers": given})), fake_command))
    assert renew(data, fake_command, "--force").returncode == 0
    facts(run(program(data, ACME.model_copy(update={"acme_staging": True})), fake_command))
    runs = [call for call in fake_command.calls if call[:2] == ["docker", "run"]]
    asked = [[call[place + 1] for place, word in enumerate(call) if word == "--dns.resolvers"] for call in runs]
    assert asked == [given, given, []]
    # lego takes them before its command alone.
    assert runs[1].index("dns.example.net") < runs[1].index("renew")


def test_a_certificate_that_is_there_is_renewed_and_not_asked_for_again(
    data: Path, fake_command: FakeCommand
) -> None:
    issuing(data, fake_command)
    facts(run(program(data, ACME), fake_command))
    count = len(fake_command.calls)
    facts(run(program(data, ACME), fake_command))
    assert not [call for call in fake_command.calls[count:] if call[:2] == ["docker", "run"]]
    assert renew(data, fake_command, "--force").returncode == 0
    (call,) = [call for call in fake_command.calls[count:] if call[:2] == ["docker", "run"]]
    assert "renew" in call
    assert "--no-random-sleep" in call  # or it would wait up to eight minutes


def test_staging_and_production_never_share_a_certificate(data: Path, fake_command: FakeCommand) -> None:
    issuing(data, fake_command)
    staging = ACME.model_copy(update={"acme_staging": True})
    facts(run(program(data, staging), fake_command))
    facts(run(program(data, ACME), fake_command))
    runs = [call for call in fake_command.calls if call[:2] == ["docker", "run"]]
    assert [call[call.index("--server") + 1] for call in runs] == [LETS_ENCRYPT_STAGING, LETS_ENCRYPT]
    assert all(call[-1] == "run" for call in runs)
    assert len(list((data / "certificates" / "acme").iterdir())) == 2


def test_a_renewal_that_fails_leaves_what_is_valid_and_up_goes_on_with_a_warning(
    data: Path, fake_command: FakeCommand
) -> None:
    issuing(data, fake_command)
    facts(run(program(data, ACME), fake_command))
    edge = data / "certificates" / "live" / "edge.pem"
    before = edge.read_text()
    lego(fake_command, "2026/01/01 too many certificates already issued, rateLimited")
    script = data / "certificates" / "renew"
    script.write_text(script.read_text().replace("! good_for 30", "! good_for 3000"))  # as if it ended soon
    done = renew(data, fake_command)
    assert done.returncode == 0
    assert "not renewed; the present certificate is good until" in done.stderr
    assert renew(data, fake_command, "--force").returncode == 1  # asked for by name, a failure is one
    assert edge.read_text() == before


SAMPLES = {
    "the CA's rate limit is reached": "acme: error: 429 :: urn:ietf:params:acme:error:rateLimited :: too many "
    "certificates (5) already issued for this exact set of domains in the last 168 hours",
    "the machine has no AWS credentials": "NoCredentialProviders: no valid providers in chain. Deprecated.",
    "AWS does not allow": "AccessDenied: User: arn:aws:iam::1:user/x is not authorized to perform: route53:Change",
    "AWS does not know these credentials": "InvalidClientTokenId: The security token included in the request is i",
    "Route 53 has no such zone": "NoSuchHostedZone: No hosted zone found with ID: Z1",
    "a CAA record": "urn:ietf:params:acme:error:caa :: CAA record for llm.example.com prevents issuance",
    "the proof did not show up": "propagation: time limit exceeded: last error: NS ns1. did not return the",
    "the machine does not trust the ACME server": 'get directory at "https://ca/dir": tls: failed to verify '
    "certificate: x509: certificate signed by unknown authority",
    "the clock of the machine is wrong": "x509: certificate has expired or is not yet valid: current time 1999",
    "port 80 of the machine is taken": "could not start HTTP server for challenge: listen tcp :80: bind: address "
    "already in use",
    "the CA asked for the proof": "acme: error: 400 :: urn:ietf:params:acme:error:dns :: NXDOMAIN looking up TXT",
    "the CA could not reach port 80": "acme: error: 400 :: urn:ietf:params:acme:error:connection :: Timeout "
    "during connect (likely firewall problem)",
    "the CA does not take this e-mail": "urn:ietf:params:acme:error:invalidContact :: invalid contact domain",
    "the CA does not issue for this name": "urn:ietf:params:acme:error:rejectedIdentifier :: forbidden by policy",
    "the ACME server or Route 53 cannot be reached": 'get directory at "https://ca/dir": dial tcp: lookup ca: no '
    "such host",
}
"""A line as lego prints it (its texts and those of Let's Encrypt and AWS), by what is to be said of it."""


def test_there_is_a_sample_for_every_refusal() -> None:
    assert len(SAMPLES) == len(REFUSALS)
    for refusal in REFUSALS:
        assert any(refusal.cause.startswith(cause) for cause in SAMPLES), refusal.cause


@pytest.mark.parametrize("cause", SAMPLES)
def test_a_refusal_is_told_with_its_cause_the_line_and_the_way_out(
    cause: str, data: Path, fake_command: FakeCommand
) -> None:
    lego(fake_command, f"[INFO] bind: address already in use is nothing yet\n\tError: {SAMPLES[cause]}")
    done = run(program(data, ACME), fake_command)
    assert done.returncode != 0
    phase, told, change, seen = done.stderr.splitlines()[-4:]
    assert (phase, told.startswith(f"cause: {cause}")) == ("phase: certificate", True), done.stderr
    assert seen.startswith("seen: ")
    assert SAMPLES[cause][:40] in seen
    assert change.startswith("change: ")
    assert not (data / "certificates" / "live" / "edge.pem").exists()
    assert ("_acme-challenge" in done.stderr) == (cause == "AWS does not allow")


def test_what_nobody_knows_is_said_to_be_unknown(data: Path, fake_command: FakeCommand) -> None:
    lego(fake_command, "a line that nobody has seen yet")
    done = run(program(data, ACME), fake_command)
    assert "a line that nobody has seen yet" in done.stderr
    assert "cause: lego could not get a certificate" in done.stderr


def test_a_certificate_for_another_name_never_gets_to_the_edge(data: Path, fake_command: FakeCommand) -> None:
    issuing(data, fake_command, host="other.example.com")
    done = run(program(data, ACME), fake_command)
    assert "is not for llm.example.com but for DNS:other.example.com" in done.stderr
    assert not (data / "certificates" / "live" / "edge.pem").exists()


def test_directories_and_policy_are_those_of_the_setting() -> None:
    assert directory_of(PRIVATE) == ""
    assert (
        directory_of(ACME.model_copy(update={"acme_server": "https://ca.example/dir"})) == "https://ca.example/dir"
    )
    for zone_id, actions in (("Z1", 3), (None, 4)):
        statements = json.loads(route53_policy(HOST, zone_id))["Statement"]
        assert len(statements) == actions
        allowed = next(each for each in statements if each["Action"] == "route53:ChangeResourceRecordSets")
        assert allowed["Resource"].endswith(f"hostedzone/{zone_id or '*'}")
        assert f"_acme-challenge.{HOST}" in json.dumps(allowed["Condition"])


@pytest.mark.parametrize(
    ("day", "week"),
    [
        ((2026, 11, 29), "2026-W48"),
        ((2026, 11, 30), "2026-W49"),
        ((2026, 12, 6), "2026-W49"),
        ((2026, 12, 7), "2026-W50"),
        ((2027, 1, 3), "2026-W53"),
        ((2027, 1, 4), "2027-W01"),
    ],
)
def test_the_week_is_the_same_from_monday_to_sunday_so_that_a_second_up_changes_nothing(
    day: tuple[int, int, int], week: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Day(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Self:
            return cls(*day, 12, tzinfo=tz)

    monkeypatch.setattr("components.certificates.datetime.datetime", Day)
    assert this_week() == week


# The timer


@pytest.fixture
def systemd(data: Path, fake_command: FakeCommand) -> Path:
    """A machine that systemd runs, as far as the programs see; the folder of its units."""
    data.mkdir()
    (data.parent / "systemd").mkdir()
    units = data.parent / "units"
    units.mkdir()
    fake_command.add("systemctl")
    fake_command.add("sudo", 'shift; exec "$@"')
    fake_command.add("sleep", 'case "$1" in 60) ;; *) exec /bin/sleep "$@" ;; esac')
    return units


def test_a_timer_is_set_up_once_and_runs_the_script_as_this_user(
    data: Path, systemd: Path, fake_command: FakeCommand
) -> None:
    done = run(program(data), fake_command)
    assert "the timer the-unit renews the certificate" in done.stdout
    service = (systemd / "the-unit.service").read_text()
    assert f'ExecStart="{data}/certificates/renew" --timer' in service
    assert f"ConditionPathExists={data}/certificates/renew" in service
    assert "Persistent=true" in (systemd / "the-unit.timer").read_text()
    calls = [call for call in fake_command.calls if call[0] == "systemctl"]
    assert calls == [["systemctl", "daemon-reload"], ["systemctl", "enable", "--now", "the-unit.timer"]]
    run(program(data), fake_command)
    assert len([call for call in fake_command.calls if call[1:] == ["daemon-reload"]]) == 1


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on PATH")
def test_systemd_can_read_the_units(data: Path, systemd: Path, fake_command: FakeCommand) -> None:
    run(program(data), fake_command)
    units = [systemd / "the-unit.service", systemd / "the-unit.timer"]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert not [line for line in done.stderr.splitlines() if "the-unit" in line], done.stderr


def test_without_systemd_it_is_said_who_renews(data: Path, fake_command: FakeCommand) -> None:
    fake_command.add("systemctl")
    done = run(program(data), fake_command)
    assert facts(done)["host"] == HOST
    sentence = (
        "no systemd on this machine, so no timer: the first up of a week renews the certificate where that is due"
    )
    assert sentence in done.stdout.splitlines()
    assert "the timer" not in done.stdout
    assert not [call for call in fake_command.calls if call[0] == "systemctl"]
    assert not (data.parent / "units").exists()


def test_without_sudo_it_is_said_who_renews(data: Path, systemd: Path, fake_command: FakeCommand) -> None:
    fake_command.add("id", 'case "$1" in -u) echo 1000;; *) exec /usr/bin/id "$@";; esac')
    fake_command.add("sudo", "exit 1")
    done = run(program(data), fake_command)
    assert "no timer without sudo: the first up of a week renews" in done.stdout
    assert list(systemd.iterdir()) == []


def test_given_files_need_no_timer(data: Path, systemd: Path, fake_command: FakeCommand) -> None:
    facts(run(program(data, FILES, pair()), fake_command))
    assert list(systemd.iterdir()) == []
    assert not [call for call in fake_command.calls if call[0] == "systemctl"]


@pytest.mark.parametrize(("label", "stays"), [("another folder", False), ("$FOLDER/live", True)])
def test_the_timer_removes_itself_when_the_stack_is_gone_and_only_then(
    label: str, stays: bool, data: Path, systemd: Path, fake_command: FakeCommand
) -> None:
    run(program(data), fake_command)
    found = label.replace("$FOLDER", str(data / "certificates"))
    fake_command.add("docker", f'[ "$1" = info ] && exit 0\n[ "$1" = inspect ] && echo {shlex.quote(found)}')
    assert renew(data, fake_command, "--timer").returncode == 0
    assert (systemd / "the-unit.timer").exists()  # the script is new: an `up` may be about to make the edge
    os.utime(data / "certificates" / "renew", (0, 0))
    done = subprocess.run([data / "certificates" / "renew", "--timer"], env=fake_command.environment, check=False)
    assert done.returncode == 0
    assert (systemd / "the-unit.timer").exists() == stays
    assert (["systemctl", "disable", "--now", "the-unit.timer"] in fake_command.calls) != stays


@pytest.mark.parametrize(
    ("docker", "asked"), [("exit 1", ["--timer"]), ('[ "$1" = info ]', [])], ids=["Docker is down", "by hand"]
)
def test_only_a_run_of_the_timer_that_docker_answers_removes_it(
    docker: str, asked: list[str], data: Path, systemd: Path, fake_command: FakeCommand
) -> None:
    run(program(data), fake_command)
    fake_command.add("docker", docker)
    script = data / "certificates" / "renew"
    os.utime(script, (0, 0))
    done = subprocess.run([script, *asked], env=fake_command.environment, check=False)
    assert done.returncode == 0
    assert ["systemctl", "disable", "--now", "the-unit.timer"] not in fake_command.calls


# What the whole program asks for


def settings(**more: Any) -> dict[str, str]:
    values = {
        "domain": {"host": HOST, "tls": "private-ca"},
        "clients": {"seatable": {"kind": "seatable", "cidrs": ["198.51.100.10/32"]}},
        **more,
    }
    return {f"seatable-vllm:{key}": json.dumps(value) for key, value in values.items()}


def test_with_a_domain_the_edge_waits_for_its_certificate_and_the_gate_has_a_key_of_its_own(
    record_program: Any,
) -> None:
    recorded = record_program("local", settings())
    assert "certificates-present" in recorded.everything_before(recorded.one("edge-haproxy"))
    assert "certificates-present" in recorded.everything_before(recorded.one("edge-release"))
    prober = recorded.keys["keys-prober"]
    assert prober in json.dumps(recorded.one("readiness-gate").inputs) or prober in _program_of(recorded, "gate")
    for name, output in recorded.outputs.items():
        assert prober not in json.dumps(output.value), name
    assert prober not in "".join(resource.public_text for resource in recorded.resources)
    assert recorded.outputs["endpoint"].value == f"https://{HOST}/v1"
    assert recorded.outputs["certificate"].value == {
        "host": HOST, "issuer": "private-ca", "not_after": "2027-01-01T00:00:00Z",
    }  # fmt: skip
    assert recorded.outputs["ca_certificate"].value == "the CA in PEM"
    mounts = {each["hostPath"]: each for each in recorded.one("edge-haproxy").inputs["volumes"]}
    (certificates,) = [path for path in mounts if path.endswith("/certificates/live")]
    assert mounts[certificates]["readOnly"] is True


def _program_of(recorded: Any, name: str) -> str:
    return str(recorded.one(f"readiness-{name}").inputs["stdin"])


def test_without_a_domain_nothing_of_it_is_there(record_program: Any) -> None:
    recorded = record_program("local")
    assert not [resource.name for resource in recorded.resources if "certificate" in resource.name]
    assert "keys-prober" not in recorded.keys
    assert not {"certificate", "ca_certificate", "loopback"} & set(recorded.outputs)


def test_another_port_is_in_the_endpoint_and_a_preview_has_the_same_resources(record_program: Any) -> None:
    config = settings(ports={"edge": 8443, "loopback": 18080})
    up = record_program("local", config)
    assert up.outputs["endpoint"].value == f"https://{HOST}:8443/v1"
    assert up.outputs["loopback"].value == "http://127.0.0.1:18080/v1"
    assert record_program("local", config, preview=True).names == up.names


def test_the_aws_secret_goes_to_the_certificate_program_alone_and_is_a_secret_there(record_program: Any) -> None:
    domain = {"host": HOST, "tls": "acme-dns", "zone": "example.com", "acme_email": "ops@example.com"}
    keys = {"seatable-vllm:aws_access_key_id": "AKIAEXAMPLE", "seatable-vllm:aws_secret_access_key": SECRET}
    recorded = record_program("local", settings(domain=domain), secrets=keys)
    assert recorded.one("certificates-present").is_secret("stdin")
    assert SECRET not in "".join(resource.public_text for resource in recorded.resources)
    assert "_acme-challenge" in recorded.outputs["route53_policy"].value
    assert not any(SECRET in json.dumps(output.value) for output in recorded.outputs.values())


def test_files_that_cannot_be_read_end_the_program_before_anything_is_asked_for(
    record_program: Any, tmp_path: Path
) -> None:
    (tmp_path / "no.pem").write_text("nothing of the kind")
    domain = {"host": HOST, "tls": "files", "certificate": "/nowhere/c.pem", "key": str(tmp_path / "no.pem")}
    recorded = record_program("local", settings(domain=domain), may_fail=True)
    assert not recorded.resources
    assert "seatable-vllm:domain.certificate: /nowhere/c.pem cannot be read here" in str(recorded.error)
    assert "seatable-vllm:domain.key:" in str(recorded.error)
    assert os.strerror(2) in str(recorded.error)
