"""Scripted answers: what the simulated engines say, so that real agents run without a model.

An answer has a key. A caller says which answer the next calls get with a scope::

    with scripted_answer("task-7/turn-0/step-2"):
        await llm.ainvoke(messages)

and the transport asks `current_scripted_answer()` and tells Dynamo through
`nvext.annotations: ["output_replay_id:KEY"]`. The mocker answers an unknown key with random tokens and says nothing;
`AnswerBook.check` is there to find that out first.
"""

from __future__ import annotations

import difflib
import importlib
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nat_dynamo_plugin.local.relay import trace_lines

if TYPE_CHECKING:
    from tokenizers import Tokenizer


_CALL_START = "<tool_call>"
_CALL_END = "</tool_call>"

_TRIMMED = re.compile(r"\s[^\w\s]*[{\[]|[{\[<].*\s\Z", re.DOTALL)
_NAMED = re.compile(r'"name"\s*:\s*"[^"]*"?')

_current: ContextVar[str | _Script | None] = ContextVar("nat_dynamo_scripted_answer", default=None)


class ScriptedAnswerError(ValueError):
    """A source of scripted answers cannot be used; the message names the place and the field."""


@dataclass(frozen=True, slots=True)
class ScriptedAnswer:
    """One answer of the simulated model.

    Attributes:
        key: what a caller asks for it by; unique, not empty, without control characters.
        content: the text, exactly as it shall come back; None or "" for none.
        tool_calls: (name, arguments) of each call, in order; arguments are JSON-ready.
    """

    key: str
    content: str | None = None
    tool_calls: Sequence[tuple[str, Mapping[str, Any]]] = ()

    def text(self) -> str:
        """What the model "writes": the content, then each call in Hermes' tags.

        No line break stands between them: Dynamo would return it as part of the content.
        """
        parts = [self.content or ""]
        for name, arguments in self.tool_calls:
            call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False, allow_nan=False)
            # In JSON "<" stands in strings only, where it may be escaped; as it is, the parser would see a tag.
            for tag in (_CALL_START, _CALL_END):
                call = call.replace(tag, "\\u003c" + tag[1:])
            parts.append(f"{_CALL_START}\n{call}\n{_CALL_END}")
        return "".join(parts)


@contextmanager
def scripted_answer(key: str | None) -> Iterator[None]:
    """Let LLM calls inside the scope get the scripted answer `key`; None: no scripted answer.

    Scopes nest and restore what was before. A task started inside the scope keeps its key.
    """
    token = _current.set(key)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def scripted_answers(keys: Sequence[str]) -> Iterator[None]:
    """Let the LLM calls inside the scope get the scripted answers `keys`, one each, in the order they are made.

    For frameworks that run an agent's loop themselves. The last key serves all further calls.

    Raises:
        ValueError: no keys.
    """
    token = _current.set(_Script(keys))
    try:
        yield
    finally:
        _current.reset(token)


class _Script:
    """Keys to be used one after the other, by any task or thread of a scope."""

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise ValueError("keys=[] is not allowed: name at least one scripted answer")
        self._keys = list(keys)
        self._lock = threading.Lock()

    def next(self) -> str:
        with self._lock:
            return self._keys.pop(0) if len(self._keys) > 1 else self._keys[0]


def current_scripted_answer() -> str | None:
    """The key of the scope this code runs in, or None. Inside `scripted_answers` each question is one call."""
    current = _current.get()
    return current.next() if isinstance(current, _Script) else current


class AnswerBook:
    """The scripted answers of one embedded Dynamo, by key."""

    def __init__(self, answers: Iterable[ScriptedAnswer] = (), *, source: str = "scripted answers") -> None:
        """Check and keep the answers.

        Raises:
            ScriptedAnswerError: a row is not as ScriptedAnswer says, or two have one key.
        """
        self.source = source
        self.answers: dict[str, ScriptedAnswer] = {}
        for number, answer in enumerate(answers, start=1):
            self.add(answer, f"{source}, answer {number}")

    def add(self, answer: ScriptedAnswer, place: str) -> None:
        """Add one answer; `place` is named in errors."""
        _check(answer, place)
        if answer.key in self.answers:
            raise ScriptedAnswerError(f"{place}: field 'key': {answer.key!r} is there already; keys must be unique")
        self.answers[answer.key] = answer

    @property
    def keys(self) -> frozenset[str]:
        """All keys."""
        return frozenset(self.answers)

    def check(self, key: str) -> None:
        """Refuse a key that no answer has.

        Raises:
            ScriptedAnswerError: names the nearest key.
        """
        if key in self.answers:
            return
        near = difflib.get_close_matches(key, self.answers, n=1, cutoff=0.0)
        hint = f"nearest key: {near[0]!r}" if near else "there are none"
        raise ScriptedAnswerError(f"no scripted answer has the key {key!r} ({len(self.answers)} known); {hint}")

    def check_parser(self, parser: str | None) -> None:
        """Refuse what Dynamo's tool-call parser would not give back as it is written here.

        When a request offers tools, Hermes' parser (Dynamo 1.6.0, seen by trying) looks for calls without tags too:
        it takes an object with a "name" and a list at the end of the text out of the content.

        Args:
            parser: `tool_call_parser` of the config; None: nothing is parsed.

        Raises:
            ScriptedAnswerError: names the answer and the field.
        """
        for answer in self.answers.values():
            place = f"{self.source}: answer {answer.key!r}"
            if answer.tool_calls and parser not in (None, "hermes"):
                raise ScriptedAnswerError(
                    f"{place}: field 'tool_calls': they are written in Hermes' form, but tool_call_parser is "
                    f"{parser!r}; use 'hermes'"
                )
            if parser == "hermes" and (lost := _lost_in_parsing(answer.content or "", bool(answer.tool_calls))):
                raise ScriptedAnswerError(
                    f"{place}: field 'content': Dynamo's hermes parser would remove {lost} when a request offers "
                    "tools; write it differently, or set tool_call_parser to null"
                )

    def replay_trace(
        self, tokenizer: Tokenizer, eos_token_id: int, *, opening: Sequence[int] | None = None
    ) -> Iterator[str]:
        """The lines of the mocker's `--response-replay-trace-path` file.

        Args:
            tokenizer: the model's.
            eos_token_id: ends each answer.
            opening: tokens with which the chat template opens an answer; with them, what lets answers go on elsewhere.
        """
        answers = {
            key: [*tokenizer.encode(answer.text(), add_special_tokens=False).ids, eos_token_id]
            for key, answer in self.answers.items()
        }
        return trace_lines(answers, opening)


def load_answers(source: str) -> AnswerBook:
    """Read `scripted_answers` of the config.

    Args:
        source: a JSON lines file with `key`, `content` and `tool_calls` (a list of `{"name", "arguments"}`) in each
            row, or `package.module:callable`, called without arguments, that returns an iterable of ScriptedAnswer.

    Raises:
        ScriptedAnswerError: with the place (file and line) and the field.
    """
    path = Path(source).expanduser()
    if path.exists() or ":" not in source:
        return _from_file(path)
    return _from_callable(source)


def _from_callable(source: str) -> AnswerBook:
    module_name, _, attribute = source.partition(":")
    place = f"scripted_answers {source!r}"
    try:
        made = importlib.import_module(module_name)
        for part in attribute.split("."):
            made = getattr(made, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ScriptedAnswerError(
            f"{place}: {error}; give an existing JSON lines file or an importable `package.module:callable`"
        ) from error
    if not callable(made):
        raise ScriptedAnswerError(f"{place}: not callable, but {type(made).__name__}")
    answers = made()
    if not isinstance(answers, Iterable):
        raise ScriptedAnswerError(f"{place}: returned {type(answers).__name__}, not an iterable of ScriptedAnswer")
    return AnswerBook(answers, source=place)


def _from_file(path: Path) -> AnswerBook:
    book = AnswerBook(source=str(path))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScriptedAnswerError(
            f"scripted_answers: {str(path)!r} cannot be read: {error}; give a UTF-8 JSON lines file or "
            "`package.module:callable`"
        ) from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            book.add(_from_row(line, place), place)
    return book


def _from_row(line: str, place: str) -> ScriptedAnswer:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ScriptedAnswerError(f"{place}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ScriptedAnswerError(f"{place}: expected an object, got {type(row).__name__}")
    for name in row:
        if name not in ("key", "content", "tool_calls"):
            near = difflib.get_close_matches(name, ("key", "content", "tool_calls"), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; allowed: 'key', 'content', 'tool_calls'"
            raise ScriptedAnswerError(f"{place}: unknown field {name!r}{hint}")
    if "key" not in row:
        raise ScriptedAnswerError(f"{place}: field 'key' is missing")
    calls = row.get("tool_calls") or []
    if not isinstance(calls, list):
        raise ScriptedAnswerError(f"{place}: field 'tool_calls': expected a list, got {type(calls).__name__}")
    pairs = []
    for index, call in enumerate(calls):
        if not isinstance(call, dict) or call.keys() != {"name", "arguments"}:
            raise ScriptedAnswerError(
                f"{place}: field 'tool_calls[{index}]': expected an object with 'name' and 'arguments', got {call!r}"
            )
        pairs.append((call["name"], call["arguments"]))
    return ScriptedAnswer(row["key"], row.get("content"), tuple(pairs))


def _lost_in_parsing(content: str, has_calls: bool) -> str | None:
    """What Hermes' parser might take out of a content; errs on the side of finding something."""
    for tag in (_CALL_START, _CALL_END):
        if tag in content:
            return repr(tag)
    if "{" in content and (found := _NAMED.search(content)):
        return f"the object with {found.group()}"
    for bracket in re.finditer(r"\[", content):
        with suppress(ValueError):
            json.loads(content[bracket.start() :])
            return "the list at its end"
    # Before a call, text that looked like the start of one is trimmed when it turns out to be none.
    if has_calls and _TRIMMED.search(content):
        return "white space before a bracket, or after one at its end, in an answer with tool calls,"
    return None


def _check(answer: ScriptedAnswer, place: str) -> None:
    def bad(field: str, problem: str) -> ScriptedAnswerError:
        return ScriptedAnswerError(f"{place}: field {field!r}: {problem}")

    if not isinstance(answer, ScriptedAnswer):
        raise ScriptedAnswerError(f"{place}: expected a ScriptedAnswer, got {type(answer).__name__}")
    if not isinstance(answer.key, str) or not answer.key or not answer.key.isprintable():
        raise bad("key", f"expected a non-empty printable string, got {answer.key!r}")
    if answer.content is not None and not isinstance(answer.content, str):
        raise bad("content", f"expected a string or null, got {type(answer.content).__name__}")
    for index, (name, arguments) in enumerate(answer.tool_calls):
        if not isinstance(name, str) or not name:
            raise bad(f"tool_calls[{index}].name", f"expected a non-empty string, got {name!r}")
        if not isinstance(arguments, Mapping):
            raise bad(f"tool_calls[{index}].arguments", f"expected an object, got {type(arguments).__name__}")
    if not answer.content and not answer.tool_calls:
        raise bad("content", "empty, and there are no tool_calls either; an answer needs one of them")
    try:
        answer.text().encode()
    except UnicodeEncodeError as error:
        raise bad("content", f"cannot be written as UTF-8: {error}") from error
    except (TypeError, ValueError) as error:
        raise bad("tool_calls", f"arguments are not JSON: {error}") from error
