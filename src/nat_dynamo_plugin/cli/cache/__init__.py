"""`nat dynamo cache`: what a response cache in Redis holds."""
