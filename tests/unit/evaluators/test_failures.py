"""Which questions failed, of what, and in which words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from nat_dynamo_plugin.evaluators.failures import CUT, MAX_ERROR, FailedAnswer, Failure, count, failure_of, told
from nat_dynamo_plugin.evaluators.records import Question
from nat_dynamo_plugin.evaluators.sessions import NeverRaises
from nat_dynamo_plugin.question.repetition import current_repetition
from nat_dynamo_plugin.telemetry.record import CallRecord


def test_an_exception_stands_for_an_empty_answer_that_knows_why() -> None:
    made = FailedAnswer.of(RuntimeError("no route"))
    assert made == ""
    assert made.failure == Failure("RuntimeError", "no route")


def test_an_exception_without_words_is_told_by_its_class() -> None:
    assert FailedAnswer.of(NotImplementedError()).failure == Failure("NotImplementedError", "NotImplementedError()")


@pytest.mark.parametrize(("length", "dots"), [(MAX_ERROR, ""), (MAX_ERROR + 1, "...")])
def test_long_errors_are_cut(length: int, dots: str) -> None:
    text = ("word " * length)[:length]
    assert FailedAnswer.of(ValueError(text)).failure.error == text[:MAX_ERROR] + dots


def test_the_failed_call_is_the_cause_and_the_exception_is_told_too() -> None:
    calls = (CallRecord(status=200), CallRecord(status=503, error="overloaded", kind="overload"))
    question = Question(id="q", calls=calls, started_at=1.0, ended_at=2.0)
    assert failure_of("half", question) == Failure("overload", "overloaded")
    raised = FailedAnswer.of(RuntimeError("gave up"))
    assert failure_of(raised, question) == Failure("overload", "RuntimeError: gave up (overloaded)")


def test_a_call_without_words_is_told_by_its_status() -> None:
    question = Question(id="q", calls=(CallRecord(status=400),), started_at=1.0, ended_at=2.0)
    assert failure_of("half", question) == Failure("400", "HTTP status 400")


@pytest.mark.parametrize("nothing", [None, "", float("nan")])
def test_a_question_without_answer_or_end_was_cut(nothing: object) -> None:
    cut = Failure(CUT, "the question was not run to its end")
    call = CallRecord(status=200)
    assert failure_of(nothing, Question(id="never begun")) == cut
    assert failure_of(nothing, Question(id="interrupted", calls=(call,), started_at=1.0)) == cut
    assert failure_of(nothing, Question(id="interrupted before its first call", started_at=1.0)) == cut
    assert failure_of(nothing, Question(id="ended", started_at=1.0, ended_at=2.0)) is None
    # Saved without the workflow's own steps.
    assert failure_of(nothing, Question(id="filtered", calls=(call,))) is None
    assert failure_of("answer", Question(id="answered", started_at=1.0)) is None


def test_failures_are_counted_by_kind() -> None:
    failures = [Failure("503", "a"), None, Failure("503", "b"), Failure(CUT, "c")]
    assert list(count(failures).items()) == [("503", 2), (CUT, 1)]
    assert told(count(failures), 1200) == "3 of 1,200 questions failed (503 2, not_run 1)"
    assert told({}, 4) == "0 of 4 questions failed"


def test_a_reader_that_left_early_failed_nothing(build: SimpleNamespace) -> None:
    left = CallRecord(status=200, error="closed early", error_type="left")
    assert failure_of("answer", Question.from_trajectory("q", build.question(left))) is None


async def test_the_repetitions_of_a_question_are_numbered() -> None:
    """In each evaluation anew, whatever order their sessions come in."""

    class Sessions:
        @asynccontextmanager
        async def session(self, **_: Any) -> AsyncIterator[Sessions]:
            yield self

        @asynccontextmanager
        async def run(self, message: Any, **_: Any) -> AsyncIterator[Any]:
            yield message

    async def number(sessions: NeverRaises, message: str) -> int:
        async with sessions.session() as session, session.run(message):
            return await asyncio.create_task(asyncio.to_thread(current_repetition))

    for _ in range(2):
        sessions = NeverRaises(Sessions(), None)
        assert [await number(sessions, message) for message in ("a", "b", "a", "a")] == [0, 0, 1, 2]
    assert current_repetition() == 0
