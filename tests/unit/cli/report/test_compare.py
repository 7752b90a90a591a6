"""Two runs: what changed by how much, how sure that is, and what was set differently."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from nat_dynamo_plugin.cli.report.compare import compare, settings_that_differ
from nat_dynamo_plugin.cli.report.run import Asked, Run
from nat_dynamo_plugin.cli.summary import EvalReport
from nat_dynamo_plugin.evaluators.failures import Failure

from .making import sent

SECONDS = [1.0, 2.0, 4.0, 3.0, 1.5]


def run(factors: list[float], *, cached: int = 0, scores: list[float] | None = None, extra: str = "") -> Run:
    questions = [
        Asked(
            id=f"q{n}", started_at=0.0, ended_at=seconds * factor,
            calls=(sent(1, server_ttft_ms=10 * factor, cached_tokens=cached + n),),
        )
        for n, (seconds, factor) in enumerate(zip(SECONDS, factors, strict=True))
    ]  # fmt: skip
    if extra:
        questions.append(Asked(id=extra, started_at=0.0, ended_at=1000.0))
    given = {f"q{n}": score for n, score in enumerate(scores or [])}
    summary = EvalReport(directory=Path(), metrics=[], figures=[])
    return Run(name="r", summary=summary, config={}, questions=questions, scores={"accuracy": given} if scores else {})


def test_a_ratio_is_paired_by_question() -> None:
    factors = [1.1, 1.2, 1.3, 1.2, 1.1]
    change = compare(run([1.0] * 5, extra="only before"), run(factors, extra="only after"))[0]
    assert (change.name, change.pairs, change.unit, change.better) == ("question latency", 5, "s", "lower")
    logs = np.log(factors)
    low, high = stats.t.interval(0.95, 4, logs.mean(), stats.sem(logs))
    assert change.estimate == pytest.approx(math.exp(logs.mean()) - 1)
    assert (change.low, change.high) == pytest.approx((math.expm1(low), math.expm1(high)))
    assert change.before == pytest.approx(sum(SECONDS) / 5)
    assert change.verdict == "worse"


def test_a_share_is_compared_by_its_difference() -> None:
    by_name = {change.name: change for change in compare(run([1.0] * 5), run([0.9, 1.0, 1.1, 1.0, 1.0], cached=400))}
    reuse = by_name["KV reuse"]
    assert reuse.is_difference and reuse.estimate == pytest.approx(0.4) and reuse.verdict == "better"
    assert by_name["prompt tokens computed"].estimate == pytest.approx(-0.4, abs=0.01)
    assert by_name["question latency"].verdict == "no difference shown"


def test_scores_of_other_evaluators() -> None:
    changes = compare(run([1.0] * 5, scores=[0, 0, 0, 1, 0]), run([1.0] * 5, scores=[1, 1, 1, 1, 1]))
    accuracy = changes[-1]
    assert (accuracy.name, accuracy.estimate, accuracy.is_difference) == ("accuracy", pytest.approx(0.8), True)
    assert accuracy.verdict == "changed"


def test_failed_questions_and_few_pairs_are_left_out() -> None:
    before, after = run([1.0] * 5), run([1.1, 1.2, 1.3, 1.2, 1.1])
    after.questions[0] = Asked(id="q0", started_at=0.0, ended_at=99.0, failure=Failure("503", ""))
    assert compare(before, after)[0].pairs == 4
    after.questions = after.questions[:3]
    assert compare(before, after) == []


def test_settings_that_differ() -> None:
    before = {"llms": {"a": {"temperature": 0, "stop": ["x", "y"], "local": {"workers": 4}}}, "same": 1}
    after = {"llms": {"a": {"temperature": 1, "stop": ["x"], "local": {"workers": 4, "speedup": 2}}}, "same": 1}
    after["eval"] = {"general": {"output": {"dir": "/elsewhere"}}}  # type: ignore[assignment]
    assert settings_that_differ(before, after) == [
        ("llms.a.local.speedup", "-", "2"),
        ("llms.a.stop.1", "y", "-"),
        ("llms.a.temperature", "0", "1"),
    ]
