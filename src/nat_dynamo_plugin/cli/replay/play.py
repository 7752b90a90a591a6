"""Plays what is planned on one embedded cluster, and measures it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from nat_dynamo_plugin.cli.replay.asking import ask_question, asked
from nat_dynamo_plugin.cli.replay.schedule import PlannedQuestion
from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.evaluators.metric import Sample, aggregate
from nat_dynamo_plugin.local import LocalDynamo
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext
from nat_dynamo_plugin.recording.rows import RecordedCall
from nat_dynamo_plugin.running import running_service
from nat_dynamo_plugin.telemetry.record import CallRecord

_TOKENS_MORE = 64
"""Tokens that an answer may have more than were recorded: the embedded model's tokenizer is another one."""


@dataclass(frozen=True, slots=True)
class Played:
    """What one cluster did. Times in seconds of the engines, as if they had run at real speed; `None` where
    nothing was answered.

    Attributes:
        workers: of the cluster.
        questions: that were answered in whole.
        failed: calls that were not answered.
        reuse: cached share of all prompt tokens, 0 to 1; `None` if nothing was answered.
        mean_s: mean time from a question's arrival to the end of its last call.
        p50_s: the median of that.
        p95_s: its 95th percentile.
        ttft_p95_s: 95th percentile of the calls' times to first token.
        all_s: from the first arrival to the end of the last question.
        problem: the first error of a call; `None` if all were answered.
    """

    workers: int
    questions: int
    failed: int
    reuse: float | None
    mean_s: float | None
    p50_s: float | None
    p95_s: float | None
    ttft_p95_s: float | None
    all_s: float
    problem: str | None = None


async def play(rows: Sequence[RecordedCall], questions: Sequence[PlannedQuestion], local: LocalDynamoConfig) -> Played:
    """Play the questions on an embedded Dynamo of its own.

    Args:
        rows: the recorded calls.
        questions: what is planned.
        local: the cluster; `answers` names the recording, if its rows have content. Pauses pass as much faster as its
            engines run.

    Raises:
        LocalDynamoError: it can not be started.
    """
    from nat_dynamo_plugin.telemetry import exporters

    records: list[CallRecord] = []
    exporters.set_exporters([records.append])
    try:
        async with _served(local) as config, running_service(config) as service, service.http_clients() as http:
            client: Any = http.async_openai()
            started = perf_counter()

            async def question(planned: PlannedQuestion) -> float:
                await asyncio.sleep(planned.at_s / local.speedup)
                began = perf_counter()

                async def call(number: int) -> None:
                    row = rows[number]
                    more = 0 if local.answers is None else _TOKENS_MORE
                    tokens = (row.completion_tokens or 1024) + more
                    await client.chat.completions.create(**asked(row, http.model_name, tokens))

                with DynamoPrefixContext.scope(f"replay-{planned.name}"):
                    await ask_question(planned, call, local.speedup)
                return (perf_counter() - began) * local.speedup

            ended = await asyncio.gather(*map(question, questions), return_exceptions=True)
            all_s = (perf_counter() - started) * local.speedup
    finally:
        exporters.set_exporters(None)
    for error in ended:
        if isinstance(error, BaseException) and not isinstance(error, Exception):
            raise error
    problem = next((str(error) for error in ended if isinstance(error, Exception)), None)
    played = _measured(local, [one for one in ended if isinstance(one, float)], records, all_s)
    return replace(played, problem=problem)


@asynccontextmanager
async def _served(local: LocalDynamoConfig) -> AsyncIterator[DynamoModelConfig]:
    """The config of the cluster. Without answers, which an agent would need and a trace does not, it runs here."""
    if local.answers is not None:
        yield DynamoModelConfig(model_name="recorded", local=local)
        return
    async with LocalDynamo(local, model_name="recorded") as dynamo:
        yield DynamoModelConfig(model_name="recorded", base_url=dynamo.base_url)


def _measured(local: LocalDynamoConfig, took: Sequence[float], records: Sequence[CallRecord], all_s: float) -> Played:
    answered = [record for record in records if not record.failed]
    prompt = sum(record.prompt_tokens or 0 for record in answered)
    cached = sum(record.cached_tokens or 0 for record in answered)
    times = [Sample(seconds) for seconds in took]
    ttfts = [record.server_ttft_ms for record in answered if record.server_ttft_ms is not None]
    first = [Sample(ttft * local.speedup / 1000.0) for ttft in ttfts]
    return Played(
        workers=local.workers,
        questions=len(took),
        failed=len(records) - len(answered),
        reuse=cached / prompt if prompt else None,
        mean_s=aggregate(times, "mean"),
        p50_s=aggregate(times, "p50"),
        p95_s=aggregate(times, "p95"),
        ttft_p95_s=aggregate(first, "p95"),
        all_s=all_s,
    )
