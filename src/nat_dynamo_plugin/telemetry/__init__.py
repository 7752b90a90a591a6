"""What one call was, and where that is told: a backend a file."""
