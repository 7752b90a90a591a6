"""Asks Dynamo who served a call and how long it took, and says nothing else: also where prefixes are turned off."""

from __future__ import annotations

from nat_dynamo_plugin.dialects.dialect import Dialect
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.plan.serving import ServingPlan

EXTRA_FIELDS = ["worker_id", "timing"]
"""What Dynamo is asked to answer besides the completion (`nvext.extra_fields`)."""


class Telemetry(Dialect):
    """`nvext.extra_fields` alone."""

    name = "telemetry"
    needs_plan = False

    def say(self, plan: ServingPlan) -> Said:
        """The same for every call."""
        return Said(members={"nvext": {"extra_fields": EXTRA_FIELDS}})
