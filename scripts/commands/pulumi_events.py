"""What the Pulumi CLI reports of a change with `--json`: one event of its engine in each line."""

import json
from collections.abc import Mapping
from typing import Any

from scripts.commands.progress import Progress

DOING = {
    "create": ("creating", "created"),
    "update": ("updating", "updated"),
    "delete": ("deleting", "deleted"),
    "create-replacement": ("creating replacement", "created replacement"),
    "delete-replaced": ("deleting original", "deleted original"),
    "import": ("importing", "imported"),
    "read": ("reading", "read"),
}
"""Pulumi's operations (apitype.OpType) that make or end something, as words; others change nothing there is."""

OF_THE_CLI = "using pulumi-resource-"
"""Begin of a warning about a plugin on PATH, repeated for each of them in every run."""


class Following:
    """Hears the events of one change, and passes them on to its progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._told: set[str] = set()
        self.errors: list[str] = []
        """What failed, each thing once, in the engine's and the program's words."""

    def heard(self, line: str) -> None:
        """See pulumi_process.Listener. A line without an event is the CLI's own, before its engine starts."""
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            if line.strip():
                self._error(line)
            return
        if "diagnosticEvent" in event:
            self._diagnosis(event["diagnosticEvent"])
        elif "resourcePreEvent" in event:
            self._begins(event["resourcePreEvent"]["metadata"])
        elif "resOutputsEvent" in event:
            self._ends(event["resOutputsEvent"]["metadata"], failed=False)
        elif "resOpFailedEvent" in event:
            self._ends(event["resOpFailedEvent"]["metadata"], failed=True)
        elif "policyEvent" in event:
            self._diagnosis({"severity": "warning", **event["policyEvent"]})

    def look(self) -> None:
        """See pulumi_process.Listener."""
        self._progress.look()

    def _begins(self, step: Mapping[str, Any]) -> None:
        made = step.get("new") or step.get("old") or {}
        if step["op"] in DOING and made.get("custom"):
            self._progress.began(_key(step), _name(step["urn"]), DOING[step["op"]][0])

    def _ends(self, step: Mapping[str, Any], *, failed: bool) -> None:
        if step["op"] in DOING:
            doing, done = DOING[step["op"]]
            self._progress.ended(_key(step), f"failed {doing}" if failed else done)

    def _diagnosis(self, said: Mapping[str, Any]) -> None:
        text, severity = str(said.get("message", "")).rstrip(), said.get("severity")
        if not text or severity == "debug" or text.startswith(OF_THE_CLI):
            return
        name = _name(str(said.get("urn", "")))
        if severity == "error":
            self._error(f"{name}: {text}" if name else text)
        elif severity == "warning":
            self._progress.warn(text)
        else:
            for line in text.splitlines():
                self._progress.said(name, line) if name else self._progress.note(line)

    def _error(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.errors.append(text)
            self._progress.note(text)


def _name(urn: str) -> str:
    return urn.rpartition("::")[2]


def _key(step: Mapping[str, Any]) -> str:
    return f"{step['op']} {step['urn']}"
