"""What a chat completion said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nat_dynamo_plugin.recording.answer import of_events, of_whole
from nat_dynamo_plugin.recording.rows import ToolCall


def test_of_an_answer_in_one_piece() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "stock", "arguments": '{"a": 1}'}}
    message = {"content": "look", "tool_calls": [call]}
    assert of_whole(json.dumps({"choices": [{"message": message}]}).encode()) == (
        "look",
        [ToolCall("stock", '{"a": 1}')],
    )


def event(delta: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()


def part(index: int, arguments: str, name: str | None = None) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"name": name, "arguments": arguments}}]}


def test_of_a_stream_the_pieces_are_put_together() -> None:
    events = [
        event({"role": "assistant", "content": "I "}),
        event({"content": "look"}),
        event(part(0, "", "stock")),
        event(part(1, '{"b"', "price")),
        event(part(0, '{"a": ')),
        event(part(0, "1}")),
        event(part(1, ": 2}")),
        b'{"choices": [], "usage": {}}',
        b"[DONE]",
        event({"content": "never"}),
    ]
    assert of_events(events) == ("I look", [ToolCall("stock", '{"a": 1}'), ToolCall("price", '{"b": 2}')])
    assert of_events([event({"content": ""}), b"[DONE]"]) == (None, [])


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": 1}]}', b"no"])
def test_what_is_no_answer_is_none(data: bytes) -> None:
    assert of_whole(data) is None


def test_what_is_no_stream_is_none() -> None:
    assert of_events([b"no"]) is None and of_events([b"3"]) is None


def test_of_several_choices_the_first_counts() -> None:
    def of(index: int, text: str) -> dict[str, Any]:
        return {"index": index, "delta": {"content": text}}

    chunks = [[of(1, "no")], [of(0, "y")], [of(1, "pe")], [of(1, "!"), of(0, "es")]]
    assert of_events([json.dumps({"choices": chunk}).encode() for chunk in chunks]) == ("yes", [])


def test_a_function_called_the_old_way_is_no_empty_answer() -> None:
    message = {"content": None, "function_call": {"name": "stock", "arguments": "{}"}}
    assert of_whole(json.dumps({"choices": [{"message": message}]}).encode()) is None
    assert of_events([event({"content": None, "function_call": {"name": "stock", "arguments": ""}})]) is None
