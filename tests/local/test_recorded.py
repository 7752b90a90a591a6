"""A recording as the script of the simulated engines."""

from __future__ import annotations

from typing import Any

import pytest

from nat_dynamo_plugin.local.answers import ScriptedAnswerError
from nat_dynamo_plugin.local.recorded import book_of
from nat_dynamo_plugin.recording.rows import RecordedCall, ToolCall

GOOD = RecordedCall("q", 0.0, 1.0, [], "fine")


def row(**answer: Any) -> RecordedCall:
    return RecordedCall("q", 0.0, 1.0, [], **answer)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (row(), "call 2: field 'content': empty"),
        (row(tool_calls=[ToolCall("stock", "{bad")]), "call 2: the arguments of stock are no JSON object"),
        (row(tool_calls=[ToolCall("stock", "[1]")]), "call 2: the arguments of stock are no JSON object"),
        (row(content="a <tool_call>", tools=["stock"]), "parser would remove '<tool_call>'"),
    ],
)
def test_one_answer_that_can_not_be_given_again_does_not_spoil_the_others(bad: RecordedCall, says: str) -> None:
    book, unsayable = book_of([GOOD, bad, GOOD], "calls.jsonl", "hermes")
    assert book.keys == {"call-1", "call-3"} and list(unsayable) == [1] and says in unsayable[1]
    with pytest.raises(ScriptedAnswerError, match="no answer can be given again"):
        book_of([bad], "calls.jsonl", "hermes")


def test_without_tools_nothing_is_parsed() -> None:
    book, unsayable = book_of([row(content="a <tool_call>")], "calls.jsonl", "hermes")
    assert book.keys == {"call-1"} and not unsayable
