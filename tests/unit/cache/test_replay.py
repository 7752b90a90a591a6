"""A stream of an answer says what the answer says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.cache.replay import assemble, fresh, normal, replay
from nat_dynamo_plugin.http.sse import events_in

TEXT = st.text(max_size=12)
CALL = st.fixed_dictionaries(
    {
        "id": st.text(min_size=1, max_size=6),
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": st.text(min_size=1, max_size=6), "arguments": TEXT}),
    }
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | TEXT},
    optional={
        "reasoning_content": TEXT | st.none(),
        "reasoning": TEXT,
        "refusal": TEXT | st.none(),
        "tool_calls": st.lists(CALL, max_size=3) | st.none(),
        "function_call": st.fixed_dictionaries({"name": st.just("f"), "arguments": TEXT}),
        "annotations": st.lists(st.dictionaries(TEXT, st.integers(), max_size=2), max_size=2),
        "unknown": st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1), min_size=1, max_size=2),
    },
)
LOGPROBS = st.none() | st.fixed_dictionaries({"content": st.lists(st.fixed_dictionaries({"token": TEXT}), max_size=3)})
CHOICE = st.fixed_dictionaries(
    {"message": MESSAGE, "finish_reason": st.sampled_from(["stop", "tool_calls"])},
    optional={"logprobs": LOGPROBS, "stop_reason": st.integers(1)},
)
ANSWER = st.builds(
    lambda choices, rest: normal(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            **rest,
            "choices": [{"index": k, **choice} for k, choice in enumerate(choices)],
        }
    ),
    st.lists(CHOICE, min_size=1, max_size=3),
    st.fixed_dictionaries(
        {},
        optional={
            "usage": st.fixed_dictionaries({"prompt_tokens": st.integers(0), "completion_tokens": st.integers(0)}),
            "system_fingerprint": st.text(min_size=1, max_size=4),
            "service_tier": st.just("default"),
            "unknown": st.integers(1),
        },
    ),
)


@given(ANSWER)
def test_a_replayed_answer_is_the_answer(answer: dict[str, Any]) -> None:
    assert assemble(events_in(replay(answer))) == answer


@given(ANSWER)
def test_without_usage_it_is_all_but_that(answer: dict[str, Any]) -> None:
    assert assemble(events_in(replay(answer, usage=False))) == {k: v for k, v in answer.items() if k != "usage"}


@given(ANSWER)
def test_each_event_is_a_chunk_of_one_answer(answer: dict[str, Any]) -> None:
    *chunks, last = events_in(replay(answer))
    assert last == b"[DONE]"
    read = [json.loads(chunk) for chunk in chunks]
    assert {(one["id"], one["object"], one["model"]) for one in read} == {("chatcmpl-1", "chat.completion.chunk", "m")}
    ends = [c["index"] for one in read for c in one["choices"] if c["finish_reason"] is not None]
    assert ends == [choice["index"] for choice in answer["choices"]]
    assert all(len(one["choices"]) == 1 for one in read if "usage" not in one)


def chunk(**choice: Any) -> bytes:
    return json.dumps({"id": "1", "model": "m", "choices": [{"index": 0, **choice}]}).encode()


def test_tool_calls_come_in_pieces() -> None:
    pieces = [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": '{"x"'}},
        {"index": 0, "id": None, "function": {"name": None, "arguments": ": 1}"}},
    ]
    events = [chunk(delta={"role": "assistant"}), *(chunk(delta={"tool_calls": [one]}) for one in pieces)]
    whole = assemble([*events, chunk(delta={}, finish_reason="tool_calls"), b"[DONE]"])
    assert whole is not None
    assert whole["choices"][0]["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }
    assert whole["choices"][0]["finish_reason"] == "tool_calls"


def test_what_tells_of_one_execution_is_not_said_again() -> None:
    whole = assemble(
        [chunk(delta={"content": "a"}, finish_reason="stop"), b'{"choices": [], "nvext": {"worker_id": 1}}']
    )
    assert whole is not None and "nvext" not in whole


@pytest.mark.parametrize("events", [[], [b"[DONE]"], [b"{"], [b"[]"], [b'{"choices": [1]}'], [b'{"choices": 1}']])
def test_what_is_no_chat_completion_is_none(events: list[bytes]) -> None:
    assert assemble(events) is None


def test_an_answer_given_again_has_an_id_of_its_own_and_its_calls_keep_theirs() -> None:
    answer = normal({"id": "a", "created": 1, "choices": [{"message": {"tool_calls": [{"id": "c"}]}}]})
    one, other = fresh(answer), fresh(answer)
    assert len({answer["id"], one["id"], other["id"]}) == 3 and one["created"] > 1
    assert one["choices"] == answer["choices"]
