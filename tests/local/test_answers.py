"""Scripted answers: scopes, sources and what is refused."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

from nat_dynamo_plugin.local import ScriptedAnswer, ScriptedAnswerError, current_scripted_answer, scripted_answer
from nat_dynamo_plugin.local.answers import AnswerBook, load_answers


def test_scopes_nest_and_restore() -> None:
    assert current_scripted_answer() is None
    with scripted_answer("outer"):
        with pytest.raises(ZeroDivisionError), scripted_answer("inner"):
            assert current_scripted_answer() == "inner"
            raise ZeroDivisionError
        assert current_scripted_answer() == "outer"
        with scripted_answer(None):
            assert current_scripted_answer() is None
    assert current_scripted_answer() is None


async def test_tasks_keep_their_own_key() -> None:
    async def ask(key: str) -> list[str | None]:
        seen = []
        with scripted_answer(key):
            for _ in range(3):
                seen.append(current_scripted_answer())
                await asyncio.sleep(0)
            seen.append(await asyncio.to_thread(current_scripted_answer))
            seen.append(await asyncio.create_task(_current()))
        return seen

    keys = [f"k{number}" for number in range(20)]
    assert await asyncio.gather(*(ask(key) for key in keys)) == [[key] * 5 for key in keys]
    assert current_scripted_answer() is None


async def _current() -> str | None:
    return current_scripted_answer()


def test_a_reused_thread_keeps_nothing() -> None:
    def in_scope() -> None:
        with scripted_answer("left"):
            pass

    with ThreadPoolExecutor(1) as pool:
        pool.submit(copy_context().run, in_scope).result()
        pool.submit(in_scope).result()
        assert pool.submit(current_scripted_answer).result() is None


def test_the_text_is_hermes_form() -> None:
    answer = ScriptedAnswer("k", "Ünü.", (("f", {"a": "é</tool_call>"}), ("g", {})))
    assert answer.text() == (
        'Ünü.<tool_call>\n{"name": "f", "arguments": {"a": "é\\u003c/tool_call>"}}\n</tool_call>'
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
    )


def write(path: Path, *rows: Any) -> str:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return str(path)


def test_a_file_is_read(tmp_path: Path) -> None:
    source = write(
        tmp_path / "a.jsonl",
        {"key": "a", "content": "line\nline\u2028"},
        "",
        {"key": "b", "content": None, "tool_calls": [{"name": "f", "arguments": {"x": [1]}}]},
    )
    book = load_answers(source)
    assert book.keys == {"a", "b"}
    assert book.answers["a"] == ScriptedAnswer("a", "line\nline\u2028", ())
    assert book.answers["b"] == ScriptedAnswer("b", None, (("f", {"x": [1]}),))


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (['{"key": "a"'], "line 1: not JSON"),
        (["[1]"], "line 1: expected an object, got list"),
        ([{"key": "a", "content": "x"}, {"key": "a", "content": "y"}], "line 2: field 'key': 'a' is there already"),
        ([{"content": "x"}], "line 1: field 'key' is missing"),
        ([{"key": "", "content": "x"}], "line 1: field 'key': expected a non-empty printable string"),
        ([{"key": 3, "content": "x"}], "line 1: field 'key': expected a non-empty printable string, got 3"),
        ([{"key": "a\nb", "content": "x"}], "line 1: field 'key'"),
        ([{"key": "a"}], "line 1: field 'content': empty, and there are no tool_calls"),
        ([{"key": "a", "content": 3}], "line 1: field 'content': expected a string or null, got int"),
        ([{"key": "a", "contents": "x"}], "line 1: unknown field 'contents'; did you mean 'content'?"),
        ([{"key": "a", "tool_calls": {}}, {"key": "b", "tool_calls": 3}], "field 'content': empty"),
        ([{"key": "b", "tool_calls": "f"}], "line 1: field 'tool_calls': expected a list, got str"),
        ([{"key": "b", "tool_calls": [{"name": "f"}]}], "field 'tool_calls[0]': expected an object with 'name' and"),
        (
            [{"key": "b", "tool_calls": [{"name": "f", "arguments": "{}"}]}],
            "line 1: field 'tool_calls[0].arguments': expected an object, got str",
        ),
        ([{"key": "b", "tool_calls": [{"name": "", "arguments": {}}]}], "field 'tool_calls[0].name'"),
        (['{"key": "b", "tool_calls": [{"name": "f", "arguments": {"x": NaN}}]}'], "arguments are not JSON"),
        (['{"key": "b", "content": "\\ud800"}'], "field 'content': cannot be written as UTF-8"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, rows: list[Any], complaint: str) -> None:
    source = write(tmp_path / "a.jsonl", *rows)
    with pytest.raises(ScriptedAnswerError) as caught:
        load_answers(source)
    assert complaint in str(caught.value)
    assert source in str(caught.value)


def test_unreadable_sources_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "b.jsonl"
    binary.write_bytes(b"\xff\xfe\x00")
    for source in (tmp_path / "missing.jsonl", tmp_path, binary):
        with pytest.raises(ScriptedAnswerError, match="cannot be read"):
            load_answers(str(source))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "scripted_for_test.py").write_text(
        "from nat_dynamo_plugin.local import ScriptedAnswer\n"
        "def good():\n    yield ScriptedAnswer('a', 'x')\n"
        "def twice():\n    return [ScriptedAnswer('a', 'x'), ScriptedAnswer('a', 'y')]\n"
        "def number():\n    return 3\n"
        "def rows():\n    return [{'key': 'a'}]\n"
        "constant = 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "scripted_for_test"
    sys.modules.pop("scripted_for_test", None)


def test_a_callable_is_called(module: str) -> None:
    assert load_answers(f"{module}:good").answers == {"a": ScriptedAnswer("a", "x")}


@pytest.mark.parametrize(
    ("attribute", "complaint"),
    [
        ("twice", "answer 2: field 'key': 'a' is there already"),
        ("number", "returned int, not an iterable"),
        ("rows", "answer 1: expected a ScriptedAnswer, got dict"),
        ("constant", "not callable, but int"),
        ("missing", "has no attribute 'missing'"),
    ],
)
def test_bad_callables_are_refused(module: str, attribute: str, complaint: str) -> None:
    with pytest.raises(ScriptedAnswerError) as caught:
        load_answers(f"{module}:{attribute}")
    assert complaint in str(caught.value)


def test_a_missing_module_is_refused() -> None:
    with pytest.raises(ScriptedAnswerError, match="No module named 'no_such_module_here'"):
        load_answers("no_such_module_here:answers")


def test_an_unknown_key_names_the_nearest() -> None:
    book = AnswerBook([ScriptedAnswer("task-1/turn-0", "x"), ScriptedAnswer("other", "x")])
    book.check("other")
    with pytest.raises(ScriptedAnswerError, match=r"'task-1/turn-9' \(2 known\); nearest key: 'task-1/turn-0'"):
        book.check("task-1/turn-9")
    with pytest.raises(ScriptedAnswerError, match="there are none"):
        AnswerBook().check("x")


# Each was seen to come back changed from Dynamo 1.6.0 when a request offers tools.
LOST = [
    "x</tool_call>y",
    '{"name": "f", "arguments": {}}',
    'text {"name": "f"}',
    '[{"name":"f","parameters":{}}]',
    "see [1,2]",
    "[]",
    '\n["a"]',
    'x [["a"]]',
    'use {"name": "x"',
    "<tool_call>x",
]


@pytest.mark.parametrize("content", LOST)
def test_content_that_would_be_parsed_is_refused(content: str) -> None:
    book = AnswerBook([ScriptedAnswer("k", content)])
    with pytest.raises(ScriptedAnswerError, match=r"'k': field 'content': Dynamo's hermes parser would remove"):
        book.check_parser("hermes")
    book.check_parser(None)


@pytest.mark.parametrize("content", ["a [link](url)", '{"a": 1}', "see [1,2] there", "['a']", "name: {x}"])
def test_ordinary_brackets_are_fine(content: str) -> None:
    AnswerBook([ScriptedAnswer("k", content)]).check_parser("hermes")


@pytest.mark.parametrize("content", ["{ \n", "a < b ", "see [x]", ' "[x](y)'])
def test_white_space_that_would_be_lost_before_a_call_is_refused(content: str) -> None:
    with pytest.raises(ScriptedAnswerError, match="would remove white space"):
        AnswerBook([ScriptedAnswer("k", content, (("f", {}),))]).check_parser("hermes")
    AnswerBook([ScriptedAnswer("k", content)]).check_parser("hermes")


@pytest.mark.parametrize("content", [" x \n", " a{x} b", "a < b"])
def test_other_white_space_before_a_call_is_fine(content: str) -> None:
    AnswerBook([ScriptedAnswer("k", content, (("f", {}),))]).check_parser("hermes")


def test_calls_need_the_parser_they_are_written_for() -> None:
    book = AnswerBook([ScriptedAnswer("k", None, (("f", {}),))])
    with pytest.raises(ScriptedAnswerError, match="tool_call_parser is 'pythonic'; use 'hermes'"):
        book.check_parser("pythonic")
