"""How this package enters NAT."""
