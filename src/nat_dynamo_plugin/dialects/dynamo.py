"""Stock Dynamo 1.6: session headers, and the members of `nvext.agent_hints` that its schema knows.

Anything else in `agent_hints` is answered with 400 (`unknown field`), so nothing else is ever put there.
"""

from __future__ import annotations

from nat_dynamo_plugin.dialects.fields import WireFields
from nat_dynamo_plugin.plan.serving import ServingPlan
from nat_dynamo_plugin.question.hints import I32_MAX, I32_MIN, U32_MAX


def say(plan: ServingPlan) -> WireFields:
    """Session, parent and final mark as headers; osl, speculative prefill, priority and sensitivity as agent hints."""
    headers: list[tuple[bytes, bytes]] = []
    if plan.session_id is not None:
        headers.append((b"x-dynamo-session-id", plan.session_id.encode("ascii")))
        if plan.parent_session_id is not None:
            headers.append((b"x-dynamo-parent-session-id", plan.parent_session_id.encode("ascii")))
        if plan.last_call:
            headers.append((b"x-dynamo-session-final", b"true"))
    hints: list[tuple[str, int | float | bool]] = []
    if plan.expected_output_tokens is not None:
        hints.append(("osl", min(max(plan.expected_output_tokens, 0), U32_MAX)))
    if plan.speculative_prefill:
        hints.append(("speculative_prefill", True))
    if plan.priority is not None:
        hints.append(("priority", min(max(plan.priority, I32_MIN), I32_MAX)))
    if plan.latency_sensitivity is not None:
        hints.append(("latency_sensitivity", plan.latency_sensitivity))
    return WireFields(tuple(headers), tuple(hints))
