"""The charts of the report draw what was measured."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from nat_dynamo_plugin.sweep.charts import charts
from nat_dynamo_plugin.sweep.interval import Interval
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


def read(drawn: Markup) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(f"<all>{drawn}</all>").iter())


def notes(drawn: Markup) -> list[str]:
    return [one.text or "" for one in read(drawn) if one.tag == "title"]


def of_class(drawn: Markup, *names: str) -> list[ElementTree.Element]:
    return [one for one in read(drawn) if set(names) <= set((one.get("class") or "").split())]


def places(drawn: Markup, *names: str) -> list[tuple[float, ...]]:
    found = (
        re.findall(r"[\d.]+", one.get("transform") or "") for one in of_class(drawn, *names) if one.get("transform")
    )
    return [tuple(map(float, place)) for place in found]


def test_a_dot_a_round_and_config_those_of_a_round_joined() -> None:
    drawn = charts(result(rounds=ROUNDS))["rounds"]
    assert notes(drawn) == [
        "current config, round 1: 2 s",
        "trial 1, round 1: 1 s",
        "current config, round 2: 2.5 s",
        "trial 1, round 2: 1.25 s",
    ]
    lines = [[tuple(map(float, p.split())) for p in re.split("[ML]", one.get("d") or "")[1:]]
             for one in of_class(drawn, "line", "s8")]  # fmt: skip
    current, trial = places(drawn, "dot", "s5"), places(drawn, "dot", "s1")
    assert lines == [[current[0], trial[0]], [current[1], trial[1]]]
    assert current[0][0] == current[1][0] < trial[0][0] == trial[1][0]
    assert current[1][1] < current[0][1] < trial[1][1] < trial[0][1]  # 2.5, 2, 1.25 and 1 s, the most at the top


def test_a_run_that_is_missing_leaves_its_dot_out() -> None:
    drawn = charts(result(rounds={0: ROUNDS[0], 1: {0: {"latency": 1.0}}}))["rounds"]
    assert [note.split(":")[0] for note in notes(drawn)] == [
        "current config, round 1", "trial 1, round 1", "current config, round 2"
    ]  # fmt: skip


def test_without_runs_of_both_there_is_no_such_picture() -> None:
    assert "rounds" not in charts(result()) and "rounds" not in charts(result(rounds={0: ROUNDS[0]}))


def test_the_history_has_all_trials_and_the_best_so_far() -> None:
    given = result()
    given.rows += [replace(row(3, 0.0, None), state="failed", values=None, problem="boom")]
    drawn = charts(given)["history"]
    assert notes(drawn)[0] == "trial 0 done\nprefix_iat=0\nlatency 2 s"
    assert notes(drawn)[1] == "trial 1 done\nprefix_iat=1\nlatency 1.5 s\n+25.0% against the current config"
    assert notes(drawn)[3] == "trial 3 failed\nprefix_iat=3\nboom"
    (failed,) = places(drawn, "line", "s2")
    one, two = places(drawn, "dot", "s1")
    assert failed[0] > two[0] > one[0] and failed[1] > one[1] > two[1]
    (best,) = of_class(drawn, "line", "s8")
    steps = [float(y) for y in re.findall(r"[ V]([\d.]+)", best.get("d") or "")]
    assert steps == [places(drawn, "dot", "s5")[0][1], one[1], one[1]]


def test_finalists_are_marked_everywhere() -> None:
    made = charts(result())
    for name in ("history", "slices"):
        assert places(made[name], "ink") == places(made[name], "dot", "s1")[:1]
    two = result()
    two.objectives = [LATENCY, replace(LATENCY, name="reuse", direction="maximize")]
    two.rows = [replace(one, values=(*(one.values or ()), 0.5)) for one in two.rows]
    assert places(charts(two)["tradeoff"], "ink") == places(charts(two)["tradeoff"], "dot", "s1")[:1]


def test_values_that_are_words_have_places_in_their_order() -> None:
    given = result()
    words = ("HIGH", "LOW", "MEDIUM")
    given.rows = [
        replace(one, config={"llms.dynamo.prefix_iat": word}) for one, word in zip(given.rows, words, strict=True)
    ]
    drawn = charts(given)["slices"]
    texts = [one.text for one in read(drawn) if one.tag == "text" and one.text in words]
    assert texts == ["LOW", "MEDIUM", "HIGH"]
    (high,), (low, medium) = places(drawn, "dot", "s5"), places(drawn, "dot", "s1")
    assert low[0] < medium[0] < high[0]


def test_importance_of_each_value() -> None:
    given = result()
    given.importance = {"llms.dynamo.prefix_iat": 0.75}
    drawn = charts(given)["importance"]
    assert "75%" in [one.text for one in read(drawn)] and of_class(drawn, "fill")[0].get("width") == "210"


def test_nothing_is_green_that_is_not_proven() -> None:
    for drawn in charts(result(rounds=ROUNDS)).values():
        assert not of_class(drawn, "s3")


def test_gains_by_what_their_intervals_say() -> None:
    from types import SimpleNamespace

    gains = {1: Interval(0.2, 0.1, 0.3, 0.95), 2: Interval(0.0, -0.1, 0.1, 0.95), 3: Interval(-0.2, -0.3, -0.1, 0.95)}
    comparisons: Any = {index: SimpleNamespace(gains=[gain], overall=gain) for index, gain in gains.items()}
    drawn = charts(result(comparisons=comparisons))["finals"]
    assert [len(of_class(drawn, "dot", tone)) for tone in ("s3", "s8", "s2")] == [1, 1, 1]
    assert "+20.0% (+10.0% to +30.0%)" in [one.text for one in read(drawn)]
