"""The Docker daemon, as far as images need it; DOCKER_HOST and its relatives say which one."""

import io
import json
import subprocess
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import docker
import docker.auth
import docker.utils
import requests
import urllib3
from docker.errors import DockerException, ImageNotFound

from images import ImageUnavailable, Say
from images.pull import STALL_S, PullFailed, follow, reason
from images.recipe import MADE_LABEL, RECIPE_LABEL, Recipe
from images.shell import TOLD_LINES

PING_S = 30
"""How long the daemon may take to answer at all."""
ANSWER_S = 600
"""How long the daemon may take to unpack what it was given: 2.2 GB took 19 s here, slow disks take minutes."""
CHUNK = 1024**2
SAY_EVERY_S = 2.0
MB = 1000**2
NOT_PACKED = ("./dev/*", "./proc/*", "./sys/*", "./run/*", "./tmp/*")
"""Filled by the container runtime, or left by programs that ran while the tree was made."""

_FAILURES = (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What the client raises: its own errors, and those of the two libraries below it, unwrapped."""


class Daemon(Protocol):
    """What choosing an image asks of a daemon."""

    def labels(self, reference: str) -> Mapping[str, str] | None:
        """The labels of a local image; None if there is no such image."""

    def pull(self, reference: str, say: Say) -> None:
        """Pulls an image; raises PullFailed if it is not there afterwards."""


@dataclass(frozen=True)
class Task:
    """One command in a container that is removed afterwards.

    folders: folders here, and where the container sees them and how ("ro" or "rw").
    user: "uid:gid" that it runs as.
    """

    image: str
    command: list[str]
    user: str
    environment: dict[str, str] = field(default_factory=dict)
    folders: dict[Path, tuple[str, str]] = field(default_factory=dict)


class DockerDaemon:
    """The daemon that the environment names."""

    def __init__(self) -> None:
        with _asking("Docker does not answer (start it, or let DOCKER_HOST name one that runs)"):
            # Any: the stubs of types-docker lack some of what is used here.
            self._client: Any = docker.from_env(timeout=PING_S, use_ssh_client=True)
            self._client.ping()
            self._client.api.timeout = ANSWER_S

    def labels(self, reference: str) -> Mapping[str, str] | None:
        """The labels of a local image; None if there is no such image."""
        with _asking(f"looking for {reference}"):
            try:
                labels: Mapping[str, str] = self._client.images.get(reference).labels
            except ImageNotFound:
                return None
            return labels

    def data_root(self) -> Path | None:
        """The daemon's folder for images; None if the daemon is on another machine."""
        with _asking("asking Docker for its folder"):
            root = Path(self._client.info()["DockerRootDir"])
        return root if root.exists() else None

    def pull(self, reference: str, say: Say) -> None:
        """Pulls an image and says how far it is; raises PullFailed if it is not there afterwards."""
        activity = f"pulling {reference}"
        say(activity)
        try:
            events = self._pull_events(reference)
            try:
                follow(events, activity, say)
            finally:
                # Ends the connection, and with it the pull in the daemon if it has not ended.
                events.close()
        except _FAILURES as error:
            why = f"no progress for {STALL_S:.0f} s" if _silent(error) else reason(_told(error))
            raise PullFailed(why) from error
        if self.labels(reference) is None:
            raise PullFailed("the daemon reported no error, but the image is not there")

    def make(self, recipe: Recipe, root: Path, say: Say) -> None:
        """Makes the folder `root` an image with the recipe's name, settings and labels.

        The name is set at the very end: an image that has it is whole.
        """
        activity = f"making {recipe.reference}"
        with _asking(activity):
            self._remove_nameless()
            image = self._import(root, activity, say)
            self._configure(image, recipe)
            self._remove_nameless()

    def run(self, task: Task, activity: str, say: Say) -> None:
        """Runs a command in a container without a network, and waits for it.

        Raises ImageUnavailable with the end of its output when it fails.
        """
        mark = f"{MADE_LABEL}.task"
        with _asking(activity):
            for leftover in self._client.containers.list(all=True, filters={"label": mark}, ignore_removed=True):
                leftover.remove(force=True)
            container = self._client.containers.run(
                task.image,
                task.command[1:],
                entrypoint=task.command[:1],
                user=task.user,
                environment=task.environment,
                volumes={str(folder): {"bind": at, "mode": mode} for folder, (at, mode) in task.folders.items()},
                network_mode="none",
                labels=[mark],
                detach=True,
            )
            try:
                while container.status in ("created", "running"):
                    say(activity)
                    time.sleep(SAY_EVERY_S)
                    container.reload()
                code = container.wait()["StatusCode"]
                output = container.logs(tail=TOLD_LINES).decode(errors="replace")
            finally:
                container.remove(force=True)
        if code != 0:
            raise ImageUnavailable(
                f"{activity} in {task.image} ended with status {code}. Its last lines:\n{output}"
            )

    def _pull_events(self, reference: str) -> Generator[dict[str, Any], None, None]:
        """The events of a pull. Not images.pull of the client: that one waits for the next event for ever."""
        api = self._client.api
        repository, tag = docker.utils.parse_repository_tag(reference)
        registry, _ = docker.auth.resolve_repository_name(repository)
        login = docker.auth.get_config_header(api, registry)
        response = api.post(
            f"{api.base_url}/v{api.api_version}/images/create",
            params={"fromImage": repository, "tag": tag or "latest"},
            headers={"X-Registry-Auth": login} if login else {},
            stream=True,
            timeout=STALL_S,
        )
        with response:
            if not response.ok:
                raise PullFailed(reason(_message(response.text)))
            for line in response.iter_lines():
                if line:
                    yield json.loads(line)

    def _import(self, root: Path, activity: str, say: Say) -> str:
        """Gives the daemon the files of `root` as an image without a name; returns its id."""
        answer = self._client.api.import_image_from_stream(
            _packed(root, activity, say), changes=[f"LABEL {MADE_LABEL}=true"]
        )
        last = json.loads(answer.strip().splitlines()[-1])
        if "error" in last:
            raise ImageUnavailable(f"{activity}: {last['error']}")
        return str(last["status"])

    def _configure(self, image: str, recipe: Recipe) -> None:
        # A Dockerfile, as an import can set most settings but not STOPSIGNAL. It adds no files.
        labels = " ".join(f"{name}={value}" for name, value in recipe.labels.items())
        dockerfile = f"FROM {image}\nLABEL {labels}\n{recipe.settings}"
        self._client.images.build(
            fileobj=io.BytesIO(dockerfile.encode()), tag=recipe.reference, rm=True, forcerm=True
        )

    def _remove_nameless(self) -> None:
        """Removes images made here that lost their name to a newer one, or never got one."""
        for image in self._client.images.list(filters={"dangling": True, "label": f"{MADE_LABEL}=true"}):
            try:
                self._client.images.remove(image.id)
            except DockerException:
                continue  # a container still uses it; the next build tries again


def made_by(daemon: Daemon, recipe: Recipe) -> bool:
    """Whether the image of the recipe is there and made with the recipe as it is now."""
    return (daemon.labels(recipe.reference) or {}).get(RECIPE_LABEL) == recipe.mark


@contextmanager
def _asking(activity: str) -> Iterator[None]:
    """Turns what the client raises into ImageUnavailable, with the activity before the daemon's words."""
    try:
        yield
    except _FAILURES as error:
        raise ImageUnavailable(f"{activity}: {_told(error)}") from error


def _packed(root: Path, activity: str, say: Say) -> Iterator[bytes]:
    """The files below `root` as a tar stream, in pieces; says every 2 s how much has been read."""
    excluded = [f"--exclude={pattern}" for pattern in NOT_PACKED]
    command = ["tar", "-C", str(root), "--numeric-owner", *excluded, "-c", "."]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as tar:
        assert tar.stdout is not None  # noqa: S101 - for the type checker
        packed, said = 0, time.monotonic()
        say(activity)
        while chunk := tar.stdout.read(CHUNK):
            packed += len(chunk)
            yield chunk
            if time.monotonic() - said >= SAY_EVERY_S:
                said = time.monotonic()
                say(f"{activity}: {packed / MB:.0f} MB")
    if tar.returncode != 0:
        raise ImageUnavailable(f"{activity}: tar ended with status {tar.returncode}")
    say(f"{activity}: {packed / MB:.0f} MB, the daemon unpacks them")


def _message(answer: str) -> str:
    """The message in an error answer of the daemon."""
    try:
        return str(json.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        return answer


def _silent(error: BaseException) -> bool:
    """Whether an error says that the daemon sent nothing in time; requests wraps it, while it reads an answer."""
    silences = (requests.Timeout, urllib3.exceptions.ReadTimeoutError)
    return any(isinstance(part, silences) for part in (error, *error.args))


def _told(error: BaseException) -> str:
    """The daemon's own words for an error, without those of the client."""
    return str(getattr(error, "explanation", None) or error)
