"""What is asked of the server for a call."""
