"""Cuts are rare and far, leave no orphan, and stay where they were made."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.context.conversations import asked, said, step

from nat_dynamo_plugin.context.cuts import NOTICE, Cut, Cuts, Window
from nat_dynamo_plugin.context.history import Asked

KEEP = 2


def tokens(text: bytes) -> float:
    return float(len(text))


def shortened(cuts: Cuts, question: Asked, owner: str = "") -> list[Any]:
    """What is sent, as the layer has it."""
    cut = cuts.find(question.history, owner)
    end = cuts.new_end(question, cut, tokens)
    if end is not None:
        cut = cuts.remember(question.history, owner, Cut(end))
    sent = list(question.history.messages) if cut is None else cut.shorten(question.history)
    return [json.loads(one) for one in sent]


def exchange(number: int, steps: int = 1) -> list[dict[str, Any]]:
    """A question of the user's and its answer."""
    made = [said("user", f"question {number} " + "q" * 50)]
    for each in range(steps):
        made += step(100 * number + each)
    return [*made, said("assistant", f"answer {number} " + "a" * 50)]


@st.composite
def conversations(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    """Turns as they come, one after the other, each of one or more messages."""
    turns: list[list[dict[str, Any]]] = [[said("system", "s" * 30)], [said("user", "first")]]
    for number in range(draw(st.integers(1, 25))):
        kind = draw(st.sampled_from(["step", "answer", "exchange", "late"]))
        size = draw(st.integers(0, 200))
        if kind == "step":
            turns.append(step(number, draw(st.integers(1, 3)), size))
        elif kind == "exchange":
            turns += [[said("user", f"u{number}" + "q" * size)], [said("assistant", f"a{number}" + "a" * size)]]
        else:
            turns.append([said("system" if kind == "late" else "assistant", f"{kind}{number}" + "z" * size)])
    return turns


@settings(max_examples=300, deadline=None)
@given(conversations(), st.integers(300, 3000), st.floats(0.1, 0.9), st.integers(1, 4))
def test_of_any_conversation(turns: list[list[dict[str, Any]]], most: int, share: float, keep: int) -> None:
    window = Window(most, keep, share)
    cuts, messages, before = Cuts(window), [], None
    for turn in turns:
        messages = [*messages, *turn]
        question = asked(messages)
        sent = shortened(cuts, question)
        assert shortened(cuts, question) == sent, "the same history is sent the same"
        system = [one for one in messages if one["role"] == "system"]
        assert [one for one in sent if one["role"] == "system"] == system
        first = next((one for one in messages if one["role"] == "user"), None)
        assert first is None or first in sent
        calls = [call["id"] for one in sent for call in one.get("tool_calls", ())]
        assert calls == [one["tool_call_id"] for one in sent if one["role"] == "tool"], "no orphan"
        ends = question.history.cuttable(keep)
        if len(sent) < len(messages):
            assert any(sent[-len(messages[end:]) :] == messages[end:] for end in ends), "the last turns are whole"
        size = len(question.saying([json.dumps(one, separators=(",", ":")).encode() for one in sent]))
        if size > most + len(sent) + 50:  # what braces and commas take is nobody's
            assert not ends or messages[ends[-1] :] == sent[-len(messages[ends[-1] :]) :], "all that may be cut is"
        cut = cuts.find(question.history, "")
        if before is not None and before[0] == cut:
            assert sent[: len(before[1])] == before[1], "between cuts the prefix stays"
        before = (cut, sent)


def test_cuts_are_rare_and_far() -> None:
    cuts, messages = Cuts(Window(4000, KEEP, 0.5)), [said("system", "s")]
    changes, before = 0, None
    for number in range(60):
        messages += exchange(number)
        sent = shortened(cuts, asked(messages))
        assert len(json.dumps(sent)) < 4000 * 1.1
        changes += before is not None and sent[: len(before)] != before
        before = sent
    # A cut leaves half a window, and an exchange takes some 400 bytes of it.
    assert 8 <= changes <= 15
    assert sent[1] == messages[1] and sent[2] == said("assistant", NOTICE) and sent[3]["role"] == "user"


def test_an_agent_at_work_on_one_question_is_cut_between_its_steps() -> None:
    messages = [said("user", "go"), *[message for number in range(40) for message in step(number, 2)]]
    sent = shortened(Cuts(Window(5000, KEEP, 0.5)), asked(messages))
    assert sent[0] == messages[0] and sent[1]["role"] == "assistant" and sent[1]["tool_calls"]
    assert sent[1:] == messages[-len(sent) + 1 :] and len(sent) < 40


def test_a_cut_ends_where_an_exchange_does_unless_that_costs_too_much() -> None:
    short = [said("user", "go"), *[one for number in range(1, 9) for one in exchange(number, steps=2)]]
    sent = shortened(Cuts(Window(4000, KEEP, 0.5)), asked(short))
    assert sent[2]["content"].startswith("question")
    long = [said("user", "go"), *exchange(1, steps=40), said("user", "?")]
    sent = shortened(Cuts(Window(4000, 1, 0.5)), asked(long))
    assert sent[1]["role"] == "assistant" and 10 < len(sent) < 30


def test_what_is_not_too_long_is_left_alone() -> None:
    messages = [said("user", "go"), *exchange(1), *exchange(2), *exchange(3)]
    question = asked(messages)
    size = sum(map(len, question.history.messages)) + len('"m"')
    assert shortened(Cuts(Window(size, 1, 0.5)), question) == messages
    assert len(shortened(Cuts(Window(size - 1, 1, 0.5)), question)) < len(messages)
    # Tools count too, and the last turns stay even if that is too much.
    assert len(shortened(Cuts(Window(size, 1, 0.5)), asked(messages, tools=["t"]))) < len(messages)
    assert shortened(Cuts(Window(10, 9, 0.5)), question) == messages


def test_a_history_that_is_no_extension_starts_anew() -> None:
    cuts, messages = Cuts(Window(3000, KEEP, 0.5)), [said("user", "go")]
    for number in range(12):
        messages += exchange(number)
    question = asked(messages)
    assert len(shortened(cuts, question)) < len(messages)
    cut = cuts.find(question.history, "")
    assert cut is not None
    assert cuts.find(asked([*messages, said("user", "more")]).history, "") == cut
    other = [said("user", "gone"), *messages[1:]]
    assert cuts.find(asked(other).history, "") is None
    edited = [*messages[: cut.end - 1], said("assistant", "edited"), *messages[cut.end :]]
    assert cuts.find(asked(edited).history, "") is None
    after = [*messages[: cut.end], said("user", "edited"), *messages[cut.end + 1 :]]
    assert cuts.find(asked(after).history, "") == cut
    assert cuts.find(asked(messages[: cut.end + 1]).history, "") is None, "the last turns stay"
    assert cuts.find(question.history, "another org") is None


def test_cuts_are_bounded_and_the_first_of_two_wins() -> None:
    cuts = Cuts(Window(1000, 1, 0.5), most=2)
    histories = [asked([said("user", str(n)), said("assistant"), said("user")]).history for n in range(3)]
    assert cuts.remember(histories[0], "", Cut(2, "one")) == cuts.remember(histories[0], "", Cut(2, "two"))
    cuts.remember(histories[1], "", Cut(2))
    assert cuts.find(histories[0], "") == Cut(2, "one")  # asked for, so the other one goes
    cuts.remember(histories[2], "", Cut(2))
    assert [cuts.find(one, "") is not None for one in histories] == [True, False, True]


@pytest.mark.parametrize(("after", "role"), [([said("user", "2")], "assistant"), (step(1), "user")])
def test_a_summary_stands_for_what_is_left_out(after: list[Any], role: str) -> None:
    messages = [said("user", "1"), *step(0), *after]
    sent = [json.loads(one) for one in Cut(3, "It was sunny.").shorten(asked(messages).history)]
    assert sent == [messages[0], said(role, "It was sunny."), *after]


def test_the_next_summary_is_of_the_last_one_and_what_came_since() -> None:
    history = asked([said("user", "1"), *step(0), *step(1), *step(2)]).history
    assert Cut(5, "new").replaced(history, None) == list(history.messages[1:5])
    assert Cut(5, "new").replaced(history, Cut(3)) == list(history.messages[1:5])
    told = Cut(5, "new").replaced(history, Cut(3, "old"))
    assert json.loads(told[0])["content"] == "old" and told[1:] == list(history.messages[3:5])
