from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nat_dynamo_plugin.cli.costs import cost_lines, usd
from nat_dynamo_plugin.evaluators.records import QuestionFigures


def scores(folder: Path, name: str, values: list[Any], reasoning: Any = None) -> Path:
    path = folder / f"{name}_output.json"
    path.write_text(json.dumps({"eval_output_items": [{"score": one, "reasoning": reasoning} for one in values]}))
    return path


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "$0.00"), (1234.5, "$1,234.50"), (0.01234, "$0.0123"), (0.000012, "$1.2e-05")],
)
def test_amounts(amount: float, text: str) -> None:
    assert usd(amount) == text


def test_without_costs_there_is_no_line() -> None:
    assert cost_lines([QuestionFigures(calls=3, unpriced_calls=3)]) == []


def test_the_cost_in_all_a_question_and_a_solved_one(tmp_path: Path) -> None:
    figures = [QuestionFigures(cost_usd=1.5), QuestionFigures(cost_usd=0.5), QuestionFigures(cost_usd=2.0)]
    files = [
        scores(tmp_path, "accuracy", [1.0, 0, 1]),
        scores(tmp_path, "nothing", [0, 0, None]),
        scores(tmp_path, "graded", [0.5, 1, 0]),
        scores(tmp_path, "reuse", [1, 1, 1], {"unit": "share"}),
        tmp_path / "gone_output.json",
    ]
    assert cost_lines(figures, files) == [
        ("cost", "$4.00, $1.33 a question"),
        ("per solved", "$2.00 (2 of 3 solved by accuracy)"),
        ("per solved", "none was (0 of 3 solved by nothing)"),
    ]


def test_what_a_sum_leaves_out_and_what_a_cache_saved() -> None:
    figures = [QuestionFigures(cost_usd=1.0, unpriced_calls=2, unpriced_attempts=1, saved_usd=3.0)]
    [(_, text)] = cost_lines(figures)
    assert text == (
        "$1.00, $1.00 a question; 2 answered calls have no cost; 1 broken attempts may be billed besides; "
        "the response cache saved $3.00"
    )


def test_by_function_and_org() -> None:
    figures = [
        QuestionFigures(cost_usd=3.0, cost_by_function={"a": 1.0, "b": 2.0}, cost_by_org={"o": 3.0}),
        QuestionFigures(cost_usd=7.0, cost_by_function=dict.fromkeys("acdefgh", 1.0)),
    ]
    lines = dict(cost_lines(figures))
    assert lines["by function"].startswith("a $2.00, b $2.00, ") and lines["by function"].endswith(", 3 more")
    assert lines["by org"] == "o $3.00"
