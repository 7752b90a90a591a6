"""A call on its way to the server and its answer on the way back."""
