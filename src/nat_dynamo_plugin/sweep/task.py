"""What a sweep is to do, as the config says it: nothing here changes while it runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal, cast

from nat.data_models.config import Config
from nat.data_models.optimizable import SearchSpace
from nat.data_models.optimizer import OptimizerConfig, OptimizerRunConfig

from nat_dynamo_plugin.discreet_logs import guard_logs
from nat_dynamo_plugin.secrets import remember_config
from nat_dynamo_plugin.sweep.config import PLANNED_SAMPLERS, DynamoSweepConfig
from nat_dynamo_plugin.sweep.objectives import objectives_of
from nat_dynamo_plugin.sweep.snapshot import Snapshot
from nat_dynamo_plugin.sweep.space import TunedSpace, check_tuned, short_names
from nat_dynamo_plugin.sweep.study import Planned
from nat_dynamo_plugin.sweep.unread import unread

logger = logging.getLogger(__name__)

_OWN_SPACE = "optimizer.numeric.search_space"


def refuse_cache(base: Config) -> None:
    """No answer of a response cache says how anybody serves.

    Raises:
        ValueError: an LLM has one.
    """
    for name, llm in base.llms.items():
        if getattr(llm, "cache", None) is not None:
            raise ValueError(
                f"llms.{name}.cache: a sweep would measure answers that are given again; take it out, or set "
                "optimizer.numeric.allow_cache: true"
            )


class Task:
    """A sweep's settings, checked against the config that it tunes.

    Attributes:
        config: `optimizer.numeric`.
        snapshot: the config to be tuned, as it was when the sweep began.
        options: of `nat optimize`.
        objectives: what is measured.
        space: what is tuned.
        names: a short name for each tuned path.
        reps: runs of each trial, at least 1.
        target: value of the first objective (with `weighted`: the gain) that ends the search.
        out: folder of the results.
        directions: Optuna's, one for each value that it is told of a trial.
        weighted: whether it is told the weighted gain of several objectives.
        unread: tuned paths that nothing reads, with the reason.
        can_stop_early: whether a run's samples can be compared before it is over.

    Raises:
        ValueError: for settings that do not fit the config, naming them.
    """

    def __init__(
        self,
        config: DynamoSweepConfig,
        base: Config,
        full_space: Mapping[str, SearchSpace],
        optimizer: OptimizerConfig,
        options: OptimizerRunConfig,
    ) -> None:
        self.config = config
        self.options = options
        guard_logs()
        remember_config(base)
        self.snapshot = Snapshot(base, options)
        check_tuned(base)
        if not config.allow_cache:
            refuse_cache(base)
        self.objectives = objectives_of(base, optimizer)
        found = {path: space for path, space in full_space.items() if path != _OWN_SPACE}
        self.space = TunedSpace(base, {**found, **config.search_space})
        self.names = short_names(list(self.space.current))
        self.reps = max(1, optimizer.reps_per_param_set)
        self.target = optimizer.target
        self.out = optimizer.output_path or base.eval.general.output_dir / "sweep"
        single = len(self.objectives) == 1
        self.weighted = not single and config.objective == "weighted"
        one_value = single or self.weighted
        if self.target is not None and not one_value:
            raise ValueError("optimizer.target needs one metric, or objective: weighted (the target is then a gain)")
        self.directions = ["maximize"] if self.weighted else [objective.direction for objective in self.objectives]
        self.can_stop_early = one_value and all(o.metric is not None for o in self.objectives)
        self.unread = unread(base, list(self.space.current))
        for path, why in self.unread.items():
            logger.warning("%s is tuned, but nothing reads it: %s", path, why)

    @property
    def final_runs(self) -> int:
        """Runs of the finals, at most."""
        return (self.config.finalists + 1) * self.config.final_rounds

    def plan(self) -> list[Planned]:
        """The trials, the current config first; of those that the sampler chooses later, the values are empty.

        Raises:
            ValueError: if the config refuses a planned value.
        """
        if self.config.sampler not in PLANNED_SAMPLERS:
            self.snapshot.candidate(self.space.current)
            return [Planned(self.space.current), *(Planned({}) for _ in range(self.config.n_trials - 1))]
        sampler = cast(Literal["qmc", "random", "grid"], self.config.sampler)
        plan = self.space.plan(sampler, self.config.n_trials, self.config.seed)
        for values in plan:
            self.snapshot.candidate(values)  # a value that the config refuses is better found now
        return [Planned(values) for values in plan]

    def fingerprint(self) -> str:
        """A short name of what is measured."""
        return self.snapshot.fingerprint(
            {
                "current": self.space.current,
                "space": {path: str(dist) for path, dist in self.space.distributions.items()},
                "objectives": [str(objective) for objective in self.objectives],
                "sampler": [self.config.sampler, self.config.seed, self.config.objective],
                "reps": self.reps,
            }
        )
