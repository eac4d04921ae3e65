"""AWS, as the one who deploys meets it: in the words of boto3 and of Pulumi's provider (AWS SDK for Go 2).

A machine that proves a name to a certificate authority meets AWS too; what lego says of that is in `tls`.
"""

from __future__ import annotations

from catalog.failures.failure import Failure

_CODE = r"^(?!.*\bacme: ).*(?:api error |An error occurred \(|Server\.|Client\.)(?:%s)\b"
"""An error code as the provider, boto3, and an instance that ended while it started have it."""

AWS: tuple[Failure, ...] = (
    Failure(
        "aws-credentials-missing",
        r"No valid credential sources found|Unable to locate credentials|The config profile \(.*could not be found"
        r"|failed to get shared config profile",
        "there are no AWS credentials here, or not under this profile",
        "log in to AWS (aws sso login, or aws configure), or name a profile as aws:profile in the stack's file",
    ),
    Failure(
        "aws-credentials-expired",
        _CODE % "ExpiredToken(?:Exception)?|RequestExpired" + r"|Token has expired and refresh failed"
        r"|SSO session associated with this profile has expired|refresh cached SSO token failed",
        "the AWS credentials have run out",
        "log in to AWS again (aws sso login), then scripts/up",
    ),
    Failure(
        "aws-region-off",
        _CODE % "OptInRequired" + r"|the account has not enabled the region|Invalid AWS Region"
        r"|You must specify a region|Missing region configuration",
        "the stack names no region that its AWS account has enabled",
        "set aws:region in the stack's file to another, or enable that region in AWS's console",
    ),
    Failure(
        "aws-credentials-refused",
        _CODE % "InvalidClientTokenId|AuthFailure|SignatureDoesNotMatch|UnrecognizedClientException",
        "AWS does not know the credentials, or the account has not enabled the region",
        "log in to AWS with other credentials (aws:profile in the stack's file), or enable the region of "
        "aws:region in AWS's console",
    ),
    Failure(
        "aws-not-allowed",
        _CODE % "UnauthorizedOperation|AccessDenied(?:Exception)?",
        "the AWS credentials may not do what the stack needs",
        "allow the action that the line names to this user or role (docs/aws-rights.md has the whole policy), or "
        "take other credentials (aws:profile in the stack's file)",
    ),
    Failure(
        "aws-quota",
        _CODE % "VcpuLimitExceeded|MaxSpotInstanceCountExceeded|InstanceLimitExceeded",
        "the account may not run so many vCPUs of this kind in the region (a new account may run none)",
        "ask AWS for more (scripts/up prints the command), or take a smaller type in "
        "seatable-vllm:machine.instance_types",
    ),
    Failure(
        "aws-capacity",
        _CODE % "InsufficientInstanceCapacity|InsufficientHostCapacity|InsufficientCapacity|UnfulfillableCapacity"
        "|InsufficientVolumeCapacity|SpotMaxPriceTooLow",
        "AWS has no such machine free in this zone now",
        "scripts/up tries all of seatable-vllm:machine.instance_types in all of seatable-vllm:machine.zones: name "
        "more of them, or try later",
        passing=True,
    ),
    Failure(
        "aws-reservation",
        _CODE % r"ReservationCapacityExceeded|InvalidCapacityReservationId\S*",
        "the capacity reservation is not there, or has no machine left",
        "correct seatable-vllm:machine.reservation, or end what runs in it",
    ),
    Failure(
        "aws-type",
        _CODE % r"Unsupported|InstanceTypeNotSupported|InvalidInstanceType(?:\.NotFound)?",
        "this zone does not have machines of this type",
        "correct seatable-vllm:machine.instance_types, or name other seatable-vllm:machine.zones",
    ),
    Failure(
        "aws-addresses",
        _CODE % "AddressLimitExceeded",
        "the account has as many Elastic IPs as it may have in the region",
        "release one that nobody uses (aws ec2 release-address), or ask AWS for more: quota L-0263D0A3; then "
        "scripts/up",
    ),
    Failure(
        "aws-vpcs",
        _CODE % "VpcLimitExceeded",
        "the account has as many VPCs as it may have in the region",
        "set seatable-vllm:machine.subnet to a public subnet that is there, or ask AWS for more: quota L-F678F1CE",
    ),
    Failure(
        "aws-disks",
        _CODE % "VolumeLimitExceeded|MaxIOPSLimitExceeded",
        "the account has as much disk space, or as many I/O operations, as it may have in the region",
        "lower seatable-vllm:machine.data_disk.gib or seatable-vllm:machine.root_disk_gib, or ask AWS for more "
        "gp3 storage: quota L-7A658B76",
    ),
    Failure(
        "aws-disk-change",
        _CODE % "VolumeModificationRateExceeded|IncorrectModificationState",
        "AWS changes a disk once in six hours at most, and this one was changed a while ago",
        "wait until then, and scripts/up; or put seatable-vllm:machine.data_disk back as it was",
        passing=True,
    ),
    Failure(
        "aws-spot-waits",
        _CODE % "IncorrectSpotRequestState",
        "AWS has stopped the spot machine, and starts it again by itself when there is room",
        "wait, then scripts/up; with seatable-vllm:machine.market on-demand machines are always there",
        passing=True,
    ),
    Failure(
        "aws-image",
        _CODE % r"InvalidAMIID\S*|ParameterNotFound" + r"|Deep Learning Base AMI is not found",
        "the region does not have the machine's image",
        "correct seatable-vllm:machine.ami, or remove it: then the newest Deep Learning Base AMI is taken",
    ),
    Failure(
        "aws-root-disk",
        _CODE % "InvalidBlockDeviceMapping",
        "the machine's first disk is smaller than its image",
        "raise seatable-vllm:machine.root_disk_gib to the size that the line names",
    ),
    Failure(
        "aws-subnet",
        _CODE % r"InvalidSubnetID\S*|InsufficientFreeAddressesInSubnet",
        "the subnet is not there, or has no address left",
        "set seatable-vllm:machine.subnet to another, or remove it: then the stack makes a VPC of its own",
    ),
    Failure(
        "aws-snapshot",
        _CODE % r"InvalidSnapshot\S*",
        "the snapshot that the data disk begins with is not there",
        "correct the snapshot in seatable-vllm:machine.data_disk.snapshot, or remove it",
    ),
    Failure(
        "aws-verification",
        _CODE % "PendingVerification|Blocked",
        "AWS is still checking the account, or has blocked it",
        "wait for AWS's mail (up to four hours), then scripts/up; else write to AWS's support",
        passing=True,
    ),
    Failure(
        "aws-record-there",
        r"^(?!.*\bacme: ).*(?:Tried to create resource record set .*but it already exists"
        r"|RRSet of type \S+ with DNS name \S+ is not permitted)",
        "the endpoint's name has a record in Route 53 already, which is not this stack's",
        "set seatable-vllm:domain.adopt_record to true to take an A or AAAA record over (a CNAME has to be "
        "deleted), or seatable-vllm:domain.host to another name",
    ),
    Failure(
        "aws-busy",
        _CODE % "RequestLimitExceeded|Throttling(?:Exception)?|TooManyRequestsException",
        "AWS has had too many requests of this account at once",
        "wait a minute, then scripts/up",
        passing=True,
    ),
    Failure(
        "aws-unreachable",
        r"Could not connect to the endpoint URL: |Connect timeout on endpoint URL: "
        r"|lookup \S+\.amazonaws\.com\S*: no such host"
        r"|^(?!.*\bacme: ).*operation error [\w ]+: \w+, .*\brequest send failed\b",
        "the connection between this computer and AWS broke, or AWS has no region of this name",
        "check this computer's internet connection, and aws:region in the stack's file; then run scripts/up "
        "again, which first removes what AWS had made and could not report",
        passing=True,
    ),
)
