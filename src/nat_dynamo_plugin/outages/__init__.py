"""What to do while a server fails: breaker, retry budget, concurrency. Nothing here sends or waits by itself."""
