"""The log of a run: all that it said, kept in `.state/STACK/logs` for whoever looks into a failure later.

Programs print what they please, so whatever is a secret, or has the form of one, is blotted out on its way here.
"""

import contextlib
import datetime
import os
import re
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from catalog.failures import without_tokens
from rehearsal.errors import RehearsalError
from rehearsal.stack_file import stack_config
from scripts.commands.errors import CommandError
from scripts.commands.stacks import PROJECT
from scripts.commands.terminal import Terminal
from settings import NAMESPACE, SECRETS

LOGS = "logs"
"""The folder below .state/STACK."""

KEPT = 10
SHORTEST_SECRET = 6
"""Characters. What is shorter stands in many words that are no secret."""

_NAME_OF_SECRET = re.compile(r"(?i)(TOKEN|SECRET|PASSPHRASE|PASSWORD|(?:ACCESS|API)_?KEY|CREDENTIALS?)$")
_PEM = re.compile(r"-----BEGIN (?P<what>[A-Z0-9 ]+)-----.*?(?:-----END (?P=what)-----|\Z)", re.DOTALL)
_AWS_KEY = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def cleaned(text: str, secrets: frozenset[str] = frozenset()) -> str:
    """A text without these secrets, without PEM blocks, and without what has the form of a key or a token."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _PEM.sub(lambda found: f"({found['what']} in PEM)", text)
    text = _AWS_KEY.sub(lambda found: found[0] if _is_path_or_commit(found[0]) else "***", text)
    return without_tokens(text)


def _is_path_or_commit(word: str) -> bool:
    """Whether 40 characters are no secret key of AWS: a commit, or a path without capitals or digits."""
    mixed = re.search("[A-Z]", word) and re.search("[a-z]", word) and re.search("[0-9]", word)
    return bool(_COMMIT.fullmatch(word)) or not mixed


def secrets_here(stack: str, project: Path = PROJECT) -> frozenset[str]:
    """The secrets that a run of this stack has in hand from its beginning; Pulumi blots out its own."""
    found = {value for name, value in os.environ.items() if _NAME_OF_SECRET.search(name)}
    with contextlib.suppress(RehearsalError):
        config = stack_config(stack, project, secret="")
        found |= {config.get(f"{NAMESPACE}:{name}", "") for name in SECRETS}
    return frozenset(secret for secret in found if len(secret) >= SHORTEST_SECRET)


def _passphrases(project: Path) -> set[str]:
    """Those of Pulumi's state; the first `up` of a checkout makes one while its log is open."""
    given = os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE")
    found = set()
    for file in (project / ".state" / "passphrase", *([Path(given)] if given else [])):
        with contextlib.suppress(OSError):
            found.add(file.read_text().strip())
    return found - {""}


class RunLog:
    """The file of one run, mode 0600; the last ten of a stack are kept."""

    def __init__(self, stack: str, command: str, project: Path = PROJECT) -> None:
        """Raises OSError where it cannot be written."""
        self._project, self._secrets = project, secrets_here(stack, project)
        self._begin = time.monotonic()
        folder = project / ".state" / stack / LOGS
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        stamp = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S.%fZ}"
        self.path = folder / f"{stamp}-{command}.log"
        self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", buffering=1)
        for old in sorted(folder.glob("*.log"))[:-KEPT]:
            old.unlink(missing_ok=True)

    def write(self, text: str) -> None:
        """Writes down a line, or several."""
        with contextlib.suppress(OSError):  # a full disk must not break off what is at work
            clean = cleaned(text, self._secrets | _passphrases(self._project))
            self._file.write(f"{time.monotonic() - self._begin:7.1f}  {clean.rstrip()}\n")

    def close(self) -> None:
        """The end of the run."""
        with contextlib.suppress(OSError):
            self._file.close()


@contextlib.contextmanager
def logged(stack: str, command: str, terminal: Terminal) -> Iterator[None]:
    """Keeps a log of what the block says; the last line of its failure names the file."""
    try:
        log = RunLog(stack, command, PROJECT)
    except OSError as error:
        terminal.line(f"no log of this run is kept: {error}")
        yield
        return
    terminal.log = log.write
    try:
        yield
    except (CommandError, RehearsalError) as error:
        whole = error.whole if isinstance(error, CommandError) else str(error)
        log.write(f"{whole}\n{error}" if whole != str(error) else whole)
        raise CommandError(f"{error}\nlog: {_shown(log.path)}", whole) from None
    except BaseException as error:
        log.write(str(error) if isinstance(error, KeyboardInterrupt) else traceback.format_exc())
        raise
    finally:
        log.close()


def _shown(path: Path) -> str:
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)
