"""The Route 53 zone that a domain lies in: it is there already, and is only looked for."""

import pulumi
import pulumi_aws as aws

from settings import Domain


def hosted_zone(
    domain: Domain, *, parent: pulumi.Resource, provider: pulumi.ProviderResource
) -> pulumi.Output[str] | None:
    """The id of the public zone that the settings name, asked of AWS where need be; None where they name none.

    provider: of the stack, which waits for the preflight: that says of a zone that is not there what to do.
    """
    if domain.zone_id:
        return pulumi.Output.from_input(domain.zone_id)
    if domain.zone is None:
        return None
    options = pulumi.InvokeOutputOptions(parent=parent, provider=provider)
    return aws.route53.get_zone_output(name=domain.zone, private_zone=False, opts=options).zone_id
