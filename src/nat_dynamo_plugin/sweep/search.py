"""The search: takes trials from the study's queue, measures them in blocks, and tells Optuna their values."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import optuna
from optuna.trial import TrialState

from nat_dynamo_plugin.sweep.outcome import RunFailed, RunResult
from nat_dynamo_plugin.sweep.progress import SweepProgress
from nat_dynamo_plugin.sweep.results import RUN, means, runs_of
from nat_dynamo_plugin.sweep.run import Stopped
from nat_dynamo_plugin.sweep.runner import Runner, SweepError, at_once
from nat_dynamo_plugin.sweep.space import Values
from nat_dynamo_plugin.sweep.stopping import Stopping
from nat_dynamo_plugin.sweep.study import INDEX, POLL_S, PROBLEM, Queue
from nat_dynamo_plugin.sweep.task import Task
from nat_dynamo_plugin.sweep.verdict import weighted_gain

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Live:
    """A trial that this process has taken."""

    trial: optuna.Trial
    index: int
    values: Values
    runs: dict[int, RunResult]


class Search:
    """Measures what is waiting in a queue, until nothing is, the time is up or the target is reached."""

    def __init__(self, task: Task, queue: Queue, runner: Runner, stopping: Stopping, progress: SweepProgress) -> None:
        self._task = task
        self._queue = queue
        self._runner = runner
        self._stopping = stopping
        self._progress = progress
        self._live: list[_Live] = []
        """Taken and not finished: being measured, or measured but not to be scored yet."""

    async def run(self) -> None:
        """Search; what is not finished at the end goes back into the queue.

        Raises:
            SweepError: if the current config can not be measured.
            ServerDown: if it can not be measured any more.
        """
        try:
            while True:
                self._score()
                self._need_current()
                if self._is_enough():
                    return
                if block := self._take_block():
                    await self._measure(block)
                elif self._queue.busy():
                    await asyncio.sleep(POLL_S)  # another process has the last ones, or leaves them to us
                else:
                    return
        finally:
            for live in self._live:
                self._queue.give_back(live.trial)

    def _take_block(self) -> list[_Live]:
        block: list[_Live] = []
        while len(block) < self._task.config.block and (trial := self._queue.take()) is not None:
            values = {path: trial.params[path] for path in self._task.space.distributions}
            block.append(_Live(trial, trial.user_attrs[INDEX], values, runs_of(trial)))
            self._live.append(block[-1])
        return block

    async def _measure(self, block: Sequence[_Live]) -> None:
        """Measure trials together: their repetitions run in rounds, each in a random order."""
        rng = np.random.default_rng([self._task.config.seed, block[0].index])
        for rep in range(self._task.reps):
            order = [block[k] for k in rng.permutation(len(block))]
            due = [live for live in order if live in self._live and rep not in live.runs]
            await at_once(self._task.config.parallel, [partial(self._run, live, rep) for live in due])

    async def _run(self, live: _Live, rep: int) -> None:
        self._progress.begin(live.index, f"repetition {rep}" if self._task.reps > 1 else "search")
        try:
            watch = self._stopping.watch(live.trial, rep, self._current_run(rep)) if live.index else None
            result = await self._runner(live.values, f"{self._queue.name}-{live.index}-{rep}", watch)
        except Stopped:
            self._queue.prune(live.trial)
            self._end(live, "stopped early")
        except RunFailed as error:
            self._queue.fail(live.trial, str(error))
            self._end(live, f"failed: {error}")
            self._need_current()
        else:
            live.runs[rep] = result
            live.trial.set_user_attr(f"{RUN}{rep}", result.to_dict())
            self._progress.end_run()

    def _score(self) -> None:
        """Tell the values of what is measured; what is scored by the current config's values waits for them."""
        measured = [live for live in self._live if len(live.runs) == self._task.reps]
        # The current config first: others may be scored by it.
        for live in sorted(measured, key=lambda live: live.index):
            values = self._values(live.runs)
            current = values if live.index == 0 else self._current_values()
            gain = None if current is None else weighted_gain(self._task.objectives, values, current)
            if not self._task.weighted:
                told: Sequence[float] = values
            elif gain is not None:
                told = [gain]
            else:
                continue
            if live.index == 0:
                self._stopping.report_current(live.trial)
            self._queue.tell(live.trial, told)
            self._end(live, values, gain)

    def _end(self, live: _Live, outcome: str | Sequence[float], gain: float | None = None) -> None:
        self._live.remove(live)
        self._progress.end_trial(live.index, live.values, outcome, gain)

    def _values(self, runs: Mapping[int, RunResult]) -> tuple[float, ...]:
        return means(list(runs.values()), self._task.objectives)

    def _current_run(self, rep: int) -> RunResult | None:
        """A repetition of the current config, if it is done, in whatever process."""
        trial = self._queue.get(0)
        return None if trial is None else runs_of(trial).get(rep)

    def _current_values(self) -> tuple[float, ...] | None:
        """The current config's values; `None` while they are still being measured."""
        trial = self._queue.get(0)
        if trial is None or trial.state is not TrialState.COMPLETE:
            return None
        return self._values(runs_of(trial))

    def _need_current(self) -> None:
        """Give up if the current config could not be measured, here or in another process."""
        trial = self._queue.get(0)
        if trial is not None and trial.state is TrialState.FAIL:
            raise SweepError(f"The current config can not be measured: {trial.user_attrs.get(PROBLEM)}")

    def _is_enough(self) -> bool:
        """Whether the time is up but for the finals, or the target is reached."""
        config, mean_s = self._task.config, self._runner.mean_s
        if config.time_budget_s is not None and mean_s is not None:
            still_s = (config.block * self._task.reps + self._task.final_runs) * mean_s
            if self._runner.elapsed_s + still_s > config.time_budget_s:
                logger.info("The time budget is used up; what is left can be done by starting again")
                return True
        target = self._task.target
        if target is None:
            return False
        done = [t.values[0] for t in self._queue.trials().values() if t.state is TrialState.COMPLETE and t.values]
        sign = 1.0 if self._task.directions[0] == "minimize" else -1.0
        return any(sign * value <= sign * target for value in done)
