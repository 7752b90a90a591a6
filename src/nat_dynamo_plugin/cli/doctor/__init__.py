"""`nat dynamo doctor`: finds out with few and small requests what a server does with what we send."""
