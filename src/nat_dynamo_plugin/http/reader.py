"""What reads an answer into the record of its call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nat_dynamo_plugin.http.answer_fields import ReadUsage, error_text
from nat_dynamo_plugin.secrets import redacted
from nat_dynamo_plugin.telemetry.record import CallRecord

MAX_UNARY_BYTES = 16 * 2**20
"""Answers above this size (bytes) pass unread."""


class Reader:
    """Reads an answer into its record. This one knows nothing; the others refine it."""

    __slots__ = ("_read_usage", "complete", "mask", "problem", "record")

    def __init__(self, record: CallRecord, read_usage: Sequence[ReadUsage] = ()) -> None:
        self.record = record
        self._read_usage = read_usage
        self.mask: Callable[[str], str] = redacted
        self.complete = False
        """Whether the protocol's last event has passed: `[DONE]`, or the end of a response of the responses API. Of
        an answer in one piece it is never known before the connection says so."""
        self.problem: str | None = None
        """After `finish`: why this is no whole answer, in the server's words where it has some; `None` if it is one,
        or if it could not be read. Is also the record's `error`, if nobody said another one before."""

    def feed(self, chunk: bytes, now_ms: float) -> None:
        """Take the next bytes; `now_ms` is the time since the call began, in ms."""

    def finish(self, now_ms: float) -> None:
        """Take the end of the bytes. Call it once."""

    def _fail(self, kind: str, problem: str) -> None:
        self.problem = self.problem or self.mask(problem)
        if self.record.error is None:
            self.record.error = self.problem
            self.record.error_type = kind


class UnaryReader(Reader):
    """Reads one answer when it is there."""

    __slots__ = ("_chunks", "_size")

    def __init__(self, record: CallRecord, read_usage: Sequence[ReadUsage] = ()) -> None:
        super().__init__(record, read_usage)
        self._chunks: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes, now_ms: float) -> None:
        """Keep the next bytes."""
        self._size += len(chunk)
        if self._size <= MAX_UNARY_BYTES:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()

    def finish(self, now_ms: float) -> None:
        """Read the answer, unless it is an error or too long."""
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        status = self.record.status or 0
        if self._size > MAX_UNARY_BYTES or 300 <= status < 400:
            return
        if status >= 400:
            self._fail(str(status), error_text(body) or f"HTTP {status}, and no word why")
        else:
            self._read(body)

    def _read(self, body: bytes) -> None:
        """Read an answer of a status below 300."""
