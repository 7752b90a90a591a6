"""`nat dynamo bench`: does the plugin pay on this server, by how much, and from which load on?"""
