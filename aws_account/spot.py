"""Ends a spot request, so that AWS makes no other machine in place of the one that is removed.

`python -m aws_account.spot REGION REQUEST [PROFILE]`. A request that keeps a machine on the spot market lives on
when its machine is terminated, and starts the next one. Status 1, with phase, cause and change, where it may still
be alive.
"""

from __future__ import annotations

import sys

from botocore.exceptions import ClientError

from aws_account.session import NO_ANSWER, WITHOUT_RIGHTS, AccountError, config, open_session

PHASE = "spot request"


def end(region: str, request: str, profile: str | None = None) -> None:
    """The request is cancelled, or was gone already; its machine runs on. AccountError where AWS refuses."""
    by_hand = f"aws ec2 cancel-spot-instance-requests --region {region} --spot-instance-request-ids {request}"
    try:
        ec2 = open_session(profile, region).client("ec2", config=config())
        ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request])
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        if code.startswith("InvalidSpotInstanceRequestID"):
            return
        way = "allow ec2:CancelSpotInstanceRequests, or end it" if code in WITHOUT_RIGHTS else "end it"
        raise AccountError(
            f"{request} is not ended ({code}): it would start another machine", f"{way}: {by_hand}"
        ) from None
    except NO_ANSWER as error:
        raise AccountError(
            f"{request} is not ended ({type(error).__name__}): it would start another machine",
            f"end it: {by_hand}",
        ) from None


def main(region: str, request: str, profile: str | None = None) -> int:
    """Statuses: 0 it is ended, 1 it may not be."""
    try:
        end(region, request, profile)
    except AccountError as error:
        print(f"phase: {PHASE}\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
