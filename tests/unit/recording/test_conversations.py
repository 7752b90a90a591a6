"""Finds the recorded call with the conversation at hand, and says where the nearest one differs."""

from __future__ import annotations

from typing import Any

import pytest

from nat_dynamo_plugin.recording.conversations import Conversations, NotRecorded, canonical
from nat_dynamo_plugin.recording.rows import RecordedCall

SYSTEM = {"role": "system", "content": "You look things up."}
BOLTS = {"role": "user", "content": "How many bolts are there in the third box?"}
ASKED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "stock", "arguments": '{"item": "bolt"}'}}
    ],
}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "17"}


def row(*messages: Any, question: str = "q-1") -> RecordedCall:
    return RecordedCall(question=question, started_s=0.0, took_s=1.0, messages=list(messages))


@pytest.fixture
def recorded() -> Conversations:
    return Conversations([row(SYSTEM, BOLTS), row(SYSTEM, BOLTS, ASKED, RESULT)], source="calls.jsonl")


def test_a_conversation_is_found(recorded: Conversations) -> None:
    assert recorded.find([SYSTEM, BOLTS]) == 0
    assert recorded.find([SYSTEM, BOLTS, ASKED, RESULT]) == 1


def test_ids_of_tool_calls_and_the_spelling_of_json_do_not_matter(recorded: Conversations) -> None:
    function = {"name": "stock", "arguments": '{\n "item":"bolt"}'}
    again = {"role": "assistant", "tool_calls": [{"id": "other", "type": "function", "function": function}]}
    result = {"role": "tool", "tool_call_id": "other", "content": [{"type": "text", "text": "17"}]}
    assert recorded.find([SYSTEM, BOLTS, again, result]) == 1


def test_another_argument_is_another_conversation(recorded: Conversations) -> None:
    function = {"name": "stock", "arguments": '{"item": "nut"}'}
    other = {"role": "assistant", "tool_calls": [{"id": "call_1", "function": function}]}
    with pytest.raises(NotRecorded, match=r"message 3 differs from character \d+ on: recorded .*bolt.*, now .*nut"):
        recorded.find([SYSTEM, BOLTS, other, RESULT])


def test_a_function_called_the_old_way_is_part_of_a_conversation() -> None:
    called = [{"role": "assistant", "function_call": {"name": "stock", "arguments": text}} for text in ("1", "2")]
    assert Conversations([row(BOLTS, called[0]), row(BOLTS, called[1])]).find([BOLTS, called[1]]) == 1


def test_one_that_was_recorded_twice_answers_in_order_and_the_last_goes_on() -> None:
    recorded = Conversations([row(BOLTS), row(SYSTEM), row(BOLTS)])
    assert [recorded.find([BOLTS]) for _ in range(4)] == [0, 2, 2, 2]


def test_what_differs_is_said(recorded: Conversations) -> None:
    with pytest.raises(NotRecorded) as caught:
        recorded.find([SYSTEM, {"role": "user", "content": "How many bolts are there in the fourth box?"}])
    text = str(caught.value)
    assert text.startswith("calls.jsonl has no call with this conversation; the nearest is call 1 of the recording")
    assert "(question q-1): message 2 differs from character 46 on: recorded 'ts are there in the third box?" in text
    assert "now 'ts are there in the fourth box?" in text


def test_one_that_goes_on_where_the_recording_ends(recorded: Conversations) -> None:
    with pytest.raises(NotRecorded, match=r"nearest is call 2 .*, which ends before message 5: .*thanks"):
        recorded.find([SYSTEM, BOLTS, ASKED, RESULT, {"role": "user", "content": "thanks"}])


def test_one_that_stops_before_any_call(recorded: Conversations) -> None:
    with pytest.raises(NotRecorded, match=r"nearest is call 1 .*, which has 1 messages more"):
        recorded.find([SYSTEM])


def test_what_was_redacted_is_redacted_before_it_is_looked_for() -> None:
    recorded = Conversations([row({"role": "user", "content": "card [redacted]"})], [r"\d{4}-\d{4}"])
    assert recorded.find([{"role": "user", "content": "card 1234-5678"}]) == 0


@pytest.mark.parametrize("odd", ["text", None, 3, {"role": "user"}, {"content": {"a": [1]}}, {"tool_calls": ["x"]}])
def test_odd_messages_have_a_form_too(odd: Any) -> None:
    assert isinstance(canonical(odd), str)
