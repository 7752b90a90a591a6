"""The documented `x-prefix-*` headers of NAT 1.4, for prefix-aware processors. Stock Dynamo ignores them."""

from __future__ import annotations

from nat_dynamo_plugin.dialects.fields import WireFields
from nat_dynamo_plugin.plan.serving import ServingPlan
from nat_dynamo_plugin.question.hints import iat_level, osl_level
from nat_dynamo_plugin.question.prefix import wire_id


def say(plan: ServingPlan) -> WireFields:
    """Prefix id and total requests; osl and iat as levels, as the documented API has them."""
    hints = plan.hints
    headers = [(b"x-prefix-id", wire_id(plan.identity.prefix_id).encode("ascii"))]
    if hints.total_requests is not None:
        headers.append((b"x-prefix-total-requests", b"%d" % hints.total_requests))
    if hints.osl is not None:
        headers.append((b"x-prefix-osl", osl_level(hints.osl).value.encode("ascii")))
    if hints.iat is not None:
        headers.append((b"x-prefix-iat", iat_level(hints.iat).value.encode("ascii")))
    return WireFields(tuple(headers))
