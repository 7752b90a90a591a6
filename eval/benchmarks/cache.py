"""What the response cache costs: time added to a miss, and the time of a hit, beside other caches in the same run.

The server answers from memory, so that only our own code is timed: the layers of an LLM with default config, without
and with `cache`, call by call in turn. `memory` and `redis` are the stores, the latter on loopback (left out where
`redis-server` is not installed). Of other caches the look-up and the store are timed alone, with the same messages,
where they are installed: LiteLLM's `Cache(type="local")`, LangChain's `InMemoryCache`, NAT's `_type: cache` middleware.
They do less: none of these three replays a stream, keeps tenants apart or lets one of equal calls lead.

    python eval/benchmarks/cache.py [--calls N] [--entries N]

`--entries` also fills Redis with so many entries and times look-ups among them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

from nat_dynamo_plugin import DynamoModelConfig, make_service
from nat_dynamo_plugin.cache.entry import Entry, pack
from nat_dynamo_plugin.cache.redis_store import RedisStore
from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import run, run_async
from nat_dynamo_plugin.http.headers import Headers

WORDS = "the tool returned three files and the largest is the report of last spring which nobody has read".split()  # noqa: SIM905
SIZES = {"1 KB": 2**10, "32 KB": 2**15, "256 KB": 2**18}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "It is shut. " * 40}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 100, "completion_tokens": 120, "total_tokens": 220},
}
CONTENT = json.dumps(ANSWER).encode()


class InMemory:
    """Answers without a network."""

    def transmit(self, call: Call) -> Reply:
        """Send."""
        return Reply.made(200, CONTENT)

    def read(self, reply: Reply, most: int) -> bytes:
        """Read."""
        return reply.content or b""

    def close(self, reply: Reply) -> None:
        """Leave."""


class AsyncInMemory:
    """The same, awaiting."""

    async def transmit(self, call: Call) -> Reply:
        """Send."""
        return Reply.made(200, CONTENT)

    async def read(self, reply: Reply, most: int) -> bytes:
        """Read."""
        return reply.content or b""

    async def close(self, reply: Reply) -> None:
        """Leave."""


def messages(size: int, number: int) -> list[dict[str, str]]:
    """A conversation of about so many bytes, like no other."""
    draw = random.Random(number)
    turns = []
    while size > 0:
        text = " ".join(draw.choices(WORDS, k=min(100, max(5, size // 6))))
        turns.append({"role": "user" if len(turns) % 2 == 0 else "assistant", "content": f"{text} {number}"})
        size -= len(text) + 45
    return turns


def body(size: int, number: int) -> bytes:
    """A request as OpenAI's library writes it."""
    return json.dumps(
        {"model": "m", "messages": messages(size, number), "temperature": 0}, separators=(",", ":")
    ).encode()


def call_of(content: bytes, streamed: bool = False) -> Call:
    """A call as a client makes it."""
    if streamed:
        content = content[:-1] + b',"stream":true,"stream_options":{"include_usage":true}}'
    native = SimpleNamespace(method="POST", url="http://127.0.0.1:1/v1/chat/completions")
    raw = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    return Call(native, "chat_completions", Headers(raw), content)


@contextlib.contextmanager
def redis_server() -> Iterator[str | None]:
    """A Redis of its own; `None` if there is none to be had."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [binary, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            for _ in range(500):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()
            process.wait()


def us(times: list[float]) -> str:
    """Median and 95th percentile in µs."""
    times = sorted(times)
    return f"{statistics.median(times) * 1e6:8.0f} {times[len(times) * 95 // 100] * 1e6:8.0f}"


def timed(do: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def service_with(cache: dict[str, Any] | None) -> Any:
    """An LLM's layers."""
    config = DynamoModelConfig(base_url="http://127.0.0.1:1/v1", model_name="m", cache=cache)
    return make_service(config, emit_record=lambda record: None)


def ended(call: Call, flow: Any) -> None:
    """Run a call to its end, as a shell does."""
    run(flow, InMemory())
    call.exhausted()
    call.finish()


def ours(url: str | None, calls: int) -> None:
    """Misses in turn without and with a cache, then hits."""
    arms = {"no cache": service_with(None), "memory": service_with({"max_entries": 10**6})}
    if url is not None:
        arms["redis"] = service_with({"redis_url": url, "backend": "redis", "redis_timeout": 1.0})
    print(f"\n{'ours, µs':34}{'median':>8} {'p95':>8}   (added to a call without cache: median)")
    for name, size in SIZES.items():
        count = calls if size < 2**18 else calls // 4
        bodies = [body(size, number) for number in range(count)]
        for kind in ("miss", "hit", "hit, streamed"):
            times: dict[str, list[float]] = {arm: [] for arm in arms}
            for content in bodies:
                for arm, service in arms.items():
                    if arm == "no cache" and kind != "miss":
                        continue
                    call = call_of(content, streamed="streamed" in kind)
                    times[arm].append(timed(lambda call=call, service=service: ended(call, service.send(call))))
                    assert (call.record.cache is not None) is (kind != "miss"), (arm, kind)
                    if kind == "miss" and arm == "redis":
                        service.cache.store.flush()
            base = statistics.median(times["no cache"]) if kind == "miss" else 0.0
            for arm, took in times.items():
                if took:
                    more = f"   +{(statistics.median(took) - base) * 1e6:.0f}" if base and arm != "no cache" else ""
                    print(f"  {name:7} {kind:14} {arm:9} {us(took)}{more}")
    if url is not None:
        asyncio.run(hits_async(arms["redis"], "redis"))
    asyncio.run(hits_async(arms["memory"], "memory"))


async def hits_async(service: Any, arm: str) -> None:
    """Hits on an event loop."""
    content, times = body(2**15, 0), []
    for _ in range(500):
        call = call_of(content)
        started = time.perf_counter()
        await run_async(service.send(call), AsyncInMemory())
        call.finish()
        times.append(time.perf_counter() - started)
    print(f"  32 KB   hit, async     {arm:9} {us(times)}")


def others(calls: int) -> None:
    """Other caches, their look-up and store alone."""
    print(f"\n{'others at 32 KB, µs':34}{'median':>8} {'p95':>8}")
    asked = [messages(2**15, number) for number in range(calls)]
    for name, made in (("litellm", _litellm), ("langchain-core", _langchain), ("nvidia-nat-core", _nat)):
        try:
            miss, store, hit = made()
        except Exception as error:
            print(f"  {name:20} left out: {type(error).__name__}: {str(error)[:80]}")
            continue
        for kind, do in (("miss", miss), ("store", store), ("hit", hit)):
            print(f"  {name:20} {kind:10} {us([timed(partial(do, one)) for one in asked])}")


def _litellm() -> tuple[Callable[[Any], Any], ...]:
    import litellm
    from litellm.caching.caching import Cache

    cache = Cache(type="local")
    answer = litellm.ModelResponse(**ANSWER)

    def look(one: Any) -> Any:
        return cache.get_cache(model="m", messages=one, temperature=0)

    return look, lambda one: cache.add_cache(answer, model="m", messages=one, temperature=0), look


def _langchain() -> tuple[Callable[[Any], Any], ...]:
    from langchain_core.caches import InMemoryCache
    from langchain_core.load import dumps
    from langchain_core.messages import AIMessage, HumanMessage
    from langchain_core.outputs import ChatGeneration

    cache = InMemoryCache()
    answer = [ChatGeneration(message=AIMessage("It is shut. " * 40))]

    def key(one: Any) -> str:
        # As BaseChatModel does before each look-up.
        return dumps([HumanMessage(t["content"]) if t["role"] == "user" else AIMessage(t["content"]) for t in one])

    def look(one: Any) -> Any:
        return cache.lookup(key(one), "m")

    return look, lambda one: cache.update(key(one), "m", answer), look


def _nat() -> tuple[Callable[[Any], Any], ...]:
    from nat.middleware.cache.cache_middleware import CacheMiddleware

    cache = CacheMiddleware(enabled_mode="always", similarity_threshold=1.0, max_entries=10**6)
    loop = asyncio.new_event_loop()

    async def answer(*_: Any, **__: Any) -> Any:
        return ANSWER

    context: Any = SimpleNamespace(name="f")

    def look(one: Any) -> Any:
        return loop.run_until_complete(cache.function_middleware_invoke(one, call_next=answer, context=context))

    return look, lambda one: None, look


def many(url: str, entries: int) -> None:
    """Look-ups among many entries."""
    store = RedisStore(url, 1.0)
    client = store._client
    for first in range(0, entries, 1000):
        pipe = client.pipeline(transaction=False)
        for number in range(first, min(entries, first + 1000)):
            key = f"{number:064x}"
            entry = Entry(key=key, created=time.time(), answer=b'{"choices": []}', model="m")
            pipe.set(f"nat-dynamo:1:e:-:62c66a7a5dd7:{{{key}}}", pack(entry), px=3_600_000)
        pipe.execute()
    draw = random.Random(0)
    times = [timed(lambda k=k: store.claim(f"{k:064x}", "", "m", None)) for k in draw.sample(range(entries), 2000)]
    found = store.claim(f"{entries - 1:064x}", "", "m", None).value is not None
    used = client.info("memory")["used_memory"] / 2**20
    print(f"\n{entries:,} entries in Redis: {used:,.0f} MiB there, the last found: {found}")
    print(f"  a look-up, µs (median, p95): {us(times)}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--entries", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    packages = ("msgspec", "redis", "litellm", "langchain-core", "nvidia-nat-core")
    found = []
    for name in packages:
        with contextlib.suppress(Exception):
            found.append(f"{name} {version(name)}")
    print(f"{platform.machine()}, {platform.system()}, Python {sys.version.split()[0]}; {', '.join(found)}")
    with redis_server() as url:
        ours(url, arguments.calls)
        others(arguments.calls)
        if url is not None and arguments.entries:
            many(url, arguments.entries)


if __name__ == "__main__":
    main()
