"""What vLLM itself wrote when it did not start: the cause where no known failure has its words.

Takes the engine's log as Docker has it. The lines that count are those that end a Python traceback, and those of
vLLM's own argument parser. Collected from vLLM 0.32.0: tests/unit/data/engine_logs.
"""

from __future__ import annotations

import re

_PROCESS = r"^(?:\([A-Za-z_]\w* pid=\d+\) )?(?:ERROR \S+ \S+ \[\S+\] )?"
_RAISED = re.compile(_PROCESS + r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Unsupported): (?P<text>\S.*)")
_PARSER = re.compile(r"^vllm(?: \w+)?: error: (?P<text>.+)")

_NOT_THE_CAUSE = re.compile(
    r"Engine core initialization failed|WorkerProc initialization failed|Worker failed with error"
    r"|EngineCore encountered an issue|(?:cancelled|Cancelled)|Connection (?:closed|reset)|Broken pipe"
)
"""What other processes of the engine write when one of them has failed."""

_OF_PYDANTIC = re.compile(r"^(?P<head>.*?)\b\d+ validation errors? for (?P<object>\w+)$")
_DETAIL = re.compile(r"^  (?:Value error, )?(?P<text>\S.*?)(?: \[type=.*)?$")
_DETAIL_LINES = 4

_ARGUMENTS = re.compile(r"non-default args: (\{.*\})\s*$")
_SET = re.compile(r"'([a-z][a-z0-9_]*)': ('[^']*'|[^,{}\[\]]+)?")
_NAMED = re.compile(r"(?<![\w-])--([a-z][a-z0-9]*(?:[-_.][a-z0-9_]+)*)|\bparameter=([a-z][a-z0-9_]*)")

_SETTINGS = {
    "max-model-len": "seatable-vllm:model.max_model_len",
    "model": "seatable-vllm:model.name",
    "served-model-name": "seatable-vllm:model.name",
    "tool-call-parser": "seatable-vllm:model.tool_parser",
    "enable-auto-tool-choice": "seatable-vllm:model.tool_parser",
}
"""The settings behind options that are not in model.extra_args."""

_NOT_SET_BY_A_STACK = ("host", "port", "api-key", "disable-fastapi-docs", "shutdown-timeout")


def last_error(log: str) -> tuple[str, str] | None:
    """The engine's own words for why it did not start, and the setting that they name, or ''.

    None where the log has none. The words are those of the process that failed first, not of those that follow it.
    """
    lines = [line.rstrip() for line in log.splitlines()]
    words = ""
    for number, line in enumerate(lines):
        raised = _RAISED.match(line) or _PARSER.match(line)
        if not raised:
            continue
        if _NOT_THE_CAUSE.search(line):
            if words:
                break
            continue
        words = _in_full(raised["text"], lines[number + 1 : number + 1 + _DETAIL_LINES])
    return (words, _setting(words, lines)) if words else None


def _in_full(text: str, following: list[str]) -> str:
    """The text of an error; of one of pydantic's, which says only how many there are, the first of them."""
    counted = _OF_PYDANTIC.match(text)
    if not counted:
        return text
    details = [found["text"] for found in map(_DETAIL.match, following) if found]
    option = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", counted["object"]).lower()
    about = counted["head"] or ("" if option in ("vllm-config", "model-config") else f"--{option}: ")
    return about + (details[0] if details else text)


def _setting(words: str, lines: list[str]) -> str:
    """The setting of an option that the words name, by its name or by the value that the stack gives it."""
    named = _NAMED.search(words)
    if named:
        return _setting_of(named[1] or named[2])
    given = _given(lines)
    for option, value in given.items():
        if re.search(rf"(?<![\w-]){option.replace('-', '[-_]')}(?![\w-])", words) and ("-" in option or value):
            return _setting_of(option)
    for option, value in given.items():
        if len(value) > 2 and re.search(rf"(?<![\w/-]){re.escape(value)}(?![\w/-])", words):
            return _setting_of(option)
    return ""


def _given(lines: list[str]) -> dict[str, str]:
    """The options that the engine was started with, as it logs them, with the values that are text."""
    found = [match[1] for match in map(_ARGUMENTS.search, lines) if match]
    given = {name.replace("_", "-"): value for name, value in _SET.findall(found[-1])} if found else {}
    return {
        name: value.strip("'") if value.startswith("'") else ""
        for name, value in given.items()
        if name not in _NOT_SET_BY_A_STACK
    }


def _setting_of(option: str) -> str:
    name = option.split(".", maxsplit=1)[0].replace("_", "-")
    return _SETTINGS.get(name, f"seatable-vllm:model.extra_args.{name}")
