"""`nat dynamo report`: a page about finished evaluations."""
