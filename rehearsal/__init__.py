"""Runs the unmodified program without the Pulumi CLI: for trying the product and for testing the whole graph.

Pulumi's own test monitor (`pulumi.runtime.set_mocks`) stands where the engine would be, with one difference:
what the program asks for is really made. It is not `pulumi up`: no preview, no encryption of secrets, and only
the resource types that stacks of the kinds `local` and `host` use.
"""
