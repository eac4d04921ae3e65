"""The configuration of one stack: one frozen tree, built in one place, with every problem reported at once.

Secrets are never part of the tree. They travel beside it as Pulumi secrets, so that no error text and no
`repr` can show one.
"""

from settings.aws import AwsMachine
from settings.domain import Domain
from settings.fallbacks import Fallback
from settings.loading import NAMESPACE, SECRETS, SettingsError, parse
from settings.machines import HostMachine, LocalMachine
from settings.model import OPTIONS_WE_OWN, Model
from settings.stack import HTTPS_PORT, Client, Images, Settings
from settings.values import settings_of, value_of
from settings.words import SshTarget

__all__ = [
    "HTTPS_PORT",
    "NAMESPACE",
    "OPTIONS_WE_OWN",
    "SECRETS",
    "AwsMachine",
    "Client",
    "Domain",
    "Fallback",
    "HostMachine",
    "Images",
    "LocalMachine",
    "Model",
    "Settings",
    "SettingsError",
    "SshTarget",
    "parse",
    "settings_of",
    "value_of",
]
