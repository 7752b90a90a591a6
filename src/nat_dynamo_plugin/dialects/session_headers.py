"""Dynamo's session headers without anything in the body: for a server that nobody knows."""

from __future__ import annotations

from nat_dynamo_plugin.dialects.dynamo import Dynamo
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.plan.serving import ServingPlan


class SessionHeaders(Dynamo):
    """Session, parent and final mark, which a Dynamo acts on and others pass over."""

    name = "session_headers"

    def say(self, plan: ServingPlan) -> Said:
        """The headers alone."""
        said = super().say(plan)
        return Said(said.headers, rests_on=said.rests_on)
