"""A stack deployed by the Pulumi CLI, through the Automation API."""

import json
import os
import time
from pathlib import Path
from typing import Any

from pulumi import automation

from scripts.commands.docker_state import DockerState
from scripts.commands.engines import Known, Outcome, Say
from scripts.commands.errors import CommandError
from scripts.commands.pulumi_cli import workspace_environment
from scripts.commands.pulumi_state import without
from scripts.commands.stacks import PROJECT

LOCK_PATIENCE_SECONDS = 1800


class PulumiEngine:
    """`pulumi up` and its relatives."""

    name = "pulumi"

    def __init__(self, stack: str, here: DockerState | None, cli_root: str) -> None:
        """here: what is on the machine's Docker; None where that is of no interest, or does not answer."""
        self._name = stack
        self._here = here
        self._environment = workspace_environment()
        self._cli = automation.PulumiCommand(root=cli_root or None)

    def up(self, say: Say) -> Outcome:
        """See Engine. What an interrupted run left behind is taken over first."""
        stack = self._stack(create=True)
        assert stack is not None  # noqa: S101 - it was to be created
        self._wait_for_lock(stack, say)
        known = self._known(stack).ids
        removed = self._here.remove_unknown(known, say) if self._here else 0
        missing = bool(known and self._here) and not known <= (self._here.ids() if self._here else known)
        lines: list[str] = []

        def heard(line: str) -> None:
            lines.append(line)
            say(line)

        try:
            # A refresh costs seconds, so only where something is visibly gone behind Pulumi's back.
            result = stack.up(
                on_output=heard,
                show_secrets=False,
                suppress_outputs=True,
                color="never",
                refresh=missing or removed > 0,
            )
        except automation.CommandError as error:
            raise CommandError("\n".join(lines) or str(error)) from None
        changes = _changes(result)
        changed = sum(value for key, value in changes.items() if "update" in key or "replace" in key)
        return Outcome(
            changes.get("create", 0),
            changed,
            changes.get("delete", 0),
            changes.get("same", 0),
            _opened(result.outputs),
        )

    def outputs(self) -> dict[str, Any] | None:
        """See Engine."""
        stack = self._stack(create=False)
        return (_opened(stack.outputs()) or None) if stack else None

    def known(self) -> Known:
        """See Engine."""
        stack = self._stack(create=False)
        return self._known(stack) if stack else Known()

    def down(self, say: Say) -> int:
        """See Engine."""
        stack = self._stack(create=False)
        if stack is None:
            return 0
        self._wait_for_lock(stack, say)
        left = self._here.remove_unknown(self._known(stack).ids, say) if self._here else 0
        try:
            result = stack.destroy(on_output=say, show_secrets=False, color="never", suppress_outputs=True)
        except automation.CommandError as error:
            raise CommandError(str(error)) from None
        return left + _changes(result).get("delete", 0)

    def abandon(self) -> int:
        """See Engine. Only Docker's resources are anywhere but in the state, and those went with the machine."""
        stack = self._stack(create=False)
        if stack is None:
            return 0
        state = stack.export_stack()
        resources = (state.deployment or {}).get("resources", [])
        if state.deployment and resources:
            empty = {**state.deployment, "resources": [], "pending_operations": []}
            stack.import_stack(automation.Deployment(version=state.version, deployment=empty))
        return len(resources)

    def leave_docker(self) -> int:
        """Forgets what runs on the machine's Docker, where the machine itself is about to go; how much that was.

        A machine that was stopped could not be asked to remove it, and asking one that runs would be in vain.
        """
        stack = self._stack(create=False)
        if stack is None:
            return 0
        self._wait_for_lock(stack, lambda _: None)
        state = stack.export_stack()
        deployment, left = without(state.deployment or {}, ("docker:", "pulumi:providers:docker"))
        if left:
            stack.import_stack(automation.Deployment(version=state.version, deployment=deployment))
        return left

    def forget(self) -> None:
        """Removes the empty stack and its history, not its file."""
        stack = self._stack(create=False)
        if stack is not None:
            stack.workspace.remove_stack(self._name, preserve_config=True)

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

    @staticmethod
    def _known(stack: automation.Stack) -> Known:
        deployment = stack.export_stack().deployment or {}
        return Known.from_inputs(
            (str(item["id"]), item.get("inputs", {}))
            for item in deployment.get("resources", [])
            if str(item["type"]).startswith("docker:index/") and item.get("id")
        )

    def _wait_for_lock(self, stack: automation.Stack, say: Say) -> None:
        """Waits for another run that lives, and breaks the lock of one that was killed (file backend only)."""
        begin = time.monotonic()
        while holders := self._lock_holders():
            if not any(_alive(pid) for pid in holders):
                say("breaking the lock of a run that was killed")
                stack.cancel()
                return
            if time.monotonic() - begin > LOCK_PATIENCE_SECONDS:
                raise CommandError(f"another run of this stack (process {holders[0]}) does not end; stop it first")
            say(f"waiting for another run of this stack (process {holders[0]}) to end")
            time.sleep(2)

    def _lock_holders(self) -> list[int]:
        url = self._environment.get("PULUMI_BACKEND_URL") or os.environ.get("PULUMI_BACKEND_URL", "")
        backend = url.removeprefix("file://") if url.startswith("file:///") else ""
        locks = Path(backend, ".pulumi", "locks", "organization", "seatable-vllm", self._name) if backend else None
        if locks is None or not locks.is_dir():
            return []
        return [int(json.loads(path.read_text())["pid"]) for path in locks.glob("*.json")]


def _changes(result: automation.UpResult | automation.DestroyResult) -> dict[str, int]:
    """How many resources were created, updated, deleted and so on."""
    return {str(key): int(value) for key, value in (result.summary.resource_changes or {}).items()}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _opened(outputs: Any) -> dict[str, Any]:
    return {name: output.value for name, output in outputs.items()}
