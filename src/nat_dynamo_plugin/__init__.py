"""Make agents built with NVIDIA NeMo Agent Toolkit run well on NVIDIA Dynamo."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import DynamoModelConfig
    from .hints import DynamoHints, PrefixHints, PrefixLevel
    from .prefix import DynamoPrefixContext
    from .telemetry import CallRecord
    from .transport import DynamoTransport

_HOMES = {
    "CallRecord": "telemetry",
    "DynamoHints": "hints",
    "DynamoModelConfig": "config",
    "DynamoPrefixContext": "prefix",
    "DynamoTransport": "transport",
    "PrefixHints": "hints",
    "PrefixLevel": "hints",
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
