"""A stack deployed by the Pulumi CLI, through the Automation API.

Each call of the CLI takes a fifth of a second, and `Stack` of the Automation API makes several for one thing: it
selects the stack, and after an `up` asks for the outputs twice. What every `up` does is asked of the CLI itself.
"""

import functools
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from pulumi import automation

from catalog.aws.owned import Recorded
from catalog.aws.tags import tags_of
from components.machine.aws.access import GPU_VM, Place
from components.machine.machine import MACHINE_OWNER
from rehearsal.stack_file import stack_config
from scripts.commands import pulumi_process
from scripts.commands.docker_state import DockerState
from scripts.commands.engines import Known, Outcome, Say
from scripts.commands.errors import CommandError, failure
from scripts.commands.interrupts import Interrupted
from scripts.commands.progress import Progress
from scripts.commands.pulumi_cli import workspace_environment
from scripts.commands.pulumi_events import Following
from scripts.commands.pulumi_lock import Lock, Run, judge, noted, refusal
from scripts.commands.stacks import PROJECT
from scripts.commands.strays import Settled, StackAccount, settle
from settings import NAMESPACE, value_of

LOCK_PATIENCE_SECONDS = 1800
REMINDER_SECONDS = 60
"""How often whoever waits for another run is reminded of it."""

UUID = "random:index/randomUuid:RandomUuid"
INSTANCE = "aws:ec2/instance:Instance"
ATTACHMENT = "aws:ec2/volumeAttachment:VolumeAttachment"
"""What ends with an instance. The provider would stop that first, which AWS refuses of one that is terminated."""

_QUIETLY = ("--yes", "--skip-preview", "--suppress-outputs", "--color=never")


class PulumiEngine:
    """`pulumi up` and its relatives."""

    name = "pulumi"

    def __init__(self, stack: str, here: DockerState | None, cli_root: str) -> None:
        """here: what is on the machine's Docker; None where that is of no interest, or does not answer."""
        self.here = here
        self._name = stack
        self._environment = workspace_environment()
        self._cli_root = cli_root
        self._seen: Known | None = None
        self._ahead: Future[Known | None] | None = None

    def up(self, progress: Progress) -> Outcome:
        """See Engine. What an interrupted run left behind is taken over first."""
        known = self._seen or self._known()
        if known is None:
            self._stack(create=True)
        self._wait_for_lock(progress.say)
        if known and known.pending:
            self._forget_pending()
        refresh = self._take_over(known or Known(), progress.say)
        try:
            self._change(["up", *_QUIETLY, *(["--refresh"] if refresh else [])], progress)
        finally:
            self._seen = None
        with ThreadPoolExecutor() as at_once:
            changes, outputs = at_once.submit(self._last_changes), at_once.submit(self.outputs)
        return _outcome(changes.result(), outputs.result() or {})

    def outputs(self) -> dict[str, Any] | None:
        """See Engine."""
        try:
            told = self._run("stack", "output", "--json", "--show-secrets")
        except automation.StackNotFoundError:
            return None
        except automation.CommandError as error:
            raise CommandError(f"Pulumi cannot read the outputs of the stack {self._name}: {error}") from None
        return dict(json.loads(told)) or None

    def read_ahead(self) -> None:
        """Begins to read the state that `known` will be asked for; whoever goes on does not wait for it."""
        reader = ThreadPoolExecutor(max_workers=1)
        self._ahead = reader.submit(self._known)
        reader.shutdown(wait=False)

    def known(self) -> Known:
        """See Engine."""
        ahead, self._ahead = self._ahead, None
        self._seen = ahead.result() if ahead else self._known()
        return self._seen or Known()

    def generated(self, name: str) -> str | None:
        """See Engine."""
        try:
            state = json.loads(self._run("stack", "export", "--show-secrets"))
        except automation.CommandError as error:
            raise CommandError(f"Pulumi cannot read the state of the stack {self._name}: {error}") from None
        return generated_in(state, name)

    def place(self) -> Place | None:
        """Where the machine is that the program has made; None where it is not there, or out of reach."""
        stack = self._stack(create=False)
        deployment = (stack.export_stack().deployment or {}) if stack else {}
        resources = deployment.get("resources", [])
        if not any(item["type"] == INSTANCE for item in resources):
            # A `down` that was interrupted has removed it; the component still says where it was.
            return None
        for item in resources:
            if item["type"] == GPU_VM and "place" in item.get("outputs", {}):
                return cast(Place, item["outputs"]["place"])
        return None

    def down(self, progress: Progress) -> int:
        """See Engine."""
        if self._known() is None:
            return 0
        self._wait_for_lock(progress.say)
        known = self._known() or Known()
        if known.pending:
            self._forget_pending()
        left = self.here.remove_unknown(known.ids, progress.say) if self.here else 0
        # The stack itself and its providers are Pulumi's own: an `up` that was refused leaves nothing but these.
        there = [each for each in (self._export() or {}).get("resources", []) if not own_to_pulumi(each)]
        self._change(["destroy", *_QUIETLY], progress)
        return left + (self._last_changes().get("delete", 0) if there else 0)

    def recorded(self) -> Recorded:
        """What the state says of an AWS account, and of steps that a killed run was at."""
        return Recorded.of(self._export() or {})

    def settle(self, account: StackAccount, say: Say, *, removing: bool = False) -> Settled:
        """Removes what interrupted runs have left in the account and in the state."""
        self._wait_for_lock(say)
        return settle(account, self.recorded, self._forget_pending, say, removing=removing)

    def compare(self, ids: Collection[tuple[str, str]], progress: Progress) -> None:
        """Has Pulumi look whether resources of these types and ids exist; those that do not leave the state."""
        resources = (self._export() or {}).get("resources", [])
        urns = [str(each["urn"]) for each in resources if (each["type"], each.get("id")) in ids]
        self._change(["refresh", *_QUIETLY, *(f"--target={urn}" for urn in urns)], progress)

    def plain_up_seconds(self) -> float:
        """How long the CLI alone takes for an `up`, in seconds."""
        begin = time.monotonic()
        self._run("up", *_QUIETLY)
        return time.monotonic() - begin

    def abandon(self) -> int:
        """See Engine. What is anywhere but in the state is on the machine, and went with it."""
        resources = (self._export() or {}).get("resources", [])
        if resources:
            self._rewrite(resources=[])
        return len(resources)

    def forget_machine(self) -> None:
        """Forgets an instance that AWS no longer has, and what ended with it.

        Data volume, address and name stay, for the one that the next `up` makes.
        """
        resources = (self._export() or {}).get("resources", [])
        left = without_instance(resources)
        if len(left) < len(resources):
            self._rewrite(resources=left)

    def keep_secret(self, name: str, value: str) -> None:
        """Encrypts a setting into the stack's file. The value is no argument, which every user could read."""
        self._stack(create=True)
        self._feed(f"cannot keep {name}", value, "config", "set", "--secret", f"{NAMESPACE}:{name}")

    def forget(self) -> None:
        """Removes the empty stack and its history, not its file."""
        stack = self._stack(create=False)
        if stack is not None:
            stack.workspace.remove_stack(self._name, preserve_config=True)

    @property
    def _cli(self) -> automation.PulumiCommand:
        return _cli(self._cli_root)

    def _stack(self, *, create: bool) -> automation.Stack | None:
        options = automation.LocalWorkspaceOptions(
            work_dir=str(PROJECT), env_vars=self._environment, pulumi_command=self._cli
        )
        try:
            if create:
                return automation.create_or_select_stack(self._name, work_dir=str(PROJECT), opts=options)
            return automation.select_stack(self._name, work_dir=str(PROJECT), opts=options)
        except automation.StackNotFoundError:
            return None
        except automation.CommandError as error:
            raise CommandError(f"Pulumi cannot open the stack {self._name}: {error}") from None

    def _run(self, *arguments: str) -> str:
        """What the CLI prints for the stack; it need not be the selected one."""
        return pulumi_process.ask(self._cli.command, [*arguments, "--stack", self._name], self._environment)

    def _change(self, words: Sequence[str], progress: Progress) -> None:
        """Has the CLI change the stack. CommandError with what failed, Interrupted where it was asked to end."""
        following = _Change(progress, self._name)
        with noted(self._note, self._locks):
            status, received = pulumi_process.change(
                self._cli.command, [*words, "--json", "--stack", self._name], self._environment, following
            )
        if received:
            raise Interrupted(following.end(), received[0])
        if status == -signal.SIGKILL:
            raise failure(
                "Pulumi was killed, by somebody or because this computer ran out of memory (dmesg names what was)",
                f"run scripts/up {self._name} to go on, or scripts/down {self._name}: each first removes what was "
                "being made",
            )
        if status != 0:
            raise CommandError("\n".join(following.errors) or f"Pulumi ended with status {status}")

    def _take_over(self, known: Known, say: Say) -> bool:
        """Removes what an interrupted run left behind; whether the state has to be compared with what there is.

        That costs seconds, so only where something is visibly gone behind Pulumi's back.
        """
        if self.here is None or self.here.ids() == known.ids:
            return False
        ids = (self._known() or Known()).ids  # another run may have ended since the state was read
        removed = self.here.remove_unknown(ids, say)
        return removed > 0 or not ids <= self.here.ids()

    def _last_changes(self) -> dict[str, int]:
        """How many resources the last run created, updated, deleted and so on."""
        runs = json.loads(self._run("stack", "history", "--json", "--page-size=1", "--page=1"))
        return dict(runs[0].get("resourceChanges") or {}) if runs else {}

    def _known(self) -> Known | None:
        """What the state holds of Docker; None where there is no such stack."""
        deployment = self._export()
        if deployment is None:
            return None
        resources = deployment.get("resources", [])
        owners = [
            str(item["outputs"]["result"])
            for item in resources
            if item["type"] == UUID and str(item["urn"]).endswith(f"::{MACHINE_OWNER}")
        ]
        made = (
            (str(item["id"]), item.get("inputs", {}))
            for item in resources
            if str(item["type"]).startswith("docker:index/") and item.get("id")
        )
        pending = deployment.get("pending_operations") or []
        return Known.from_inputs(made, owners[0] if owners else None, len(pending))

    def _export(self) -> dict[str, Any] | None:
        """The state without its secrets; None where there is no such stack."""
        try:
            return dict(json.loads(self._run("stack", "export"))["deployment"] or {})
        except automation.StackNotFoundError:
            return None
        except automation.CommandError as error:
            raise CommandError(f"Pulumi cannot open the stack {self._name}: {error}") from None

    def _forget_pending(self) -> None:
        """Takes the marks of steps that no run is at any more out of the state."""
        self._rewrite()

    def _rewrite(self, **changed: Any) -> None:
        """Replaces parts of the state, whose secrets stay encrypted. CommandError where a run is changing it.

        The marks of what a killed run was at go with every rewriting: Pulumi takes them for steps under way.
        """
        state = json.loads(self._run("stack", "export"))
        state["deployment"] = {**(state["deployment"] or {}), "pending_operations": [], **changed}
        self._feed("cannot correct the state", json.dumps(state), "stack", "import")

    def _feed(self, failed: str, value: str, *words: str) -> None:
        """Has the CLI read a value, which is no argument: every user could read those. failed: for the error."""
        done = subprocess.run(
            [self._cli.command, *words, "--non-interactive", "--stack", self._name],
            cwd=PROJECT,
            env={**os.environ, **self._environment},
            input=value,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CommandError(f"Pulumi {failed} of the stack {self._name}: {done.stderr.strip()}")

    def _wait_for_lock(self, say: Say) -> None:
        """Waits for another run that lives; breaks the lock of one that is gone for certain (file backend only).

        CommandError where that cannot be told from here: the holder may be on another computer, or in a container.
        """
        begin = said = time.monotonic()
        while locks := self._locks():
            here = Run.here()
            verdicts = {lock: judge(lock, self._note, here) for lock in locks}
            for lock, verdict in verdicts.items():
                if verdict == "unknown":
                    raise refusal(self._name, lock, self._environment, self._cli.command)
            lives = [lock for lock, verdict in verdicts.items() if verdict == "lives"]
            if not lives:
                say("breaking the lock of a run that was killed")
                self._run("cancel", "--yes")
                return
            if time.monotonic() - begin > LOCK_PATIENCE_SECONDS:
                raise CommandError(f"another run of this stack ({lives[0]}) does not end; stop it first")
            now = time.monotonic()
            if said == begin or now - said > REMINDER_SECONDS:
                say(f"waiting for another run of this stack ({lives[0]}) to end")
                said = now
            time.sleep(2)

    @property
    def _note(self) -> Path:
        """Where a run of this checkout notes itself while it changes the stack."""
        return PROJECT / ".state" / self._name / "run.json"

    def _locks(self) -> list[Lock]:
        url = self._environment.get("PULUMI_BACKEND_URL") or os.environ.get("PULUMI_BACKEND_URL", "")
        if not url.startswith("file://"):
            return []
        backend = PROJECT / Path(url.removeprefix("file://").partition("?")[0]).expanduser()
        folder = backend / ".pulumi" / "locks" / "organization" / "seatable-vllm" / self._name
        # One that its holder has just removed is none.
        return [lock for path in sorted(folder.glob("*.json")) if (lock := Lock.read(path)) and path.exists()]


class _Change(Following):
    """One change of the stack by the CLI, and what whoever breaks it off has to know."""

    def __init__(self, progress: Progress, stack: str) -> None:
        super().__init__(progress)
        self._progress, self._stack = progress, stack
        self._lost = ""

    def stopping(self, times: int) -> None:
        """See pulumi_process.Listener."""
        now = self._progress.under_way()
        if times == 1:
            self._progress.line(
                f"stopping: Pulumi awaits the steps under way{f' ({now})' if now else ''}, and records what they "
                "made. Ctrl-C again ends it at once; what is being made then may run and be in no state"
            )
            return
        self._lost = now or self._lost or "whatever was under way"
        self._progress.line("ending Pulumi at once" if times == 2 else "killing Pulumi")

    def end(self) -> str:
        """The last words of a run that was asked to end."""
        go_on = (
            f"run scripts/up {self._stack} again to go on from here, or scripts/down {self._stack} to remove it"
        )
        if not self._lost:
            return f"stopped; Pulumi has recorded what was made. To go on:\n{go_on}"
        return (
            f"stopped at once. This may exist, cost, and be in no state: {self._lost}\n"
            f"to see what there is: {looks_at(self._stack)}\nthen {go_on}"
        )


def looks_at(stack: str) -> str:
    """The command that shows what a stack has, whether or not a state knows it."""
    config = stack_config(stack, PROJECT, secret="")
    machine = value_of("machine", config.get(f"{NAMESPACE}:machine"))
    if not (isinstance(machine, dict) and machine.get("kind") == "aws"):
        return f"scripts/doctor {stack}"
    tags = " ".join(f"Key={name},Values={shlex.quote(value)}" for name, value in tags_of(stack).items())
    region = config.get("aws:region", "REGION")
    return f"aws resourcegroupstaggingapi get-resources --region {region} --tag-filters {tags}"


def generated_in(state: Mapping[str, Any], name: str) -> str | None:
    """The `result` of the random resource of this name in an exported state with opened secrets, or None."""
    for item in (state.get("deployment") or {}).get("resources", []):
        if str(item["type"]).startswith("random:") and str(item["urn"]).endswith(f"::{name}"):
            result = item.get("outputs", {}).get("result")
            # An opened secret stays in its envelope, as JSON.
            return str(json.loads(result["plaintext"]) if isinstance(result, Mapping) else result)
    return None


def own_to_pulumi(resource: Mapping[str, Any]) -> bool:
    """Whether this is the stack itself or a provider, of which there is nothing anywhere but in the state."""
    return str(resource["type"]).startswith("pulumi:")


def without_instance(resources: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The resources of a state without its EC2 instance, what lived on it, and its link to the data volume."""
    instances = {item["urn"] for item in resources if item["type"] == INSTANCE}
    left = [
        dict(item)
        for item in resources
        if item["urn"] not in instances and item.get("deletedWith") not in instances and item["type"] != ATTACHMENT
    ]
    known = {item["urn"] for item in left}
    for item in left:
        # The engine refuses a state in which something depends on what is not there.
        item["dependencies"] = [urn for urn in item.get("dependencies") or [] if urn in known]
        item["propertyDependencies"] = {
            name: [urn for urn in urns or [] if urn in known]
            for name, urns in (item.get("propertyDependencies") or {}).items()
        }
        if item["type"] == GPU_VM:
            item["outputs"] = {name: value for name, value in item.get("outputs", {}).items() if name != "place"}
    return left


@functools.cache
def _cli(root: str) -> automation.PulumiCommand:
    """The CLI; making this object asks it for its version. root: its folder, or empty for the one on PATH."""
    return automation.PulumiCommand(root=root or None)


def _outcome(changes: Mapping[str, int], outputs: dict[str, Any]) -> Outcome:
    changed = sum(number for kind, number in changes.items() if "update" in kind or "replace" in kind)
    return Outcome(changes.get("create", 0), changed, changes.get("delete", 0), changes.get("same", 0), outputs)
