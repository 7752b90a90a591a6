"""What one run came to, as data: read from what NAT's evaluation gives, and kept in the study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nat.data_models.evaluate_runtime import EvaluationRunOutput

from nat_dynamo_plugin.evaluators.failures import FailedAnswer
from nat_dynamo_plugin.evaluators.metric import Metric, Sample
from nat_dynamo_plugin.evaluators.records import Question, is_failed
from nat_dynamo_plugin.sweep.verdict import Objective
from nat_dynamo_plugin.telemetry.kinds import Kind, kind_of

Pairs = dict[str, list[tuple[float, float]]]
"""Samples by question, as pairs of an amount and what it is out of."""


OUTAGES = frozenset(
    {
        *(Kind.UNREACHABLE, Kind.CONNECT_TIMEOUT, Kind.BROKEN_OFF, Kind.CIRCUIT_OPEN),
        *(Kind.NOT_READY, Kind.WORKER_LOST, Kind.OVERLOAD),
    }
)
"""Failures that come of the server's state, and may be gone at the next try."""


class RunFailed(Exception):
    """A run that says nothing about its config; the message says why.

    Attributes:
        transient: whether the server was the cause, so that it may work at the next try.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


@dataclass(slots=True)
class RunResult:
    """What one run came to.

    Attributes:
        values: of each objective, by name.
        samples: of each objective, by name.
        calls: LLM calls that the clients made.
        server_calls: LLM calls that the embedded Dynamos counted; `None` without one.
        seconds: the whole run, start of Dynamo included.
        others: scores of this package's evaluators that are no objective, by evaluator; for the report.
    """

    values: dict[str, float]
    samples: dict[str, Pairs]
    calls: int
    server_calls: int | None = None
    seconds: float = 0.0
    others: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready data."""
        # Nine digits are more than any clock has, and keep the study small.
        short = {
            name: {q: [[float(f"{a:.9g}"), float(f"{of:.9g}")] for a, of in pairs] for q, pairs in questions.items()}
            for name, questions in self.samples.items()
        }
        return {**asdict(self), "samples": short, "seconds": round(self.seconds, 3)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunResult:
        """The result as `to_dict` wrote it."""
        return cls(**data)

    def of(self, objectives: Sequence[Objective]) -> list[dict[str, list[Sample]]]:
        """The samples of each objective by question."""
        return [
            {question: [Sample(a, of) for a, of in pairs] for question, pairs in self.samples[o.name].items()}
            for o in objectives
        ]


def read_outcome(output: EvaluationRunOutput, objectives: Sequence[Objective], max_failed_share: float) -> RunResult:
    """What an evaluation says of the objectives.

    Args:
        output: NAT's.
        objectives: what is scored.
        max_failed_share: share of the LLM calls that may fail, 0 to 1.

    Raises:
        RunFailed: if calls failed, telemetry is missing or an evaluator gave no score.
    """
    questions, calls = _questions(output, max_failed_share)
    by_name: dict[str, Any] = dict(output.evaluation_results)
    result = RunResult(values={}, samples={}, calls=calls)
    for objective in objectives:
        scored = by_name.get(objective.evaluator)
        if scored is None:
            raise RunFailed(f"the evaluator {objective.evaluator} failed; the log says why")
        average = scored.average_score
        if not _is_number(average):
            raise RunFailed(f"the evaluator {objective.evaluator} gave no score, but {average!r}")
        result.values[objective.name] = float(average)
        if objective.metric is not None:
            result.samples[objective.name] = _samples(objective, objective.metric, questions)
        else:
            result.samples[objective.name] = {
                str(item.id): [(float(item.score), 1.0)] for item in scored.eval_output_items if _is_number(item.score)
            }
    asked = {o.evaluator for o in objectives}
    others = {name: scored.average_score for name, scored in by_name.items() if name not in asked}
    result.others = {name: float(score) for name, score in others.items() if _is_number(score)}
    return result


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _questions(output: EvaluationRunOutput, max_failed_share: float) -> tuple[dict[str, Question], int]:
    """The questions by id and the number of their LLM calls, if enough of these were answered, with telemetry."""
    items = output.eval_input.eval_input_items
    if not items:
        raise RunFailed("the dataset is empty")
    questions = {str(item.id): Question.from_trajectory(item.id, item.trajectory) for item in items}
    calls = [call for question in questions.values() for call in question.calls]
    failed = [call for call in calls if is_failed(call)]
    transient = bool(failed) and all(kind_of(call) in OUTAGES for call in failed)
    if len(failed) > max_failed_share * len(calls):
        why = failed[0].error or f"HTTP status {failed[0].status}"
        raise RunFailed(f"{len(failed)} of {len(calls)} LLM calls failed, the first with: {why}", transient=transient)
    if output.workflow_interrupted:
        raise RunFailed("the workflow failed on a question; the log says why", transient=transient)
    if raised := [item.output_obj.failure for item in items if isinstance(item.output_obj, FailedAnswer)]:
        why = f"{raised[0].kind}: {raised[0].error}"
        raise RunFailed(f"{len(raised)} of {len(items)} questions failed, the first with: {why}", transient=transient)
    if endless := sum(one.started_at is not None and one.ended_at is None for one in questions.values()):
        raise RunFailed(f"{endless} of {len(items)} questions never ended", transient=transient)
    if not calls:
        raise RunFailed("no LLM call went through Dynamo")
    silent = sum(not call.has_dynamo_data for call in calls if not is_failed(call) and call.cache is None)
    if silent:
        raise RunFailed(f"{silent} of {len(calls)} LLM calls came back without Dynamo's telemetry")
    return questions, len(calls)


def _samples(objective: Objective, metric: Metric, questions: Mapping[str, Question]) -> Pairs:
    taken = {name: found for name, question in questions.items() if (found := metric.samples(question))}
    if not taken:
        raise RunFailed(f"the evaluator {objective.evaluator} found {metric.needs}")
    if objective.statistic == "mean":  # of a mean, sums say all
        return {n: [(math.fsum(s.amount for s in one), math.fsum(s.of for s in one))] for n, one in taken.items()}
    return {name: [(s.amount, s.of) for s in one] for name, one in taken.items()}
