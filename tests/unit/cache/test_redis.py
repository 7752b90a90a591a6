"""Entries in a real Redis, and a real Redis in trouble: no call fails of it."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nat_dynamo_plugin import DynamoModelConfig, make_service
from nat_dynamo_plugin.cache.entry import Entry, pack
from nat_dynamo_plugin.cache.redis_store import RedisStore
from nat_dynamo_plugin.cache.responses import ResponseCache
from nat_dynamo_plugin.cache.store import StoreError
from nat_dynamo_plugin.question.org import org_digest, org_scope

from ..redis_server import PATIENCE_S, RedisServer, needs_redis
from .upstream import Model, Upstream, answer, body, post

pytestmark = needs_redis

CALLS = 1000
PATIENT = {"redis_timeout": 1.0}
"""For tests of what is kept: a slow machine is no outage."""


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def store_of(model: Model) -> RedisStore:
    cache = model.services[-1].cache
    assert cache is not None and isinstance(cache.store, RedisStore)
    return cache.store


async def test_another_process_is_answered(model: Model, upstream: Upstream, server: RedisServer) -> None:
    """Two caches of different configs share nothing but Redis."""
    for entries in (1, 2):
        async with model.clients({"redis_url": server.url, "max_entries": entries, **PATIENT}) as clients:
            await post(clients, body())
            assert store_of(model).flush()
    assert len(upstream.asked) == 1 and [record.cache for record in model.records] == [None, "exact"]
    [name] = [key for key in server.client().scan_iter() if b":e:" in key]
    assert 0 < server.client().pttl(name) <= 3_600_000
    assert not [key for key in server.client().scan_iter() if b":l:" in key]


async def test_a_call_right_behind_is_answered(model: Model, upstream: Upstream, server: RedisServer) -> None:
    """What is still to be written is seen by its own process."""
    async with model.clients({"redis_url": server.url, **PATIENT}) as clients:
        for _ in range(20):
            await post(clients, body())
            await asyncio.to_thread(clients.sync.post, f"{clients.base_url}/chat/completions", json=body())
    assert len(upstream.asked) == 1


async def test_what_is_kept_is_encrypted_where_that_is_asked_for(
    model: Model, upstream: Upstream, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_SECRET", "a-long-secret")
    cache = {"redis_url": server.url, "encryption_key": "env:CACHE_SECRET", **PATIENT}
    async with model.clients(cache) as clients:
        for _ in range(2):
            await post(clients, body())
        store_of(model).flush()
    assert len(upstream.asked) == 1
    values = [server.client().get(key) for key in server.client().scan_iter()]
    assert values and not any(b"forty" in value for value in values)


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x80\x04K\x01.", bytes((9,)) + b"0" * 40, "other"])
async def test_a_foreign_entry_is_written_over(
    model: Model, upstream: Upstream, server: RedisServer, junk: Any
) -> None:
    async with model.clients({"redis_url": server.url, **PATIENT}) as clients:
        await post(clients, body())
        assert store_of(model).flush()
        [name] = [key for key in server.client().scan_iter() if b":e:" in key]
        other = pack(Entry(key="another", created=time.time(), answer=json.dumps(answer("wrong")).encode()))
        server.client().set(name, other if junk == "other" else junk)
        assert (await post(clients, body())).json()["choices"][0]["message"]["content"] == "forty two"
        assert store_of(model).flush()
        await post(clients, body())
    assert len(upstream.asked) == 2


async def test_entries_are_cleared_by_model_org_and_age(model: Model, server: RedisServer) -> None:
    async with model.clients({"redis_url": server.url, **PATIENT}) as clients:
        cache = model.services[-1].cache
        assert cache is not None
        for org in ("acme", "globex"):
            with org_scope(org):
                for name in ("m", "m-001"):
                    await post(clients, body(model=name), None)
        assert store_of(model).flush()
    upstream_models = sorted(entry.model for _, entry in cache.entries() if isinstance(entry, Entry))
    assert upstream_models == ["m", "m"]  # the server says m, which is no m-001
    assert cache.clear(older_than_s=PATIENCE_S) == 0 and cache.clear(model="n") == 0
    assert cache.clear(org=org_digest("acme")) == 1
    assert cache.clear() == 1 and not list(cache.entries())


def test_a_server_that_is_not_there_is_said_at_the_start(upstream: Upstream, server: RedisServer, caplog: Any) -> None:
    server.kill()
    with pytest.raises(ValueError, match="can not be used"):
        make_service(config(upstream, backend="redis", redis_url=server.url))
    with caplog.at_level(logging.INFO, "nat_dynamo_plugin.config.cache"):
        service = make_service(config(upstream, redis_url=server.url))
    assert service.cache is not None and service.cache.store.name == "memory"
    assert "in memory" in caplog.text


def test_a_wrong_password_is_said_at_the_start_and_never_shown(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = RedisServer(tmp_path, "--requirepass", "right")
    server.start()
    try:
        url = server.url.replace("://", "://:wrong-canary@")
        with pytest.raises(ValueError, match="can not be used") as caught:
            make_service(config(upstream, backend="redis", redis_url=url))
        assert "canary" not in str(caught.value)
        monkeypatch.setenv("THE_URL", server.url.replace("://", "://:right@"))
        service = make_service(config(upstream, backend="redis", redis_url="env:THE_URL"))
        assert service.cache is not None and service.cache.store.name == "redis"
    finally:
        server.close()


def config(upstream: Upstream, **cache: Any) -> DynamoModelConfig:
    return DynamoModelConfig(base_url=upstream.base_url, model_name="m", cache=cache)


@pytest.mark.parametrize("trouble", ["frozen", "killed", "password"])
async def test_an_outage_fails_no_call(
    model: Model, upstream: Upstream, server: RedisServer, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand calls, each of another text, while Redis is in trouble; then one that it answers again."""
    caplog.set_level(logging.WARNING, "nat_dynamo_plugin.cache")
    async with model.clients({"redis_url": server.url}) as clients:
        store = store_of(model)
        await post(clients, body())
        if trouble == "frozen":
            server.freeze()
        elif trouble == "killed":
            server.kill()
        else:
            admin = server.client()
            admin.config_set("requirepass", "new")
            admin.client_kill_filter(_type="normal", skipme=True)
        statuses = [(await post(clients, body(f"{k}"))).status_code for k in range(CALLS)]
        assert statuses == [200] * CALLS and store.reach.is_down
        if trouble == "frozen":
            server.thaw()
        elif trouble == "killed":
            server.start()
        else:
            admin.config_set("requirepass", "")
        await asyncio.to_thread(store.reach.up.wait, PATIENCE_S)
        assert not store.reach.is_down
        await post(clients, body("again"))
        assert store.flush()
    asked = len(upstream.asked)
    async with model.clients({"redis_url": server.url, "max_entries": 77, **PATIENT}) as clients:
        await post(clients, body("again"))
    assert len(upstream.asked) == asked
    said = [record.getMessage() for record in caplog.records]
    assert len([one for one in said if "can not be asked" in one]) == 1
    assert len([one for one in said if "can be asked again" in one]) == 1


async def test_a_full_server_fails_no_call_and_still_answers(
    model: Model, upstream: Upstream, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "nat_dynamo_plugin.cache")
    async with model.clients({"redis_url": server.url, **PATIENT}) as clients:
        store = store_of(model)
        await post(clients, body("kept"))
        assert store.flush()
        server.client().config_set("maxmemory-policy", "noeviction")
        server.client().config_set("maxmemory", 1)
        statuses = [(await post(clients, body(f"{k}"))).status_code for k in range(CALLS)]
        assert statuses == [200] * CALLS and not store.reach.is_down
        asked = len(upstream.asked)
        assert (await post(clients, body("kept"))).headers["x-nat-dynamo-cache"]
        assert len(upstream.asked) == asked
        assert store.flush()
        server.client().config_set("maxmemory", 0)
        await post(clients, body("new"))
        assert store.flush()
        assert (await post(clients, body("new"))).headers["x-nat-dynamo-cache"]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "keeps nothing new" in said[0] and "keeps answers again" in said[1]


ASK = """
import sys, threading
from nat_dynamo_plugin import DynamoModelConfig, make_service
import httpx, asyncio, json

async def main():
    cache = {"redis_url": sys.argv[2], "redis_timeout": 1.0}
    config = DynamoModelConfig(base_url=sys.argv[1], model_name="m", cache=cache)
    async with make_service(config).http_clients() as clients:
        print("ready", flush=True)
        sys.stdin.readline()
        asked = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "What is it?"}]}
        url = f"{clients.base_url}/chat/completions"
        replies = await asyncio.gather(*(clients.asynchronous.post(url, json=asked) for _ in range(25)))
        print(sum(reply.status_code == 200 for reply in replies), flush=True)

asyncio.run(main())
"""


class Asker:
    """A process that asks 25 times at once, when it is told."""

    def __init__(self, upstream: Upstream, server: RedisServer) -> None:
        command = [sys.executable, "-c", ASK, upstream.base_url, server.url]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def test_four_processes_are_one(upstream: Upstream, server: RedisServer) -> None:
    upstream.go.clear()
    askers = [Asker(upstream, server) for _ in range(4)]
    assert [one.line() for one in askers] == ["ready"] * 4
    for one in askers:
        one.go()
    upstream.came.acquire(timeout=PATIENCE_S)
    # Each process has one that looks for the entry; all have looked by now if Redis has counted so many scripts.
    until(lambda: server.client().info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0) > 12)
    upstream.go.set()
    assert [one.line() for one in askers] == ["25"] * 4
    assert len(upstream.asked) == 1


def test_a_killed_leader_is_replaced(upstream: Upstream, server: RedisServer) -> None:
    upstream.go.clear()
    askers = [Asker(upstream, server) for _ in range(2)]
    assert [one.line() for one in askers] == ["ready"] * 2
    askers[0].go()
    upstream.came.acquire(timeout=PATIENCE_S)
    askers[1].go()
    askers[0].process.kill()
    upstream.came.acquire(timeout=PATIENCE_S)  # once the lease is over
    upstream.go.set()
    assert askers[1].line() == "25" and len(upstream.asked) == 2


def test_a_lease_is_renewed_and_given_back_only_by_its_holder(server: RedisServer) -> None:
    one, other = RedisStore(server.url, 1.0), RedisStore(server.url, 1.0)
    assert one.claim("k", "", "m", "1").leads
    one.hold("k", "1")
    name = next(iter(server.client().scan_iter()))
    server.client().pexpire(name, 500)
    one._leases.renew()
    assert server.client().pttl(name) > 1000
    other.release("k", "", "m", "2", kept=True)
    assert other.flush() and server.client().get(name) == b"1"
    claim = other.claim("k", "", "m", "2")
    assert not claim.leads and not claim.alone and claim.value is None
    one.release("k", "", "m", "1", kept=False)
    assert one.flush() and other.claim("k", "", "m", "2").alone


def test_what_people_ask_of_a_server_that_is_gone_says_so(server: RedisServer) -> None:
    cache = ResponseCache(RedisStore(server.url))
    server.kill()
    with pytest.raises(StoreError, match=r"127\.0\.0\.1"):
        list(cache.entries())
    with pytest.raises(StoreError):
        cache.clear()
