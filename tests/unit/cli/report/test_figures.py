"""The figures behind tables and pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nat_dynamo_plugin.cli.report import figures
from nat_dynamo_plugin.cli.report.misses import misses
from nat_dynamo_plugin.cli.report.run import Asked
from nat_dynamo_plugin.evaluators.failures import Failure

from .making import sent


def test_causes_of_failures_those_first_that_cost_most_questions() -> None:
    questions = [
        Asked(id="a", calls=(sent(1, status=503, error="busy", kind="overloaded", worker_id=9),)),
        Asked(id="b", calls=(sent(1, status=503, kind="overloaded"), sent(2))),
        Asked(id="c", failure=Failure("ValueError", "no plan"), calls=(sent(1),)),
        Asked(id="d", failure=Failure("ValueError", "none")),
    ]
    first, second = figures.failure_causes(questions)
    assert (first.kind, first.questions, first.calls, first.error, first.first) == (
        "ValueError", ["c", "d"], 0, "no plan", "c"
    )  # fmt: skip
    assert (second.kind, second.questions, second.calls, second.error, second.first) == (
        "overloaded",
        [],
        2,
        "busy",
        "a",
    )
    assert second.workers == {9: 1, 7: 1}


def test_where_the_tokens_came_from() -> None:
    calls = [sent(1), sent(2, prompt_tokens=1500, cached_tokens=600), sent(3, cached_tokens=None), sent(4, error="x")]
    counted = figures.tokens(calls, misses(calls))
    assert counted == figures.Tokens(cached=600, new=1500, lost=400) and counted.total == 2500
    estimates = [replace(miss, measured=False) for miss in misses(calls)]
    assert figures.tokens(calls, estimates) == figures.Tokens(cached=600, new=1900, lost=0)
    assert figures.tokens([sent(1, prompt_tokens=None)], []) is None


def test_reuse_by_turn_of_each_chain() -> None:
    calls = [
        sent(3, prompt_tokens=300, cached_tokens=200), sent(1, prompt_tokens=100, cached_tokens=0),
        sent(2, error="x"), sent(1, question="q2", prompt_tokens=100, cached_tokens=50),
    ]  # fmt: skip
    assert figures.by_turn(calls) == [(1, 200, 50, 2), (3, 300, 200, 1)]
    assert figures.by_turn(calls, most=2) == [(1, 200, 50, 2), (2, 300, 200, 1)]


def test_times_of_what_was_answered() -> None:
    calls = [sent(1), sent(2, error="x"), sent(3, server_ttft_ms=None, client_total_ms=None)]
    assert (figures.ttfts(calls), figures.call_times(calls)) == ([20.0], [100.0])
    questions = [
        Asked(id="a", started_at=1.0, ended_at=3.0),
        Asked(id="b", started_at=1.0, ended_at=9.0, failure=Failure("x", "")),
        Asked(id="c", started_at=1.0),
    ]
    assert figures.question_times(questions) == [2.0]


def test_how_busy_each_worker_was() -> None:
    calls = [
        sent(1, worker_id=9, started_at=100.0, client_total_ms=4000.0),
        sent(2, worker_id=9, started_at=101.0, client_total_ms=1000.0),
        sent(3, worker_id=5, started_at=103.5, client_total_ms=500.0),
        sent(4, worker_id=None),
    ]
    five, nine = figures.workers(calls, parts=4)
    assert (five.id, five.number, five.calls, five.load) == (5, 1, 1, pytest.approx([0, 0, 0, 0.5]))
    assert (nine.id, nine.number, nine.calls, nine.load) == (9, 2, 2, pytest.approx([1, 2, 1, 1]))
    assert figures.workers([sent(1, worker_id=None)]) == []
    (untimed,) = figures.workers([sent(1, started_at=0.0)], parts=2)
    assert (untimed.calls, untimed.load) == (1, [0, 0])


def test_moves_within_a_chain() -> None:
    calls = [
        sent(1),
        sent(2, worker_id=8),
        sent(3, worker_id=None),
        sent(4, worker_id=8),
        sent(1, question="q2", worker_id=9),
    ]
    assert figures.moves(calls) == (1, 2)


def test_quantiles() -> None:
    assert [figures.quantile([4, 1, 2, 3], share) for share in (0, 0.5, 1)] == [1, 2.5, 4]
