"""A light open-loop client: replays questions through the plugin's transport, as fast as they arrive."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
from contention_shape import Recorded, Shape
from nat.builder.context import Context

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.learning.learner import WorkLearner
from nat_dynamo_plugin.question.hints import DynamoHints
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext
from nat_dynamo_plugin.service import Service, make_service
from nat_dynamo_plugin.telemetry.record import CallRecord
from nat_dynamo_plugin.transport import DynamoTransport


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A client to compare.

    Attributes:
        name: as the table shows it.
        client: `plain` for httpx as OpenAI's library has it, `builtin` for NAT's own dynamo client with its hints off,
            `ours` for this plugin.
        fields: of `_type: dynamo`, for `ours`.
        knowledge: what the agent says of its question: `none`, `kind` (its user turns and its tools), or `total` (the
            true number of calls, which no real agent has).
    """

    name: str
    client: str = "ours"
    fields: dict[str, Any] = field(default_factory=dict)
    knowledge: str = "none"


@dataclass(slots=True)
class Asked:
    """One question's fate. Times are seconds since the run's start."""

    id: str
    calls: int
    arrived: float
    first_sent: float | None = None
    done: float | None = None
    error: str | None = None


@dataclass(slots=True)
class Replay:
    """What a replay gives: the questions and the calls' records as plain data."""

    asked: list[dict[str, Any]]
    calls: list[dict[str, Any]]
    limits: list[Any] = field(default_factory=list)


def arrivals(questions: Sequence[Recorded], *, count: int, rate: float, seed: int) -> list[tuple[float, Recorded]]:
    """`count` questions within `count / rate` seconds, as a Poisson process that has that many arrivals has them.

    Questions are drawn without repeating one before all were asked. The count is fixed, so that seeds differ in who
    comes when and not in how much work there is.
    """
    source = random.Random(seed)
    times = sorted(source.uniform(0, count / rate) for _ in range(count))
    deck: list[Recorded] = []
    drawn = []
    for at in times:
        if not deck:
            deck = source.sample(list(questions), len(questions))
        drawn.append((at, deck.pop()))
    return drawn


def learn(questions: Sequence[Recorded], gap_scale: float, file: Path) -> None:
    """Write what a client has learned that has answered these questions."""
    learner = WorkLearner()
    path = tuple(Context.get().function_path)
    clock = 0.0
    for question in questions:
        for call in question.calls:
            chain = learner.count_call(session_id=question.id, prefix_id=question.id, path=path, kind=question.kind)
            learner.end_call(chain, output_tokens=call.output_tokens, started_at=clock, ended_at=clock + 0.1)
            clock += 0.1 + call.gap_ms * gap_scale / 1000
        learner.end_question(question.id)
    learner.save(file)


@asynccontextmanager
async def client_of(
    arm: Arm, base_url: str, model: str, keep: list[CallRecord]
) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    """The client of an arm, and the service that reads what is answered to it."""
    # Around a client that is not ours only what reads the answers' telemetry, as in every arm.
    fields = arm.fields if arm.client == "ours" else {"prefix_template": None, "prefix_wire": ["telemetry"]}
    config = DynamoModelConfig(model_name=model, base_url=base_url, max_retries=0, connect_timeout=30.0, **fields)
    service = make_service(config, emit_record=keep.append)
    try:
        if arm.client != "builtin":
            async with service.http_clients() as http:
                yield http.asynchronous, service
            return
        from nat.llm.dynamo_llm import DynamoModelConfig as BuiltinConfig
        from nat.llm.dynamo_llm import _create_httpx_client_with_dynamo_hooks

        builtin = BuiltinConfig(model_name=model, base_url=base_url, enable_nvext_hints=False)
        async with _create_httpx_client_with_dynamo_hooks(builtin) as client:
            client.timeout = httpx.Timeout(600.0, connect=30.0)
            client._transport = DynamoTransport(client._transport, service)
            yield client, service
    finally:
        service.close()


async def replay(
    arm: Arm,
    base_url: str,
    model: str,
    shape: Shape,
    plan: Sequence[tuple[float, Recorded]],
    *,
    gap_scale: float,
    label: str,
    started_at: float | None = None,
) -> Replay:
    """Ask the questions of `plan` at their times and wait for all answers.

    Args:
        arm: the client.
        base_url: the frontend's, ending in `/v1`.
        model: the model's name there.
        shape: what the questions are of.
        plan: arrival times (s) and questions.
        gap_scale: factor on the recorded times between calls.
        label: makes this run's prefix ids and prompts its own.
        started_at: `time.time()` that counts as 0; now unless given.
    """
    prompts = [shape.prompts(question, f"{label}-{number}") for number, (_, question) in enumerate(plan)]
    records: list[CallRecord] = []
    asked = [Asked(question.id, len(question.calls), at) for at, question in plan]
    async with client_of(arm, base_url, model, records) as (client, service):
        if started_at is not None:
            await asyncio.sleep(max(0.0, started_at - time.time()))
        start = time.perf_counter()

        async def ask(number: int) -> None:
            at, question = plan[number]
            row = asked[number]
            await asyncio.sleep(max(0.0, at - (time.perf_counter() - start)))
            with ExitStack() as scopes:
                scopes.enter_context(DynamoPrefixContext.scope(f"{label}-{number}"))
                if arm.knowledge == "total":
                    scopes.enter_context(DynamoHints.scope(total_requests=len(question.calls)))
                elif arm.knowledge == "kind":
                    scopes.enter_context(DynamoHints.scope(kind=question.kind))
                try:
                    for call, prompt in zip(question.calls, prompts[number], strict=True):
                        body = f'{{"model":"{model}","max_tokens":{call.output_tokens},"prompt":[{prompt}]}}'
                        response = await client.post(
                            f"{base_url}/completions",
                            content=body.encode("ascii"),
                            headers={"content-type": "application/json"},
                        )
                        response.raise_for_status()
                        await asyncio.sleep(call.gap_ms * gap_scale / 1000)
                except httpx.HTTPError as error:
                    row.error = f"{type(error).__name__}: {error}"
            row.done = time.perf_counter() - start
            prompts[number] = []

        await asyncio.gather(*(ask(number) for number in range(len(plan))))
    gate = None if service.admission is None else service.admission.gate
    return Replay(
        [asdict(row) for row in asked],
        [record.to_dict() for record in records],
        [] if gate is None else gate.history,
    )
