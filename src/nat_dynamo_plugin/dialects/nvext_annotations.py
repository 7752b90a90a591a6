"""`nvext.annotations`, which reach a prefix-aware Python processor behind the frontend as free `key:value` strings."""

from __future__ import annotations

from nat_dynamo_plugin.dialects.dialect import Dialect
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.plan.serving import ServingPlan
from nat_dynamo_plugin.question.hints import iat_ms, osl_tokens


class Annotations(Dialect):
    """Prefix id, total requests, osl in tokens and iat in milliseconds."""

    name = "annotations"

    def say(self, plan: ServingPlan) -> Said:
        """The hints as they are."""
        hints = plan.hints
        said = [f"prefix_id:{plan.identity.prefix_id}"]
        if hints.total_requests is not None:
            said.append(f"total_requests:{hints.total_requests}")
        if hints.osl is not None:
            said.append(f"osl:{osl_tokens(hints.osl)}")
        if hints.iat is not None:
            said.append(f"iat:{iat_ms(hints.iat)}")
        return Said(members={"nvext": {"annotations": said}})
