"""A call waits here until its question has a place at the gate."""

from __future__ import annotations

from nat_dynamo_plugin.admission.capacity import CapacityProbe
from nat_dynamo_plugin.admission.gate import Gate
from nat_dynamo_plugin.http.call import Call
from nat_dynamo_plugin.http.flow import Enter, Flow, Send
from nat_dynamo_plugin.plan.serving import HALF_PRIORITY_TOKENS, ServingPlan
from nat_dynamo_plugin.question.endings import on_question_end


class AdmissionLayer:
    """Bounds the questions under way. Calls of whose question nothing is known pass.

    Args:
        gate: who may go; may be shared by several layers.
        probe: asks what the cluster can hold; `None` for a gate that does not want to know.
    """

    def __init__(self, gate: Gate, probe: CapacityProbe | None = None) -> None:
        self.gate = gate
        self._probe = probe
        on_question_end(self)

    def flow(self, call: Call, send: Send) -> Flow:
        """Wait, if need be, then send."""
        if self._probe is not None:
            self._probe.called(call.url)
        turn = call.turn
        if turn is not None:
            identity = turn.identity
            place = self.gate.place(identity.prefix_id, identity.around, _work_tokens(turn.plan), call.body.raw)
            call.on_end(place.end)
            yield Enter(place)
            call.record.gate_wait_ms = place.waited_ms or 0.0  # None says: no gate
        return (yield from send(call))

    def is_crowded(self) -> bool:
        """Whether questions wait, so that nothing should be asked of the server that nobody waits for."""
        return self.gate.waiting > 0

    def question_ended(self, prefix_id: str) -> None:
        """Give the question's place to the next one."""
        self.gate.end(prefix_id)


def _work_tokens(plan: ServingPlan) -> float | None:
    """Output tokens of this call and those to come, where they are known."""
    if plan.work_tokens is None:
        return None
    own = plan.expected_output_tokens
    return plan.work_tokens + (HALF_PRIORITY_TOKENS if own is None else own)
