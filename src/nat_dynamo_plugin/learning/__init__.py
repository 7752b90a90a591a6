"""What questions take."""
