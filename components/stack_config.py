"""The one place that reads a stack's configuration from Pulumi, and the files that it names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pulumi
from pulumi.runtime import config as runtime_config

from components.renewal import aws_credentials as credentials_file
from settings import NAMESPACE, SECRETS, Domain, Settings, SettingsError, settings_of

PROJECT = Path(__file__).resolve().parent.parent
PEM = "-----BEGIN "


@dataclass(frozen=True)
class GivenFiles:
    """What the files of a domain hold: PEM texts, None where the settings name none.

    certificate: with its chain. key: a secret. roots: what an ACME CA and its certificates are trusted by.
    """

    certificate: str | None
    key: pulumi.Output[str] | None
    roots: str | None


def load_settings() -> Settings:
    """The settings of the stack that is being deployed. Raises SettingsError with every problem at once."""
    settings = settings_of(_stack_texts())
    if settings.domain:
        given_files(settings.domain)
    return settings


def hugging_face_token() -> pulumi.Output[str] | None:
    """The token for gated models as a Pulumi secret, or None where the stack has none."""
    return pulumi.Config(NAMESPACE).get_secret("hugging_face_token")


def aws_credentials() -> pulumi.Output[str] | None:
    """The text of an AWS credentials file as a Pulumi secret, or None where the stack has no AWS keys."""
    config = pulumi.Config(NAMESPACE)
    pair = config.get_secret("aws_access_key_id"), config.get_secret("aws_secret_access_key")
    if pair[0] is None or pair[1] is None:
        return None
    return pulumi.Output.secret(pulumi.Output.all(*pair).apply(lambda known: credentials_file(known[0], known[1])))


def given_files(domain: Domain) -> GivenFiles:
    """The texts of the files that a domain names. Raises SettingsError for all that cannot be read at once."""
    texts, problems = dict[str, str | None](), []
    for setting in ("certificate", "key", "acme_ca"):
        written = getattr(domain, setting)
        texts[setting] = written
        if written is None or (setting == "acme_ca" and PEM in written):
            continue
        try:
            texts[setting] = (PROJECT / Path(written).expanduser()).read_text()
            if PEM not in str(texts[setting]):
                problems.append(f"{NAMESPACE}:domain.{setting}: {written} is no PEM file; it begins with {PEM}...")
        except (OSError, UnicodeDecodeError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "is no text"
            problems.append(f"{NAMESPACE}:domain.{setting}: {written} cannot be read here: {reason}")
    if problems:
        raise SettingsError("\n".join(["the stack's configuration cannot be used:", *problems]))
    key = texts["key"]
    return GivenFiles(texts["certificate"], pulumi.Output.secret(key) if key else None, texts["acme_ca"])


def _stack_texts() -> Mapping[str, str | None]:
    """Every key of our namespace; the secret ones are not read. pulumi.Config cannot list keys, and a typing error
    in a key must not pass in silence, so the runtime's own map of keys is asked."""
    prefix = f"{NAMESPACE}:"
    keys = {*runtime_config.get_config_env(), *runtime_config.CONFIG.get()}
    config = pulumi.Config(NAMESPACE)
    names = [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]
    return {f"{prefix}{name}": None if name in SECRETS else config.get(name) for name in names}
