"""Who is asking, and what is expected."""
