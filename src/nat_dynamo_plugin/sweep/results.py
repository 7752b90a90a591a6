"""What a sweep has found so far, read from its study: the one source of the table, the files and the report."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, Trial, TrialState

from nat_dynamo_plugin.sweep.interval import confidence_of_each
from nat_dynamo_plugin.sweep.limits import MIN_ROUNDS
from nat_dynamo_plugin.sweep.outcome import RunResult
from nat_dynamo_plugin.sweep.space import Values
from nat_dynamo_plugin.sweep.study import INDEX, OWNER, PROBLEM, Queue
from nat_dynamo_plugin.sweep.verdict import Comparison, Objective, Outcome, compare, weighted_gain

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


@dataclass(frozen=True, slots=True)
class Look:
    """One verdict: on how many rounds, and how sure it has to be.

    Attributes:
        rounds: all of which must have been measured.
        number: 1 for the first verdict on a study.
        confidence: that all finalists' intervals hold together, 0.5 to 1.
        next_confidence: the same of the next verdict, if more rounds are measured.
    """

    rounds: int
    number: int
    confidence: float
    next_confidence: float


@dataclass(slots=True)
class Finals:
    """The finalists against the current config.

    Attributes:
        indexes: the finalists, the search's best first.
        comparisons: of those finalists of which there is a verdict.
        so_far: of those of which there is none yet, with their figures for people to look at.
        outcomes: what the comparisons say.
        problems: what failed, by finalist; 0 is the current config.
        winner: the finalist with the largest gain of those that are better.
        look: the verdict; `None` before all rounds are measured.
        asked: the finals' questions.
        unseen: those of them that the search did not ask.
        runs: how many were measured.
        calls: LLM calls in them.
        rounds: what each arm (a finalist, or 0 for the current config) came to in each round, by objective.
    """

    indexes: list[int]
    comparisons: dict[int, Comparison] = field(default_factory=dict)
    so_far: dict[int, Comparison] = field(default_factory=dict)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    winner: int | None = None
    look: Look | None = None
    asked: int = 0
    unseen: int = 0
    runs: int = 0
    calls: int = 0
    rounds: dict[int, dict[int, dict[str, float]]] = field(default_factory=dict)

    def confidence_of_each(self, confidence: float) -> float:
        """The confidence that each finalist's interval needs for all to hold together."""
        return confidence_of_each(confidence, len(self.indexes))


def judge(
    queue: Queue | None,
    indexes: Sequence[int],
    objectives: Sequence[Objective],
    *,
    look: Look | None,
    seen: Set[str] = frozenset(),
    smallest_gain: float = 0.05,
) -> Finals:
    """Compare every finalist with the current config, all at a confidence that makes up for having several.

    There is a verdict on those finalists that were measured in every round of the look, as was the current config: one
    that fails when the machine is busy must not win on the rounds in which it was idle. The winner is the one with the
    largest gain among those whose interval lies above zero.

    Args:
        queue: of the finals; `None` if there were none.
        indexes: the finalists.
        objectives: what was measured.
        look: the verdict to give; `None` while rounds are missing: then there are figures only.
        seen: questions that the search asked.
        smallest_gain: the smallest gain worth having, above 0.
    """
    finals = Finals(list(indexes), look=look)
    if queue is None:
        return finals
    arms, failed = _arms(queue)
    results = [run for rounds in arms.values() for run in rounds.values()]
    finals.rounds = {arm: {number: run.values for number, run in runs.items()} for arm, runs in arms.items()}
    asked = {question for run in results for samples in run.samples.values() for question in samples}
    finals.asked, finals.unseen = len(asked), len(asked - seen)
    finals.runs, finals.calls = len(results), sum(run.calls for run in results)
    for arm, problems in failed.items():
        if due := [text for number, text in sorted(problems.items()) if look is None or number < look.rounds]:
            finals.problems[arm] = f"{len(due)} of its runs failed, the first with: {due[0]}"
    for index in indexes:
        rounds = sorted(arms.get(0, {}).keys() & arms.get(index, {}).keys())
        complete = look is not None and set(rounds) >= set(range(look.rounds))
        if complete and look is not None:
            rounds = list(range(look.rounds))
        if len(rounds) < MIN_ROUNDS:
            continue
        sides = [[arms[side][r].of(objectives) for r in rounds] for side in (index, 0)]
        try:
            found = compare(objectives, *sides, confidence=finals.confidence_of_each(look.confidence if look else 0.95))
        except ValueError as error:
            finals.problems.setdefault(index, str(error))
            continue
        (finals.comparisons if complete else finals.so_far)[index] = found
    finals.outcomes = {i: c.outcome(smallest_gain) for i, c in finals.comparisons.items()}
    better = [i for i, outcome in finals.outcomes.items() if outcome == "better"]
    finals.winner = max(better, key=lambda i: finals.comparisons[i].overall.estimate, default=None)
    return finals


def _arms(queue: Queue) -> tuple[dict[int, dict[int, RunResult]], dict[int, dict[int, str]]]:
    """The finished runs of the finals by trial and round, and why others failed."""
    arms: dict[int, dict[int, RunResult]] = {}
    failed: dict[int, dict[int, str]] = {}
    for trial in queue.trials().values():
        arm, number, runs = trial.user_attrs[ARM], trial.user_attrs[ROUND], runs_of(trial)
        if trial.state is TrialState.COMPLETE and 0 in runs:
            arms.setdefault(arm, {})[number] = runs[0]
        elif trial.state is TrialState.FAIL:
            failed.setdefault(arm, {})[number] = str(trial.user_attrs.get(PROBLEM))
    return arms, failed


def questions_of(trial: FrozenTrial | None) -> set[str]:
    """The questions that a trial's runs asked, as far as they were scored."""
    runs = runs_of(trial).values() if trial else ()
    return {question for run in runs for samples in run.samples.values() for question in samples}


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
        smallest_gain: the smallest gain worth having.
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
    smallest_gain: float
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
