"""Small agents for `configs/frameworks`: what a user would write in each framework, and nothing of Dynamo in it."""
