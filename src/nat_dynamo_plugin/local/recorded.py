"""A recording as the script of the simulated engines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nat_dynamo_plugin.local.answers import AnswerBook, ScriptedAnswer, ScriptedAnswerError
from nat_dynamo_plugin.recording.rows import RecordedCall, ToolCall


def key_of(number: int) -> str:
    """The key of a recorded call's answer; `number` counts from 0."""
    return f"call-{number + 1}"


def book_of(rows: Sequence[RecordedCall], source: str) -> AnswerBook:
    """The answers of a recording.

    Raises:
        ScriptedAnswerError: one can not be said by an engine, naming it.
    """
    answers = [
        ScriptedAnswer(
            key_of(number), row.content, [(call.name, _arguments(call, number, source)) for call in row.tool_calls]
        )
        for number, row in enumerate(rows)
    ]
    return AnswerBook(answers, source=source)


def _arguments(call: ToolCall, number: int, source: str) -> Mapping[str, Any]:
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise ScriptedAnswerError(
            f"{source}, call {number + 1}: the arguments of {call.name} are no JSON object, which no engine would give "
            f"back as it is: {call.arguments[:80]!r}"
        )
    return arguments
