"""Writes calls to a recording as they end: appended, for the owner's eyes only."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from nat_dynamo_plugin.files import OWNER_ONLY, make_private
from nat_dynamo_plugin.question.once import warn_once
from nat_dynamo_plugin.recording.answer import Said
from nat_dynamo_plugin.recording.rows import RecordedCall, RecordingError, head, read_head, redactor
from nat_dynamo_plugin.secrets import known
from nat_dynamo_plugin.telemetry.record import CallRecord

logger = logging.getLogger(__name__)


class Recorder:
    """Keeps the calls of one LLM, of all its clients, threads and loops.

    Args:
        file: where to; what is there already is kept.
        redact: regular expressions; what they match in any text is replaced before it is written.

    Raises:
        ValueError: a rule is no regular expression, the file can not be written, or is something else.
    """

    def __init__(self, file: Path, redact: Sequence[str] = ()) -> None:
        self._redact = redactor(redact)
        self._file = file
        try:
            make_private(file)
            with file.open("rb") as there:
                first = there.readline()
                there.seek(0, os.SEEK_END)
                if there.tell():
                    there.seek(-1, os.SEEK_CUR)
                cut = there.read(1) not in (b"", b"\n")
            if not first:
                self._append(head(redact))
                return
            if read_head(first, str(file)) == list(redact):
                if cut:  # by a full disk; what comes now shall not be lost with it
                    self._append(b"\n")
                return
        except OSError as error:
            raise ValueError(f"record: {str(file)!r} can not be written: {error.strerror}") from None
        except RecordingError as error:
            raise ValueError(f"record: {error}") from None
        raise ValueError(f"record: {str(file)!r} was begun with other rules in `redact`; name another file")

    def _append(self, line: bytes) -> None:
        # One write a line, at the end wherever that is: several processes may write to one file.
        to = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, OWNER_ONLY)
        try:
            os.write(to, line)
        finally:
            os.close(to)

    def keep(self, asked: bytes, said: Said, record: CallRecord) -> None:
        """Write a call that was answered; what can not be written is logged, once."""
        try:
            question = msgspec.json.decode(asked)
            offered = question.get("tools") or ()
            content, tool_calls = said
            row = RecordedCall(
                question=record.prefix_id or "",
                started_s=record.started_at,
                took_s=(record.client_total_ms or 0.0) / 1000.0,
                messages=question["messages"],
                content=content,
                tool_calls=tool_calls,
                tools=[tool["function"]["name"] for tool in offered],
                prompt_tokens=record.prompt_tokens,
                completion_tokens=record.completion_tokens,
                session=record.session_id,
                tool_shapes=[_shape(tool) for tool in offered],
            )
            line = msgspec.json.encode(self._redact(msgspec.to_builtins(row)))
            self._append(known.redacted_bytes(line) + b"\n")
        except Exception as error:  # a recording is no reason to fail
            warn_once(logger, ("record", str(self._file)), "A call is not in %s", self._file, error=error)


def _shape(tool: Any) -> tuple[int, str]:
    """How long a tool's definition is, and what tells it from others; no word of it."""
    definition = msgspec.json.encode(tool)
    return len(definition), blake2b(definition, digest_size=6).hexdigest()
