"""`nat dynamo top`: what a server, a running `nat serve` or a running evaluation is doing now."""
