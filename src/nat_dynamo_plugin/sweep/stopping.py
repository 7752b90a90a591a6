"""When a trial is stopped before all its questions are done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna

from nat_dynamo_plugin.sweep.outcome import RunResult
from nat_dynamo_plugin.sweep.run import Partial
from nat_dynamo_plugin.sweep.task import Task
from nat_dynamo_plugin.sweep.verdict import partial_ratio

_CHECKS = 4
"""How often a repetition asks whether to go on: at each quarter of its questions."""
_NOT_HOPELESS = 0.25
"""A trial that loses less than this against the current config is never stopped early: the machine may have slowed."""
_KEPT_PERCENT = {"percentile": 75.0, "median": 50.0}


class Stopping:
    """Optuna's pruner, asked with gains against the current config on the questions that both have answered."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._on = task.can_stop_early and task.config.pruner != "none"

    def pruner(self) -> optuna.pruners.BasePruner:
        """The pruner of the study."""
        if not self._on:
            return optuna.pruners.NopPruner()
        return optuna.pruners.PercentilePruner(_KEPT_PERCENT[self._task.config.pruner], n_startup_trials=4)

    def report_current(self, trial: optuna.Trial) -> None:
        """Let the pruner know the current config, whose gain is nothing throughout."""
        if self._task.can_stop_early:
            for step in range(1, self._task.reps * _CHECKS):
                trial.report(0.0, step)

    def watch(self, trial: optuna.Trial, rep: int, current: RunResult | None) -> Partial | None:
        """What a trial's repetition is to ask after each question; `current` is the current config's same one."""
        if not self._on or current is None:
            return None
        baseline = current.of(self._task.objectives)
        asked = 0

        def is_hopeless(samples: Sequence[Any], share: float) -> bool:
            nonlocal asked
            quarter = int(share * _CHECKS)
            if quarter <= asked or quarter == _CHECKS:
                return False
            asked = quarter
            gain = partial_ratio(self._task.objectives, samples, baseline)
            if gain is None:
                return False
            # In the direction of the study, as the pruner wants it.
            trial.report(-gain if self._task.directions[0] == "minimize" else gain, rep * _CHECKS + quarter)
            return gain < -_NOT_HOPELESS and bool(trial.should_prune())

        return is_hopeless
