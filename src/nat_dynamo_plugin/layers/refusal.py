"""A server that refuses what we put into a body gets the body as its caller made it: a hint must not fail a call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from nat_dynamo_plugin.http.answers import error_text
from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import MAX_ERROR_BYTES, Close, Failure, Flow, ReadBody, Send

logger = logging.getLogger(__name__)

REFUSALS = (400, 422)
REMEMBERED_S = 600.0
"""How long a server that has refused our fields gets none, in seconds; servers are upgraded."""


class RefusalLayer:
    """Sends a call that was answered 400 or 422 once more without our body fields, whatever the error says.

    Error texts do not tell reliably what was wrong: Dynamo's `invalid type: floating point ..., expected i32` names no
    field. Only a server that takes the bare body is remembered as one that refuses ours, and only for a while.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def refuses(self, origin: str) -> bool:
        """Whether this server has refused our fields lately."""
        return self._until.get(origin, 0.0) > self._clock()

    def flow(self, call: Call, send: Send) -> Flow:
        """Send with our fields unless the server refuses them; without them if it just did."""
        if call.body.parts is None:
            return (yield from send(call))
        if self._until and self.refuses(call.origin):
            self._go_bare(call)
            return (yield from send(call))
        reply = yield from send(call)
        if reply.status not in REFUSALS:
            return reply
        return (yield from self._again(call, send, reply))

    def _again(self, call: Call, send: Send, refused: Reply) -> Flow:
        text = error_text((yield ReadBody(refused, MAX_ERROR_BYTES)))
        hints = call.record.hints
        self._go_bare(call)
        try:
            bare = yield from send(call)
        except Failure:
            # The first answer stands.
            call.record.hints = hints
            return refused
        yield Close(refused)
        if bare.status < 400:
            if not self.refuses(call.origin):
                logger.warning(
                    "%s refuses what we put into bodies (%s); for %g minutes calls go on with headers only",
                    call.origin,
                    text,
                    REMEMBERED_S / 60,
                )
            self._until[call.origin] = self._clock() + REMEMBERED_S
        return bare

    @staticmethod
    def _go_bare(call: Call) -> None:
        call.body.parts = None
        call.record.hints = {}
