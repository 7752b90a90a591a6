"""What a sweep optimises, as the config says it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, cast

from nat.data_models.config import Config
from nat.data_models.optimizer import OptimizerConfig

from nat_dynamo_plugin.evaluators.metric import DynamoMetricConfig
from nat_dynamo_plugin.sweep.verdict import Objective

logger = logging.getLogger(__name__)


def objectives_of(config: Config, optimizer: OptimizerConfig) -> list[Objective]:
    """The objectives in `optimizer.eval_metrics`.

    Raises:
        ValueError: naming what is missing or wrong, and what there is.
    """
    if not optimizer.eval_metrics:
        raise ValueError("optimizer.eval_metrics is empty: name at least one evaluator, its direction and weight")
    objectives = []
    for name, metric in optimizer.eval_metrics.items():
        where = f"optimizer.eval_metrics.{name}"
        if metric.evaluator_name not in config.eval.evaluators:
            known = ", ".join(config.eval.evaluators) or "none"
            raise ValueError(f"{where}.evaluator_name={metric.evaluator_name!r}: eval.evaluators has {known}")
        if metric.direction not in ("minimize", "maximize"):
            raise ValueError(f"{where}.direction={metric.direction!r} is not allowed: use minimize or maximize")
        if metric.weight <= 0:
            raise ValueError(f"{where}.weight={metric.weight!r} is not allowed: use a number above 0")
        objective = Objective(name, metric.evaluator_name, cast(Any, metric.direction), metric.weight)
        ours = config.eval.evaluators[metric.evaluator_name]
        if isinstance(ours, DynamoMetricConfig):
            found = ours.metric()
            if (found.better == "higher") != (metric.direction == "maximize"):
                logger.warning("%s.direction=%r, but of %s %s is better", where, metric.direction, name, found.better)
            objective = replace(objective, statistic=ours.statistic, unit=found.unit, metric=found)
        objectives.append(objective)
    return objectives
