"""The finals of a sweep with runs by formula: who takes part, when there is a verdict, and what it says."""

from __future__ import annotations

import asyncio
import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from nat.runtime.loader import load_config

from nat_dynamo_plugin.sweep.outcome import RunFailed, RunResult
from nat_dynamo_plugin.sweep.results import Finals, Look, SweepResult, TrialRow, finalists, judge
from nat_dynamo_plugin.sweep.statement import verdict_text
from nat_dynamo_plugin.sweep.verdict import Objective

from .conftest import Runs, sweep

Write = Callable[..., Path]
BAD = ("prefix_total_requests: 10", "prefix_total_requests: 1"), ("prefix_osl: MEDIUM", "prefix_osl: HIGH")
LATENCY = Objective("latency", "latency", "minimize", unit="s")


def row(index: int, gain: float | None = 0.1, value: Any = None, *, pareto: bool = False) -> TrialRow:
    config = {"x": index if value is None else value}
    return TrialRow(index, config, "done", (1.0,), gain, 1, 1, 1, 1.0, None, "", pareto=pareto)


def test_finalists_are_the_best_by_gain() -> None:
    assert finalists([row(0, 0.0), row(1, 0.1), row(2, 0.3), row(3, 0.2), row(4, None)], 2) == [2, 3]


def test_a_config_is_a_finalist_once_and_never_the_current_one() -> None:
    rows = [row(0, 0.0, "current"), row(1, 0.4, "current"), row(2, 0.3, "a"), row(3, 0.2, "a"), row(4, 0.1, "b")]
    assert finalists(rows, 3) == [2, 4]


def test_of_trade_offs_only_those_that_nothing_beats_are_finalists() -> None:
    rows = [row(0, 0.0), row(1, 0.1, pareto=True), row(2, 0.3), row(3, 0.2, pareto=True)]
    assert finalists(rows, 3) == [3, 1]


class Trial:
    """As much of an Optuna trial as the finals read."""

    def __init__(self, arm: int, number: int, latency: float | None) -> None:
        from optuna.trial import TrialState

        self.state = TrialState.FAIL if latency is None else TrialState.COMPLETE
        self.user_attrs: dict[str, Any] = {"arm": arm, "round": number}
        if latency is None:
            self.user_attrs["problem"] = "2 of 9 LLM calls failed"
        else:
            samples = {"latency": {f"q{k}": [(latency * (1 + k / 10), 1.0)] for k in range(5)}}
            self.user_attrs["run:0"] = RunResult({"latency": latency}, samples, 9).to_dict()


class Measured:
    """A queue of finals that are over."""

    def __init__(self, arms: Mapping[int, Sequence[float | None]]) -> None:
        self._trials = [Trial(arm, k, value) for arm, values in arms.items() for k, value in enumerate(values)]

    def trials(self) -> dict[int, Any]:
        return dict(enumerate(self._trials))


CURRENT = (1.0, 1.02, 0.98, 1.01, 0.99)


def look(rounds: int = 5, confidence: float = 0.95, number: int = 1) -> Look:
    return Look(rounds, number, confidence, 0.99)


def judged(arms: Mapping[int, Sequence[float | None]], at: Look | None, **more: Any) -> Finals:
    queue: Any = Measured({0: CURRENT, **arms})
    return judge(queue, list(arms), [LATENCY], look=at, **more)


def times(factor: float, *noise: float) -> list[float]:
    return [factor * a * (1 + b) for a, b in zip(CURRENT, noise or (0.01, -0.01, 0.0, 0.005, -0.005), strict=True)]


def test_the_winner_gains_most_of_those_that_are_better() -> None:
    finals = judged({4: times(0.9), 6: times(0.7), 8: times(0.8)}, look())
    assert finals.winner == 6
    assert set(finals.outcomes.values()) == {"better"}


def test_the_winner_is_by_the_interval_and_not_by_the_estimate() -> None:
    # The larger gain is less certain: it comes from two rounds.
    finals = judged({4: times(0.9), 6: times(0.85, -0.6, -0.5, 0.2, 0.2, 0.1)}, look())
    gains = {i: c.overall.estimate for i, c in finals.comparisons.items()}
    assert gains[6] > gains[4]
    assert finals.outcomes == {4: "better", 6: "inconclusive"}
    assert finals.winner == 4


def test_several_finalists_need_more_evidence_each() -> None:
    one = times(0.962, 0.03, -0.03, 0.02, -0.04, 0.0)
    assert judged({4: one}, look()).winner == 4
    two = judged({4: one, 6: times(1.1)}, look())
    assert two.winner is None
    assert two.comparisons[4].overall.confidence == pytest.approx(0.975)


def test_a_finalist_that_failed_a_round_can_not_win() -> None:
    failing: list[float | None] = [*times(0.5)]
    failing[1] = failing[3] = None
    finals = judged({4: failing, 6: times(1.0)}, look())
    assert finals.winner is None and set(finals.comparisons) == {6}
    assert finals.so_far[4].rounds == 3
    assert finals.problems[4] == "2 of its runs failed, the first with: 2 of 9 LLM calls failed"
    text = verdict_text(result(finals))
    assert "Nothing beat the current config" in text
    assert "Trial 4 was not measured in all rounds, so it can not win: 2 of its runs failed" in text


def test_nothing_wins_against_a_current_config_that_failed() -> None:
    queue: Any = Measured({0: [*CURRENT[:4], None], 4: times(0.5)})
    finals = judge(queue, [4], [LATENCY], look=look())
    assert finals.winner is None and not finals.comparisons
    assert "The current config was not measured in all rounds, so nothing can beat it" in verdict_text(result(finals))


def test_there_is_no_verdict_before_all_rounds_are_measured() -> None:
    finals = judged({4: times(0.5)}, None)
    assert finals.winner is None and not finals.comparisons and finals.so_far[4].rounds == 5
    text = verdict_text(result(finals, final_rounds=9))
    assert "So far, trial 4 differs by +50.0% after 5 rounds" in text
    assert "not all 9 rounds of the finals are measured, and there is no verdict before" in text
    assert "beat" not in text


def test_a_verdict_is_on_its_own_rounds() -> None:
    late = [*times(1.0)[:3], 0.1, 0.1]
    assert judged({4: late}, look(rounds=3)).comparisons[4].rounds == 3


def result(finals: Finals, final_rounds: int = 5, objectives: Sequence[Objective] = (LATENCY,)) -> SweepResult:
    return SweepResult(
        study="s",
        objectives=list(objectives),
        current={"x": 0},
        names={"x": "x"},
        rows=[row(k, 0.0 if k == 0 else 0.4) for k in range(9)],
        finals=finals,
        final_rounds=final_rounds,
        smallest_gain=0.05,
        chosen={"x": 0},
        importance={},
        interrupted=False,
        measured_on={},
    )


def test_a_gain_is_named_with_what_is_certain_of_it() -> None:
    finals = judged({4: times(0.8), 6: times(1.0)}, look(), seen={"other"})
    c = finals.comparisons[4].overall
    text = verdict_text(result(finals))
    assert (
        f"Trial 4 (x=4) beats the current config: by {c.estimate:+.1%} as measured, and by {c.low:+.1%} at least"
        in text
    )
    assert f"({c.low:+.1%} to {c.high:+.1%}, 95.0% confidence for all 2 finalists together; 5 fresh rounds" in text
    assert f"expect less than {c.estimate:+.1%}" in text
    assert "where the mean over many such rounds on these questions lies" in text
    assert "The search had asked none of the finals' 5 questions." in text


def test_questions_that_the_search_asked_are_told() -> None:
    text = verdict_text(result(judged({4: times(0.8)}, look(), seen={"q0", "q1"})))
    assert "The search had asked 2 of the finals' 5 questions" in text


def test_no_gain_worth_having_is_a_result() -> None:
    finals = judged({4: times(1.0), 6: times(1.02)}, look())
    text = verdict_text(result(finals))
    assert f"no finalist is better by more than {finals.comparisons[4].overall.high:+.1%}; trial 4 differs" in text
    worse = judged({4: times(1.2), 6: times(1.3)}, look())
    assert "all finalists are worse than the current config" in verdict_text(result(worse))


def test_an_open_question_says_what_would_answer_it() -> None:
    finals = judged({4: times(0.9, 0.1, -0.1, 0.05, -0.12, 0.08)}, look())
    c = finals.comparisons[4]
    needed = c.rounds_to_show(c.overall.estimate, 0.99)
    assert finals.outcomes[4] == "inconclusive" and needed is not None
    text = verdict_text(result(finals))
    assert f"So many rounds show a gain of {c.detectable:+.1%} or more in 80 % of sweeps." in text
    assert f"To show {c.overall.estimate:+.1%} (the gain seen), {needed - 5} more rounds are needed" in text
    assert f"final_rounds: {needed}." in text


def test_a_later_verdict_says_so() -> None:
    text = verdict_text(result(judged({4: times(0.8)}, look(number=2))))
    assert "verdict 2 on this study" in text


async def told(file: Path, runs: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """What a sweep prints."""
    await sweep(file, runs)
    return capsys.readouterr().out


async def test_each_round_measures_everyone_in_an_order_of_its_own(write: Write) -> None:
    runs = Runs()
    await sweep(write(*BAD, ("final_rounds: 3", "final_rounds: 8")), runs)
    finals = [(one[:3], part) for one, part in zip(runs.seen, runs.parts, strict=True) if "finals" in one[3]]
    orders = []
    for number in range(8):
        in_round = finals[3 * number : 3 * number + 3]
        assert {part.final_round for _, part in in_round} == {number}
        assert len({config for config, _ in in_round}) == 3
        orders.append(tuple(config for config, _ in in_round))
    assert len(set(orders)) > 1
    assert len({order[0] for order in orders}) > 1


async def test_the_finals_ask_other_questions_if_there_are_enough(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs(questions=30)
    text = await told(write(*BAD), runs, capsys)
    assert {part.holdout for part in runs.parts} == {0.5}
    assert Counter(part.final_round is None for part in runs.parts)[False] == 9
    assert "The search had asked none of the finals' 15 questions." in text
    few = await told(write(*BAD, ("/out", "/few"), name="few.yml"), Runs(), capsys)
    assert "The search had asked 12 of the finals' 12 questions" in few


async def test_ctrl_c_in_the_finals_gives_no_verdict(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    runs = Runs()

    def interrupt(_number: int, _llm: Any) -> None:
        if sum("finals" in one[3] for one in runs.seen) == 12:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    runs.on_run = interrupt
    file = write(*BAD, ("final_rounds: 3", "final_rounds: 6"))
    with pytest.raises(asyncio.CancelledError):
        await sweep(file, runs)
    text = capsys.readouterr().out
    assert "Not proven" in text and "after 4 rounds" in text
    assert "beats the current config" in await told(file, Runs(), capsys)


async def test_more_rounds_are_another_verdict_that_needs_more_evidence(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    first = await told(write(*BAD), Runs(), capsys)
    assert "96.2% confidence for all 2 finalists together; 3 fresh rounds" in first
    more = Runs()
    raised = write(*BAD, ("final_rounds: 3", "final_rounds: 5"))
    second = await told(raised, more, capsys)
    assert len(more.seen) == 2 * 3
    assert "99.1% confidence for all 2 finalists together, verdict 2 on this study; 5 fresh rounds" in second
    # Reading it again is no further verdict, and asking for fewer rounds does not undo it.
    assert await told(raised, Runs(), capsys) == second
    assert await told(write(*BAD), Runs(), capsys) == second
    # Other finalists are another chance to be wrong.
    third = await told(write(*BAD, ("final_rounds: 3", "final_rounds: 3\n    finalists: 3")), Runs(), capsys)
    assert "99.8% confidence for all 3 finalists together, verdict 3 on this study" in third


async def test_a_finalist_that_fails_in_the_finals_does_not_win(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, failed = Runs(), []

    def fail(_number: int, llm: Any) -> None:
        in_finals = len(runs.seen) >= 16 and str(llm.prefix_osl) == "LOW"
        if in_finals and len(failed) < 2:
            failed.append(llm.prefix_total_requests)
            raise RunFailed("2 of 9 LLM calls failed")

    runs.on_run = fail
    text = await told(write(*BAD, ("n_trials: 8", "n_trials: 8\n    finalists: 1\n    pruner: none")), runs, capsys)
    assert len(failed) == 2
    assert "beats" not in text and "2 of its runs failed" in text
    with (tmp_path / "out" / "trials.csv").open(newline="") as file:
        assert not any(one["final_gain"] for one in csv.DictReader(file))
    assert load_config(tmp_path / "out" / "optimized_config.yml").llms["dynamo"].prefix_total_requests == 1


async def test_finals_that_failed_are_measured_again_and_judged_as_a_further_verdict(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, failed = Runs(), []

    def fail(_number: int, llm: Any) -> None:
        if len(runs.seen) >= 16 and str(llm.prefix_osl) == "LOW" and not failed:
            failed.append(llm.prefix_total_requests)
            raise RunFailed("2 of 9 LLM calls failed")

    runs.on_run = fail
    file = write(*BAD, ("n_trials: 8", "n_trials: 8\n    finalists: 1\n    pruner: none"))
    assert "beats" not in await told(file, runs, capsys)
    again = Runs()
    text = await told(file, again, capsys)
    assert len(again.seen) == 1
    assert "beats the current config" in text and "verdict 2 on this study" in text
    assert await told(file, last := Runs(), capsys) == text
    assert not last.seen


@pytest.mark.parametrize("rounds", [1, 2])
def test_too_few_rounds_name_the_nearest_number(write: Write, rounds: int) -> None:
    with pytest.raises(Exception, match=rf"final_rounds={rounds}: a verdict needs 3 rounds: use 3 or more, or 0"):
        load_config(write(("final_rounds: 3", f"final_rounds: {rounds}")))


async def test_without_finals_the_best_trial_is_taken_unproven(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs()
    text = await told(write(*BAD, ("final_rounds: 3", "final_rounds: 0")), runs, capsys)
    assert "Not proven (final_rounds: 0)" in text
    assert not any("finals" in one[3] for one in runs.seen)
