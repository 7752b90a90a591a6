"""The documented `x-prefix-*` headers of NAT 1.4, for prefix-aware processors. Stock Dynamo ignores them."""

from __future__ import annotations

from nat_dynamo_plugin.dialects.dialect import Dialect
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.plan.serving import ServingPlan
from nat_dynamo_plugin.question.hints import iat_level, osl_level
from nat_dynamo_plugin.question.ids import wire_id


class PrefixHeaders(Dialect):
    """Prefix id and total requests; osl and iat as levels, as the documented API has them."""

    name = "prefix_headers"

    def say(self, plan: ServingPlan) -> Said:
        """The hints as headers."""
        hints = plan.hints
        headers = [(b"x-prefix-id", wire_id(plan.identity.prefix_id).encode("ascii"))]
        if hints.total_requests is not None:
            headers.append((b"x-prefix-total-requests", b"%d" % hints.total_requests))
        if hints.osl is not None:
            headers.append((b"x-prefix-osl", osl_level(hints.osl).encode("ascii")))
        if hints.iat is not None:
            headers.append((b"x-prefix-iat", iat_level(hints.iat).encode("ascii")))
        return Said(tuple(headers))
