"""The first difference of two prompts: what it is, where it is, and how much stands before it."""

from __future__ import annotations

import pytest

from nat_dynamo_plugin.cli.report.prompts import Change, Prompt, changing, difference

from .making import SYSTEM, message, prompt, row

USER = message("user", "Where is my order?")
ANSWER = message("assistant", "Which one?")
MORE = message("user", "The last one.")


def test_a_prompt_that_goes_on_has_no_difference() -> None:
    before = prompt(message("system", SYSTEM), USER, tools=("a", "b"))
    now = prompt(message("system", SYSTEM), USER, ANSWER, MORE, tools=("a", "b"))
    assert difference(before, now) is None and difference(now, before) is None


def test_pieces_come_as_templates_write_them() -> None:
    made = prompt(message("system", "s" * 10), USER, tools=("a", "b"))
    assert [part.label for part in made.parts] == ["system", "tool definition", "tool definition", "user"]
    assert (made.lead, made.lead_size, made.size, made.tools) == (
        3,
        210,
        210 + len("Where is my order?"),
        ("a a", "b b"),
    )


def test_an_older_recording_tells_no_sizes_of_tools() -> None:
    old = row(USER, tools=("a", "b"))
    old = type(old)(**{name: getattr(old, name) for name in old.__struct_fields__} | {"tool_shapes": []})
    assert Prompt.of(old).tools == ("a", "b") and Prompt.of(old).lead_size == 0


def test_a_clock_in_the_system_message() -> None:
    before, now = (
        prompt(message("system", f"Today is 2026-11-24 10:00:{second}. {SYSTEM}"), USER, tools=("a",))
        for second in ("01", "02")
    )
    found = difference(before, now)
    assert found is not None
    assert (found.change, found.what, found.where) == (Change.VARIABLE, "a clock", "system message")
    assert (found.at, found.kept) == (27, 27)
    assert found.before.startswith("Today is 2026-11-24 10:00:01. You")
    assert found.now.startswith("Today is 2026-11-24 10:00:02. You")
    assert difference(before, now, lead_only=True) == found


@pytest.mark.parametrize(
    ("before", "now", "what"),
    [
        ("It is Tuesday, 24 November 2026, 22:54:44.", "It is Tuesday, 24 November 2026, 22:54:45.", "a clock"),
        ("at 9:59 AM", "at 10:00 AM", "a clock"),
        ("epoch 1795520118", "epoch 1795520121", "a clock"),
        ("epoch 1795520118.6033", "epoch 1795520118.7033", "a clock"),
        ("Date: 2026-11-24.", "Date: 2026-11-25.", "a date"),
        ("Date: November 24, 2026", "Date: December 1, 2026", "a date"),
        ("on Monday", "on Tuesday", "a date"),
        ("run 0b14e9af-408a-4bc0-b34e-31134a0000fc", "run 0b14e9af-408a-4bc0-b34e-31134a0000fd", "an id (UUID)"),
        ("session 5f3a9c01d2", "session 77aa9c01d2", "an id"),
        ("step 3 of 9", "step 4 of 9", "a number"),
        ("for Anna", "for Bert", "text"),
        ("a long answer of a tool", "cut", "a text that was cut"),
    ],
)
def test_what_changes_is_named(before: str, now: str, what: str) -> None:
    at = next(n for n, (a, b) in enumerate(zip(before, now, strict=False)) if a != b)
    assert changing(before, now, at) == what


@pytest.mark.parametrize(
    ("before", "now", "shapes", "change", "what"),
    [
        (("a", "b"), ("b", "a"), None, Change.TOOLS_ORDER, "the same tools in another order"),
        (("a", "b"), ("a", "c"), None, Change.TOOLS_SET, "other tools are offered: without b, with c"),
        (("a",), ("a", "b"), None, Change.TOOLS_SET, "other tools are offered: with b"),
        (("a", "b"), ("a", "b"), ("a", "x"), Change.TOOL_CHANGED, "the definition of b is another one"),
    ],
)
def test_tools(
    before: tuple[str, ...], now: tuple[str, ...], shapes: tuple[str, ...] | None, change: Change, what: str
) -> None:
    was = prompt(message("system", SYSTEM), USER, tools=before)
    found = difference(was, prompt(message("system", SYSTEM), USER, ANSWER, MORE, tools=now, shapes=shapes))
    assert found is not None and (found.change, found.what, found.where) == (change, what, "tools")
    assert found.kept == len(SYSTEM.strip()) + 1 + 100 * (before[0] == now[0]) * (len(before) > 1) + 100 * (
        before == ("a",)
    )


def test_questions_with_fewer_tools_differ_in_them() -> None:
    was, now = (prompt(message("system", SYSTEM), USER, tools=tools) for tools in (("a", "b"), ("a",)))
    found = difference(was, now, lead_only=True)
    assert found is not None and found.change is Change.TOOLS_SET
    other = prompt(message("system", SYSTEM), MORE, tools=("a",))
    assert difference(now, other, lead_only=True) is None


def test_a_shortened_history() -> None:
    turns = [message("assistant" if n % 2 else "user", f"turn {n}") for n in range(6)]
    before = prompt(message("system", SYSTEM), *turns, tools=("a",))
    found = difference(before, prompt(message("system", SYSTEM), *turns[2:], message("user", "new"), tools=("a",)))
    assert found is not None
    assert (found.change, found.what, found.where) == (
        Change.SHORTENED, "2 messages were removed", "message 2 (user)"
    )  # fmt: skip
    assert found.kept == len(SYSTEM) + 100


def test_a_summary_in_place_of_messages() -> None:
    turns = [message("assistant" if n % 2 else "user", f"turn {n}") for n in range(6)]
    before = prompt(message("system", SYSTEM), *turns)
    found = difference(before, prompt(message("system", SYSTEM), message("assistant", "In short."), *turns[4:]))
    assert found is not None and (found.change, found.what) == (Change.REPLACED, "4 messages were replaced by 1")


def test_messages_put_in() -> None:
    before = prompt(message("system", SYSTEM), USER, ANSWER)
    found = difference(before, prompt(message("system", SYSTEM), message("assistant", "hint"), USER, ANSWER))
    assert found is not None and (found.change, found.what) == (Change.INSERTED, "1 message was put in")


def test_a_tools_answer_that_was_cut_later() -> None:
    before = prompt(message("system", SYSTEM), USER, message("tool", "row " * 200), ANSWER)
    found = difference(before, prompt(message("system", SYSTEM), USER, message("tool", "[cut]"), ANSWER, MORE))
    assert found is not None
    assert (found.change, found.what, found.where) == (Change.VARIABLE, "a text that was cut", "message 3 (tool)")


def test_another_prompt_is_no_change() -> None:
    before = prompt(message("system", SYSTEM), USER)
    found = difference(before, prompt(message("system", "Check whether this plan is complete, and say why."), MORE))
    assert found is not None and found.change is Change.OTHER_PROMPT


def test_a_rewritten_history() -> None:
    before = prompt(message("system", SYSTEM), USER, ANSWER)
    found = difference(before, prompt(message("system", SYSTEM), message("user", "Cancel all."), MORE))
    assert found is not None and found.change is Change.REWRITTEN


def test_another_system_message_with_the_same_tools_is_another_prompt() -> None:
    was, now = (
        prompt(message("system", SYSTEM), USER, tools=("a",)),
        prompt(message("system", "Plan."), MORE, tools=("a",)),
    )
    for lead_only in (False, True):
        found = difference(was, now, lead_only=lead_only)
        assert found is not None and found.change is Change.OTHER_PROMPT
