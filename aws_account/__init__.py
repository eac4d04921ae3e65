"""Asks an AWS account about itself with boto3. What the answers mean is in `catalog.aws`."""
