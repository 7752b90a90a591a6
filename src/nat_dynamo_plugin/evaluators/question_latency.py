"""`dynamo_question_latency`: how long one question took."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from nat_dynamo_plugin.evaluators.metric import DynamoMetricConfig, Metric, Sample
from nat_dynamo_plugin.evaluators.records import Question


class QuestionLatency(Metric):
    """Workflow start to end; a saved trajectory without workflow steps: first to last recorded step.

    The latter is a little too short. The reasoning's `measured_on` tells which it was.
    """

    unit: ClassVar[str] = "s"
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    meaning = "wall time of a question"
    needs = "no finished workflow in its trajectory, no LLM call, or failed calls"

    def samples(self, question: Question) -> list[Sample]:
        """One a question, in seconds; none if an LLM call failed, for that question was not answered.

        None either if no LLM was asked: a workflow that gave up before its first call is no fast one. Nor is one whose
        answers came out of the response cache.
        """
        if not question.asked_an_llm:
            return []
        if len(question.answered_calls) < len(question.calls):
            return []
        if question.cache_hits:
            return []
        if question.started_at is None or question.ended_at is None:
            return []
        return [Sample(question.ended_at - question.started_at)]

    def details(self, question: Question) -> dict[str, Any]:
        """What the time spans."""
        return {"measured_on": question.measured_on}


class QuestionLatencyConfig(DynamoMetricConfig, name="dynamo_question_latency"):  # type: ignore[call-arg]
    """Wall time of a question in seconds: its LLM calls, its tools and the waiting between; lower is better.

    From the workflow's start to its end. Waiting for `max_concurrency` comes before the start and does not
    count, unless questions arrive by a schedule (`dynamo_open_loop`): then the time counts from the arrival.
    All statistics are over questions. It needs no Dynamo data, but an LLM call, be it through another client:
    a question without any has no latency.
    """

    def metric(self) -> QuestionLatency:
        """The metric of this config."""
        return QuestionLatency()
