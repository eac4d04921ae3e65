"""What proves that an endpoint works: small checks, each one request and one verdict with its reason.

The same code runs as the last gate of `up`, on the machine, and as `scripts/check`, from where a client is.
Nothing but Python's standard library is imported here, because a machine need not have anything else.
"""
