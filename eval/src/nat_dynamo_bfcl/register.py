"""What NAT's entry point loads."""
