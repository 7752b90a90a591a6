"""What a call said and was answered, for those who asked to see it: redacted, and never in a record."""

from __future__ import annotations

import json

import msgspec

from nat_dynamo_plugin.http.call import Call, Reader, Reply
from nat_dynamo_plugin.http.sse import EventCutter, events_in
from nat_dynamo_plugin.recording.answer import Said, of_events, of_whole
from nat_dynamo_plugin.secrets import redacted

MAX_CHARS = 16_384
"""Longest prompt or answer that is told; of a longer one the beginning."""


class Tee:
    """Reads an answer as another reader does, and keeps its events."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._cutter = EventCutter()
        self.events: list[bytes] = []
        self.complete = reader.complete
        self.problem = reader.problem

    def feed(self, chunk: bytes, now_ms: float) -> None:
        """Take the next bytes."""
        self.events += [data for _, data in self._cutter.feed(chunk)]
        self._reader.feed(chunk, now_ms)
        self.complete = self._reader.complete

    def finish(self, now_ms: float) -> None:
        """Take the end."""
        self._reader.finish(now_ms)
        self.problem = self._reader.problem


class Content:
    """The prompt and the answer of one call.

    Args:
        call: whose; its body as it is now.
    """

    def __init__(self, call: Call) -> None:
        self._asked = call.body.raw
        self._whole: bytes | None = None
        self._streamed = False
        self._tee: Tee | None = None

    def watch(self, call: Call, reply: Reply) -> None:
        """Keep what comes of a reply."""
        self._whole, self._streamed = reply.content, call.record.streamed
        if reply.content is None and call.reader is not None:
            call.reader = self._tee = Tee(call.reader)

    def said(self) -> Said | None:
        """What was answered, as far as it is known."""
        if self._whole is not None:  # of the response cache: a stream is there as a whole too
            return of_events(events_in(self._whole)) if self._streamed else of_whole(self._whole)
        return None if self._tee is None else of_events(self._tee.events)

    @property
    def prompt(self) -> str | None:
        """The messages, or what stands for them in other APIs, as JSON without secrets."""
        try:
            body = msgspec.json.decode(self._asked or b"")
            asked = next(body[name] for name in ("messages", "input", "prompt") if name in body)
        except (msgspec.DecodeError, TypeError, StopIteration):
            return None
        return _told(json.dumps(asked, ensure_ascii=False))

    @property
    def answer(self) -> str | None:
        """The answer's text and tool calls as a message in JSON, without secrets."""
        said = self.said()
        if said is None:
            return None
        text, calls = said
        message = {"role": "assistant", "content": text}
        tools = [{"name": call.name, "arguments": call.arguments} for call in calls]
        return _told(json.dumps([message | ({"tool_calls": tools} if tools else {})], ensure_ascii=False))


def _told(text: str) -> str:
    text = redacted(text)
    return text if len(text) <= MAX_CHARS else f"{redacted(text[:MAX_CHARS])}..."
