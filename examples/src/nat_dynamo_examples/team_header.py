"""A layer of one's own: says to the server and to the caller whose calls these are, and counts how they ended."""

from __future__ import annotations

from collections import Counter

from nat_dynamo_plugin import Call, CallRecord, Flow, Send

ENDS: Counter[str] = Counter()
"""Calls by how they ended, over all LLMs of this process."""


class TeamHeader:
    """`layers: [{team_header: {team: search}}]` in an LLM's config."""

    def __init__(self, team: str) -> None:
        self._team = team

    def flow(self, call: Call, send: Send) -> Flow:
        """Once a call, whatever the framework, blocking or not, streamed or not."""
        call.headers.set("x-team", self._team)
        call.on_end(self._count)
        reply = yield from send(call)
        reply.headers.set("x-team", self._team)
        return reply

    def _count(self, record: CallRecord) -> None:
        ENDS["failed" if record.failed else "streamed" if record.streamed else "answered"] += 1
