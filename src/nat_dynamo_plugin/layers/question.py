"""Who asks, and what is asked of the server: identity, plan, and the dialects' headers and body fields."""

from __future__ import annotations

from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.dialects.speaker import Speaker
from nat_dynamo_plugin.http.call import Call
from nat_dynamo_plugin.http.flow import Flow, Send
from nat_dynamo_plugin.http.splice import edited, spliced
from nat_dynamo_plugin.plan.planner import Planner, Turn

SESSION_HEADER = b"x-dynamo-session-id"


class QuestionLayer:
    """Gives the call its turn and says it to the server. The record has what was sent, not what was meant.

    Args:
        speaker: says plans in the config's dialects; with hints off, what needs no plan.
        planner: makes the plans, said by `speaker`; `None` with hints off.
    """

    def __init__(self, speaker: Speaker, planner: Planner[Said] | None) -> None:
        self._speaker = speaker
        self._planner = planner
        self._names = speaker.names
        self._provider = speaker.provider

    def flow(self, call: Call, send: Send) -> Flow:
        """Say what is to be said, and send."""
        call.record.wire = self._names
        call.record.provider = self._provider
        if self._planner is None:
            said = self._speaker.say()
        else:
            call.turn = turn = self._planner.next_turn()
            said = turn.said
            self._note(call, turn)
        self._put_in(call, said)
        return send(call)

    def note(self, call: Call) -> None:
        """Count a call of its question that is answered without the server; its record says whose it is."""
        if self._planner is not None:
            self._note(call, self._planner.next_turn())

    @staticmethod
    def _put_in(call: Call, said: Said) -> None:
        headers, body = call.headers, call.body
        if said.headers:
            headers.extend(said.headers_beside(headers.names))
        if body.raw is None:
            return
        raw = body.raw
        if said.edit is not None and (changed := edited(raw, said.edit)) is not None and changed != raw:
            raw = changed
            body.parts = (raw,)  # not `raw`, so that a server that refuses it gets the caller's
        if said.members and (result := spliced(raw, said.members, said.encoded)) is not None and result.adds:
            body.parts = result.parts
            nvext = result.sent.get("nvext")
            hints = nvext.get("agent_hints") if isinstance(nvext, dict) else None
            if isinstance(hints, dict):
                call.record.hints = dict(hints)

    @staticmethod
    def _note(call: Call, turn: Turn[Said]) -> None:
        record, plan, identity = call.record, turn.plan, turn.identity
        record.prefix_id = identity.prefix_id
        record.call_index = turn.index
        record.function_path = identity.function_path
        record.calls_to_come = plan.calls_to_come
        record.session_id = plan.session_id
        record.parent_session_id = plan.parent_session_id
        if SESSION_HEADER in call.headers.names:  # the caller's own, and nothing of ours is there yet
            record.session_id, record.parent_session_id = call.headers.get(SESSION_HEADER), None
