"""DynamoSweep: searches, measures the finalists again, and says what can be said. What `nat optimize` runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
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
from nat_dynamo_plugin.sweep.proof import final_queue, prove, take_look
from nat_dynamo_plugin.sweep.results import Look, SweepResult, finalists, judge, questions_of, trial_rows
from nat_dynamo_plugin.sweep.run import run_once
from nat_dynamo_plugin.sweep.runner import Runner, RunOne, ServerDown
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
        return task.snapshot.candidate(result.chosen), result.chosen, len(result.rows)


async def _sweep(task: Task, runner: Runner) -> SweepResult:
    """Measure all that the study does not hold yet, and write what came of it, also of half a sweep.

    Raises:
        click.Abort: after Ctrl-C.
        ServerDown: if the current config can not be measured any more.
    """
    plan = task.plan()
    task.out.mkdir(parents=True, exist_ok=True)
    url = task.config.storage or f"sqlite:///{(task.out / 'study.db').absolute()}"
    storage = Storage(url, lost_after_s=task.config.lost_after_s)
    try:
        stopping = Stopping(task)
        queue = _search_queue(task, storage, stopping)
        queue.fill(plan, leave_rest=True)
        queue.retry_failed()
        finals: Queue | None = None
        chosen: list[int] = []
        stopped: BaseException | None = None
        with SweepProgress(queue, task.names, task.objectives, task.reps, task.final_runs) as progress, ctrl_c() as hit:
            try:
                await Search(task, queue, runner, stopping, progress).run()
                chosen = finalists(trial_rows(queue, task.objectives), task.config.finalists)
                if chosen and task.config.final_rounds:
                    finals = final_queue(storage, queue, task, chosen)
                    await prove(task, queue, finals, runner, progress)
            except (asyncio.CancelledError, ServerDown) as error:
                # What is there is reported; the rest can be done by starting again.
                stopped = error
        look = take_look(storage, queue, finals, task)
        result = _result(task, queue, finals, look, chosen, stopped is not None)
        result.storage, result.seconds = storage.shown, runner.elapsed_s
        write_results(result, task.out, task.snapshot)
    finally:
        storage.close()
    if hit.is_set():
        raise click.Abort  # the command line's Ctrl-C
    if stopped is not None:
        raise stopped
    return result


def _search_queue(task: Task, storage: Storage, stopping: Stopping) -> Queue:
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
    return queue


def _result(
    task: Task, queue: Queue, final: Queue | None, look: Look | None, chosen: list[int], interrupted: bool
) -> SweepResult:
    config = task.config
    rows = trial_rows(queue, task.objectives)
    chosen = chosen or finalists(rows, config.finalists)  # of a search that was interrupted, the best so far
    finals = judge(
        final,
        chosen,
        task.objectives,
        look=look,
        seen=questions_of(queue.get(0)),
        smallest_gain=config.smallest_gain,
    )
    best = finals.winner
    if best is None and not config.final_rounds and chosen and not interrupted:
        best = chosen[0]
    return SweepResult(
        study=queue.name,
        objectives=task.objectives,
        current=task.space.current,
        names=task.names,
        rows=rows,
        finals=finals,
        final_rounds=config.final_rounds,
        smallest_gain=config.smallest_gain,
        chosen=dict(task.space.current) if best is None else rows[best].config,
        importance=importance(queue, rows) if finals.winner is not None else {},
        interrupted=interrupted,
        measured_on=measured_on(task.snapshot.base, task.options, task.unread),
    )
