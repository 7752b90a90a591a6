"""Equal calls at once are one request, and nobody suffers from another's end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from .upstream import PATIENCE_S, Model, Upstream, answer, body, post, stream

CALLS = 100


async def until(true: Callable[[], bool]) -> None:
    """Wait for something to come about."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.002)


def shared(model: Model) -> float:
    """How many calls wait, or have waited, for another."""
    cache = model.services[-1].cache
    assert cache is not None
    return cache.figures.counts["shared", ""]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_hundred_at_once_are_one(model: Model, upstream: Upstream, streamed: bool) -> None:
    upstream.go.clear()
    async with model.clients() as clients:
        asked = [asyncio.create_task(post(clients, body(stream=streamed and k % 2 == 0))) for k in range(CALLS)]
        await until(lambda: shared(model) == CALLS - 1)
        upstream.go.set()
        replies = await asyncio.gather(*asked)
    assert all(reply.status_code == 200 for reply in replies) and len(upstream.asked) <= 2
    # A streamed call that leads is not asked for its usage, which the others want: one of them gets it.
    assert len(upstream.asked) == 1 or streamed
    assert sum(record.cache == "exact" for record in model.records) >= CALLS - len(upstream.asked)


async def test_a_hundred_threads_are_one(model: Model, upstream: Upstream) -> None:
    upstream.go.clear()
    async with model.clients() as clients:

        def ask(_: int) -> int:
            reply: httpx.Response = clients.sync.post(f"{clients.base_url}/chat/completions", json=body())
            return reply.status_code

        with ThreadPoolExecutor(CALLS) as pool:
            asked = [pool.submit(ask, k) for k in range(CALLS)]
            await until(lambda: shared(model) == CALLS - 1)
            upstream.go.set()
            assert [one.result() for one in asked] == [200] * CALLS
    assert len(upstream.asked) == 1


async def test_threads_and_loops_are_one(model: Model, upstream: Upstream) -> None:
    upstream.go.clear()
    async with model.clients() as clients:
        url = f"{clients.base_url}/chat/completions"
        asked = [asyncio.create_task(post(clients, body())) for _ in range(5)]
        asked += [asyncio.create_task(asyncio.to_thread(clients.sync.post, url, json=body())) for _ in range(5)]
        await until(lambda: shared(model) == 9)
        upstream.go.set()
        assert {reply.status_code for reply in await asyncio.gather(*asked)} == {200}
    assert len(upstream.asked) == 1


async def test_a_cancelled_leader_is_replaced(model: Model, upstream: Upstream) -> None:
    upstream.go.clear()
    async with model.clients() as clients:
        leader = asyncio.create_task(post(clients, body()))
        await until(lambda: len(upstream.asked) == 1)
        others = [asyncio.create_task(post(clients, body())) for _ in range(10)]
        await until(lambda: shared(model) == 10)
        leader.cancel()
        await until(lambda: len(upstream.asked) == 2)
        upstream.go.set()
        assert {reply.status_code for reply in await asyncio.gather(*others)} == {200}
        with pytest.raises(asyncio.CancelledError):
            await leader
    assert len(upstream.asked) == 2


async def test_a_cancelled_follower_is_nobody_elses_business(model: Model, upstream: Upstream) -> None:
    upstream.go.clear()
    async with model.clients() as clients:
        asked = [asyncio.create_task(post(clients, body())) for _ in range(10)]
        await until(lambda: shared(model) == 9)
        asked[3].cancel()
        await asyncio.wait([asked[3]])
        upstream.go.set()
        replies = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(reply, asyncio.CancelledError) for reply in replies] == [k == 3 for k in range(10)]
    assert len(upstream.asked) == 1


@pytest.mark.parametrize("kind", ["error", "length", "broken"])
async def test_a_leader_without_a_good_answer_fails_nobody(model: Model, upstream: Upstream, kind: str) -> None:
    """Those who waited send for themselves, all at once."""
    good = json.dumps(answer()).encode()
    bad = {
        "error": (500, "application/json", b'{"error": {"message": "no"}}'),
        "length": (200, "application/json", good.replace(b'"stop"', b'"length"')),
        "broken": (200, "application/json", b"{"),
    }[kind]
    first = [bad]
    upstream.say = lambda _: first.pop() if first else (200, "application/json", good)
    upstream.go.clear()
    async with model.clients() as clients:
        asked = [asyncio.create_task(post(clients, body())) for _ in range(10)]
        await until(lambda: shared(model) == 9)
        upstream.go.set()
        replies = await asyncio.gather(*asked)
        assert [reply.status_code for reply in replies[1:]] == [200] * 9
    assert [reply.json()["choices"][0]["finish_reason"] for reply in replies[1:]] == ["stop"] * 9
    cache = model.services[-1].cache
    assert cache is not None and len(cache.flights) == 0


async def test_a_stream_that_is_left_is_sent_again(model: Model, upstream: Upstream) -> None:
    async with model.clients() as clients:
        upstream.say = lambda _: (200, "text/event-stream", stream())
        upstream.cut = len(stream()) - 100
        request = clients.asynchronous.build_request(
            "POST", f"{clients.base_url}/chat/completions", json=body(stream=True)
        )
        leader = await asyncio.create_task(clients.asynchronous.send(request, stream=True))
        others = [asyncio.create_task(post(clients, body(stream=True))) for _ in range(5)]
        await until(lambda: shared(model) == 5)
        upstream.cut = None
        await leader.aclose()
        assert all(one.content.endswith(b"data: [DONE]\n\n") for one in await asyncio.gather(*others))
    assert len(upstream.asked) == 2


async def test_who_opens_two_equal_streams_does_not_wait_for_himself(model: Model, upstream: Upstream) -> None:
    async with model.clients() as clients:
        openai = clients.async_openai()
        streams = [await openai.chat.completions.create(**body(), stream=True) for _ in range(2)]
        for one in streams:
            assert "".join([c.choices[0].delta.content or "" async for c in one]) == "forty two"
    assert len(upstream.asked) == 2 and shared(model) == 0


async def test_a_loop_is_never_blocked_for_a_flight(model: Model, upstream: Upstream) -> None:
    """A blocking call on a loop's thread would wait for what that loop itself has to carry."""
    upstream.go.clear()
    async with model.clients() as clients:
        leader = asyncio.create_task(post(clients, body()))
        await until(lambda: len(upstream.asked) == 1)
        threading.Timer(0.2, upstream.go.set).start()
        assert clients.sync.post(f"{clients.base_url}/chat/completions", json=body()).status_code == 200
        assert (await leader).status_code == 200
    assert len(upstream.asked) == 2


async def test_a_wait_is_bounded(model: Model, upstream: Upstream) -> None:
    """The leader's answer never comes; the other asks for itself, and is answered."""
    answers: list[Any] = []
    upstream.go.clear()
    async with model.clients({"max_wait": 0.05}) as clients:
        leader = asyncio.create_task(post(clients, body()))
        await until(lambda: len(upstream.asked) == 1)
        other = asyncio.create_task(post(clients, body()))
        await until(lambda: len(upstream.asked) == 2)
        upstream.go.set()
        answers += [(await leader).status_code, (await other).status_code]
    assert answers == [200, 200]


async def test_the_bound_is_the_calls_own_percentile(model: Model) -> None:
    cache = model.service({"max_wait": 30.0}).cache
    assert cache is not None and cache.longest_wait_s == 30.0
    for _ in range(95):
        cache.took(2.0)
    for _ in range(4):
        cache.took(100.0)
    assert cache.longest_wait_s == 4.0
    for _ in range(256):
        cache.took(0.001)
    assert cache.longest_wait_s == 1.0


async def test_it_can_be_left_out(model: Model, upstream: Upstream) -> None:
    upstream.go.clear()
    async with model.clients({"single_flight": False}) as clients:
        asked = [asyncio.create_task(post(clients, body())) for _ in range(5)]
        await until(lambda: len(upstream.asked) == 5)
        upstream.go.set()
        await asyncio.gather(*asked)
        await post(clients, body())
    assert len(upstream.asked) == 5


@pytest.mark.parametrize("blocking", [False, True])
async def test_whoever_waits_has_its_own_time(model: Model, upstream: Upstream, blocking: bool) -> None:
    upstream.go.clear()
    async with model.clients() as leading, model.clients(deadlines={"call": 0.2}) as hurried:
        leader = asyncio.create_task(post(leading, body()))
        await until(lambda: len(upstream.asked) == 1)
        with pytest.raises(httpx.TimeoutException):
            if blocking:
                await asyncio.to_thread(hurried.sync.post, f"{hurried.base_url}/chat/completions", json=body())
            else:
                await post(hurried, body())
        assert shared(model) == 1 and len(upstream.asked) == 1
        assert model.records[-1].error_type == "deadline"
        upstream.go.set()
        assert (await leader).status_code == 200
