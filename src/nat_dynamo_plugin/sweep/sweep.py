"""DynamoSweep: searches, measures the finalists again, and says what can be said. What `nat optimize` runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
from nat.data_models.config import Config
from nat.data_models.optimizable import SearchSpace
from nat.data_models.optimizer import OptimizerConfig, OptimizerRunConfig
from nat.plugins.config_optimizer.parameters.base import BaseParameterOptimizer

from nat_dynamo_plugin.sweep.config import DynamoSweepConfig
from nat_dynamo_plugin.sweep.importance import importance
from nat_dynamo_plugin.sweep.output import write_results
from nat_dynamo_plugin.sweep.progress import SweepProgress
from nat_dynamo_plugin.sweep.proof import final_queue, prove
from nat_dynamo_plugin.sweep.results import SweepResult, finalists, judge, trial_rows
from nat_dynamo_plugin.sweep.run import run_once
from nat_dynamo_plugin.sweep.runner import Runner, RunOne
from nat_dynamo_plugin.sweep.samplers import learning_sampler
from nat_dynamo_plugin.sweep.search import Search
from nat_dynamo_plugin.sweep.stopping import Stopping
from nat_dynamo_plugin.sweep.study import Queue, Storage
from nat_dynamo_plugin.sweep.task import Task
from nat_dynamo_plugin.sweep.terminal import ctrl_c, quiet
from nat_dynamo_plugin.sweep.workload import measured_on


class DynamoSweep(BaseParameterOptimizer):
    """Runs one sweep.

    Args:
        config: `optimizer.numeric`.
        run_one: what answers a config's questions; for tests.
    """

    def __init__(self, config: DynamoSweepConfig, *, run_one: RunOne = run_once) -> None:
        self._config = config
        self._run_one = run_one

    async def run(
        self,
        *,
        base_cfg: Config,
        full_space: Mapping[str, SearchSpace],
        optimizer_config: OptimizerConfig,
        opt_run_config: OptimizerRunConfig,
    ) -> tuple[Config, dict[str, Any], int]:
        """Search, prove, and write the results.

        Returns:
            The tuned config (the current one, if nothing beat it), the tuned values and the number of trials.

        Raises:
            ValueError: for settings that do not fit the config, naming them.
            SweepError: if the current config can not be measured.
        """
        task = Task(self._config, base_cfg, full_space, optimizer_config, opt_run_config)
        with quiet():
            result = await _sweep(task, Runner(task, self._run_one))
        return task.candidate(result.chosen), result.chosen, len(result.rows)


@dataclass(slots=True)
class _Measured:
    """How far a sweep came. With `finals`, `chosen` are their arms."""

    search: Queue
    chosen: list[int]
    finals: Queue | None = None
    interrupted: bool = False


async def _sweep(task: Task, runner: Runner) -> SweepResult:
    """Measure all that the study does not hold yet, and write what came of it, also of half a sweep.

    Raises:
        click.Abort: after Ctrl-C.
    """
    plan = task.plan()
    task.out.mkdir(parents=True, exist_ok=True)
    storage = Storage(
        task.config.storage or f"sqlite:///{(task.out / 'study.db').absolute()}",
        lost_after_s=task.config.lost_after_s,
    )
    try:
        stopping = Stopping(task)
        measured = task.fingerprint()
        queue = Queue(
            storage,
            task.config.study_name or f"dynamo-sweep-{measured}",
            task.directions,
            task.space.distributions,
            pruner=stopping.pruner(),
            sampler_of=learning_sampler(task.config.sampler, task.config.seed),
        )
        queue.check_belongs(measured)
        queue.retry_failed(0)
        queue.fill(plan)
        done = _Measured(queue, [])
        progress = SweepProgress(
            queue, names=task.names, objectives=task.objectives, reps=task.reps, final_runs=task.final_runs
        )
        with progress, ctrl_c() as signalled:
            try:
                await Search(task, queue, runner, stopping, progress).run()
                done.chosen = finalists(trial_rows(queue, task.objectives), task.config.finalists)
                if done.chosen and task.config.final_rounds:
                    done.finals = final_queue(storage, queue, task, done.chosen)
                    progress.begin_finals(done.finals)
                    configs = {index: dict(trial.params) for index, trial in queue.trials().items()}
                    await prove(task, done.finals, configs, runner, progress)
            except asyncio.CancelledError:
                # What is there is reported; the rest can be done by starting again.
                done.interrupted = True
        result = _result(task, done, storage.shown, runner.elapsed_s)
        write_results(result, task.out, task.base, task.file)
    finally:
        storage.close()
    if done.interrupted and signalled.is_set():
        raise click.Abort  # what the command line makes of Ctrl-C
    if done.interrupted:
        raise asyncio.CancelledError
    return result


def _result(task: Task, done: _Measured, storage: str, seconds: float) -> SweepResult:
    config, objectives = task.config, task.objectives
    rows = trial_rows(done.search, objectives)
    chosen = done.chosen or finalists(rows, config.finalists)  # of a search that was interrupted, the best so far
    finals = judge(done.finals, chosen, objectives, confidence=config.confidence, seed=config.seed)
    best = finals.winner
    if best is None and not config.final_rounds and chosen and not done.interrupted:
        best = chosen[0]
    return SweepResult(
        study=done.search.name,
        storage=storage,
        objectives=objectives,
        current=task.space.current,
        names=task.names,
        rows=rows,
        finals=finals,
        final_rounds=config.final_rounds,
        chosen=dict(task.space.current) if best is None else {row.index: row.config for row in rows}[best],
        importance=importance(done.search.study, rows),
        interrupted=done.interrupted,
        seconds=seconds,
        measured_on=measured_on(task.base),
    )
