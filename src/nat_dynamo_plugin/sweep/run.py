"""One run: the questions of a config, answered once, on a Dynamo of their own, and what came of it."""

from __future__ import annotations

import asyncio
import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from nat.data_models.config import Config
from nat.data_models.evaluate_config import EvalOutputConfig
from nat.data_models.evaluate_runtime import EvaluationRunConfig, EvaluationRunOutput
from nat.data_models.evaluator import EvalInputItem
from nat.data_models.intermediate_step import IntermediateStepType
from nat.data_models.optimizer import OptimizerRunConfig

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.evaluators.metric import DynamoMetricConfig, Metric, Sample, aggregate
from nat_dynamo_plugin.evaluators.records import Question, is_failed
from nat_dynamo_plugin.sweep.verdict import Objective

logger = logging.getLogger(__name__)


class RunFailed(Exception):
    """A run that says nothing about its config; the message says why."""


@dataclass(slots=True)
class RunResult:
    """What one run came to.

    Attributes:
        values: of each objective, by name.
        samples: for each objective, by question, its samples as pairs of an amount and what it is out of.
        calls: LLM calls that the clients made.
        server_calls: LLM calls that the embedded Dynamos counted; `None` without one.
        seconds: the whole run, start of Dynamo included.
        others: scores of this package's evaluators that are no objective, by evaluator; for the report.
    """

    values: dict[str, float]
    samples: dict[str, dict[str, list[tuple[float, float]]]]
    calls: int
    server_calls: int | None
    seconds: float
    others: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready data."""
        # Nine digits are more than any clock has, and keep the study small.
        short = {
            name: {q: [[float(f"{a:.9g}"), float(f"{of:.9g}")] for a, of in pairs] for q, pairs in questions.items()}
            for name, questions in self.samples.items()
        }
        return {
            "values": self.values,
            "samples": short,
            "calls": self.calls,
            "server_calls": self.server_calls,
            "seconds": round(self.seconds, 3),
            "others": self.others,
        }

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


Partial = Callable[[Sequence[dict[str, list[Sample]]], float], bool]
"""Told of the samples so far, by objective and question, and the share of questions done; true stops the run."""


class Stopped(Exception):
    """A run that was stopped because its config is hopeless."""


@dataclass(slots=True)
class _Watcher:
    """Callbacks of NAT's evaluation: sees each question when it is done, and the servers before they stop."""

    objectives: Sequence[Objective]
    metrics: Mapping[str, tuple[Metric, DynamoMetricConfig]]
    config: Config
    partial: Partial | None
    stop: asyncio.Event
    total: int = 0
    seen: list[dict[str, list[Sample]]] = field(default_factory=list)
    server_calls: int | None = None
    _asked: bool = False

    def __post_init__(self) -> None:
        self.seen = [{} for _ in self.objectives]

    def on_dataset_loaded(self, *, dataset_name: str, items: list[EvalInputItem]) -> None:
        self.total = len(items)

    def on_prediction(self, *, item: EvalInputItem, output: Any) -> None:
        if self.partial is None or not self.total:
            return
        question = Question.from_trajectory(item.id, item.trajectory)
        for objective, seen in zip(self.objectives, self.seen, strict=True):
            seen[str(item.id)] = self.metrics[objective.evaluator][0].samples(question)
        if self.partial(self.seen, len(self.seen[0]) / self.total):
            self.stop.set()

    async def a_on_evaluator_score(self, *, eval_output: Any, evaluator_name: str) -> None:
        if self._asked:
            return
        self._asked = True
        counts = [
            await requests_counted(llm.running_service.base_url)
            for llm in self.config.llms.values()
            if isinstance(llm, DynamoModelConfig) and llm.local and llm.running_service and llm.running_service.base_url
        ]
        if counts and None not in counts:
            self.server_calls = sum(count for count in counts if count is not None)


async def requests_counted(base_url: str) -> int | None:
    """LLM requests that a Dynamo frontend has counted since it started: its metric `dynamo_frontend_requests_total`."""
    import httpx
    from prometheus_client.parser import text_string_to_metric_families

    try:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            text = (await client.get(f"{base_url.removesuffix('/v1')}/metrics")).text
        return int(
            sum(
                sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.name == "dynamo_frontend_requests_total"
            )
        )
    except (httpx.HTTPError, ValueError):
        logger.warning("The embedded Dynamo's request count could not be read", exc_info=True)
        return None


def dynamo_metrics(config: Config, objectives: Sequence[Objective]) -> dict[str, tuple[Metric, DynamoMetricConfig]]:
    """The metrics of this package among the objectives, by evaluator."""
    return {
        o.evaluator: (evaluator.metric(), evaluator)
        for o in objectives
        if isinstance(evaluator := config.eval.evaluators[o.evaluator], DynamoMetricConfig)
    }


async def run_once(
    config: Config,
    objectives: Sequence[Objective],
    *,
    options: OptimizerRunConfig,
    salt: str,
    max_failed_share: float = 0.0,
    partial: Partial | None = None,
) -> RunResult:
    """Answer all questions of a config once and score them.

    Args:
        config: validated for this run alone: it is changed, and keeps what runs for it.
        objectives: what to score.
        options: of `nat optimize`.
        salt: keeps this run's KV cache entries apart on a shared cluster.
        max_failed_share: LLM calls that may fail.
        partial: is asked after each question whether to go on; only if all objectives are metrics of this package.

    Raises:
        RunFailed: if calls failed, telemetry is missing or an evaluator gave no score.
        Stopped: if `partial` said so.
    """
    from nat.plugins.eval.eval_callbacks import EvalCallbackManager
    from nat.plugins.eval.runtime.evaluate import EvaluationRun

    metrics = dynamo_metrics(config, objectives)
    stop = asyncio.Event()
    watcher = _Watcher(objectives, metrics, config, partial if len(metrics) == len(objectives) else None, stop)
    callbacks = EvalCallbackManager()
    callbacks.register(watcher)
    started = perf_counter()
    with tempfile.TemporaryDirectory(prefix="nat-dynamo-sweep-") as folder:
        _isolate(config, objectives, Path(folder), salt)
        run = EvaluationRun(
            EvaluationRunConfig(
                config_file=config,
                dataset=None if options.dataset is None else str(options.dataset),
                result_json_path=options.result_json_path,
                endpoint=options.endpoint,
                endpoint_timeout=options.endpoint_timeout,
                # NAT would write the whole config, keys in clear.
                write_output=False,
            ),
            callback_manager=callbacks,
        )
        output = await _until(run.run_and_evaluate(), stop)
    if output is None:
        raise Stopped
    result = _read(output, objectives, metrics, max_failed_share)
    result.server_calls = watcher.server_calls
    result.seconds = perf_counter() - started
    return result


async def _until(work: Any, stop: asyncio.Event) -> EvaluationRunOutput | None:
    """The result of a coroutine, or `None` if it was stopped first; cancelled with its caller."""
    task = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return await task
        return None
    finally:
        for one in (task, waiting):
            if not one.done():
                one.cancel()
        # The embedded Dynamo must be down before the next one starts.
        await asyncio.gather(task, waiting, return_exceptions=True)


def _isolate(config: Config, objectives: Sequence[Objective], folder: Path, salt: str) -> None:
    """Keep a run to itself: only evaluators that are asked for or cost nothing, no files, a cache of its own."""
    asked = {o.evaluator for o in objectives}
    config.eval.evaluators = {
        name: evaluator
        for name, evaluator in config.eval.evaluators.items()
        if name in asked or isinstance(evaluator, DynamoMetricConfig)
    }
    general = config.eval.general
    general.output = EvalOutputConfig(dir=folder, workflow_output_step_filter=[IntermediateStepType.CUSTOM_END])
    general.output_dir = folder
    general.profiler = None
    for llm in config.llms.values():
        if isinstance(llm, DynamoModelConfig) and llm.local is None:
            llm.cache_salt = salt


def _read(
    output: EvaluationRunOutput,
    objectives: Sequence[Objective],
    metrics: Mapping[str, tuple[Metric, DynamoMetricConfig]],
    max_failed_share: float,
) -> RunResult:
    items = output.eval_input.eval_input_items
    if not items:
        raise RunFailed("the dataset is empty")
    if output.workflow_interrupted:
        raise RunFailed("the workflow failed on a question; the log says why")
    questions = {str(item.id): Question.from_trajectory(item.id, item.trajectory) for item in items}
    calls = [call for question in questions.values() for call in question.calls]
    failed = [call for call in calls if is_failed(call)]
    if not calls:
        raise RunFailed("no LLM call went through Dynamo")
    if len(failed) > max_failed_share * len(calls):
        why = failed[0].error or f"HTTP status {failed[0].status}"
        raise RunFailed(f"{len(failed)} of {len(calls)} LLM calls failed, the first with: {why}")
    silent = sum(not call.has_dynamo_data for call in calls if not is_failed(call))
    if silent:
        raise RunFailed(f"{silent} of {len(calls)} LLM calls came back without Dynamo's telemetry")
    by_name: dict[str, Any] = dict(output.evaluation_results)
    values: dict[str, float] = {}
    samples: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for objective in objectives:
        scored = by_name.get(objective.evaluator)
        if scored is None:
            raise RunFailed(f"the evaluator {objective.evaluator} failed; the log says why")
        average = scored.average_score
        if not isinstance(average, int | float) or not math.isfinite(average):
            raise RunFailed(f"the evaluator {objective.evaluator} gave no score, but {average!r}")
        if objective.evaluator in metrics:
            metric, settings = metrics[objective.evaluator]
            taken = {name: metric.samples(question) for name, question in questions.items()}
            pooled = aggregate([s for one in taken.values() for s in one], settings.statistic)
            if pooled is None:
                raise RunFailed(f"the evaluator {objective.evaluator} found {metric.needs}")
            # Of a mean, sums say all.
            samples[objective.name] = {
                name: [(math.fsum(s.amount for s in one), math.fsum(s.of for s in one))]
                if settings.statistic == "mean"
                else [(s.amount, s.of) for s in one]
                for name, one in taken.items()
                if one
            }
        else:
            samples[objective.name] = {
                str(item.id): [(float(item.score), 1.0)]
                for item in scored.eval_output_items
                if isinstance(item.score, int | float) and math.isfinite(item.score)
            }
        values[objective.name] = float(average)
    asked = {o.evaluator for o in objectives}
    others = {
        name: float(score)
        for name, scored in by_name.items()
        if name not in asked and isinstance(score := scored.average_score, int | float) and math.isfinite(score)
    }
    return RunResult(values=values, samples=samples, calls=len(calls), server_calls=None, seconds=0.0, others=others)
