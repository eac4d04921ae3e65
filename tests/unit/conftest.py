"""Shared by the unit tests alone."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import botocore.session
import pytest
from pulumi.runtime import resource
from pulumi.runtime.proto import source_pb2
from pulumi.runtime.settings import SETTINGS


def pytest_addoption(parser: pytest.Parser) -> None:
    """The one way to change tests/unit/golden (see goldens.py)."""
    parser.addoption(
        "--update-goldens", action="store_true", help="write tests/unit/golden, and fail if it differed"
    )


@pytest.fixture
def update_goldens(request: pytest.FixtureRequest) -> bool:
    """Whether the golden files are to be written."""
    wanted: bool = request.config.getoption("--update-goldens", default=False)
    return wanted


@pytest.fixture(scope="session", autouse=True)
def descriptions_of_aws_are_read_once() -> Iterator[None]:
    """boto3 reads megabytes of descriptions for each new session; they are the same for every test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        yield


@pytest.fixture(scope="session", autouse=True)
def places_in_the_sources_are_not_looked_up() -> Iterator[None]:
    """Where each resource was asked for takes a quarter of a run of the program, and is of no use to a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resource, "_get_stack_trace", source_pb2.StackTrace)
        yield


@pytest.fixture(scope="session", autouse=True)
def home_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test depends on the SSH keys, Docker or AWS profiles of whoever runs it, or does anything there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("nobody")))
        patch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        yield


@pytest.fixture(autouse=True)
def nothing_of_an_earlier_run_is_waited_for() -> None:
    """Pulumi waits for every output of its process, also of a program that has failed in another test."""
    SETTINGS.outputs = set()
