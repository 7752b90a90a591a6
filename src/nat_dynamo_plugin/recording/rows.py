"""The file of a recording: JSON lines, a head and a row a call.

The head names the format and the rules by which texts were redacted; a row is a `RecordedCall`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

FORMAT = "nat-dynamo-recording/1"
REDACTED = "[redacted]"


class RecordingError(ValueError):
    """A file is no recording that can be used; the message names the file and the line."""


class ToolCall(msgspec.Struct, frozen=True):
    """A call of a tool that a model asked for.

    Attributes:
        name: of the tool.
        arguments: JSON, as the model wrote it.
    """

    name: str
    arguments: str


class RecordedCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call that was answered.

    Attributes:
        question: the prefix id of its question; calls of one question belong together.
        started_s: when it began, in seconds since the epoch.
        took_s: seconds from then to the end of its answer, gate and retries included.
        messages: as they were asked.
        content: the answer's text, if it had one.
        tool_calls: the tools that the answer called.
        tools: names of the tools that were offered.
        prompt_tokens: of the server's usage, if it said.
        completion_tokens: of the server's usage, if it said.
        session: the chain of calls within the question.
        tool_shapes: for each of `tools` the characters of its definition, and a digest that is another one if the
            definition is.
    """

    question: str
    started_s: float
    took_s: float
    messages: list[Any]
    content: str | None = None
    tool_calls: list[ToolCall] = []
    tools: list[str] = []
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    session: str | None = None
    tool_shapes: list[tuple[int, str]] = []

    @property
    def ended_s(self) -> float:
        """When it was over, in seconds since the epoch."""
        return self.started_s + self.took_s


_decode_row = msgspec.json.Decoder(RecordedCall).decode


def head(redact: Sequence[str]) -> bytes:
    """The first line of a recording."""
    return json.dumps({"format": FORMAT, "redact": list(redact)}).encode() + b"\n"


def read_head(line: bytes, place: str) -> list[str]:
    """The rules by which a recording's texts were redacted.

    Raises:
        RecordingError: it is no recording, or of another version.
    """
    try:
        data: Any = json.loads(line)
        if data["format"] == FORMAT:
            return [str(rule) for rule in data["redact"]]
    except (ValueError, KeyError, TypeError):
        pass
    raise RecordingError(f"{place}: is no recording: its first line does not name the format {FORMAT!r}")


def read(file: Path) -> tuple[list[RecordedCall], list[str]]:
    """A recording's calls, in the order in which they ended, and its rules of redaction.

    A line that was cut, as by a kill or a full disk, is left out.

    Raises:
        RecordingError: the file can not be read, is no recording, or has a row that is none.
    """
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise RecordingError(f"{str(file)!r}: can not be read: {error.strerror}") from error
    rules = read_head(lines[0], str(file))
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip() or (number == len(lines) and line):
            continue
        try:
            rows.append(_decode_row(line))
        except msgspec.DecodeError as error:
            found = json_of(line)
            if found == json_of(lines[0]) or (found is None and line.startswith(b"{") and not line.endswith(b"}")):
                continue  # two processes began it at once, or it was cut before others went on
            raise RecordingError(f"{file}, line {number}: {error}") from error
    if not rows:
        raise RecordingError(f"{file}: holds no call; was there one that was answered?")
    return rows, rules


def json_of(line: bytes) -> Any:
    """A line's JSON, or `None`."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def redactor(rules: Sequence[str]) -> Callable[[Any], Any]:
    """What replaces each match of the rules in all texts of JSON data by `[redacted]`.

    Raises:
        ValueError: a rule is no regular expression.
    """
    patterns = []
    for rule in rules:
        try:
            patterns.append(re.compile(rule))
        except re.error as error:
            raise ValueError(f"{rule!r} is no regular expression: {error}") from None

    def redact(data: Any) -> Any:
        if isinstance(data, str):
            for pattern in patterns:
                data = pattern.sub(REDACTED, data)
            return data
        if isinstance(data, list):
            return [redact(one) for one in data]
        if isinstance(data, dict):
            return {name: redact(value) for name, value in data.items()}
        return data

    return redact if patterns else lambda data: data
