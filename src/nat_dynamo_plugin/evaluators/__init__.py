"""NAT evaluators of what Dynamo did with a workflow's LLM calls, a metric family a file."""
