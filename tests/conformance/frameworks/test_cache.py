"""The response cache under every framework: what is asked twice is answered once, and no turn answers another."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from nat_dynamo_plugin.cache.key import DROPPED, MARKS, NULLABLE, read
from nat_dynamo_plugin.local import scripted_answer, scripted_answers
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext
from nat_dynamo_plugin.telemetry.record import CallRecord

from ...shuffling import shuffled
from .conftest import AFTER_TOOL, PLAIN, Client, Dynamo
from .drivers import Driver
from .test_clients import ask

CACHED: dict[str, Any] = {"temperature": 0, "cache": {"deterministic_only": False}}


async def test_a_question_asked_twice_is_one_request(
    driver: Driver, client: Client, dynamo: Dynamo, records: list[CallRecord]
) -> None:
    question = f"Is the valve shut, {driver.module} cached?"
    async with client(**driver.plain_config, **CACHED) as llm:
        with scripted_answer("plain"):
            assert [await ask(driver, llm, question) for _ in range(2)] == [PLAIN, PLAIN]
    assert len(dynamo.exchanges(question)) == 1
    assert [record.cache for record in records] == [None, "exact"]
    assert records[1].completion_tokens == records[0].completion_tokens


async def test_a_stream_asked_twice_is_one_request(driver: Driver, client: Client, records: list[CallRecord]) -> None:
    question = f"Is the valve shut, {driver.module} cached stream?"
    async with client(**driver.streaming_config, **CACHED) as llm:
        with scripted_answer("plain"):
            assert ["".join(await driver.stream(llm, question)) for _ in range(2)] == [PLAIN, PLAIN]
    assert [record.cache for record in records] == [None, "exact"] and all(record.streamed for record in records)


async def test_an_agents_loop_is_replayed_and_no_turn_answers_another(
    driver: Driver, client: Client, dynamo: Dynamo, records: list[CallRecord]
) -> None:
    question = f"How many bolts are there, {driver.module} cached?"
    async with client(**CACHED) as llm:
        for run in range(2):
            driver.history.clear()
            with DynamoPrefixContext.scope(f"{driver.module}-{run}"), scripted_answers(["tool", "after-tool"]):
                use = await driver.use_tool(llm, question)
            assert (use.arguments, use.answer) == ({"item": "bolts"}, AFTER_TOOL)
    assert len(dynamo.exchanges(question)) == 2
    assert [record.cache for record in records] == [None, None, "exact", "exact"]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for name, one in items for leaf in leaves(one, (*path, name))]
    return [path]


def canonical(body: Any) -> bytes:
    asked = read(json.dumps(body).encode())
    assert asked is not None
    return asked.canonical


async def test_every_leaf_of_a_real_body_counts_and_no_order_does(
    driver: Driver, client: Client, dynamo: Dynamo
) -> None:
    question = f"How many bolts are there, {driver.module} leaves?"
    async with client(temperature=0) as llm:
        with scripted_answers(["tool", "after-tool"]):
            await driver.use_tool(llm, question)
    bodies = [exchange.body for exchange in dynamo.exchanges(question)]
    assert len({canonical(body) for body in bodies}) == len(bodies) == 2
    draw = random.Random(0)
    for body in bodies:
        for _ in range(20):
            assert canonical(shuffled(body, draw)) == canonical(body)
        for path in leaves(body):
            changed = copy.deepcopy(body)
            place = changed
            for name in path[:-1]:
                place = place[name]
            was, place[path[-1]] = place[path[-1]], "something else"
            dropped = path[0] in DROPPED or path[:2] in [("nvext", "agent_hints"), ("nvext", "extra_fields")]
            assert (canonical(changed) == canonical(body)) is dropped, path
            if was is None and path[0] in NULLABLE:
                del place[path[-1]]
                assert canonical(changed) == canonical(body), path
    assert not any(mark in json.dumps(bodies) for mark in MARKS)
