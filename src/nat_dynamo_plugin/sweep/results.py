"""What a sweep has found so far, read from its study: the one source of the table, the files and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, Trial, TrialState

from nat_dynamo_plugin.sweep.outcome import RunResult
from nat_dynamo_plugin.sweep.space import Values
from nat_dynamo_plugin.sweep.study import INDEX, OWNER, PROBLEM, Queue
from nat_dynamo_plugin.sweep.verdict import (
    MIN_ROUNDS,
    Comparison,
    Objective,
    compare,
    confidence_of_each,
    weighted_gain,
)

RUN = "run:"
ARM = "arm"
ROUND = "round"


def runs_of(trial: FrozenTrial | Trial) -> dict[int, RunResult]:
    """The finished runs of a trial by repetition."""
    return {
        int(name.removeprefix(RUN)): RunResult.from_dict(data)
        for name, data in sorted(trial.user_attrs.items())
        if name.startswith(RUN)
    }


def means(runs: Sequence[RunResult], objectives: Sequence[Objective]) -> tuple[float, ...]:
    """The value of each objective, averaged over runs, of which there must be one."""
    return tuple(sum(run.values[o.name] for run in runs) / len(runs) for o in objectives)


@dataclass(slots=True)
class TrialRow:
    """One configuration that was tried or is to be.

    `values` are of the objectives, means over the runs, and `others` of the evaluators beside them. `gain` is the
    weighted gain over the current config as the search saw it: not proven, and of the best of many too high.
    """

    index: int
    config: Values
    state: str
    values: tuple[float, ...] | None
    gain: float | None
    runs: int
    calls: int
    server_calls: int | None
    seconds: float
    problem: str | None
    owner: str
    others: dict[str, float] = field(default_factory=dict)
    pareto: bool = False


def _server_calls(runs: Sequence[RunResult]) -> int | None:
    """Calls that the servers counted, if all of them did."""
    counted = [run.server_calls for run in runs if run.server_calls is not None]
    return sum(counted) if counted and len(counted) == len(runs) else None


_STATES = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def trial_rows(queue: Queue, objectives: Sequence[Objective]) -> list[TrialRow]:
    """All trials of a study in the order of the plan."""
    trials = queue.trials()
    current = list(runs_of(trials[0]).values()) if 0 in trials else []
    baseline = means(current, objectives) if current else None
    several = len(queue.study.directions) > 1
    front = {trial.user_attrs[INDEX] for trial in queue.snapshot().best_trials} if several else set()
    rows = []
    for index, trial in sorted(trials.items()):
        runs = list(runs_of(trial).values())
        done = trial.state is TrialState.COMPLETE
        values = means(runs, objectives) if done and runs else None
        rows.append(
            TrialRow(
                index=index,
                config=dict(trial.params) or dict(trial.system_attrs.get("fixed_params", {})),
                state=_STATES[trial.state],
                values=values,
                gain=weighted_gain(objectives, values, baseline) if values and baseline else None,
                runs=len(runs),
                calls=sum(run.calls for run in runs),
                server_calls=_server_calls(runs),
                seconds=sum(run.seconds for run in runs),
                problem=trial.user_attrs.get(PROBLEM),
                owner=str(trial.user_attrs.get(OWNER, "")),
                others={
                    name: sum(run.others[name] for run in runs) / len(runs)
                    for name in (runs[0].others if done and runs else ())
                    if all(name in run.others for run in runs)
                },
                pareto=index in front,
            )
        )
    return rows


def finalists(rows: Sequence[TrialRow], count: int) -> list[int]:
    """The trials to be measured against the current config: the best by weighted gain, each configuration once."""
    current = rows[0].config if rows else {}
    ranked = sorted((row for row in rows if row.gain is not None and row.index != 0), key=lambda row: -(row.gain or 0))
    chosen: list[TrialRow] = []
    for row in ranked:
        if row.config != current and all(row.config != other.config for other in chosen):
            chosen.append(row)
    if any(row.pareto for row in rows):
        # Of trade-offs that nothing beats, the best compromises.
        chosen = [row for row in chosen if row.pareto] or chosen
    return [row.index for row in chosen[:count]]


@dataclass(slots=True)
class Finals:
    """The finalists against the current config."""

    indexes: list[int]
    comparisons: dict[int, Comparison] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    winner: int | None = None
    runs: int = 0
    calls: int = 0


def judge(
    queue: Queue | None,
    indexes: Sequence[int],
    objectives: Sequence[Objective],
    *,
    confidence: float,
    seed: int,
) -> Finals:
    """Compare every finalist that has at least two rounds in common with the current config.

    The winner is the one with the largest gain among those whose interval lies above zero, all at a confidence that
    makes up for having several.
    """
    finals = Finals(list(indexes))
    if queue is None:
        return finals
    arms: dict[int, dict[int, RunResult]] = {}
    for trial in queue.trials().values():
        runs = runs_of(trial)
        if trial.state is TrialState.COMPLETE and 0 in runs:
            arms.setdefault(trial.user_attrs[ARM], {})[trial.user_attrs[ROUND]] = runs[0]
        elif trial.state is TrialState.FAIL:
            finals.problems[trial.user_attrs[ARM]] = str(trial.user_attrs.get(PROBLEM))
    finals.runs = sum(map(len, arms.values()))
    finals.calls = sum(run.calls for rounds in arms.values() for run in rounds.values())
    current = arms.get(0, {})
    each = confidence_of_each(confidence, len(indexes))
    for index in indexes:
        ours = arms.get(index, {})
        rounds = sorted(current.keys() & ours.keys())
        if len(rounds) >= MIN_ROUNDS:
            sides = [[arm[r].of(objectives) for r in rounds] for arm in (ours, current)]
            finals.comparisons[index] = compare(objectives, *sides, confidence=each, seed=seed)
    better = {i: c for i, c in finals.comparisons.items() if c.overall.low > 0}
    if better:
        finals.winner = max(better, key=lambda i: better[i].overall.estimate)
    return finals


@dataclass(slots=True)
class SweepResult:
    """All of a sweep's outcome, as its files tell it.

    Attributes:
        study: name of the study.
        storage: where it is kept, without a password.
        objectives: what was measured.
        current: the current config's tuned values, by path.
        names: a short name for each path.
        rows: all trials, in the order of the plan.
        finals: the proof.
        final_rounds: rounds of finals that were to be measured.
        chosen: the values to go on with, by path.
        importance: of each path, 0 to 1.
        interrupted: whether something is left to do.
        seconds: what it took this process.
        measured_on: facts by topic.
    """

    study: str
    objectives: list[Objective]
    current: Values
    names: dict[str, str]
    rows: list[TrialRow]
    finals: Finals
    final_rounds: int
    chosen: Values
    importance: dict[str, float]
    interrupted: bool
    measured_on: dict[str, dict[str, Any]]
    storage: str = ""
    seconds: float = 0.0

    @property
    def proven(self) -> bool:
        """Whether a finalist beat the current config."""
        return self.finals.winner is not None

    @property
    def others(self) -> list[str]:
        """Names of the evaluators beside the objectives."""
        return sorted({name for row in self.rows for name in row.others})

    @property
    def axes(self) -> list[str]:
        """Names of all that was measured, the objectives first."""
        return [*(o.name for o in self.objectives), *self.others]

    def said(self, config: Values) -> str:
        """A configuration in one line."""
        return ", ".join(f"{self.names.get(path, path)}={value}" for path, value in config.items())
