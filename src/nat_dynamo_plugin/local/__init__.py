"""The embedded Dynamo."""
