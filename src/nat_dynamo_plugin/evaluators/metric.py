"""What a metric is, what a user can choose of it, and how samples become a score.

One rule for all metrics: a question yields samples (one a call, or one in all), the question's score is the
statistic over its own samples, and the evaluator's `average_score` is the same statistic over the samples
of **all** questions. So `p95` of a per-call metric is the 95th percentile of the calls, not a percentile of
percentiles.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from nat.data_models.evaluator import EvaluatorBaseConfig
from pydantic import ConfigDict, Field, model_validator

from nat_dynamo_plugin.evaluators.records import Question
from nat_dynamo_plugin.nearest import refuse_unknown_fields
from nat_dynamo_plugin.telemetry.record import CallRecord

Statistic = Literal["mean", "p50", "p95"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One observation: `amount` out of `of`. Its value is their ratio; a mean weighs it with `of`.

    A plain number is out of 1. Shares keep both counts, so that their mean is the share of the whole.
    """

    amount: float
    of: float = 1.0

    @property
    def value(self) -> float:
        """`amount` divided by `of`."""
        return self.amount / self.of


class Metric(ABC):
    """One figure about how a question was served."""

    unit: ClassVar[str]
    """`share` (0 to 1), `ms`, `s` or `USD`."""

    better: ClassVar[Literal["higher", "lower"]]
    """Direction of improvement: `maximize` or `minimize` in the optimizer's `eval_metrics`."""

    meaning: str
    """The figure in a few words, for tables."""

    needs: str
    """What a question must have to be scored, as in "no call has ..."."""

    @abstractmethod
    def samples(self, question: Question) -> list[Sample]:
        """The question's observations; empty when it has no usable data. Failed calls give none."""

    def covered(self, question: Question) -> tuple[int, int]:
        """How many of the question's answered LLM calls went into its samples, and how many should have.

        Both 0 for what is measured of a question as a whole.
        """
        return 0, 0

    def suited(self, questions: Sequence[Question]) -> Metric:
        """The metric as it is computed over these questions, for one that depends on what is known of them."""
        return self

    def details(self, question: Question) -> dict[str, Any]:
        """Further JSON-ready figures for the question's reasoning."""
        return {}


class CallMetric(Metric):
    """A metric with one sample an answered call."""

    @abstractmethod
    def sample(self, call: CallRecord) -> Sample | None:
        """What a call says; `None` if it says nothing."""

    def samples(self, question: Question) -> list[Sample]:
        """One a call that a server answered and that says something; hits of the response cache are none."""
        return [sample for call in question.served_calls if (sample := self.sample(call)) is not None]

    def covered(self, question: Question) -> tuple[int, int]:
        """Calls that a server answered with a sample, and all of them."""
        return len(self.samples(question)), len(question.served_calls)


class DynamoMetricConfig(EvaluatorBaseConfig, ABC):
    """What every Dynamo metric lets a user choose."""

    # Built on first use, for every `nat` command imports this module.
    model_config = ConfigDict(extra="forbid", defer_build=True)

    statistic: Statistic = Field(
        default="mean",
        description="What is reported of the samples: their mean, median (p50) or 95th percentile (p95).",
    )
    min_coverage: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Share of the questions that must have a score, and of their answered LLM calls that must have "
        "gone into it; failed questions do not count, unless `strict`. Below it there is no average, which the "
        "optimizer counts as a failed trial, so that answers without data never pass for good ones.",
    )
    strict: bool = Field(
        default=False,
        description="Score a question only if it made LLM calls, none failed, and all came back with Dynamo's data. "
        "For tuning, together with `min_coverage: 1`: a server that fails early must not pass for a fast one.",
    )

    @abstractmethod
    def metric(self) -> Metric:
        """The metric that the evaluator of this config computes."""

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_field(cls, values: Any) -> Any:
        refuse_unknown_fields(values, cls.model_fields, "this evaluator")
        return values


def aggregate(samples: Sequence[Sample], statistic: Statistic) -> float | None:
    """The statistic over the samples, or `None` without samples.

    `mean` is the sum of amounts over the sum of what they are out of. `p50` and `p95` are percentiles of
    the values, unweighted, linearly interpolated between neighbours (numpy's default). The result lies
    between the smallest and the largest value and does not depend on the order.
    """
    if not samples:
        return None
    import numpy as np

    values = [sample.value for sample in samples]
    if statistic == "mean":
        result = math.fsum(sample.amount for sample in samples) / math.fsum(sample.of for sample in samples)
    else:
        result = float(np.percentile(values, {"p50": 50, "p95": 95}[statistic]))
    # Rounding in the last place must not carry a share beyond 1.
    return min(max(result, min(values)), max(values))
