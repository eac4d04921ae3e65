"""The bash program that runs on this computer, waits for a machine to answer over SSH, and learns which one it is.

It is asked on every `up` and every preview: it alone notices that a machine was set up anew at the same address.
"""

import json
import shlex
from dataclasses import dataclass

import pulumi
from pulumi.output import UNKNOWN

from components.machine.ssh import CONNECT_SECONDS, Ssh

BOOT_SECONDS = 900
"""Patience for a machine that does not answer yet, or whose cloud-init is still at work."""
DENIED_SECONDS = 45
"""Patience where the login is refused or the name not known: cloud-init installs keys late, DNS lags."""
DOCKER_SECONDS = 60
"""Patience for a Docker that is starting; after that the gate says what is wrong with it."""
GLANCE_SECONDS = 5
"""Patience of a preview."""
AWAY = 69
"""Status of the program where nothing answers at all (EX_UNAVAILABLE)."""
NOT_YET = 75
"""Status of the remote part while the machine is still being set up (EX_TEMPFAIL)."""

_LOOK = f"""\
{{
if [ -e /run/cloud-init/enabled ] && [ ! -e /run/cloud-init/result.json ]; then
  echo "cloud-init is still at work"; exit {NOT_YET}
fi
docker=$(docker info --format '{{{{.ID}}}}' 2>/dev/null) || docker=
# Why not is asked without a format: with one, older clients do not say it.
if [ -z "$docker" ] && [ "$1" = wait ] && command -v docker >/dev/null &&
  [[ $(docker info 2>&1) != *denied* ]]; then
  echo "Docker does not answer yet"; exit {NOT_YET}
fi
[ -n "$docker" ] || [ "$1" != glance ] || {{ echo "{{}}"; exit 0; }}
machine=$(cat /etc/machine-id /var/lib/dbus/machine-id 2>/dev/null | head -n 1)
printf '{{"identity": "%s"}}\\n' "$(printf '%s %s' "$machine" "$docker" | sha256sum | cut -c 1-16)"
exit
}}
"""
"""What the machine says of itself: a digest, because machine-id is not for everybody's eyes.

Docker's own id is part of it, so that a Docker that lost its images and containers counts as another machine.
"""


@dataclass(frozen=True)
class WaysOut:
    """What to do about a machine that cannot be reached. Bash expands $what and $setting.

    key: it shows another host key. denied: it refuses the login. name: its name is not known. away: it is silent.
    """

    key: str
    denied: str
    name: str
    away: str


def ways_out(ssh: Ssh, stack: str) -> WaysOut:
    """What the person at this computer can do, by how the machine is reached."""
    accept = f"scripts/up {stack} --machine-replaced (or remove {ssh.known_hosts})"
    if ssh.instance is None:
        pin = "seatable-vllm:machine.host_key"
        return WaysOut(
            key=f"set {pin} to the machine's own key (/etc/ssh/ssh_host_ed25519_key.pub)"
            if ssh.pinned
            else f"if you have replaced or reinstalled it: {accept}, or pin the new key with {pin}. If not, "
            "somebody may be in between",
            denied="check the user in $setting and the key (machine.ssh_key, or ssh-add -l for the agent)",
            name="correct $setting",
            away="start $what; check $setting and the firewalls",
        )
    runs = f"see that it runs (scripts/up {stack} starts it)"
    return WaysOut(
        key=f"it is the same instance as before: if you have made it new host keys, {accept}. If not, somebody "
        "may be in between",
        denied="the machine knows the key that it was made with: name that in seatable-vllm:machine.ssh_key, or "
        "add this one to ~/.ssh/authorized_keys there",
        name=runs,
        away=f"{runs}, that its agent reaches AWS, and that this computer's AWS user may ssm:StartSession"
        if ssh.session
        else f"{runs}, and that seatable-vllm:machine.admin_cidrs has the address that this computer has now",
    )


def _give_up(ways: WaysOut) -> str:
    """Lines of bash that end the program with what is wrong ($kind) and what to do."""
    return f"""\
    what="the machine" who=$where setting=seatable-vllm:machine.ssh
    if [ -n "$jump" ] && [[ $told == *kex_exchange_identification:* ]]; then
      what="the jump host" who="the jump host $jump" setting=seatable-vllm:machine.jump
    fi
    case $kind in
      denied) fail "$who refuses the login: $last" \\
        "{ways.denied}";;
      name) fail "the name of $what is not known: $last" "{ways.name}" {AWAY};;
      setup) fail "cloud-init on $where does not end" \\
        "see there what it waits for: cloud-init status --long; sudo tail /var/log/cloud-init-output.log";;
      docker) fail "Docker on $where does not answer" "start it there: sudo systemctl start docker";;
      beyond) fail "the jump host $jump lets us in, and $where does not answer it" \\
        "start the machine; check seatable-vllm:machine.ssh as the jump host sees it, and what that may forward" \\
        {AWAY};;
      *) fail "$who does not answer: $last" "{ways.away}" {AWAY};;
    esac
"""


_SESSION = """\
command -v aws >/dev/null ||
  fail "the aws command is not on this computer's PATH, and access ssm goes through it" \
    "install the AWS CLI, or set seatable-vllm:machine.access to ssh"
command -v session-manager-plugin >/dev/null ||
  fail "session-manager-plugin is not on this computer's PATH, and access ssm goes through it" \
    "install AWS's Session Manager plugin, or set seatable-vllm:machine.access to ssh"
"""


_JUDGE = f"""\
  case $status:$told in
    {NOT_YET}:*Docker*) now=docker; docker_since=${{docker_since:-$SECONDS}};;
    {NOT_YET}:*) now=setup;;
    255:*"IDENTIFICATION HAS CHANGED"* | 255:*"Host key verification failed"*)
      new=$(grep -o 'SHA256:[A-Za-z0-9+/]*' <<< "$told" | head -n 1)
      old=$(ssh-keygen -l -F "$alias" -f "$known" 2>/dev/null | grep -o 'SHA256:[^ ]*' | sort -u | tr '\\n' ' ')
      fail "$where shows another SSH host key than before: known ${{old:-none }}- now ${{new:-another}}" \\
        "$replaced";;
    255:*"stdio forwarding failed"*) now=beyond;;
    255:*TargetNotConnected*) now=away;;
    255:*AccessDenied* | 255:*"Unable to locate credentials"* | 255:*ExpiredToken* | 255:*"SSO session"*)
      fail "AWS does not let this computer begin a session with $where: $last" \\
        "give its AWS user ssm:StartSession on the instance and AWS-StartSSHSession, or log in (aws configure)";;
    255:*"Permission denied"* | 255:*"Too many authentication failures"*)
      now=denied limit=$short pause=10;;
    255:*"Could not resolve hostname"*) now=name limit=$short;;
    255: | 255:*onnect* | 255:*kex_exchange* | 255:*"o route"* | 255:*losed* | 255:*"imed out"*) now=away;;
    255:*) fail "ssh to $where fails: $last" "mend what ssh complains of; see seatable-vllm:machine";;
    *) fail "$where cannot run a program: $last" "the user must have a shell and bash there";;
  esac
"""
"""Lines of bash that say what kind of silence it is ($now), or end the program where no waiting helps."""


def reach_program(ssh: Ssh, stack: str, patience: int = BOOT_SECONDS) -> str:
    """Prints the machine's identity as JSON in its last line, or says in phase, cause and change why it cannot.

    patience: seconds to wait for a machine that does not answer. With 0, for previews, such a machine is no error:
    the last line is then an empty object. On standard error a line says every ten seconds what is waited for.
    """
    target = ssh.target
    looks = {
        how: ssh.command(f"bash -s {how}", once=seconds)
        for how, seconds in (("wait", CONNECT_SECONDS), ("now", CONNECT_SECONDS), ("glance", GLANCE_SECONDS))
    }
    ways = ways_out(ssh, stack)
    return f"""\
set -uo pipefail
export LC_ALL=C
replaced={shlex.quote(ways.key)}
where={shlex.quote(str(target))} jump={shlex.quote(str(ssh.jump or ""))}
known={shlex.quote(ssh.known_hosts)} alias={shlex.quote(ssh.alias)}
patience={patience} short={min(patience, DENIED_SECONDS)} kind= since=$SECONDS said=$SECONDS docker_since=
fail() {{ echo "phase: machine ready" >&2; echo "cause: $1" >&2; echo "change: $2" >&2; exit ${{3:-1}}; }}
look() {{
  case $1 in
    wait) {looks["wait"]};; now) {looks["now"]};; *) {looks["glance"]};;
  esac 2>&1 <<'LOOK'
{_LOOK}LOOK
}}
( umask 077; mkdir -p "$(dirname "$known")" )
command -v ssh >/dev/null || fail "ssh is not on this computer's PATH" "install OpenSSH's client (openssh-client)"
{_SESSION if ssh.session else ""}while :; do
  how=wait
  [ -z "$docker_since" ] || [ $((SECONDS - docker_since)) -lt {DOCKER_SECONDS} ] || how=now
  [ "$patience" -gt 0 ] || how=glance
  told=$(look $how) && {{ printf '%s\\n' "${{told##*$'\\n'}}"; exit 0; }}
  status=$? told=${{told//$'\\r'/}}
  # Of a jump host or a session that fails, ssh itself says no more than that the connection was closed.
  last=$(grep -v -e '^kex_exchange_identification: ' -e 'by UNKNOWN port' <<< "$told" | grep . | tail -n 1)
  last=${{last:-${{told##*$'\\n'}}}} limit=$patience pause=3
{_JUDGE}  [ "$now" = "$kind" ] || {{ kind=$now since=$SECONDS said=-10; }}
  if [ $((SECONDS - since)) -ge "$limit" ]; then
    [ "$patience" -gt 0 ] || {{ echo "{{}}"; exit 0; }}
{_give_up(ways)}  fi
  if [ $((SECONDS - said)) -ge 10 ]; then
    said=$SECONDS; echo "waiting for $where, $SECONDS s: $last" >&2
  fi
  left=$((limit - SECONDS + since))
  sleep $((left < pause ? left : pause))
done
"""


def identity_of(printed: str | None) -> str:
    """The identity in what the program printed; unknown where a preview could not reach the machine."""
    last = (printed or "").rstrip().rpartition("\n")[2]
    identity = json.loads(last or "{}").get("identity")
    if identity is None and not pulumi.runtime.is_dry_run():
        raise ValueError(f"the machine did not say which one it is: {last!r}")
    if identity is None:
        pulumi.log.warn("the machine cannot be asked now: this preview shows what happens if it is another one")
    return UNKNOWN if identity is None else str(identity)  # type: ignore[return-value]
