"""Calls by version of their prompt: counted, added up, saved with the figures, and told."""

from __future__ import annotations

from nat_dynamo_plugin.evaluators.prompt_versions import by_version, rows, together
from nat_dynamo_plugin.evaluators.records import Question, QuestionFigures
from nat_dynamo_plugin.telemetry.record import CallRecord

CALLS = (
    CallRecord(status=200, prompt_version="a", prompt_tokens=100, cached_tokens=25),
    CallRecord(status=200, prompt_version="b", prompt_tokens=50, cached_tokens=0),
    CallRecord(status=200, prompt_version="b", prompt_tokens=70),  # nobody said how much was cached
    CallRecord(status=500, prompt_version="b", prompt_tokens=90, cached_tokens=90),
    CallRecord(status=200, prompt_tokens=1000, cached_tokens=1000),
)


def test_counts_add_up() -> None:
    counts = by_version(CALLS)
    assert counts == {
        "a": {"calls": 1, "failed": 0, "prompt_tokens": 100, "cached_tokens": 25},
        "b": {"calls": 3, "failed": 1, "prompt_tokens": 50, "cached_tokens": 0},
    }
    assert together([counts, {}, by_version(CALLS[:1])])["a"] == {
        "calls": 2,
        "failed": 0,
        "prompt_tokens": 200,
        "cached_tokens": 50,
    }
    assert rows(counts) == [
        ("prompt b", "3 calls (1 failed), 0.0 % of 50 prompt tokens cached"),
        ("prompt a", "1 calls (0 failed), 25.0 % of 100 prompt tokens cached"),
    ]
    assert rows({}) == rows(by_version(CALLS[4:])) == []


def test_they_are_saved_with_a_questions_figures() -> None:
    figures = QuestionFigures.of(Question(id="q", calls=CALLS))
    assert figures.prompt_versions == by_version(CALLS)
    assert QuestionFigures.from_reasoning(figures.to_dict()) == figures
