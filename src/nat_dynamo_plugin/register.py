"""What NAT's entry point loads. Cheap to import: frameworks and Dynamo are imported where they are used."""

from __future__ import annotations

from importlib import import_module

from nat_dynamo_plugin.nat import takeover

# Each registers what its room holds; a new client or metric is a line in the list there.
MODULES = (
    "nat_dynamo_plugin.clients.register",
    "nat_dynamo_plugin.evaluators.register",
    "nat_dynamo_plugin.nat.middleware",
    "nat_dynamo_plugin.sweep.register",
)

takeover.take_over_dynamo()
for module in MODULES:
    import_module(module)
