"""A GPU machine on AWS: its network, firewall, disks, address and instance."""
