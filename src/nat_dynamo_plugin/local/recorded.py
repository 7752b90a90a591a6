"""A recording as the script of the simulated engines."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nat_dynamo_plugin.local.answers import AnswerBook, ScriptedAnswer, ScriptedAnswerError
from nat_dynamo_plugin.recording.rows import RecordedCall, ToolCall, read

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recording, ready to be played.

    Attributes:
        rows: the calls.
        rules: by which their texts were redacted.
        book: their answers, by `key_of` their number.
        unsayable: why some can not be given again, by the number of their call.
    """

    rows: Sequence[RecordedCall]
    rules: Sequence[str]
    book: AnswerBook
    unsayable: Mapping[int, str]


def load_recording(file: Path, parser: str | None) -> Recorded:
    """Read a recording, and log what of it can not be given again.

    Raises:
        RecordingError: the file can not be read, or is none.
        ScriptedAnswerError: see `book_of`.
    """
    rows, rules = read(file)
    book, unsayable = book_of(rows, str(file), parser)
    if unsayable:
        logger.warning(
            "%d of %d recorded answers can not be given again, and their calls fail: %s",
            len(unsayable),
            len(rows),
            next(iter(unsayable.values())),
        )
    return Recorded(rows, rules, book, unsayable)


def key_of(number: int) -> str:
    """The key of a recorded call's answer; `number` counts from 0."""
    return f"call-{number + 1}"


def book_of(rows: Sequence[RecordedCall], source: str, parser: str | None) -> tuple[AnswerBook, dict[int, str]]:
    """The answers of a recording, and why some can not be given again, by the number of their call.

    Args:
        rows: the calls.
        source: named in errors.
        parser: Dynamo's tool-call parser; it looks at the answers of calls that offered tools.

    Raises:
        ScriptedAnswerError: none can be given again, with why the first can not.
    """
    book, unsayable = AnswerBook(source=source), {}
    for number, row in enumerate(rows):
        place = f"{source}, call {number + 1}"
        try:
            calls = [(call.name, _arguments(call, place)) for call in row.tool_calls]
            answer = ScriptedAnswer(key_of(number), row.content, calls)
            alone = AnswerBook(source=source)
            alone.add(answer, place)
            if row.tools or row.tool_calls:
                alone.check_parser(parser)
        except ScriptedAnswerError as error:
            unsayable[number] = str(error)
            continue
        book.add(answer, place)
    if not book.answers and unsayable:
        raise ScriptedAnswerError(f"no answer can be given again by the engines: {unsayable[0]}")
    return book, unsayable


def _arguments(call: ToolCall, place: str) -> Mapping[str, Any]:
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise ScriptedAnswerError(
            f"{place}: the arguments of {call.name} are no JSON object, which no engine would give "
            f"back as it is: {call.arguments[:80]!r}"
        )
    return arguments
