"""What can stand between a caller and the server: a layer a file.

A layer has one method, `flow(call, send)`: see `nat_dynamo_plugin.http.flow`. A third party adds one as an entry point
in the group `nat_dynamo_plugin.layers`; the order of ours is in `service.py`.
"""
