"""Where turns begin, and that nothing but messages is taken out of a body."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.context.conversations import asked, said, step

from nat_dynamo_plugin.context.history import read

S, U, A, T = said("system"), said("user"), said("assistant"), said("tool")


@pytest.mark.parametrize(
    ("messages", "head", "starts"),
    [
        ([S, U, A, U, A, U], 2, (3, 5)),
        ([S, U, A, T, T, A, T, A], 2, (5, 7)),
        ([U, A, U, U, A, T, A], 1, (2, 6)),
        ([S, A, U, A, U], 3, (4,)),
        ([U, U, A, U], 1, (3,)),
        ([S, A, T, A], 1, (3,)),
        ([U, A, U, A, S, U, A], 1, (2, 5)),
        # The results of an answer, behind the user's next words: no cut between the two.
        ([U, A, T, A, U, T, A], 1, (3, 6)),
        ([S, said("developer")], 2, ()),
        ([], 0, ()),
    ],
)
def test_where_turns_begin(messages: list[Any], head: int, starts: tuple[int, ...]) -> None:
    history = asked(messages).history
    assert (history.head, history.starts) == (head, starts)


def test_the_last_turns_are_not_cut() -> None:
    history = asked([U, *[A, U] * 4]).history
    assert history.starts == (2, 4, 6, 8)
    assert [history.cuttable(keep) for keep in (1, 2, 4, 5)] == [(2, 4, 6, 8), (2, 4, 6), (2,), ()]


def test_what_is_no_message_keeps_its_bytes_and_order() -> None:
    raw = (
        b'{"temperature":1.0, "messages": [ {"role":"user","content":"\\u00e9"} ,{"role":"assistant"}],'
        b'"seed":12345678901234567890}'
    )
    found = read(raw)
    assert found is not None
    assert found.saying([found.history.messages[0]]) == (
        b'{"temperature":1.0,"messages":[{"role":"user","content":"\\u00e9"}],"seed":12345678901234567890}'
    )
    assert json.loads(found.saying(list(found.history.messages))) == json.loads(raw)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"messages":7}', b'{"prompt":"x"}', b'{"messages":[7]}'])
def test_what_is_no_chat_completion_is_not_read(raw: bytes) -> None:
    assert read(raw) is None


def test_what_is_left_out_and_what_stays() -> None:
    history = asked([S, said("user", "1"), *step(0), said("system", "late"), said("user", "2"), A]).history
    assert [json.loads(one)["role"] for one in history.left_out(5)] == ["assistant", "tool"]
    assert [json.loads(one)["content"] for one in history.kept(5)] == ["", "1", "late"]
