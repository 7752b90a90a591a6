"""The charts of the report draw what was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nat_dynamo_plugin.sweep.charts import charts
from nat_dynamo_plugin.sweep.results import Finals, SweepResult, TrialRow
from nat_dynamo_plugin.sweep.verdict import Objective

LATENCY = Objective("latency", "question_latency", "minimize", unit="s")


def row(index: int, value: float, gain: float | None) -> TrialRow:
    return TrialRow(
        index, {"llms.dynamo.prefix_iat": index}, "done", (value,), gain, 1, 9, 9, 1.0, None, "", pareto=index == 2
    )


def result(**finals: Any) -> SweepResult:
    return SweepResult(
        study="study",
        objectives=[LATENCY],
        current={"llms.dynamo.prefix_iat": 0},
        names={"llms.dynamo.prefix_iat": "prefix_iat"},
        rows=[row(0, 2.0, 0.0), row(1, 1.5, 0.25), row(2, 3.0, -0.5)],
        finals=Finals([1], **finals),
        final_rounds=3,
        smallest_gain=0.05,
        chosen={},
        importance={},
        interrupted=False,
        measured_on={},
    )


ROUNDS = {0: {0: {"latency": 2.0}, 1: {"latency": 2.5}}, 1: {0: {"latency": 1.0}, 1: {"latency": 1.25}}}


def test_a_dot_a_round_and_config_those_of_a_round_joined() -> None:
    lines = charts(result(rounds=ROUNDS))["rounds"].data
    assert [(list(line.x), list(line.y)) for line in lines] == [
        (["current config", "trial 1"], [2.0, 1.0]),
        (["current config", "trial 1"], [2.5, 1.25]),
    ]
    assert lines[1].text == ("current config, round 2: 2.5 s", "trial 1, round 2: 1.25 s")


def test_a_run_that_is_missing_leaves_its_dot_out() -> None:
    lines = charts(result(rounds={0: ROUNDS[0], 1: {0: {"latency": 1.0}}}))["rounds"].data
    assert [list(line.y) for line in lines] == [[2.0, 1.0], [2.5]]


def test_without_runs_of_both_there_is_no_such_picture() -> None:
    assert "rounds" not in charts(result()) and "rounds" not in charts(result(rounds={0: ROUNDS[0]}))


def test_finalists_are_marked_everywhere() -> None:
    made = charts(result())
    ringed = {
        name: [(tuple(one.x), tuple(one.y)) for one in made[name].data if one.name == "finalist"]
        for name in ("history", "slices")
    }
    assert ringed == {"history": [((1,), (1.5,))], "slices": [((1,), (0.25,))]}
    two = result()
    two.objectives = [LATENCY, replace(LATENCY, name="reuse", direction="maximize")]
    two.rows = [replace(one, values=(*(one.values or ()), 0.5)) for one in two.rows]
    assert [tuple(one.x) for one in charts(two)["tradeoff"].data if one.name == "finalist"] == [(1.5,)]


def test_nothing_is_green_that_is_not_proven() -> None:
    for figure in charts(result(rounds=ROUNDS)).values():
        assert "#3f9142" not in figure.to_json()
