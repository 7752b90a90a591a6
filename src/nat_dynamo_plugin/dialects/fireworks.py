"""Fireworks: headers alone, which keep a session on one replica and orgs apart."""

from __future__ import annotations

from nat_dynamo_plugin.dialects.cache_key import key_of
from nat_dynamo_plugin.dialects.provider import ProviderDialect
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.plan.serving import ServingPlan
from nat_dynamo_plugin.question.org import current_org, org_digest


class Fireworks(ProviderDialect):
    """`x-session-affinity`, and with an org `x-prompt-cache-isolation-key`, which dedicated deployments go by."""

    name = "fireworks"
    provider = "fireworks"
    is_steady = False

    def say(self, plan: ServingPlan) -> Said:
        """The question's key, and what stands for the org."""
        headers = [(b"x-session-affinity", key_of(plan).encode("ascii"))]
        org = current_org()
        if org is not None:
            headers.append((b"x-prompt-cache-isolation-key", org_digest(org).encode("ascii")))
        return Said(tuple(headers))
