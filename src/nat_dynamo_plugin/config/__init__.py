"""What a user writes in YAML: a file a block."""
