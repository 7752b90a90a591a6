"""DynamoSweep: searches, measures the finalists again, and says what can be said. What `nat optimize` runs."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Literal, cast

import click
import numpy as np
import optuna
from nat.data_models.config import Config
from nat.data_models.optimizable import SearchSpace
from nat.data_models.optimizer import OptimizerConfig, OptimizerRunConfig
from nat.plugins.config_optimizer.parameters.base import BaseParameterOptimizer
from nat.plugins.config_optimizer.update_helpers import apply_suggestions
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState
from pydantic import BaseModel

from nat_dynamo_plugin.sweep.config import PLANNED_SAMPLERS, DynamoSweepConfig
from nat_dynamo_plugin.sweep.identity import fingerprint
from nat_dynamo_plugin.sweep.importance import importance
from nat_dynamo_plugin.sweep.objectives import objectives_of
from nat_dynamo_plugin.sweep.output import write_results
from nat_dynamo_plugin.sweep.progress import SweepProgress
from nat_dynamo_plugin.sweep.redaction import Redaction
from nat_dynamo_plugin.sweep.results import (
    ARM,
    ROUND,
    RUN,
    SweepResult,
    finalists,
    judge,
    means,
    runs_of,
    trial_rows,
)
from nat_dynamo_plugin.sweep.run import Partial, RunFailed, RunResult, Stopped, dynamo_metrics, run_once
from nat_dynamo_plugin.sweep.space import TunedSpace, Values, short_names
from nat_dynamo_plugin.sweep.statement import verdict_text
from nat_dynamo_plugin.sweep.study import INDEX, PROBLEM, Planned, Queue, Storage
from nat_dynamo_plugin.sweep.terminal import ctrl_c, quiet
from nat_dynamo_plugin.sweep.verdict import partial_ratio, weighted_gain
from nat_dynamo_plugin.sweep.workload import measured_on
from nat_dynamo_plugin.sweep.yaml_output import raw_config, with_values

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_CHECKS = 4
"""How often a repetition asks whether to go on: at each quarter of its questions."""
_NOT_HOPELESS = 0.25
"""A trial that loses less than this against the current config is never stopped early: the machine may have slowed."""


class SweepError(RuntimeError):
    """A sweep that can not go on; the message says why."""


@dataclass(slots=True)
class _Live:
    """A trial that this process is measuring."""

    trial: optuna.Trial
    index: int
    values: Values
    runs: dict[int, RunResult] = field(default_factory=dict)
    over: bool = False


class DynamoSweep(BaseParameterOptimizer):
    """Runs one sweep.

    Args:
        config: `optimizer.numeric`.
        run_one: what answers a config's questions; for tests.
    """

    def __init__(self, config: DynamoSweepConfig, *, run_one: Callable[..., Any] = run_once) -> None:
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
        job = _Job(self._config, base_cfg, full_space, optimizer_config, opt_run_config, self._run_one)
        with quiet():
            result = await job.run()
        tuned = job.candidate(result.chosen)
        return tuned, result.chosen, len(result.rows)


class _Job:
    """The state of one sweep in one process."""

    def __init__(
        self,
        config: DynamoSweepConfig,
        base: Config,
        full_space: Mapping[str, SearchSpace],
        optimizer: OptimizerConfig,
        options: OptimizerRunConfig,
        run_one: Callable[..., Any],
    ) -> None:
        self.config = config
        self.base = base
        self.options = options
        self.optimizer = optimizer
        self.run_one = run_one
        self.file = None if isinstance(options.config_file, BaseModel) else Path(options.config_file)
        self.objectives = objectives_of(base, optimizer)
        self.space = TunedSpace(base, {**full_space, **config.search_space})
        self.names = short_names(list(self.space.current))
        self.reps = max(1, optimizer.reps_per_param_set)
        self.out = optimizer.output_path or base.eval.general.output_dir / "sweep"
        self.single = len(self.objectives) == 1
        self.weighted = not self.single and config.objective == "weighted"
        if optimizer.target is not None and not (self.single or self.weighted):
            raise ValueError("optimizer.target needs one metric, or objective: weighted (the target is then a gain)")
        self.directions = ["maximize"] if self.weighted else [objective.direction for objective in self.objectives]
        self.can_stop_early = len(dynamo_metrics(base, self.objectives)) == len(self.objectives) and (
            self.single or self.weighted
        )
        self.redact = Redaction(base)
        self.started = monotonic()
        self.run_seconds: list[float] = []

    # ---------------------------------------------------------------- the whole

    async def run(self) -> SweepResult:
        plan = self.plan()
        self.out.mkdir(parents=True, exist_ok=True)
        storage = Storage(
            self.config.storage or f"sqlite:///{(self.out / 'study.db').absolute()}",
            lost_after_s=self.config.lost_after_s,
        )
        measured = self.fingerprint()
        name = self.config.study_name or f"dynamo-sweep-{measured}"
        interrupted = by_signal = False
        finals_queue: Queue | None = None
        chosen: list[int] = []
        try:
            queue = Queue(
                storage,
                name,
                self.directions,
                self.space.distributions,
                pruner=self.pruner(),
                sampler_of=self.sampler_of(),
            )
            queue.check_belongs(measured)
            queue.retry_failed(0)
            queue.fill(plan)
            with SweepProgress(self, queue) as progress, ctrl_c() as signalled:
                try:
                    await self.search(queue, progress)
                    rows = trial_rows(queue, self.objectives)
                    chosen = finalists(rows, self.config.finalists)
                    if chosen and self.config.final_rounds:
                        finals_queue = self.finals(storage, name, chosen)
                        await self.prove(finals_queue, queue, progress)
                except asyncio.CancelledError:
                    # What is there is reported; the rest can be done by starting again.
                    interrupted, by_signal = True, signalled.is_set()
            result = self.result(queue, finals_queue, chosen, storage, interrupted)
            write_results(result, self.out, self.base, self.file, self.names)
        finally:
            storage.close()
        if by_signal:
            raise click.Abort  # what the command line makes of Ctrl-C
        if interrupted:
            raise asyncio.CancelledError
        return result

    def plan(self) -> list[Planned]:
        if self.config.sampler in PLANNED_SAMPLERS:
            sampler = cast(Literal["qmc", "random", "grid"], self.config.sampler)
            plan = self.space.plan(sampler, self.config.n_trials, self.config.seed)
            for values in plan:
                self.candidate(values)  # a value that the config refuses is better found now
            return [Planned(values) for values in plan]
        self.candidate(self.space.current)
        return [Planned(self.space.current), *(Planned({}) for _ in range(self.config.n_trials - 1))]

    def candidate(self, values: Values) -> Config:
        """The config with these values: read from the user's file as it will be read again, nothing else changed."""
        if self.file is None:
            return cast(Config, apply_suggestions(self.base, values))
        try:
            return Config.model_validate(with_values(raw_config(self.file), self.base, values))
        except ValueError as error:
            # Pydantic shows input values, keys among them.
            raise ValueError(f"search_space: the config refuses {values}: {self.redact(str(error))}") from None

    def fingerprint(self) -> str:
        parts = {
            "current": self.space.current,
            "space": {path: str(dist) for path, dist in self.space.distributions.items()},
            "objectives": [str(objective) for objective in self.objectives],
            "sampler": [self.config.sampler, self.config.seed, self.config.objective],
            "reps": self.reps,
        }
        return fingerprint(self.file, parts)

    def pruner(self) -> optuna.pruners.BasePruner:
        if not self.can_stop_early or self.config.pruner == "none":
            return optuna.pruners.NopPruner()
        share = {"percentile": 75.0, "median": 50.0}[self.config.pruner]
        return optuna.pruners.PercentilePruner(share, n_startup_trials=4)

    def sampler_of(self) -> Callable[[int], optuna.samplers.BaseSampler] | None:
        kind, seed = self.config.sampler, self.config.seed
        if kind in PLANNED_SAMPLERS:
            return None

        def sampler(index: int) -> optuna.samplers.BaseSampler:
            # A seed for each index, so that whoever takes a trial, however often restarted, draws the same.
            own = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
            if kind == "nsga2":
                return optuna.samplers.NSGAIISampler(seed=own)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return optuna.samplers.TPESampler(seed=own, multivariate=True, constant_liar=True)

        return sampler

    # ---------------------------------------------------------------- the search

    async def search(self, queue: Queue, progress: SweepProgress) -> None:
        pending: list[_Live] = []
        try:
            await self.search_with(queue, pending, progress)
        finally:
            for live in pending:
                if not live.over:
                    queue.give_back(live.trial)

    async def search_with(self, queue: Queue, pending: list[_Live], progress: SweepProgress) -> None:
        """Measure what is waiting; `pending` holds trials that are measured but can not be scored yet."""
        while True:
            self.need_baseline(queue)
            for measured in list(pending):
                if await self.finish(queue, measured, progress):
                    pending.remove(measured)
            if self.enough(queue):
                return
            block = [live for _ in range(self.config.block) if (live := self.take(queue)) is not None]
            if block:
                pending += await self.measure_block(queue, block, progress)
            elif queue.busy():
                await asyncio.sleep(_POLL_S)  # another process has the last ones, or leaves them to us
            else:
                return

    def take(self, queue: Queue) -> _Live | None:
        trial = queue.take()
        if trial is None:
            return None
        frozen = trial.user_attrs
        return _Live(
            trial,
            frozen[INDEX],
            {path: trial.params[path] for path in self.space.distributions},
            {int(k.removeprefix(RUN)): RunResult.from_dict(v) for k, v in frozen.items() if k.startswith(RUN)},
        )

    def enough(self, queue: Queue) -> bool:
        """Whether the time is up but for the finals, or the target is reached."""
        if self.config.time_budget_s is not None and self.run_seconds:
            mean = sum(self.run_seconds) / len(self.run_seconds) / self.config.parallel
            finals = (self.config.finalists + 1) * self.config.final_rounds * mean
            block = self.config.block * self.reps * mean
            if monotonic() - self.started + block + finals > self.config.time_budget_s:
                logger.info("The time budget is used up; what is left can be done by starting again")
                return True
        target = self.optimizer.target
        if target is not None:
            done = [t.values[0] for t in queue.trials().values() if t.state is TrialState.COMPLETE and t.values]
            minimize = self.directions[0] == "minimize"
            if done and (min(done) <= target if minimize else max(done) >= target):
                return True
        return False

    async def measure_block(self, queue: Queue, block: list[_Live], progress: SweepProgress) -> list[_Live]:
        """Measure trials together and finish them; returns those that can not be scored yet."""
        rng = np.random.default_rng([self.config.seed, block[0].index])
        try:
            for rep in range(self.reps):
                order = [block[k] for k in rng.permutation(len(block))]
                due = [live for live in order if not live.over and rep not in live.runs]
                await self.several([self.measure(queue, live, rep, progress) for live in due])
            # The current config first: others may be scored by it.
            measured = sorted((live for live in block if not live.over), key=lambda live: live.index)
            return [live for live in measured if not await self.finish(queue, live, progress)]
        except BaseException:
            for live in block:
                if not live.over:
                    queue.give_back(live.trial)
            raise

    async def several(self, work: list[Any]) -> None:
        """Do work in its order, `parallel` pieces at a time; the first error ends the rest."""
        if self.config.parallel == 1:
            for k, piece in enumerate(work):
                try:
                    await piece
                except BaseException:
                    for rest in work[k + 1 :]:
                        rest.close()
                    raise
            return
        semaphore = asyncio.Semaphore(self.config.parallel)

        async def one(piece: Any) -> None:
            async with semaphore:
                await piece

        tasks = [asyncio.create_task(one(piece)) for piece in work]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def measure(self, queue: Queue, live: _Live, rep: int, progress: SweepProgress) -> None:
        progress.begin(live.index, rep)
        try:
            result = await self.run_one(
                self.candidate(live.values),
                self.objectives,
                options=self.options,
                salt=f"{queue.name}-{live.index}-{rep}",
                max_failed_share=self.config.max_failed_share,
                partial=self.hopeless(queue, live, rep),
            )
        except Stopped:
            live.over = True
            queue.prune(live.trial)
            progress.end_trial(live.index, live.values, "stopped early")
            return
        except Exception as error:
            live.over = True
            problem = str(error) if isinstance(error, RunFailed) else f"{type(error).__name__}: {error}"
            problem = self.redact(problem)
            if not isinstance(error, RunFailed):
                logger.debug("Trial %d failed", live.index, exc_info=True)
            queue.fail(live.trial, problem)
            progress.end_trial(live.index, live.values, f"failed: {problem}")
            if live.index == 0:
                raise SweepError(f"The current config can not be measured: {problem}") from error
            return
        self.run_seconds.append(result.seconds)
        live.runs[rep] = result
        live.trial.set_user_attr(f"{RUN}{rep}", result.to_dict())
        progress.end_run()

    def hopeless(self, queue: Queue, live: _Live, rep: int) -> Partial | None:
        """Asks Optuna's pruner after each quarter of the questions, comparing on those that are done."""
        if not self.can_stop_early or self.config.pruner == "none" or live.index == 0:
            return None
        first = queue.get(0)
        theirs = runs_of(first) if first is not None else {}
        if rep not in theirs:
            return None
        baseline = theirs[rep].of(self.objectives)
        asked = 0

        def ask(samples: Sequence[Any], share: float) -> bool:
            nonlocal asked
            quarter = int(share * _CHECKS)
            if quarter <= asked or quarter == _CHECKS:
                return False
            asked = quarter
            gain = partial_ratio(self.objectives, samples, baseline)
            if gain is None:
                return False
            live.trial.report(self.signed(gain), rep * _CHECKS + quarter)
            return gain < -_NOT_HOPELESS and bool(live.trial.should_prune())

        return ask

    def signed(self, gain: float) -> float:
        """A gain in the direction of the study, as the pruner wants it."""
        return -gain if self.directions[0] == "minimize" else gain

    async def finish(self, queue: Queue, live: _Live, progress: SweepProgress) -> bool:
        """Tell a trial's values; false if it is scored by the current config's values and those are not there yet."""
        values = means(list(live.runs.values()), self.objectives)
        assert values is not None
        baseline = values if live.index == 0 else self.baseline_values(queue)
        if baseline is None and self.weighted:
            return False
        gain = None if baseline is None else weighted_gain(self.objectives, values, baseline)
        if live.index == 0 and self.can_stop_early:
            for step in range(1, self.reps * _CHECKS):
                live.trial.report(0.0, step)
        queue.tell(live.trial, [gain] if self.weighted and gain is not None else values)
        live.over = True
        progress.end_trial(live.index, live.values, values, gain=gain)
        return True

    def baseline_values(self, queue: Queue) -> tuple[float, ...] | None:
        """The current config's values; `None` while they are still being measured."""
        trial = queue.get(0)
        if trial is None or trial.state is not TrialState.COMPLETE:
            return None
        return means(list(runs_of(trial).values()), self.objectives)

    def need_baseline(self, queue: Queue) -> None:
        """Give up if the current config could not be measured, here or in another process."""
        trial = queue.get(0)
        if trial is not None and trial.state is TrialState.FAIL:
            raise SweepError(f"The current config can not be measured: {trial.user_attrs.get(PROBLEM)}")

    # ---------------------------------------------------------------- the proof

    def finals(self, storage: Storage, name: str, chosen: list[int]) -> Queue:
        """A queue of fresh runs: in each round every finalist and the current config once, in random order."""
        arms = [0, *chosen]
        queue = Queue(
            storage,
            f"{name}-finals-{'-'.join(map(str, chosen))}",
            [objective.direction for objective in self.objectives],
            {ARM: CategoricalDistribution(arms)},
        )
        plan = []
        for number in range(self.config.final_rounds):
            order = np.random.default_rng([self.config.seed, 1, number]).permutation(len(arms))
            plan += [Planned({ARM: arms[k]}, {ARM: arms[k], ROUND: number}) for k in order]
        queue.fill(plan)
        return queue

    async def prove(self, finals: Queue, searched: Queue, progress: SweepProgress) -> None:
        configs = {index: dict(trial.params) for index, trial in searched.trials().items()}
        progress.begin_finals(finals)

        async def work() -> None:
            while True:
                trial = finals.take()
                if trial is None:
                    if not finals.busy():
                        return
                    await asyncio.sleep(_POLL_S)
                    continue
                attributes = trial.user_attrs
                progress.begin(attributes[ARM], attributes[ROUND], final=True)
                try:
                    result = await self.run_one(
                        self.candidate(configs[attributes[ARM]]),
                        self.objectives,
                        options=self.options,
                        salt=f"{finals.name}-{attributes[INDEX]}",
                        max_failed_share=self.config.max_failed_share,
                    )
                except Exception as error:
                    finals.fail(trial, self.redact(f"{type(error).__name__}: {error}"))
                    progress.end_run()
                    continue
                except BaseException:
                    finals.give_back(trial)
                    raise
                trial.set_user_attr(f"{RUN}0", result.to_dict())
                finals.tell(trial, [result.values[o.name] for o in self.objectives])
                progress.end_run()

        async with asyncio.TaskGroup() as group:
            for _ in range(self.config.parallel):
                group.create_task(work())

    # ---------------------------------------------------------------- the outcome

    def result(
        self, queue: Queue, finals_queue: Queue | None, chosen: list[int], storage: Storage, interrupted: bool
    ) -> SweepResult:
        rows = trial_rows(queue, self.objectives)
        chosen = chosen or finalists(rows, self.config.finalists)  # of a search that was interrupted, the best so far
        finals = judge(finals_queue, chosen, self.objectives, confidence=self.config.confidence, seed=self.config.seed)
        configs = {row.index: row.config for row in rows}
        values = dict(self.space.current)
        if finals.winner is not None:
            values = configs[finals.winner]
        elif not self.config.final_rounds and chosen and not interrupted:
            values = configs[chosen[0]]
        return SweepResult(
            study=queue.name,
            storage=storage.shown,
            objectives=self.objectives,
            current=self.space.current,
            rows=rows,
            finals=finals,
            chosen=values,
            proven=finals.winner is not None,
            verdict=verdict_text(rows, finals, self.config, interrupted, self.names, self.objectives),
            importance=importance(queue, self.objectives),
            interrupted=interrupted,
            seconds=monotonic() - self.started,
            measured_on=measured_on(self.base),
        )
