"""Fixtures of the live tier: real Docker, real vLLM, real HAProxy.

`deployment` is one stack that all tests of a session share and leave serving as they found it: clients `seatable`
(from 127.0.0.1) and `agents` (from 127.0.0.2). After a test that has failed it is put right. `make_stack` is for
tests that break things: each call makes another stack, not yet up, which is purged when the test ends; `place` (in
test_host.py) is a machine. At most one engine of a session runs at a time: tests with `deployment` come first, and
the shared stack is purged before the first of the others.

`scripts/test` runs tests marked `beside` in a session of their own at the same time. Most start no engine, and
those that do have it in a container that gets less computing time than the others.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.live.faults_support import serves
from tests.live.harness import Checkout, Deployment, docker_client

HERE = Path(__file__).resolve().parent

MakeStack = Callable[..., Deployment]
"""make_stack(suffix, settings=None): a stack with this at the end of its name and these keys in its file."""


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker known that `scripts/test` splits this folder by."""
    config.addinivalue_line(
        "markers", "beside: shares no stack with others and gives way to them, so it may run at the same time"
    )
    config.addinivalue_line(
        "markers", "vllm: what the pinned vLLM does by itself; a tier of its own, `scripts/test vllm`"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, and puts those that share the deployment first."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.live)

    def turn(item: pytest.Item) -> bool:
        own = {"make_stack", "place", "listener"}.intersection(getattr(item, "fixturenames", ()))
        return item.path.is_relative_to(HERE) and bool(own)

    items.sort(key=turn)


@pytest.fixture(scope="session", autouse=True)
def docker_daemon() -> None:
    """Fails where there is no Docker: tests that were all skipped would pass for a tier that is well."""
    try:
        docker_client().ping()
    except docker.errors.DockerException as error:
        pytest.fail(f"no Docker daemon answers: {error}")


@pytest.fixture(scope="session", autouse=True)
def orderly_end() -> Iterator[None]:
    """Lets a session that is told to end (SIGTERM) take its stacks down, as one that is interrupted does.

    Both may come: Ctrl-C in a terminal reaches this process, and `scripts/test`, which then ends it. The second
    one must not break off what the first one has begun.
    """

    def leave(number: int, _: object) -> None:
        # Not SIG_IGN, which every program that is started from here on would inherit.
        signal.signal(signal.SIGTERM, lambda *_: None)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        pytest.exit("terminated", returncode=128 + signal.SIGTERM)

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, leave)}
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # it may be ignored, as in the background
        before[signal.SIGINT] = signal.signal(signal.SIGINT, leave)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory, docker_daemon: None) -> Checkout:
    """A copy of the working tree for this session's stacks."""
    path = tmp_path_factory.mktemp("checkout")
    path.chmod(0o755)  # as a clone is: what is in it is judged by its own permissions
    return Checkout(path)


class Shared:
    """The stack that most tests use. It comes up when first asked for."""

    def __init__(self, checkout: Checkout, session: pytest.Session) -> None:
        self._checkout, self._session = checkout, session
        self._failures = 0
        self._right: dict[str, Any] = {}
        self._deployment: Deployment | None = None
        self._failed: AssertionError | None = None

    def get(self) -> Deployment:
        """The stack, up: as it was at first where a test has failed since it was last asked for."""
        if self._failed:
            raise self._failed
        failed, self._failures = self._session.testsfailed > self._failures, self._session.testsfailed
        if self._deployment and failed:
            self._put_right(self._deployment)
        if self._deployment is None:
            self._deployment = Deployment(self._checkout, "shared")
            self._right = self._deployment.settings
            try:
                self._deployment.up()
            except AssertionError as error:
                # The first failure is the one to read, not what taking down half a stack says.
                self._failed = error
                with contextlib.suppress(AssertionError):
                    self.release()
                raise
        return self._deployment

    def _put_right(self, deployment: Deployment) -> None:
        """Its file and what is deployed; where that cannot be done, it is removed."""
        deployment.write(self._right)
        deployment.forget_outputs()
        try:
            well = serves(deployment, deployment.key())
        except (AssertionError, KeyError):  # it has no outputs, or not this client
            well = False
        if not well:
            # Whatever is left of the engine, which may hang, is ended by hand.
            with contextlib.suppress(docker.errors.APIError):
                docker_client().containers.get(deployment.engine).kill()
        try:
            deployment.up()
        except AssertionError:
            self.release()

    def release(self) -> None:
        """Removes it, so that another engine has the memory."""
        deployment, self._deployment = self._deployment, None
        if deployment is not None:
            deployment.purge()


@pytest.fixture(scope="session")
def _shared(checkout: Checkout, request: pytest.FixtureRequest) -> Iterator[Shared]:
    shared = Shared(checkout, request.session)
    yield shared
    shared.release()


@pytest.fixture
def deployment(_shared: Shared) -> Deployment:
    """The shared stack, serving. Leave it as it is, or put back what you change."""
    return _shared.get()


@pytest.fixture
def make_stack(checkout: Checkout, _shared: Shared) -> Iterator[MakeStack]:
    """Makes stacks of the test's own; `up` is left to the test. Purged at its end, whatever happened."""
    _shared.release()
    made: list[Deployment] = []

    def make(suffix: str, settings: Mapping[str, Any] | None = None) -> Deployment:
        made.append(Deployment(checkout, suffix, settings))
        return made[-1]

    yield make
    with contextlib.ExitStack() as stack:
        for each in made:
            stack.callback(each.purge)
