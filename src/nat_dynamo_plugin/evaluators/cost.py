"""`dynamo_cost`: what a question's calls cost."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from nat_dynamo_plugin.evaluators.metric import DynamoMetricConfig, Metric, Sample
from nat_dynamo_plugin.evaluators.records import Question, by_function


class Cost(Metric):
    """Adds up `cost_usd` of all calls of a question, failed ones that were billed included."""

    unit: ClassVar[str] = "USD"
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    meaning = "cost of a question"
    needs = "an answered call without a cost (is `cost:` in the LLM's config, and does a source know the model?)"

    def samples(self, question: Question) -> list[Sample]:
        """One; none if the cost of an answered call is not known, for a sum without it would be too low."""
        if not question.answered_calls or any(call.cost_usd is None for call in question.answered_calls):
            return []
        return [Sample(math.fsum(call.cost_usd or 0.0 for call in question.calls))]

    def covered(self, question: Question) -> tuple[int, int]:
        """Answered calls with a cost, and all of them."""
        answered = question.answered_calls
        return sum(call.cost_usd is not None for call in answered), len(answered)

    def details(self, question: Question) -> dict[str, Any]:
        """The question's cost by function."""
        return {"cost_by_function": by_function(question.calls)}


class CostConfig(DynamoMetricConfig, name="dynamo_cost"):  # type: ignore[call-arg]
    """Cost of a question in USD; lower is better. Needs `cost:` in the LLM's config.

    `mean` is the mean over questions, `p50` and `p95` are over questions too. Retries that were billed are in it; an
    answer out of the response cache costs 0.
    """

    def metric(self) -> Cost:
        """The metric of this config."""
        return Cost()
