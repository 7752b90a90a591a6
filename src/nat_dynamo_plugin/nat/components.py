"""The list of everything we register besides the provider. A new client, metric or middleware is one line here."""

from __future__ import annotations

from importlib import import_module

MODULES = (
    "nat_dynamo_plugin.clients.register",
    "nat_dynamo_plugin.evaluators.register",
    "nat_dynamo_plugin.nat.middleware",
    "nat_dynamo_plugin.sweep.register",
)


def register_all() -> None:
    """Import each registering module; none of them imports a framework."""
    for module in MODULES:
        import_module(module)
