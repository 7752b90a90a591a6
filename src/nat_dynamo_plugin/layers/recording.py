"""Keeps what was asked and answered (`record`), and has recorded answers given again (`local.answers`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from nat_dynamo_plugin.http.answer_fields import CHAT
from nat_dynamo_plugin.http.call import Call
from nat_dynamo_plugin.http.flow import Flow, Send
from nat_dynamo_plugin.http.splice import spliced
from nat_dynamo_plugin.http.sse import events_in
from nat_dynamo_plugin.layers.answer import refused
from nat_dynamo_plugin.layers.content import Tee
from nat_dynamo_plugin.question.once import warn_once
from nat_dynamo_plugin.recording.answer import of_events, of_whole
from nat_dynamo_plugin.recording.conversations import Conversations, NotRecorded
from nat_dynamo_plugin.recording.recorder import Recorder
from nat_dynamo_plugin.telemetry.record import CallRecord

logger = logging.getLogger(__name__)

_NO_SUCH_CALL = 404
MAX_TOKENS = 4096
"""Most tokens of an answer where the caller sets no bound; Dynamo's simulated engines want one, and the recorded answer
ends before it."""


class RecordingLayer:
    """Hands every chat completion that was answered to a recorder.

    Args:
        recorder: writes it.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def flow(self, call: Call, send: Send) -> Flow:
        """Send, and keep what comes back."""
        asked = call.body.raw
        if call.api != CHAT:
            warn_once(logger, ("record", call.api), "Calls of %s are not recorded: only chat completions are", call.api)
        if call.api != CHAT or asked is None:
            return (yield from send(call))
        reply = yield from send(call)
        content = reply.content
        tee = None
        if reply.status < 300 and content is None and call.reader is not None:
            call.reader = tee = Tee(call.reader)

        def ended(record: CallRecord) -> None:
            if record.failed:
                return
            if content is not None:
                said = of_events(events_in(content)) if record.streamed else of_whole(content)
            else:
                said = None if tee is None else of_events(tee.events)
            if said is not None:
                self._recorder.keep(asked, said, record)
            elif content is not None or tee is not None:
                warn_once(logger, ("record", "unread"), "An answer of a form that is not recorded")

        call.on_end(ended)
        return reply


class ReplayLayer:
    """Names the recorded answer of a call, found by its conversation.

    Stands above what shortens a conversation, as the recording does.

    Args:
        conversations: those of the recording.
        named: the scope in which the dialects below name an answer, by the number of its call.
        unsayable: why the engines can not give an answer again, by the number of its call.
    """

    def __init__(
        self,
        conversations: Conversations,
        named: Callable[[int], AbstractContextManager[Any]],
        unsayable: Mapping[int, str] | None = None,
    ) -> None:
        self._conversations = conversations
        self._named = named
        self._unsayable = unsayable or {}

    def flow(self, call: Call, send: Send) -> Flow:
        """Send with the recorded answer's name; a call that was not recorded is answered 404 with what differs."""
        raw = call.body.raw
        if call.api != CHAT:
            message = f"a recording has chat completions only, and this call is of {call.api}"
            return refused(call, _NO_SUCH_CALL, message, "not_recorded")
        if raw is None:
            return (yield from send(call))
        try:
            asked = msgspec.json.decode(raw)
            number = self._conversations.find(asked["messages"])
        except NotRecorded as error:
            return refused(call, _NO_SUCH_CALL, str(error), "not_recorded")
        except (msgspec.DecodeError, LookupError, TypeError):
            return (yield from send(call))
        if number in self._unsayable:
            return refused(call, _NO_SUCH_CALL, self._unsayable[number], "not_sayable")
        if asked.get("max_tokens") is None and asked.get("max_completion_tokens") is None:
            bounded = spliced(raw, {"max_tokens": MAX_TOKENS})
            if bounded is not None and "max_tokens" not in asked:
                call.body.raw = b"".join(bounded.parts)
        with self._named(number):  # for the cache and the question's layer, further in
            return (yield from send(call))
