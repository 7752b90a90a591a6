"""How this package enters NAT's registry."""
