"""`nat dynamo up`, `status`, `logs`, `down`: an embedded Dynamo for any client, with or without a terminal."""
