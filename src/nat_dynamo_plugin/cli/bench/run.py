"""One bench from its beginning to its end."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from nat_dynamo_plugin.cli.bench.blocks import Arm, Level, Load, measure, play_block
from nat_dynamo_plugin.cli.bench.judged import Judged, enough_rounds, judged
from nat_dynamo_plugin.cli.bench.profile import agent_questions
from nat_dynamo_plugin.cli.bench.server import NotMeasurable, Server, look
from nat_dynamo_plugin.cli.replay.schedule import PlannedQuestion
from nat_dynamo_plugin.cli.replay.schedule import plan as planned
from nat_dynamo_plugin.recording.rows import RecordedCall, read
from nat_dynamo_plugin.recording.traces.load import read_trace
from nat_dynamo_plugin.recording.traces.shape import Fit


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured.

    Attributes:
        concurrency: questions under way at once, rising.
        rounds: of both clients at each of them.
        per_slot: questions a round for each that is under way at once.
        recording: what is asked, with its content; `None` for another load.
        trace: what is asked, without content; `None` for the built-in load, if there is no recording either.
        questions: how many of a trace, and how many of the built-in load.
        scale: what a trace's numbers of tokens are multiplied with.
        pause_s: longest pause between the calls of a question.
        limit_s: seconds after which no load is begun, and a load has no more rounds than a verdict needs.
        seed: of the load, and of the order of clients and questions.
    """

    concurrency: Sequence[int]
    rounds: int
    per_slot: int
    recording: Path | None
    trace: Path | None
    questions: int
    scale: float
    pause_s: float
    limit_s: float
    seed: int


async def run(
    base_url: str, model: str | None, key: str | None, plan: Plan, *, told: Callable[[str], None]
) -> tuple[Server, str, list[Judged]]:
    """Measure a server.

    Args:
        base_url: with `/v1`.
        model: to ask; `None` for the first that is served.
        key: `None` for none.
        plan: what is measured.
        told: hears how it goes on.

    Raises:
        NotMeasurable: it can not be reached, or answers no call.
        RecordingError: the recording or the trace is none.
    """
    began = monotonic()
    recorded = None if plan.recording is None else read(plan.recording)[0]  # refused before anything is asked
    if plan.trace is not None:
        read_trace(plan.trace, Fit(questions=1))
    salt = uuid.uuid4().hex
    async with _clients(base_url, model, key) as (arms, server):
        load = _load(plan, recorded, server)
        for name, arm in arms.items():  # connections and imports are no part of it
            asking = load.at(1, 1)[:1]
            block = await play_block(arm, load, server, asking, 1, f"{salt} {name}")
            if not block.answered:
                raise NotMeasurable(f"{server.base_url} does not answer the {name} client: {block.problem}")
        levels: list[Level] = []
        for concurrency in plan.concurrency:
            if levels and monotonic() - began > plan.limit_s:
                told(f"{plan.limit_s:g} s are over: {concurrency} at once and more are left out")
                break
            level = await measure(
                arms,
                load,
                server,
                concurrency,
                rounds=plan.rounds,
                per_slot=plan.per_slot,
                seed=plan.seed,
                salt=salt,
                enough=lambda done: enough_rounds(done) and monotonic() - began > plan.limit_s,
                told=told,
            )
            levels.append(level)
    return server, load.name, [judged(level, len(levels)) for level in levels]


def _load(plan: Plan, recorded: list[RecordedCall] | None, server: Server) -> Load:
    """What is to be asked, and its name."""
    fit = Fit(server.tokens_per_word, plan.scale, plan.questions)
    if recorded is not None and plan.recording is not None:
        rows, name = recorded, plan.recording.name
    elif plan.trace is not None:
        rows, name = read_trace(plan.trace, fit), f"{plan.trace.name} without content, lengths times {plan.scale:g}"
    else:
        rows, name = agent_questions(plan.questions, plan.seed), "built-in, an agent with tools"
    questions = [_hurried(one, plan.pause_s) for one in planned(rows)]
    words = sum(len(str(message.get("content")).split()) for row in rows for message in row.messages)
    tokens = words * server.tokens_per_word / len(rows)
    return Load(
        rows, questions, f"{name}: {len(rows) / len(questions):.1f} calls a question, about {tokens:,.0f} tokens a call"
    )


def _hurried(question: PlannedQuestion, pause_s: float) -> PlannedQuestion:
    """A question without longer pauses than that."""
    calls = tuple(replace(call, gap_s=min(call.gap_s, pause_s)) for call in question.calls)
    return replace(question, calls=calls)


@asynccontextmanager
async def _clients(base_url: str, model: str | None, key: str | None) -> AsyncIterator[tuple[dict[str, Arm], Server]]:
    """Both clients, and what is known of the server."""
    import httpx
    from openai import AsyncOpenAI

    from nat_dynamo_plugin.cli.doctor.reach import PROXY_VARIABLES, without_login
    from nat_dynamo_plugin.config.model import DynamoModelConfig
    from nat_dynamo_plugin.layers.key import PLACEHOLDER
    from nat_dynamo_plugin.question.scopes import DynamoPrefixContext
    from nat_dynamo_plugin.running import running_service
    from nat_dynamo_plugin.secrets import remember

    if key is not None:
        remember(key)
    shown, login = without_login(base_url)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    try:
        http = httpx.AsyncClient(headers=headers, auth=login, follow_redirects=True)
        plain = AsyncOpenAI(base_url=base_url, api_key=key or PLACEHOLDER)
    except (ImportError, ValueError, httpx.InvalidURL) as error:  # of a proxy that the environment names
        raise NotMeasurable(f"{PROXY_VARIABLES}: {error}") from None
    async with http, plain:
        server = await look(shown, model, http, plain)
        settings: dict[str, Any] = {"base_url": base_url, "model_name": server.model, "api_key": key or PLACEHOLDER}
        async with running_service(DynamoModelConfig(**settings)) as service, service.http_clients() as clients:
            ours = Arm(clients.async_openai(), DynamoPrefixContext.scope)
            yield {"plain": Arm(plain), "plugin": ours}, server
