"""`nat dynamo replay`: plays a recording on embedded clusters of several sizes."""
