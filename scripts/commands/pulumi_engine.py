"""A stack deployed by the Pulumi CLI, through the Automation API."""

import json
import os
import time
from pathlib import Path
from typing import Any

from pulumi import automation

from scripts.commands import local_docker_state
from scripts.commands.engines import Known, Outcome, Say
from scripts.commands.errors import CommandError
from scripts.commands.pulumi_cli import workspace_environment
from scripts.commands.stacks import PROJECT

LOCK_PATIENCE_SECONDS = 1800


class PulumiEngine:
    """`pulumi up` and its relatives."""

    name = "pulumi"

    def __init__(self, stack: str, data: Path, cli_root: str) -> None:
        self._name = stack
        self._data = data
        self._environment = workspace_environment()
        self._cli = automation.PulumiCommand(root=cli_root or None)

    def up(self, say: Say) -> Outcome:
        """See Engine. What an interrupted run left behind is taken over first."""
        stack = self._stack(create=True)
        assert stack is not None  # noqa: S101 - it was to be created
        self._wait_for_lock(stack, say)
        known = self._known(stack).ids
        removed = local_docker_state.remove_unknown(self._name, self._data, known, say)
        missing = bool(known) and not known <= local_docker_state.ids(self._name, self._data)
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
        local_docker_state.remove_unknown(self._name, self._data, self._known(stack).ids, say)
        try:
            result = stack.destroy(on_output=say, show_secrets=False, color="never", suppress_outputs=True)
        except automation.CommandError as error:
            raise CommandError(str(error)) from None
        return _changes(result).get("delete", 0)

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
