"""What each framework's client must do, against a real Dynamo and, for faults, against a scripted server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from nat.data_models.llm import APITypeEnum

from nat_dynamo_plugin.local import scripted_answer, scripted_answers
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext
from nat_dynamo_plugin.telemetry.record import CallRecord

from .conftest import AFTER_TOOL, PLAIN, Client, Dynamo, settled
from .drivers import TOOL, TOOL_RESULT, Driver
from .servers import Fault, FaultServer

LONG = "The boiler room has four valves, two pumps and one gauge that nobody has read since spring. " * 12


async def ask(driver: Driver, llm: Any, question: str) -> str:
    """Ask without blocking the loop; a framework without async calls is asked in a thread."""
    if driver.has_async:
        return await driver.ask(llm, question)
    return await asyncio.to_thread(driver.ask_sync, llm, question)


def chain(error: BaseException) -> str:
    """The texts of an error and of what it came from."""
    texts = []
    seen: set[int] = set()  # some libraries link errors in a circle
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        texts.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    return "\n".join(texts)


@pytest.mark.point("answer, async")
async def test_answers_asynchronously(
    driver: Driver, client: Client, dynamo: Dynamo, records: list[CallRecord]
) -> None:
    if not driver.has_async:
        pytest.skip("sync only")
    async with client(**driver.plain_config, temperature=0.5, top_p=0.9, seed=7) as llm:
        with DynamoPrefixContext.scope(f"async-{driver.module}"), scripted_answer("plain"):
            assert await driver.ask(llm, f"Is the valve shut, {driver.module} async?") == PLAIN
    [exchange] = dynamo.exchanges(f"{driver.module} async?")
    assert (exchange.body["temperature"], exchange.body["top_p"], exchange.body["seed"]) == (0.5, 0.9, 7)
    assert 48 in (exchange.body.get("max_tokens"), exchange.body.get("max_completion_tokens"))
    assert [(record.status, record.streamed) for record in records] == [(200, False)]


@pytest.mark.point("answer, sync")
def test_answers_synchronously(driver: Driver, client: Client, dynamo: Dynamo, records: list[CallRecord]) -> None:
    if not driver.has_sync:
        pytest.skip("async only")

    async def main() -> list[str]:
        async with client(**driver.plain_config) as llm:
            with DynamoPrefixContext.scope(f"sync-{driver.module}"), scripted_answer("plain"):
                # The second call must not trip over connections of the first.
                return [driver.ask_sync(llm, f"Is the valve shut, {driver.module} sync {i}?") for i in range(2)]

    assert asyncio.run(main()) == [PLAIN, PLAIN]
    for i in range(2):
        [exchange] = dynamo.exchanges(f"{driver.module} sync {i}?")
        assert exchange.headers["x-dynamo-session-id"] == f"sync-{driver.module}"
    assert [record.session_id for record in records] == [f"sync-{driver.module}"] * 2


@pytest.mark.point("streamed answer")
async def test_streams(driver: Driver, client: Client, records: list[CallRecord]) -> None:
    async with client(**driver.streaming_config) as llm:
        with scripted_answer("plain"):
            pieces = await driver.stream(llm, "Is the valve shut?")
    assert "".join(pieces) == PLAIN
    assert len(pieces) > 1
    [record] = records
    assert record.streamed
    assert record.finish_reason == "stop"
    assert record.completion_tokens is not None


@pytest.mark.point("tool call")
async def test_calls_a_tool_and_takes_its_result(driver: Driver, client: Client, dynamo: Dynamo) -> None:
    question = f"How many bolts are there, {driver.module}?"
    async with client() as llm:
        with DynamoPrefixContext.scope(f"tool-{driver.module}"), scripted_answers(["tool", "after-tool"]):
            use = await driver.use_tool(llm, question)
    assert use.arguments == {"item": "bolts"}
    assert use.answer == AFTER_TOOL
    first, second = dynamo.exchanges(question)
    assert TOOL in first.body["tools"][0]["function"]["name"]
    calls = [message for message in second.body["messages"] if message.get("tool_calls")]
    results = [message for message in second.body["messages"] if message["role"] == "tool"]
    assert TOOL in calls[0]["tool_calls"][0]["function"]["name"]
    assert TOOL_RESULT in str(results[0]["content"])
    assert results[0]["tool_call_id"] == calls[0]["tool_calls"][0]["id"]
    sessions = {dynamo.session_in_trace(exchange) for exchange in (first, second)}
    assert sessions == {f"tool-{driver.module}"}


@pytest.mark.point("five questions at once")
async def test_keeps_concurrent_questions_apart(
    driver: Driver, client: Client, dynamo: Dynamo, records: list[CallRecord]
) -> None:
    names = [f"{driver.module}-question-{i}" for i in range(5)]
    async with client() as llm:

        async def question(name: str) -> None:
            with DynamoPrefixContext.scope(name), scripted_answer("plain"):
                for step in range(3):
                    assert await ask(driver, llm, f"Step {step} of {name}.") == PLAIN

        await asyncio.gather(*map(question, names))
    for name in names:
        for step in range(3):
            [exchange] = dynamo.exchanges(f"Step {step} of {name}.")
            assert dynamo.session_in_trace(exchange) == name
    assert sorted(str(record.session_id) for record in records) == sorted(names * 3)
    assert {record.call_index for record in records} == {0, 1, 2}


@pytest.mark.point("hints")
async def test_sends_hints_that_dynamo_takes(
    driver: Driver, client: Client, dynamo: Dynamo, records: list[CallRecord]
) -> None:
    async with client(prefix_total_requests=4, prefix_osl=77) as llm:
        with DynamoPrefixContext.scope(f"hints-{driver.module}"), scripted_answer("plain"):
            await ask(driver, llm, f"Hints of {driver.module}?")
    # One exchange: Dynamo refused nothing, so there was no second try without the hints.
    [exchange] = dynamo.exchanges(f"Hints of {driver.module}?")
    assert exchange.status == 200
    assert exchange.body["nvext"]["agent_hints"]["osl"] == 77
    assert not [name for name in exchange.body if name.startswith(("prefix_", "nvext_", "dynamo_"))]
    assert [record.hints for record in records] == [exchange.body["nvext"]["agent_hints"]]


@pytest.mark.point("telemetry")
async def test_records_what_dynamo_answers(driver: Driver, client: Client, records: list[CallRecord]) -> None:
    async with client() as llm:
        with DynamoPrefixContext.scope(f"telemetry-{driver.module}"), scripted_answer("plain"):
            for _ in range(2):
                await ask(driver, llm, f"{driver.module}: {LONG}")
    first, second = records
    assert first.worker_id == second.worker_id is not None
    for record in records:
        assert record.status == 200
        assert record.error is None
        assert record.prompt_tokens is not None
        assert record.prompt_tokens > 200
        assert record.server_ttft_ms is not None
    assert first.cached_tokens is not None
    assert second.cached_tokens is not None
    assert second.cached_tokens >= 200


@pytest.mark.point("caller's `nvext`")
async def test_keeps_what_the_caller_put_into_nvext(driver: Driver, client: Client, dynamo: Dynamo) -> None:
    own = {"agent_hints": {"osl": 5}, "annotations": ["mine:1"]}
    async with client(prefix_osl=99, **driver.extra_body({"nvext": own})) as llm:
        with DynamoPrefixContext.scope(f"own-{driver.module}"), scripted_answer("plain"):
            assert await ask(driver, llm, f"Whose hints, {driver.module}?") == PLAIN
    [exchange] = dynamo.exchanges(f"Whose hints, {driver.module}?")
    assert exchange.body["nvext"]["agent_hints"]["osl"] == 5
    assert set(exchange.body["nvext"]["annotations"]) == {"mine:1", "output_replay_id:plain"}
    assert dynamo.session_in_trace(exchange) == f"own-{driver.module}"


@pytest.mark.point("server's error")
async def test_passes_on_the_servers_error(driver: Driver, client: Client, dynamo: Dynamo) -> None:
    expected = driver.errors()["server"]
    async with client(**driver.extra_body({"no_such_field": 1})) as llm:
        with pytest.raises(expected) as raised:
            await ask(driver, llm, f"A refused call of {driver.module}.")
    assert "no_such_field" in chain(raised.value)
    [exchange] = dynamo.exchanges(f"A refused call of {driver.module}.")
    assert exchange.status == 400


@pytest.mark.point("`request_timeout`")
async def test_gives_up_after_request_timeout(
    driver: Driver, client: Client, faults: Callable[..., FaultServer], records: list[CallRecord]
) -> None:
    release = threading.Event()
    server = faults(Fault(release=release))
    try:
        async with client(base_url=server.base_url, request_timeout=0.2) as llm:
            with pytest.raises(driver.errors()["timeout"]):
                await ask(driver, llm, "Is anybody there?")
    finally:
        release.set()
    # The server was still at work, so the call was not made again.
    assert len(server.exchanges) == 1
    assert [record.error.partition(":")[0] for record in records if record.error] == ["ReadTimeout"]


@pytest.mark.point("one retry layer")
async def test_a_persistent_503_costs_one_request_more_than_max_retries(
    driver: Driver, client: Client, faults: Callable[..., FaultServer], records: list[CallRecord]
) -> None:
    server = faults(Fault(503))
    async with client(base_url=server.base_url, max_retries=3) as llm:
        with pytest.raises(Exception) as raised:
            await ask(driver, llm, "Is anybody there?")
    assert "The boiler is cold" in chain(raised.value)
    assert len(server.exchanges) == 4
    assert len(records) == 1  # one call, however many requests


@pytest.mark.point("nothing left")
async def test_leaves_no_connection_and_no_task(
    driver: Driver, client: Client, dynamo: Dynamo, faults: Callable[..., FaultServer]
) -> None:
    server = faults(Fault(500))
    before = asyncio.all_tasks()
    relay = dynamo.relay
    assert await settled(lambda: relay.open_connections == 0)
    with scripted_answer("plain"):
        # The OpenAI library closes a stream's connection behind the last event, so only plain answers keep theirs.
        async with client(**driver.plain_config) as llm:
            await asyncio.gather(*(ask(driver, llm, f"Question {i}") for i in range(4)))
            assert relay.open_connections > 0  # they are kept for the next call
        async with client(**driver.streaming_config) as llm:
            await driver.stream(llm, "Is the valve shut?")
    async with client(base_url=server.base_url, max_retries=1) as llm:
        with pytest.raises(Exception):  # noqa: B017
            await ask(driver, llm, "Is anybody there?")
    assert await settled(lambda: relay.open_connections == 0 and server.open_connections == 0)

    def left() -> list[str]:
        tasks = asyncio.all_tasks() - before - {asyncio.current_task()}
        # LiteLLM keeps one task for its log in every event loop, for the whole process.
        return [str(t.get_coro()) for t in tasks if "LoggingWorker._worker_loop" not in str(t.get_coro())]

    assert await settled(lambda: not left()), left()


@pytest.mark.point("Responses API")
async def test_responses_api_works_or_is_refused_with_nats_error(
    driver: Driver, client: Client, dynamo: Dynamo, records: list[CallRecord]
) -> None:
    if not driver.has_responses:
        with pytest.raises(ValueError, match="Responses API is not supported"):
            async with client(api_type=APITypeEnum.RESPONSES):
                pass
        pytest.skip("refused")
    async with client(api_type=APITypeEnum.RESPONSES) as llm:
        with DynamoPrefixContext.scope(f"responses-{driver.module}"), scripted_answer("plain"):
            assert await driver.ask(llm, f"Is the valve shut, {driver.module} responses?") == PLAIN
            assert "".join(await driver.stream(llm, f"Is the valve shut, {driver.module} responses?")) == PLAIN
    exchanges = dynamo.exchanges(f"{driver.module} responses?")
    assert [exchange.path for exchange in exchanges] == ["/v1/responses"] * 2
    assert [exchange.status for exchange in exchanges] == [200, 200]
    assert all("agent_hints" in exchange.body["nvext"] for exchange in exchanges)
    # Here the id of Dynamo's answer is not the one in its trace, so the sessions are counted.
    assert await settled(lambda: dynamo.sessions_in_trace().count(f"responses-{driver.module}") == 2)
    assert [(record.streamed, record.cached_tokens is not None) for record in records] == [(False, True), (True, True)]
