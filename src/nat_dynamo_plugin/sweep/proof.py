"""The proof: in each round every finalist and the current config are measured once more, in random order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from nat_dynamo_plugin.sweep.interval import confidence_of_look
from nat_dynamo_plugin.sweep.outcome import RunFailed
from nat_dynamo_plugin.sweep.progress import SweepProgress
from nat_dynamo_plugin.sweep.results import ARM, ROUND, RUN, Look
from nat_dynamo_plugin.sweep.runner import Runner, at_once
from nat_dynamo_plugin.sweep.study import INDEX, POLL_S, Planned, Queue, Storage
from nat_dynamo_plugin.sweep.task import Task

_LOOKS = "verdicts"


def final_queue(storage: Storage, search: Queue, task: Task, chosen: Sequence[int]) -> Queue:
    """A queue of fresh runs of the current config and of the chosen trials of a search."""
    arms = [0, *chosen]
    queue = Queue(
        storage,
        f"{search.name}-finals-{'-'.join(map(str, chosen))}",
        [objective.direction for objective in task.objectives],
        {ARM: CategoricalDistribution(arms)},
    )
    plan = []
    for number in range(task.config.final_rounds):
        order = np.random.default_rng([task.config.seed, 1, number]).permutation(len(arms))
        plan += [Planned({ARM: arms[k]}, {ARM: arms[k], ROUND: number}) for k in order]
    queue.fill(plan)
    queue.retry_failed()
    return queue


def take_look(storage: Storage, search: Queue, queue: Queue | None, task: Task) -> Look | None:
    """Begin a verdict on the finals, if all their rounds are measured: the study remembers how many there were.

    Remembered with the search, for other finalists of the same study are another chance to be wrong, too. A verdict on
    as many rounds as an earlier one is that one, unless runs that had failed were taken up again since, and fewer
    rounds than that do not undo it.
    """
    rounds = task.config.final_rounds
    if queue is None or not rounds:
        return None
    with storage.exclusively():
        looks: list[list[Any]] = search.study.user_attrs.get(_LOOKS, [])
        rounds = max([rounds, *(known for name, known, _ in looks if name == queue.name)])
        trials = [trial for trial in queue.trials().values() if trial.user_attrs[ROUND] < rounds]
        if not trials or not all(trial.state.is_finished() for trial in trials):
            return None
        look = [queue.name, rounds, sum(trial.state is TrialState.FAIL for trial in trials)]
        if look not in looks:
            looks = [*looks, look]
            search.study.set_user_attr(_LOOKS, looks)
    number = 1 + looks.index(look)
    total = task.config.confidence
    return Look(rounds, number, confidence_of_look(total, number), confidence_of_look(total, 1 + len(looks)))


async def prove(task: Task, search: Queue, queue: Queue, runner: Runner, progress: SweepProgress) -> None:
    """Measure what is waiting in the finals of a search, beside other processes, until all is done."""
    configs = {index: dict(trial.params) for index, trial in search.trials().items()}
    progress.begin_finals(queue)

    async def work() -> None:
        while True:
            trial = queue.take()
            if trial is None:
                if not queue.busy():
                    return
                await asyncio.sleep(POLL_S)
                continue
            arm = trial.user_attrs[ARM]
            progress.begin(arm, f"finals, round {trial.user_attrs[ROUND]}")
            try:
                result = await runner(
                    configs[arm], f"{queue.name}-{trial.user_attrs[INDEX]}", final_round=trial.user_attrs[ROUND]
                )
            except RunFailed as error:
                queue.fail(trial, str(error))
            except BaseException:
                queue.give_back(trial)
                raise
            else:
                trial.set_user_attr(f"{RUN}0", result.to_dict())
                queue.tell(trial, [result.values[o.name] for o in task.objectives])
            progress.end_run()

    await at_once(task.config.parallel, [work] * task.config.parallel)
