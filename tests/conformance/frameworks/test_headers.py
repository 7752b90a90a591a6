"""No header that is banned leaves, whichever framework, library or layer of ours has set it."""

from __future__ import annotations

import asyncio
import random

from nat_dynamo_plugin.config.headers import KEPT, TRACED
from nat_dynamo_plugin.local import scripted_answer

from .conftest import Client, Dynamo
from .drivers import Driver

DRAWS = 5
ADDED = {"X-Team": "blue", "x-payload-like": "secret"}
HELD = {*KEPT, *TRACED}


def _in_some_case(name: str, draw: random.Random) -> str:
    return "".join(draw.choice((letter, letter.upper())) for letter in name)


async def _names_sent(driver: Driver, client: Client, dynamo: Dynamo, question: str, **fields: object) -> set[str]:
    """Names of the headers that reach the server with an answer in one piece, a stream, and a call without async."""
    with scripted_answer("plain"):
        async with client(max_retries=0, **fields, **driver.plain_config) as llm:
            if driver.has_async:
                await driver.ask(llm, question)
            if driver.has_sync:
                await asyncio.to_thread(driver.ask_sync, llm, question)
        async with client(max_retries=0, **fields, **driver.streaming_config) as llm:
            await driver.stream(llm, question)
    exchanges = dynamo.exchanges(question)
    assert len(exchanges) >= 2
    return {name.lower() for exchange in exchanges for name in exchange.headers}


async def test_a_banned_header_never_leaves(driver: Driver, client: Client, dynamo: Dynamo) -> None:
    # The same draws each time; other ones for each framework.
    draw = random.Random(driver.framework.value)
    base = await _names_sent(driver, client, dynamo, f"Which headers has {driver.module}?", headers={"add": ADDED})
    free = sorted(base - HELD - {"connection"})
    assert {"x-team", "x-payload-like", "user-agent", "accept-encoding"} <= set(free)
    for turn in range(DRAWS):
        chosen = set(draw.sample(free, draw.randint(1, len(free)))) if turn else set(free)
        patterns = [_in_some_case(name, draw) for name in chosen]
        rules = {"add": ADDED, "ban": [*patterns, "x-stainless-*"]}
        sent = await _names_sent(driver, client, dynamo, f"And {driver.module} without, in turn {turn}?", headers=rules)
        assert not sent & chosen and not any(name.startswith("x-stainless-") for name in sent)
        assert {name for name in free if name not in chosen and not name.startswith("x-stainless-")} <= sent
        assert {"host", "authorization", "x-dynamo-session-id"} <= sent
