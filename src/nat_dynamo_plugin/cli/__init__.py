"""What can stand between a caller and the server: a layer a file."""
