"""`dynamo_worker_stickiness`: whether the calls of one question stay on one worker."""

from __future__ import annotations

from typing import ClassVar, Literal

from nat_dynamo_plugin.evaluators.metric import DynamoMetricConfig, Metric, Sample
from nat_dynamo_plugin.evaluators.records import Question, QuestionFigures


class WorkerStickiness(Metric):
    """Counts the decode worker that Dynamo names in `nvext.worker_id`."""

    unit: ClassVar[str] = "share"
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    meaning = "question's calls on its main worker"
    needs = "no answered call that names its worker"

    def samples(self, question: Question) -> list[Sample]:
        """One a question: calls on the most used worker over calls whose worker is known."""
        workers = QuestionFigures.of(question).workers
        return [Sample(max(workers.values()) / sum(workers.values()))] if workers else []

    def covered(self, question: Question) -> tuple[int, int]:
        """Answered calls that name their worker, and all of them."""
        return sum(QuestionFigures.of(question).workers.values()), len(question.served_calls)


class WorkerStickinessConfig(DynamoMetricConfig, name="dynamo_worker_stickiness"):  # type: ignore[call-arg]
    """Share of a question's calls that its most used worker answered, 0 to 1; higher means stickier.

    All statistics are over questions, each with equal weight. A question with one call scores 1 by nature;
    n calls spread evenly over w workers score about 1/w.
    """

    def metric(self) -> WorkerStickiness:
        """The metric of this config."""
        return WorkerStickiness()
