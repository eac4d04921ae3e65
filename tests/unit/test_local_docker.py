"""Unit tier: which Docker counts as this computer's.

The order is the one of Docker's own command line: DOCKER_HOST, DOCKER_CONTEXT, the current context, the default
socket. What leads to another computer is refused (the issue, "Bad input"; docker-over-ssh.md 1.1: the provider
obeys these variables over the stack). It does NOT prove that Docker listens there (live tier).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from components.machine.local_docker import local_docker_host
from settings import SettingsError

DESKTOP = "unix:///home/user/.docker/desktop/docker.sock"
FAR = "ssh://ubuntu@gpu1.example.com"
USUAL_SOCKET = "unix:///var/run/docker.sock"


class Home:
    """A home folder with Docker's configuration in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.docker = path / ".docker"
        self.docker.mkdir(parents=True)

    def config(self, text: str) -> None:
        (self.docker / "config.json").write_text(text)

    def current(self, name: object) -> None:
        self.config(json.dumps({"auths": {}, "currentContext": name}))

    def context(self, name: str, host: str, folder: Path | None = None) -> None:
        self.meta(name, json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}), folder)

    def meta(self, name: str, text: str, folder: Path | None = None) -> None:
        place = (folder or self.docker) / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
        place.mkdir(parents=True)
        (place / "meta.json").write_text(text)

    def host(self, **environment: str) -> str:
        """The address that is chosen with these variables."""
        return local_docker_host(environment, self.path)

    def refused(self, **environment: str) -> str:
        """The text of the refusal."""
        with pytest.raises(SettingsError) as refused:
            self.host(**environment)
        return str(refused.value)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


# Found here


def test_without_any_configuration_it_is_the_default_socket(home: Home) -> None:
    assert home.host() == USUAL_SOCKET


def test_a_home_without_a_docker_folder_is_the_default_socket(tmp_path: Path) -> None:
    assert local_docker_host({}, tmp_path / "nobody") == USUAL_SOCKET


@pytest.mark.parametrize("host", ["unix:///run/user/1000/docker.sock", "npipe:////./pipe/docker_engine", DESKTOP])
def test_a_docker_host_of_this_computer_is_taken(host: str, home: Home) -> None:
    assert home.host(DOCKER_HOST=host) == host


def test_docker_host_goes_before_the_current_context(home: Home) -> None:
    home.context("desktop-linux", DESKTOP)
    home.current("desktop-linux")
    assert home.host(DOCKER_HOST="unix:///run/x.sock") == "unix:///run/x.sock"


def test_the_context_of_docker_desktop_is_this_computer(home: Home) -> None:
    home.context("desktop-linux", DESKTOP)
    home.current("desktop-linux")
    assert home.host() == DESKTOP


def test_docker_context_goes_before_the_current_context(home: Home) -> None:
    home.context("desktop-linux", DESKTOP)
    home.context("far", FAR)
    home.current("far")
    assert home.host(DOCKER_CONTEXT="desktop-linux") == DESKTOP


@pytest.mark.parametrize("name", ["default", ""])
def test_the_default_context_is_the_default_socket(name: str, home: Home) -> None:
    home.current(name)
    assert home.host() == USUAL_SOCKET
    assert home.host(DOCKER_CONTEXT=name) == USUAL_SOCKET


def test_the_default_context_by_variable_goes_before_a_current_one_elsewhere(home: Home) -> None:
    home.context("far", FAR)
    home.current("far")
    assert home.host(DOCKER_CONTEXT="default") == USUAL_SOCKET


def test_empty_variables_are_no_variables(home: Home) -> None:
    empty = dict.fromkeys(("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY"), "")
    assert home.host(**empty) == USUAL_SOCKET


def test_docker_config_moves_the_folder_of_contexts(home: Home, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    home.context("mine", DESKTOP, elsewhere)
    assert home.host(DOCKER_CONFIG=str(elsewhere), DOCKER_CONTEXT="mine") == DESKTOP
    (elsewhere / "config.json").write_text(json.dumps({"currentContext": "mine"}))
    assert home.host(DOCKER_CONFIG=str(elsewhere)) == DESKTOP


@pytest.mark.parametrize(
    "text", ["", "{", "not json", "{}", "[]", "null", '{"currentContext": null}', '{"currentContext": 5}']
)
def test_a_configuration_that_docker_itself_passes_over_is_passed_over(text: str, home: Home) -> None:
    home.config(text)
    assert home.host() == USUAL_SOCKET


# Leading elsewhere


@pytest.mark.parametrize("host", [FAR, "tcp://gpu1.example.com:2376", "http://10.0.0.5:2375", "fd://", "nonsense"])
def test_a_docker_host_elsewhere_is_refused_with_variable_value_and_way_out(host: str, home: Home) -> None:
    text = home.refused(DOCKER_HOST=host)
    assert f"DOCKER_HOST={host}" in text
    assert "unset it" in text


def test_a_docker_context_elsewhere_is_refused_with_variable_address_and_way_out(home: Home) -> None:
    home.context("far", FAR)
    text = home.refused(DOCKER_CONTEXT="far")
    assert "DOCKER_CONTEXT=far" in text
    assert FAR in text
    assert "unset it" in text


def test_a_current_context_elsewhere_is_refused_by_its_name(home: Home) -> None:
    home.context("far", FAR)
    home.current("far")
    text = home.refused()
    assert "'far'" in text
    assert FAR in text


def test_a_current_context_elsewhere_is_refused_with_a_way_out_that_exists(home: Home) -> None:
    # There is no variable to unset here: the user chose this context with `docker context use`.
    home.context("far", FAR)
    home.current("far")
    assert "docker context use" in home.refused() or "DOCKER_CONTEXT" in home.refused()


def test_a_context_elsewhere_is_refused_even_beside_a_docker_host_of_this_computer(home: Home) -> None:
    # docker-over-ssh.md 1.1: the provider reads DOCKER_CONTEXT by itself, and it OVERRIDES the host it is given.
    home.context("far", FAR)
    assert "DOCKER_CONTEXT" in home.refused(DOCKER_HOST="unix:///var/run/docker.sock", DOCKER_CONTEXT="far")


@pytest.mark.parametrize(
    "variable",
    ["DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_MATERIAL", "DOCKER_KEY_MATERIAL"],
)
def test_a_variable_that_makes_the_provider_speak_tls_is_refused_by_name(variable: str, home: Home) -> None:
    # docker-over-ssh.md section 4.1: "abort when DOCKER_CONTEXT/DOCKER_CERT_PATH/DOCKER_CERT_MATERIAL is set".
    text = home.refused(**{variable: "1"})
    assert variable in text
    assert "unset it" in text


@pytest.mark.parametrize("name", ["nobody", "../../etc", "ünï"])
def test_an_unknown_context_is_refused_by_its_name(name: str, home: Home) -> None:
    text = home.refused(DOCKER_CONTEXT=name)
    assert repr(name) in text
    assert "docker context ls" in text


@pytest.mark.parametrize(
    "meta",
    ["", "{", "{}", "[]", "null", '{"Endpoints": null}', '{"Endpoints": {"docker": null}}', '{"Endpoints": {}}'],
)
def test_a_context_whose_file_is_broken_is_refused_by_its_name(meta: str, home: Home) -> None:
    home.meta("broken", meta)
    assert "'broken'" in home.refused(DOCKER_CONTEXT="broken")


def test_nothing_is_read_from_the_users_own_home_when_another_is_given(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Home(tmp_path / "other")
    other.context("far", FAR)
    other.current("far")
    monkeypatch.setenv("HOME", str(other.path))
    assert home.host() == USUAL_SOCKET


def test_the_process_environment_is_the_one_that_counts_unless_another_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/of-the-process.sock")
    for name in ("DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_TLS"):
        monkeypatch.delenv(name, raising=False)
    assert local_docker_host() == "unix:///run/of-the-process.sock"
