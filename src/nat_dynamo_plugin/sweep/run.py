"""One run: the questions of a config, answered once, on a Dynamo of their own, and what came of it."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable, Sequence
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
from nat_dynamo_plugin.evaluators.metric import DynamoMetricConfig, Metric, Sample
from nat_dynamo_plugin.evaluators.records import Question
from nat_dynamo_plugin.sweep.holdout import WHOLE, Part
from nat_dynamo_plugin.sweep.outcome import RunFailed, RunResult, read_outcome
from nat_dynamo_plugin.sweep.verdict import Objective

logger = logging.getLogger(__name__)


Partial = Callable[[Sequence[dict[str, list[Sample]]], float], bool]
"""Told of the samples so far, by objective and question, and the share of questions done; true stops the run."""


class Stopped(Exception):
    """A run that was stopped because its config is hopeless."""


@dataclass(slots=True)
class _Watcher:
    """Callbacks of NAT's evaluation: chooses the questions, sees each when done, and the servers before they stop."""

    metrics: Sequence[Metric]
    config: Config
    partial: Partial | None
    stop: asyncio.Event
    part: Part
    chosen: set[str] = field(default_factory=set)
    seen: list[dict[str, list[Sample]]] = field(default_factory=list)
    server_calls: int | None = None
    _asked: bool = False

    def __post_init__(self) -> None:
        self.seen = [{} for _ in self.metrics]

    def on_dataset_loaded(self, *, dataset_name: str, items: list[EvalInputItem]) -> None:
        # In place: this is NAT's own list, so whatever dataset it comes from, only these are asked.
        self.chosen = self.part.chosen(str(item.id) for item in items)
        items[:] = [item for item in items if str(item.id) in self.chosen]

    def on_prediction(self, *, item: EvalInputItem, output: Any) -> None:
        if self.partial is None or not self.chosen:
            return
        question = Question.from_trajectory(item.id, item.trajectory)
        for metric, seen in zip(self.metrics, self.seen, strict=True):
            seen[str(item.id)] = metric.samples(question)
        if self.partial(self.seen, len(self.seen[0]) / len(self.chosen)):
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


async def run_once(
    config: Config,
    objectives: Sequence[Objective],
    *,
    options: OptimizerRunConfig,
    salt: str,
    max_failed_share: float = 0.0,
    partial: Partial | None = None,
    part: Part = WHOLE,
) -> RunResult:
    """Answer the questions of a config once and score them.

    Args:
        config: validated for this run alone: it is changed, and keeps what runs for it.
        objectives: what to score.
        options: of `nat optimize`.
        salt: keeps this run's KV cache entries apart on a shared cluster.
        max_failed_share: LLM calls that may fail.
        partial: is asked after each question whether to go on; only if all objectives are metrics of this package.
        part: which of the dataset's questions are asked, and when they arrive.

    Raises:
        RunFailed: if calls failed, telemetry is missing or an evaluator gave no score.
        Stopped: if `partial` said so.
    """
    from nat.plugins.eval.eval_callbacks import EvalCallbackManager
    from nat.plugins.eval.runtime.evaluate import EvaluationRun

    stop = asyncio.Event()
    watcher = _Watcher([o.metric for o in objectives if o.metric is not None], config, partial, stop, part)
    callbacks = EvalCallbackManager()
    callbacks.register(watcher)
    started = perf_counter()
    with tempfile.TemporaryDirectory(prefix="nat-dynamo-sweep-") as folder:
        _isolate(config, objectives, Path(folder), salt)
        part.set_arrivals(config)
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
    if {str(item.id) for item in output.eval_input.eval_input_items} != watcher.chosen:
        raise RunFailed("NAT asked other questions than those chosen for this run; the log says why")
    result = read_outcome(output, objectives, max_failed_share)
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
