"""Score a dataset with a metric. Imported when an evaluation runs: it needs NAT's evaluation package."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from nat.data_models.evaluator import EvalInputItem
from nat.plugins.eval.data_models.evaluator_io import EvalOutput, EvalOutputItem
from pydantic import BaseModel, Field

from nat_dynamo_plugin.evaluators.failures import Failure, count, failure_of, told
from nat_dynamo_plugin.evaluators.metric import DynamoMetricConfig, Metric, Sample, aggregate
from nat_dynamo_plugin.evaluators.records import Question, QuestionFigures

logger = logging.getLogger(__name__)


class MetricSummary(BaseModel):
    """How to read an evaluator's `average_score`."""

    type: str = Field(description="Registered name of the evaluator.")
    unit: str
    better: str = Field(description="'higher' or 'lower'.")
    statistic: str
    meaning: str
    questions: int
    scored_questions: int
    samples: int = Field(description="Observations that went into the average.")
    calls: int = Field(
        default=0, description="Answered LLM calls of the questions that did not fail; 0: it is measured of no calls."
    )
    covered_calls: int = Field(default=0, description="Those of them that have what is measured.")
    cache_hits: int = Field(
        default=0, description="LLM calls answered from the response cache; they are in no average of this package."
    )
    failures: dict[str, int] = Field(
        default_factory=dict, description="Questions that failed or were cut, by kind; they are in no average."
    )
    problem: str | None = Field(default=None, description="Why there is no average, or what it leaves out.")


class NoAverage(float):
    """Stands where there is no average: null in files, `-` in tables, and for arithmetic NaN.

    NaN on purpose: NAT turns a failing item into a score of 0, which is the best latency there is, and an evaluator
    that raises or gives `None` aborts a whole `nat optimize`. Optuna marks a NaN trial as failed and goes on.
    """

    def __new__(cls) -> NoAverage:
        return super().__new__(cls, math.nan)

    def __reduce__(self) -> tuple[type[NoAverage], tuple[()]]:
        return NoAverage, ()  # Optuna copies the values of its trials

    def __format__(self, spec: str) -> str:
        return "-"

    def __repr__(self) -> str:
        return "-"


class MetricOutput(EvalOutput):
    """NAT's `EvalOutput` with the summary beside it; NAT writes both to `<evaluator>_output.json`.

    `average_score` is a `NoAverage` (null in the file) when too few questions could be scored.
    """

    metric: MetricSummary


@dataclass(slots=True)
class _Tally:
    """What the questions of a dataset come to."""

    items: list[EvalOutputItem] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    covered_calls: int = 0
    calls: int = 0
    cache_hits: int = 0
    left_out: int = 0
    """Questions without a score because of the cache."""

    def add(self, metric: Metric, config: DynamoMetricConfig, question: Question, failure: Failure | None) -> None:
        if failure is not None:
            self.failures.append(failure)
        flaw = _flaw(config, question, failure)
        samples = [] if flaw else metric.samples(question)
        if failure is None:
            covered, calls = metric.covered(question)
            self.covered_calls += covered
            self.calls += calls
            self.cache_hits += question.cache_hits
            self.left_out += bool(question.cache_hits and not samples)
        self.samples.extend(samples)
        self.items.append(_scored(metric, config, question, samples, flaw))

    @property
    def with_score(self) -> int:
        return sum(item.score is not None for item in self.items)

    def is_covered(self, config: DynamoMetricConfig) -> bool:
        """Whether enough of the questions and of their calls have gone into the average."""
        # Failures are counted beside the average, not in it; who tunes wants none of them (`strict`).
        expected = len(self.items) if config.strict else len(self.items) - len(self.failures)
        expected -= self.left_out
        share = config.min_coverage
        return self.with_score >= share * expected and self.covered_calls >= share * self.calls

    def problem(self, by_kind: dict[str, int]) -> str | None:
        """What the average leaves out."""
        problems = []
        if self.with_score < len(self.items) or not self.items:
            example = next((item.error for item in self.items if item.error), "the dataset is empty")
            failed = f"; {told(by_kind, len(self.items))}" if by_kind else ""
            problems.append(
                f"{self.with_score} of {len(self.items)} questions have a score{failed} (the first without: {example})"
            )
        if self.covered_calls < self.calls:
            problems.append(f"{self.covered_calls:,} of {self.calls:,} answered LLM calls have data")
        if self.cache_hits:
            problems.append(f"{self.cache_hits:,} LLM calls came from the response cache and are left out")
        return "; ".join(problems) or None


def evaluate(metric: Metric, config: DynamoMetricConfig, items: Iterable[EvalInputItem]) -> MetricOutput:
    """Score every question and the dataset as a whole.

    A question that failed or has no usable data has the score `None`, an `error`, and no part in the average.
    """
    asked = [(item, Question.from_trajectory(item.id, item.trajectory)) for item in items]
    metric = metric.suited([question for _, question in asked])
    tally = _Tally()
    for item, question in asked:
        tally.add(metric, config, question, failure_of(item.output_obj, question))
    by_kind = count(tally.failures)
    average = aggregate(tally.samples, config.statistic)
    problem = tally.problem(by_kind)
    if average is None or not tally.is_covered(config):
        problem = f"no average: {problem}; min_coverage is {config.min_coverage:g}"
        average = NoAverage()
    if problem:
        logger.log(logging.ERROR if math.isnan(average) else logging.WARNING, "Evaluator %s: %s", config.type, problem)
    summary = MetricSummary(
        type=config.type,
        unit=metric.unit,
        better=metric.better,
        statistic=config.statistic,
        meaning=metric.meaning,
        questions=len(tally.items),
        scored_questions=tally.with_score,
        samples=len(tally.samples),
        calls=tally.calls,
        covered_calls=tally.covered_calls,
        cache_hits=tally.cache_hits,
        failures=by_kind,
        problem=problem,
    )
    return MetricOutput(average_score=average, eval_output_items=tally.items, metric=summary)


def _flaw(config: DynamoMetricConfig, question: Question, failure: Failure | None) -> str | None:
    """Why a question is left out whatever its data are, or `None`."""
    flaw = question.flaw if config.strict else None
    if flaw is None and failure is not None:
        flaw = f"question {question.id!r} failed ({failure.kind}): {failure.error}"
    return flaw


def _scored(
    metric: Metric, config: DynamoMetricConfig, question: Question, samples: list[Sample], flaw: str | None
) -> EvalOutputItem:
    """One question's score, or why it has none."""
    score = aggregate(samples, config.statistic)
    figures = QuestionFigures.of(question)
    reasoning = {
        "statistic": config.statistic,
        "unit": metric.unit,
        "samples": len(samples),
        **figures.to_dict(),
        **metric.details(question),
    }
    error = None
    if score is None:
        error = flaw or (
            f"question {question.id!r} has {metric.needs}; of its {figures.calls} LLM calls "
            f"{figures.failed_calls} failed and {figures.calls_without_dynamo_data} came back without Dynamo data"
        )
        reasoning["no_score_because"] = error
    return EvalOutputItem(id=question.id, score=score, reasoning=reasoning, error=error)
