"""The programs that keep a certificate on the machine: one that `up` runs, one that stays there for the timer.

Both are bash, for a machine that has openssl, Docker and Python's standard library. What they hold of secrets
comes on standard input and is written to 0600 files below `certificates/` in the data directory.
"""

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from catalog.certificates import AWS_REGION, CA_DAYS, LEAF_DAYS, REFUSALS, RENEW_DAYS, TIMER_HOURS
from catalog.haproxy import CERTIFICATE
from components.confined import CHOSEN_OPTIONS, CHOWN_OPTIONS
from components.machine.machine import heartbeat

RELOAD_SECONDS = 30
"""Patience until new connections are shown a new certificate; a reload takes a tenth of a second."""

UNITS = "/etc/systemd/system"
SYSTEMD = "/run/systemd/system"
"""Is there where systemd runs the machine (sd_booted(3))."""


@dataclass(frozen=True)
class Renewal:
    """What the program on the machine is made for.

    folder: `certificates/` in the data directory. host: the name. source: the setting domain.tls, with the CA's
    directory where there is one; another source means another certificate. edge: name of the edge's container.
    port: where it listens. unit: name of the timer.
    """

    folder: str
    host: str
    source: str
    edge: str
    port: int
    unit: str


@dataclass(frozen=True)
class Acme:
    """How lego is asked. http: by port 80, else by Route 53. has_roots: whether the CA's own roots are given.

    resolvers: DNS resolvers in place of the machine's, ADDRESS or ADDRESS:PORT.
    """

    image: str
    directory: str
    store: str
    email: str
    http: bool
    zone_id: str | None = None
    resolvers: Sequence[str] = ()
    has_roots: bool = False
    has_credentials: bool = False


def present_program(renewal: Renewal, script: str, files: Mapping[str, str | None], *, timer: bool) -> str:
    """A bash program that makes sure of a certificate and prints what it is, as JSON, in its last line.

    script: the program that stays on the machine (`renew_program`). files: texts below the folder, by name; those
    that are None are removed. timer: whether `renew` is to be run by a timer.
    """
    encoded = base64.b64encode(json.dumps({**files, "renew": script}).encode()).decode()
    return f"""\
set -euo pipefail
umask 077
folder={shlex.quote(renewal.folder)} host={shlex.quote(renewal.host)} unit={shlex.quote(renewal.unit)}
mkdir -p "$folder"
{heartbeat("waiting for the certificate of $host, $SECONDS s")}
python3 -c 'import base64, json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
for name, text in json.loads(base64.b64decode(sys.stdin.read())).items():
    path = folder / name
    if text is None:
        path.unlink(missing_ok=True)
        continue
    path.parent.mkdir(mode=0o700, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.chmod(0o700 if name == "renew" else 0o600)
    part.replace(path)' "$folder" <<'FILES'
{encoded}
FILES
"$folder/renew"
{_TIMER if timer else ""}
python3 - "$folder" "$host" <<'FACTS'
import json, pathlib, re, ssl, subprocess, sys, time
folder, host = pathlib.Path(sys.argv[1]), sys.argv[2]
told = subprocess.run(["openssl", "x509", "-in", folder / "live/{CERTIFICATE}", "-noout", "-enddate"],
                      capture_output=True, text=True, check=True).stdout
end = time.gmtime(ssl.cert_time_to_seconds(told.strip().partition("=")[2]))
print(json.dumps({{"host": host, "not_after": time.strftime("%Y-%m-%dT%H:%M:%SZ", end),
                  "ca": (folder / "ca.pem").read_text()}}))
FACTS
"""


def renew_program(renewal: Renewal, obtain: str) -> str:
    """The bash program that stays on the machine: `renew`, `renew --force`, `renew --timer`.

    It gets a certificate where one is due (always with --force), tries it, puts it where the edge reads it, and
    has the edge take it. obtain: bash that defines `obtain`, which writes $part/{CERTIFICATE}.
    """
    return f"""\
#!/usr/bin/env bash
# Made by seatable-vllm; the next `up` writes it again.
set -euo pipefail
umask 077
folder={shlex.quote(renewal.folder)} host={shlex.quote(renewal.host)} source={shlex.quote(renewal.source)}
edge={shlex.quote(renewal.edge)} port={renewal.port} unit={shlex.quote(renewal.unit)} asked=${{1:-}}
fail() {{
  printf '%s\\n' "phase: certificate" "cause: $1" "change: $2" ${{3:+"seen: $3"}} >&2
  exit 1
}}
command -v openssl >/dev/null || fail "the openssl command is not there" "install openssl on the machine"
cd "$folder"
{_EDGE}
{_GONE}
if command -v flock >/dev/null; then exec 9>.lock; flock 9; fi
rm -rf .part.*
mkdir -p live
part=$(mktemp -d "$folder/.part.XXXXXX")
trap 'rm -rf "$part"' EXIT
{_CHECK}
{obtain}
{_MAIN}"""


_CHECK = f"""\
covers() {{ openssl x509 -in "$1" -noout -checkhost "$host" 2>/dev/null | grep -q 'does match'; }}
good_for() {{ # days: whether what the edge has is for this host, from this source, and lasts
  [ -f live/{CERTIFICATE} ] && [ "$(cat source 2>/dev/null)" = "$source" ] && covers live/{CERTIFICATE} &&
    openssl x509 -in live/{CERTIFICATE} -noout -checkend $(($1 * 86400)) >/dev/null
}}
date_of() {{ openssl x509 -in "$2" -noout "-$1" | cut -d= -f2; }}
check() {{ # certificate, key, their names, what to change: never give the edge what it could not use
  openssl x509 -in "$1" -noout 2>/dev/null || fail "$3 holds no certificate in PEM" "$5"
  openssl pkey -in "$2" -noout -passin pass: 2>/dev/null ||
    fail "$4 holds no private key in PEM that can be read without a passphrase" "$5"
  [ "$(openssl x509 -in "$1" -noout -pubkey)" = "$(openssl pkey -in "$2" -pubout -passin pass:)" ] ||
    fail "$4 is not the key of $3" "$5"
  covers "$1" || fail "$3 is not for $host but for $(openssl x509 -in "$1" -noout -ext subjectAltName 2>/dev/null |
    grep -oE '(DNS|IP Address):[^, ]+' | paste -sd ' ')" "$5; or set seatable-vllm:domain.host to a name it has"
  openssl x509 -in "$1" -noout -checkend 0 >/dev/null || fail "$3 has ended on $(date_of enddate "$1")" "$5"
  python3 -c 'import ssl, sys, time; sys.exit(ssl.cert_time_to_seconds(sys.argv[1]) > time.time())' \\
    "$(date_of startdate "$1")" || fail "$3 is not valid before $(date_of startdate "$1")" "$5, or set the clock"
}}"""

_EDGE = f"""\
edge_has_this() {{ # whether the edge of this stack is made to read this folder
  [ "$(docker inspect --format '{{{{index .Config.Labels "seatable-vllm.certificates"}}}}' "$edge" 2>/dev/null)" \\
    = "$folder/live" ]
}}
tell_the_edge() {{
  edge_has_this || return 0
  form='{{{{.State.Running}}}} {{{{index .Config.Labels "seatable-vllm.port"}}}}'
  state=$(docker inspect --format "$form" "$edge")
  [ "$state" = "true $port" ] || return 0
  # From inside the container: `docker kill` would make Docker take the edge for stopped by hand.
  python3 - "$edge" "$port" live/{CERTIFICATE} <<'RELOAD' ||
import re, socket, ssl, subprocess, sys, time
edge, port, path = sys.argv[1:]
wanted = ssl.PEM_cert_to_DER_cert(
    re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", open(path).read(), re.S)[0])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
def shown():
    try:
        with socket.create_connection(("127.0.0.1", int(port)), timeout=5) as plain:
            with context.wrap_socket(plain) as secure:
                return secure.getpeercert(binary_form=True)
    except OSError:
        return None
end, asked = time.monotonic() + {RELOAD_SECONDS}, 0
while (seen := shown()) != wanted:
    if time.monotonic() > end:
        sys.exit(1)
    if seen and time.monotonic() > asked + 10:
        asked = time.monotonic()
        subprocess.run(["docker", "exec", edge, "sh", "-c", "kill -USR2 1"], capture_output=True)
    time.sleep(0.05)
print("the edge shows this certificate")
RELOAD
    fail "the edge does not take the new certificate within {RELOAD_SECONDS} s" "docker logs $edge says why"
}}"""

_GONE = f"""\
if [ "$asked" = --timer ] && docker info >/dev/null 2>&1 && ! edge_has_this; then
  sleep 60 # it may just be made again, or this file be a few minutes old and its edge not made yet
  if ! edge_has_this && [ -z "$(find renew -mmin -60)" ]; then
    echo "the stack is gone, or has no domain any more: the timer removes itself"
    as_root() {{ if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }}
    as_root systemctl disable --now "$unit.timer"
    as_root rm -f "{UNITS}/$unit.timer" "{UNITS}/$unit.service"
    exit 0
  fi
fi"""

_MAIN = f"""\
if [ "$asked" = --force ] || ! good_for {RENEW_DAYS}; then
  # Not as a condition: bash would then go on after an error inside.
  set +e
  ( set -e; obtain )
  status=$?
  set -e
  if [ $status = 0 ]; then
    if ! cmp -s "$part/{CERTIFICATE}" live/{CERTIFICATE}; then mv -f "$part/{CERTIFICATE}" live/{CERTIFICATE}; fi
    printf %s "$source" > source
  elif [ -z "$asked" ] && good_for 1; then
    echo "not renewed; the present certificate is good until $(date_of enddate live/{CERTIFICATE})," \\
      "and the next run tries again" >&2
  else
    exit $status
  fi
fi
# What a client has to trust: a CA of one's own, whoever else has been told of it; else what the roots of this
# system do not vouch for.
if [ "$source" = private-ca ]; then cp "ca/$host.pem" "$part/ca.pem"
elif [ -f roots.pem ]; then cp roots.pem "$part/ca.pem"
elif openssl verify -untrusted live/{CERTIFICATE} live/{CERTIFICATE} >/dev/null 2>&1; then : > "$part/ca.pem"
else
  awk '/BEGIN CERTIFICATE/ {{ on = ++n > 1 }} on; /END CERTIFICATE/ {{ on = 0 }}' live/{CERTIFICATE} \\
    > "$part/ca.pem"
  [ -s "$part/ca.pem" ] || openssl x509 -in live/{CERTIFICATE} -out "$part/ca.pem"
fi
mv -f "$part/ca.pem" ca.pem
tell_the_edge
echo "the certificate of $host is good until $(date_of enddate live/{CERTIFICATE})"
"""


_TIMER = f"""\
as_root() {{ if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }}
if [ ! -d {SYSTEMD} ]; then
  echo "no systemd on this machine, so no timer: the first up of a week renews the certificate where that is due"
elif ! as_root true 2>/dev/null; then
  echo "no timer without sudo: the first up of a week renews the certificate where that is due"
else
  escaped=${{folder//%/%%}} changed=
  put() {{
    if ! cmp -s - "{UNITS}/$1" <<< "$2"; then as_root tee "{UNITS}/$1" >/dev/null <<< "$2"; changed=yes; fi
  }}
  put "$unit.service" "[Unit]
Description=Renewal of the certificate of $host
Wants=network-online.target
After=network-online.target docker.service
ConditionPathExists=$escaped/renew
[Service]
Type=oneshot
User=$(id -un)
${{DOCKER_HOST:+Environment=DOCKER_HOST=$DOCKER_HOST}}
ExecStart=\\"$escaped/renew\\" --timer"
  put "$unit.timer" "[Unit]
Description=Renewal of the certificate of $host
[Timer]
OnCalendar=*-*-* 00/{TIMER_HOURS}:00:00
RandomizedDelaySec=6h
Persistent=true
[Install]
WantedBy=timers.target"
  [ -z "$changed" ] || as_root systemctl daemon-reload
  as_root systemctl enable --now "$unit.timer" >/dev/null 2>&1
  as_root chmod 0644 "{UNITS}/$unit.service" "{UNITS}/$unit.timer"
  echo "the timer $unit renews the certificate"
fi"""
"""Bash that sets up a timer for `renew --timer`, or says in words why there is none."""


def private_ca() -> str:
    """Bash that makes a CA once, and a certificate under it. The CA's key never leaves the machine."""
    return f"""\
obtain() {{
  mkdir -p ca
  # The CA can sign for this host alone: whoever trusts it trusts it for nothing else.
  cat > "$part/openssl.cnf" <<CONFIGURATION
[req]
distinguished_name = name
prompt = no
[name]
O = seatable-vllm
CN = private CA of ${{host:0:48}}
[ca]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical,permitted;DNS:$host
[leaf]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:$host
CONFIGURATION
  new_key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
  if ! openssl x509 -in "ca/$host.pem" -noout -checkend $(({LEAF_DAYS} * 86400)) >/dev/null 2>&1; then
    openssl req -x509 $new_key -keyout "$part/ca.key" -out "$part/ca.pem" -days {CA_DAYS} \\
      -config "$part/openssl.cnf" -extensions ca 2>"$part/log" || {{ cat "$part/log" >&2; return 1; }}
    mv -f "$part/ca.key" "ca/$host.key"
    mv -f "$part/ca.pem" "ca/$host.pem"
  fi
  openssl req -new $new_key -keyout "$part/leaf.key" -out "$part/leaf.csr" -subj /O=seatable-vllm \\
    -config "$part/openssl.cnf" 2>"$part/log" || {{ cat "$part/log" >&2; return 1; }}
  openssl x509 -req -in "$part/leaf.csr" -CA "ca/$host.pem" -CAkey "ca/$host.key" -days {LEAF_DAYS} \\
    -set_serial "0x$(openssl rand -hex 16)" -extfile "$part/openssl.cnf" -extensions leaf \\
    -out "$part/leaf.pem" 2>"$part/log" || {{ cat "$part/log" >&2; return 1; }}
  check "$part/leaf.pem" "$part/leaf.key" "the certificate of the private CA" "its key" \\
    "remove the folder $folder and run up again; clients then need the new CA"
  cat "$part/leaf.pem" "$part/leaf.key" > "$part/{CERTIFICATE}"
}}"""


def given_files() -> str:
    """Bash that takes the files that `up` brought, after a look at them."""
    return f"""\
good_for() {{ return 1; }} # they are looked at every time, and refused where they are wrong
obtain() {{
  check given/certificate.pem given/key.pem seatable-vllm:domain.certificate seatable-vllm:domain.key \\
    "give the files of a valid certificate for $host in seatable-vllm:domain.certificate and domain.key"
  {{ cat given/certificate.pem; echo; cat given/key.pem; }} > "$part/{CERTIFICATE}"
}}"""


def acme(order: Acme) -> str:
    """Bash that lets lego get or renew a certificate. Account and certificates stay in a folder per directory."""
    resolvers = "".join(f" --dns.resolvers {shlex.quote(each)}" for each in order.resolvers)
    challenge = "--http --http.port :80" if order.http else f"--dns route53{resolvers}"
    mounts = [
        f'--volume "$folder/{order.store}:/state"',
        *(['--volume "$folder/roots.pem:/roots.pem:ro" --env LEGO_CA_CERTIFICATES=/roots.pem'] * order.has_roots),
        *([f"--env AWS_REGION={AWS_REGION}"] * (not order.http)),
        *([f"--env AWS_HOSTED_ZONE_ID={order.zone_id}"] * bool(order.zone_id)),
        # By a file: the environment of a container is shown by `docker inspect`.
        *(
            ['--volume "$folder/aws:/aws:ro" --env AWS_SHARED_CREDENTIALS_FILE=/aws/credentials']
            * order.has_credentials
        ),
    ]
    # Port 80 is root's, and lego keeps what it writes to itself.
    user = "0:0" if order.http else "$(id -u):$(id -g)"
    rights = "--cap-add NET_BIND_SERVICE --cap-add DAC_OVERRIDE " if order.http else ""
    joined = " \\\n    ".join(mounts)
    return f"""\
explain() {{
  tail -n 20 "$1" >&2
  # What it is about to do names things that did not go wrong.
  grep -v -F '[INFO]' "$1" > "$part/errors" || true
{_explanations()}
  fail "lego could not get a certificate; the lines above say why" "what they name, below seatable-vllm:domain"
}}
obtain() {{
  store={order.store} image={shlex.quote(order.image)} name="$edge-lego"
  mkdir -p "$store"
  verb="run"
  if [ -f "$store/certificates/$host.crt" ]; then
    days={RENEW_DAYS}
    [ "$asked" != --force ] || days=36500
    verb="renew --no-random-sleep --days $days"
  fi
  docker rm --force "$name" >/dev/null 2>&1 || true # one that an interrupted run left
  docker run --rm --name "$name" --network host --user "{user}" {CHOSEN_OPTIONS} {rights}\\
    --read-only \\
    {joined} \\
    "$image" --path /state --accept-tos --email {shlex.quote(order.email)} \\
    --server {shlex.quote(order.directory)} --key-type ec256 --domains "$host" {challenge} $verb \\
    >"$part/log" 2>&1 9>&- || explain "$part/log"
  if [ ! -O "$store/certificates/$host.key" ]; then
    docker run --rm --network none {CHOWN_OPTIONS} \\
      --user 0:0 --volume "$folder/$store:/state" --entrypoint chown "$image" \\
      -R "$(id -u):$(id -g)" /state
  fi
  chmod -R go= "$store"
  check "$store/certificates/$host.crt" "$store/certificates/$host.key" "the certificate that the CA issued" \\
    "its key" "remove $folder/$store and run up again; mind the CA's rate limits"
  cat "$store/certificates/$host.crt" "$store/certificates/$host.key" > "$part/{CERTIFICATE}"
}}"""


def _explanations() -> str:
    lines = []
    for refusal in REFUSALS:
        told = f"fail {shlex.quote(refusal.cause)} {shlex.quote(refusal.change)}"
        policy = "{ cat policy.json; echo; } >&2 || true; " if "AccessDenied" in refusal.pattern else ""
        lines.append(
            f'  if line=$(grep -i -m 1 -E -- {shlex.quote(refusal.pattern)} "$part/errors"); then\n'
            f'    {policy}{told} "${{line:0:300}}"\n'
            "  fi"
        )
    return "\n".join(lines)


def aws_credentials(access_key_id: str, secret_access_key: str) -> str:
    """The text of a shared credentials file."""
    return f"[default]\naws_access_key_id = {access_key_id}\naws_secret_access_key = {secret_access_key}\n"
