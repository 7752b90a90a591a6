"""Make agents built with NVIDIA NeMo Agent Toolkit run well on NVIDIA Dynamo."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nat_dynamo_plugin.config.model import DynamoModelConfig
    from nat_dynamo_plugin.dialects.dialect import Dialect
    from nat_dynamo_plugin.dialects.said import Said
    from nat_dynamo_plugin.http.call import Call, Reply
    from nat_dynamo_plugin.http.flow import Close, Enter, Failure, Flow, Layer, ReadBody, Send, Sleep
    from nat_dynamo_plugin.plan.serving import ServingPlan
    from nat_dynamo_plugin.question.hints import DynamoHints, PrefixHints, PrefixLevel
    from nat_dynamo_plugin.question.org import current_org, org_digest, org_scope
    from nat_dynamo_plugin.question.scopes import DynamoPrefixContext
    from nat_dynamo_plugin.service import Service, make_service
    from nat_dynamo_plugin.telemetry.exporters import add_exporter, set_exporters
    from nat_dynamo_plugin.telemetry.record import CallRecord, Usage
    from nat_dynamo_plugin.transport import DynamoTransport

_HOMES = {
    "config.model": ("DynamoModelConfig",),
    "dialects.dialect": ("Dialect",),
    "dialects.said": ("Said",),
    "http.call": ("Call", "Reply"),
    "http.flow": ("Close", "Enter", "Failure", "Flow", "Layer", "ReadBody", "Send", "Sleep"),
    "plan.serving": ("ServingPlan",),
    "question.hints": ("DynamoHints", "PrefixHints", "PrefixLevel"),
    "question.org": ("current_org", "org_digest", "org_scope"),
    "question.scopes": ("DynamoPrefixContext",),
    "service": ("Service", "make_service"),
    "telemetry.exporters": ("add_exporter", "set_exporters"),
    "telemetry.record": ("CallRecord", "Usage"),
    "transport": ("DynamoTransport",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Call",
    "CallRecord",
    "Close",
    "Dialect",
    "DynamoHints",
    "DynamoModelConfig",
    "DynamoPrefixContext",
    "DynamoTransport",
    "Enter",
    "Failure",
    "Flow",
    "Layer",
    "PrefixHints",
    "PrefixLevel",
    "ReadBody",
    "Reply",
    "Said",
    "Send",
    "Service",
    "ServingPlan",
    "Sleep",
    "Usage",
    "add_exporter",
    "current_org",
    "make_service",
    "org_digest",
    "org_scope",
    "set_exporters",
]


def __getattr__(name: str) -> Any:
    # Loaded on use, because every `nat` command imports this package.
    if name in _HOME_OF:
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
