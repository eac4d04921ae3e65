"""The way into an account: credentials from the usual chain, and in plain words why there are none."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.parsers import ResponseParserError

CONNECT_SECONDS = 3
READ_SECONDS = 6
ATTEMPTS = 2
"""Of each call, the first included. A preview that waits for long is worse than one with a warning."""

WITHOUT_RIGHTS = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})
RUN_OUT = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
NOT_KNOWN = frozenset(
    {
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "AuthFailure",
        "SignatureDoesNotMatch",
        "OptInRequired",
    }
)
"""What AWS answers to wrong credentials, and a region that is switched off to right ones."""

NO_ANSWER = (BotoCoreError, ResponseParserError, KeyError)
"""What boto3 raises where nobody answers, or somebody else than AWS does, such as a proxy that wants a login."""


@dataclass
class AccountError(Exception):
    """The account cannot be asked at all. change: the way out."""

    cause: str
    change: str

    def __str__(self) -> str:
        return f"cause: {self.cause}\nchange: {self.change}"


def config(attempts: int = ATTEMPTS) -> Config:
    """How every client asks: soon or not at all."""
    return Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        max_pool_connections=24,
    )


def open_session(profile: str | None, region: str) -> boto3.Session:
    """A session with credentials. AccountError where there are none, or they cannot be renewed."""
    who = f"profile {profile}" if profile else "the environment, the files in ~/.aws and the machine's role"
    try:
        session = boto3.Session(profile_name=profile, region_name=region)
        credentials = session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        credentials.get_frozen_credentials()
    except ProfileNotFound as error:
        named = "aws:profile" if profile else "AWS_PROFILE"
        raise AccountError(
            f"{named}: there is no profile {error.kwargs.get('profile')} in ~/.aws",
            f"set {named} to one that is there (aws configure list-profiles)",
        ) from None
    except PartialCredentialsError as error:
        raise AccountError(
            f"the AWS credentials are incomplete: {error.kwargs.get('cred_var')} is missing ({who})",
            "set it too, or log in (aws sso login, or aws configure)",
        ) from None
    except NoCredentialsError:
        raise AccountError(
            f"there are no AWS credentials: looked in {who}",
            "log in (aws sso login, or aws configure), or name a profile as aws:profile in the stack's file",
        ) from None
    except (BotoCoreError, ClientError) as error:
        # Its text is not repeated: what a credential process or a token service says may hold a secret.
        login = f"aws sso login --profile {profile}" if profile else "aws sso login"
        raise AccountError(
            f"the AWS credentials cannot be renewed ({type(error).__name__}): looked in {who}",
            f"log in again: {login}",
        ) from None
    return session


def account_number(session: boto3.Session, region: str) -> str:
    """The account that the credentials are of. AccountError, in words, where AWS refuses them."""
    try:
        return _ask_number(session, region)
    except ClientError as error:
        raise refused(session, region, str(error.response.get("Error", {}).get("Code"))) from None
    except NO_ANSWER as error:
        raise _unreachable(session, region, error) from None


def _ask_number(session: boto3.Session, region: str) -> str:
    return session.client("sts", region_name=region, config=config()).get_caller_identity()["Account"]


def refused(session: boto3.Session, region: str, code: str) -> AccountError:
    """Why AWS refuses the credentials in this region: by their age, by the region, or by themselves."""
    if code in RUN_OUT:
        return AccountError(f"the AWS credentials have run out ({code})", "log in again: aws sso login")
    if code in NOT_KNOWN and _known_at_home(session, region):
        return AccountError(
            f"the account has not enabled the region {region}",
            f"enable {region} in AWS's console (Account, Regions), or set another aws:region in the stack's file",
        )
    return AccountError(
        f"AWS does not accept the credentials ({code})",
        "log in again, or take others (aws:profile in the stack's file)",
    )


def _known_at_home(session: boto3.Session, region: str) -> bool:
    """Whether the same credentials are good where no region has to be enabled."""
    home = {"aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}.get(_partition(session, region), "us-east-1")
    if home == region:
        return False
    try:
        _ask_number(session, home)
    except (ClientError, *NO_ANSWER):
        return False
    return True


def _partition(session: boto3.Session, region: str) -> str:
    try:
        return session.get_partition_for_region(region)
    except BotoCoreError:
        return "aws"


def _unreachable(session: boto3.Session, region: str, error: Exception) -> AccountError:
    regions = [
        name
        for partition in session.get_available_partitions()
        for name in session.get_available_regions("ec2", partition_name=partition)
    ]
    if region not in regions:
        near = difflib.get_close_matches(region, regions, n=2)
        return AccountError(
            f"AWS has no region {region} that answers",
            f"set aws:region in the stack's file to {near[0] if near else 'the name of one'}",
        )
    return AccountError(
        f"AWS cannot be reached from this computer ({type(error).__name__})",
        "check the network, a proxy (HTTPS_PROXY) and AWS_ENDPOINT_URL",
    )
