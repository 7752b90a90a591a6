"""DynamoSweepConfig: what a user writes under `optimizer.numeric` with `_type: dynamo_sweep`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from nat.data_models.optimizable import OptimizableField, SearchSpace
from nat.data_models.optimizer import OptimizerStrategyBaseConfig
from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from nat_dynamo_plugin.nearest import refuse_unknown_fields, shown
from nat_dynamo_plugin.sweep.limits import MIN_ROUNDS, MIN_TO_SPLIT

PLANNED_SAMPLERS = ("qmc", "random", "grid")
"""Samplers that do not look at results: the plan is made before the first trial, and a seed always gives the same."""


class DynamoSweepConfig(OptimizerStrategyBaseConfig, name="dynamo_sweep"):  # type: ignore[call-arg]
    """A search over hints, measured on isolated runs, whose winner has to beat the current config once more.

    What is tuned, by which metrics and how many repetitions a trial has is said where NAT's own optimizer says it:
    `optimizable_params` and `search_space` of the LLM, `optimizer.eval_metrics`, `optimizer.reps_per_param_set`,
    `optimizer.target` and `optimizer.output_path`.
    """

    model_config = ConfigDict(extra="forbid")

    # NAT asks no optimizer where it finds nothing to tune, and ends as if all were well. It looks here too, so that
    # this one is always asked, and can say what is wrong or tune by `search_space` alone.
    optimizable_params: ClassVar = ("search_space",)

    enabled: bool = Field(default=True, description="Run this optimizer.")
    n_trials: int = Field(default=15, ge=2, description="Configurations to try, the current one included; at least 2.")
    sampler: Literal["qmc", "random", "grid", "tpe", "nsga2"] = Field(
        default="qmc",
        description="Optuna's sampler. `qmc`, `random` and `grid` plan all trials beforehand: the same seed tries the "
        "same configurations in the same order. `tpe` and `nsga2` learn from results: the same seed tries the same "
        "configurations only as long as the measured results are the same, which they never quite are.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the sampler and of the order of runs.")
    search_space: dict[str, SearchSpace] = OptimizableField(
        default_factory=dict,
        space=SearchSpace(values=[""]),
        description="Further things to tune, by their path in the config, as in "
        "`llms.dynamo.local.session_affinity_mode: {values: [soft, hard]}`.",
    )
    objective: Literal["pareto", "weighted"] = Field(
        default="pareto",
        description="With several metrics: `pareto` searches for the whole set of trade-offs, `weighted` for the one "
        "with the largest weighted mean of relative gains. Finalists are ranked by that mean in both cases.",
    )
    block: int = Field(
        default=4,
        ge=1,
        description="Trials that are measured together: their repetitions run in rounds, each in a random order, so "
        "that a machine that slows down or warms up does so for all of them.",
    )
    parallel: int = Field(
        default=1,
        ge=1,
        description="Runs at the same time in this process. Each has a Dynamo of its own, but they share the machine "
        "and disturb each other's latencies.",
    )
    pruner: Literal["percentile", "median", "none"] = Field(
        default="percentile",
        description="Stop a hopeless trial before all its questions are done. `percentile` gives up the worst quarter, "
        "`median` the worse half. With `pareto` and several metrics, nothing is stopped: Optuna has no rule for that.",
    )
    finalists: int = Field(
        default=2, ge=1, description="Best trials that are measured again, against the current config."
    )
    final_rounds: int = Field(
        default=7,
        ge=0,
        description="Fresh repetitions of each finalist and of the current config, at least 3. There is no verdict "
        "before all are measured. More can be measured later; that is another verdict, and wants more evidence than "
        "the first. 0 leaves the best trial unproven.",
    )
    holdout: float = Field(
        default=0.5,
        ge=0.0,
        lt=1.0,
        description="Share of the dataset's questions that only the finals ask; the search asks the others. 0 lets "
        f"both ask all of them, as does a dataset of fewer than {MIN_TO_SPLIT}.",
    )
    confidence: float = Field(
        default=0.95,
        gt=0.5,
        lt=1.0,
        description="Confidence of all verdicts of a study together, over all finalists.",
    )
    smallest_gain: float = Field(
        default=0.05,
        gt=0.0,
        lt=1.0,
        description="The smallest gain worth having: if none of the finalists gains so much, that is a result, too; "
        "what the finals leave open is inconclusive.",
    )
    allow_cache: bool = Field(
        default=False,
        description="Run although an LLM has a response cache, whose answers take no time and are left out.",
    )
    max_failed_share: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="Share of the LLM calls of a run that may fail before the trial counts as failed.",
    )
    time_budget_s: float | None = Field(
        default=None,
        gt=0,
        description="Seconds after which no further trial is begun; the finals are kept free of it. The rest can be "
        "done by starting the sweep again.",
    )
    storage: str | None = Field(
        default=None,
        description="Where the study is kept: an SQLAlchemy URL, shared by all processes of a sweep. Default: "
        "`study.db`, an SQLite file, in `optimizer.output_path`. A password belongs into an environment variable: "
        "`postgresql://user:${DB_PASSWORD}@host/db`.",
    )
    study_name: str | None = Field(
        default=None,
        min_length=1,
        description="Default: made of what is measured, so that a sweep goes on where it was stopped, and another "
        "config starts another study.",
    )
    lost_after_s: float = Field(
        default=120.0,
        ge=10.0,
        description="Seconds without a sign of life after which a trial of a process on another machine is given to "
        "the others. A process that died on this machine is noticed at once.",
    )

    @field_validator("final_rounds")
    @classmethod
    def _enough_rounds(cls, value: int) -> int:
        if 0 < value < MIN_ROUNDS:
            raise PydanticCustomError(
                "too_few_rounds",
                f"a verdict needs {MIN_ROUNDS} rounds: use {MIN_ROUNDS} or more, or 0 to leave the best trial unproven",
            )
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_field(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        # NAT shows the messages of errors in `optimizer`, but not where they are.
        try:
            return handler(data)
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            if not wrong["loc"]:
                raise
            raise ValueError(f"{shown('.'.join(map(str, wrong['loc'])), wrong['input'])}: {wrong['msg']}") from None

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_field(cls, data: Any) -> Any:
        refuse_unknown_fields(data, cls.model_fields, "dynamo_sweep")
        return data
