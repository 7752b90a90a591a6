"""Stock Dynamo 1.6: session headers, and the members of `nvext` that its schema knows.

Anything else in `agent_hints` is answered with 400 (`unknown field`), so nothing else is ever put there.
"""

from __future__ import annotations

from typing import Any

from nat_dynamo_plugin.dialects.dialect import Dialect
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.dialects.telemetry import EXTRA_FIELDS
from nat_dynamo_plugin.plan.serving import ServingPlan
from nat_dynamo_plugin.question.hints import I32_MAX, I32_MIN, U32_MAX

SESSION, PARENT, FINAL = b"x-dynamo-session-id", b"x-dynamo-parent-session-id", b"x-dynamo-session-final"
_RESTS_ON = {PARENT: SESSION, FINAL: SESSION}


class Dynamo(Dialect):
    """Session, parent and final mark as headers; osl, speculative prefill, priority and sensitivity as agent hints.

    Asks for Dynamo's worker and timing in the answer.
    """

    name = "dynamo"

    def say(self, plan: ServingPlan) -> Said:
        """The plan for stock Dynamo."""
        headers: list[tuple[bytes, bytes]] = []
        if plan.session_id is not None:
            headers.append((SESSION, plan.session_id.encode("ascii")))
            if plan.parent_session_id is not None:
                headers.append((PARENT, plan.parent_session_id.encode("ascii")))
            if plan.last_call:
                headers.append((FINAL, b"true"))
        hints: dict[str, Any] = {}
        if plan.expected_output_tokens is not None:
            hints["osl"] = min(max(plan.expected_output_tokens, 0), U32_MAX)
        if plan.speculative_prefill:
            hints["speculative_prefill"] = True
        if plan.priority is not None:
            hints["priority"] = min(max(plan.priority, I32_MIN), I32_MAX)
        if plan.latency_sensitivity is not None:
            hints["latency_sensitivity"] = plan.latency_sensitivity
        nvext: dict[str, Any] = {"agent_hints": hints} if hints else {}
        return Said(tuple(headers), {"nvext": {**nvext, "extra_fields": EXTRA_FIELDS}}, rests_on=_RESTS_ON)
