"""Looks at an AWS account before anything is made there: `python -m aws_account.preflight < wanted.json`.

Standard input is one `Wanted` as JSON. The last line of standard output is the `Offer` as JSON. Warnings and the
price go to standard error, and so do all problems at once, as phase, cause and change; the status is then 1.
"""

from __future__ import annotations

import json
import sys

from aws_account.reader import read_account
from aws_account.session import AccountError
from catalog.aws.account import Wanted
from catalog.aws.preflight import PHASE, judge


def main() -> int:
    """Reads the request, asks the account, judges. Statuses: 0 it may go on, 1 it may not."""
    wanted: Wanted = json.load(sys.stdin)
    try:
        account = read_account(wanted)
    except AccountError as error:
        print(f"phase: {PHASE}\n{error}", file=sys.stderr)
        return 1
    found = judge(wanted, account)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if found.offer is None:
        print(found, file=sys.stderr)
        return 1
    for line in found.price_lines:
        print(line, file=sys.stderr)
    print(json.dumps(found.offer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
