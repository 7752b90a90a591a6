"""Make agents built with NVIDIA NeMo Agent Toolkit run well on NVIDIA Dynamo."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nat_dynamo_plugin.config.model import DynamoModelConfig
    from nat_dynamo_plugin.http.transport import DynamoTransport
    from nat_dynamo_plugin.question.hints import DynamoHints, PrefixHints, PrefixLevel
    from nat_dynamo_plugin.question.scopes import DynamoPrefixContext
    from nat_dynamo_plugin.telemetry.record import CallRecord

_HOMES = {
    "CallRecord": "telemetry.record",
    "DynamoHints": "question.hints",
    "DynamoModelConfig": "config.model",
    "DynamoPrefixContext": "question.scopes",
    "DynamoTransport": "http.transport",
    "PrefixHints": "question.hints",
    "PrefixLevel": "question.hints",
}

__all__ = [
    "CallRecord",
    "DynamoHints",
    "DynamoModelConfig",
    "DynamoPrefixContext",
    "DynamoTransport",
    "PrefixHints",
    "PrefixLevel",
]


def __getattr__(name: str) -> Any:
    # Loaded on use, because every `nat` command imports this package.
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
