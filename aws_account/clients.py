"""The clients of one region of an account, each made when it is first asked."""

from __future__ import annotations

from functools import cached_property
from threading import Lock
from typing import Any

from aws_account.session import account_number, config, open_session


class Clients:
    """What asks and changes an account. AccountError where there are no credentials that AWS accepts."""

    def __init__(self, region: str, profile: str | None) -> None:
        self._session = open_session(profile, region)
        # A session makes one client at a time; the clients themselves may be used by several threads.
        self._making = Lock()
        self.number = account_number(self._session, region)
        """The account's twelve digits."""
        self.partition = self._session.get_partition_for_region(region)
        """The part of AWS that the region is in, as names of resources (ARN) have it."""

    def _client(self, service: str) -> Any:
        with self._making:
            return self._session.client(service, config=config())  # type: ignore[call-overload]

    @cached_property
    def ec2(self) -> Any:
        """Machines, disks, addresses, networks, key pairs."""
        return self._client("ec2")

    @cached_property
    def iam(self) -> Any:
        """Roles and instance profiles."""
        return self._client("iam")

    @cached_property
    def route53(self) -> Any:
        """Records."""
        return self._client("route53")

    @cached_property
    def scheduler(self) -> Any:
        """Daily stops."""
        return self._client("scheduler")

    @cached_property
    def budgets(self) -> Any:
        """Limits that send mail."""
        return self._client("budgets")
