"""Calls a second with many at once: what a user would run instead, and ours, in one run.

Each arm asks a server in a process of its own, which answers after a fixed time (200 ms) or at the pace of a decode
(first token after 50 ms, then one every 4 ms, 50 tokens); simulated, no engine computes anything. What the server can
do is shown by a load generator of raw sockets, which is none of the arms. Arms take turns in each round, in another
order each time.

    python eval/benchmarks/concurrency.py [--quick] [--rounds 7] [--output FILE]

The arm `openai on aiohttp` needs the package httpx-aiohttp; without it the table says so.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import math
import multiprocessing
import os
import platform
import random
import statistics
import time
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

MODEL = "model"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Is the valve shut? " * 50}], "max_tokens": 64}
TOKENS = 50
_CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
_EVENTS = [
    json.dumps(_CHUNK | {"choices": [{"index": 0, "delta": {"content": f"word{i}"}, "finish_reason": None}]})
    for i in range(TOKENS)
] + [json.dumps(_CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), "[DONE]"]
_WHOLE = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 50}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 50, "total_tokens": 350},
    }
).encode()
_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_WHOLE)
_SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _piece(text: str) -> bytes:
    data = f"data: {text}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


_PIECES = [_piece(event) for event in _EVENTS]


class _Server(asyncio.Protocol):
    """One connection: answers a request when it is whole, as its path asks."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._got = b""

    def connection_made(self, transport: Any) -> None:
        self._to = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            head = self._got[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._got) < end + 4 + length:
                return
            body, self._got = self._got[end + 4 : end + 4 + length], self._got[end + 4 + length :]
            streamed, decodes = b'"stream":true' in body.replace(b" ", b""), b"/decode/" in head
            if not decodes:
                answer = _SSE + b"".join(_PIECES) + b"0\r\n\r\n" if streamed else _JSON + _WHOLE
                self._loop.call_later(0.2, self._to.write, answer)
            elif streamed:
                self._loop.call_later(0.05, self._next, 0)
            else:
                self._loop.call_later(0.05 + 0.004 * TOKENS, self._to.write, _JSON + _WHOLE)

    def _next(self, k: int) -> None:
        if self._to.is_closing():
            return
        if k >= TOKENS:
            self._to.write(b"".join(_PIECES[k:]) + b"0\r\n\r\n")
            return
        self._to.write((_SSE if k == 0 else b"") + _PIECES[k])
        self._loop.call_later(0.004, self._next, k + 1)


def _serve(port: Any) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0, backlog=4096)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


Ask = Callable[[bool], Awaitable[None]]


async def _drain(client: Any, streamed: bool) -> None:
    answer = await client.chat.completions.create(**BODY, stream=streamed)
    if streamed:
        last = None
        async for event in answer:
            last = event
        assert last.choices[0].finish_reason == "stop"
    else:
        assert answer.choices[0].finish_reason == "stop"


async def openai_arm(url: str, stack: AsyncExitStack, **more: Any) -> Ask:
    """OpenAI's library, on whatever HTTP client it is given."""
    import openai

    client = await stack.enter_async_context(openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0, **more))
    return lambda streamed: _drain(client, streamed)


async def aiohttp_arm(url: str, stack: AsyncExitStack) -> Ask:
    """OpenAI's library on aiohttp, as it offers it."""
    import openai

    return await openai_arm(url, stack, http_client=openai.DefaultAioHttpClient())


async def litellm_arm(url: str, stack: AsyncExitStack) -> Ask:
    """LiteLLM's SDK."""
    import litellm

    async def ask(streamed: bool) -> None:
        more = {"api_base": url, "api_key": "x", "stream": streamed, "max_retries": 0}
        answer: Any = await litellm.acompletion(**BODY | {"model": f"openai/{MODEL}"}, **more)
        if streamed:
            async for _ in answer:
                pass

    return ask


def ours(engine: str) -> Callable[[str, AsyncExitStack], Awaitable[Ask]]:
    """OpenAI's library on our HTTP client, with the default layers."""

    async def arm(url: str, stack: AsyncExitStack) -> Ask:
        from nat_dynamo_plugin import DynamoModelConfig, make_service

        config = DynamoModelConfig(base_url=url, model_name=MODEL, api_key="x" * 8, connection={"engine": engine})
        http = await stack.enter_async_context(make_service(config, emit_record=lambda record: None).http_clients())
        client = http.async_openai()
        return lambda streamed: _drain(client, streamed)

    return arm


async def raw_arm(url: str, stack: AsyncExitStack) -> Ask:
    """Raw sockets, which look at nothing: the server's own limit."""
    port, path = int(url.split(":")[2].split("/")[0]), "/" + url.split("/", 3)[3] + "/chat/completions"
    idle: list[Any] = []

    async def ask(streamed: bool) -> None:
        body = json.dumps(BODY | {"stream": streamed}, separators=(",", ":")).encode()
        pair = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
        pair[1].write(head.encode() + body)
        if streamed:
            await pair[0].readuntil(b"\r\n0\r\n\r\n")
        else:
            await pair[0].readuntil(b"\r\n\r\n")
            await pair[0].readexactly(len(_WHOLE))
        idle.append(pair)

    stack.callback(lambda: [writer.close() for _, writer in idle])
    return ask


ARMS: dict[str, Callable[[str, AsyncExitStack], Awaitable[Ask]]] = {
    "raw sockets": raw_arm,
    "openai": openai_arm,
    "openai on aiohttp": aiohttp_arm,
    "litellm": litellm_arm,
    "ours": ours("fast"),
    "ours, httpx": ours("httpx"),
}
NEEDS = {"openai on aiohttp": "httpx_aiohttp", "litellm": "litellm"}


async def rate(
    arm: Callable[[str, AsyncExitStack], Awaitable[Ask]], url: str, at_once: int, streamed: bool, s: float
) -> float:
    """Calls a second with so many at once, begun within so many seconds after a first round that is not counted."""
    async with AsyncExitStack() as stack:
        ask = await arm(url, stack)
        await asyncio.gather(*(ask(streamed) for _ in range(at_once)))
        gc.collect()
        started, done = time.perf_counter(), 0

        async def worker() -> None:
            nonlocal done
            while True:
                await ask(streamed)
                done += 1
                if time.perf_counter() - started >= s:
                    return

        await asyncio.gather(*(worker() for _ in range(at_once)))
        return done / (time.perf_counter() - started)


def interval(values: list[float]) -> tuple[float, float]:
    """The t interval (95 %) of the geometric mean."""
    from scipy import stats

    logs = [math.log(value) for value in values]
    if len(logs) < 2:
        return values[0], values[0]
    half = stats.t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    middle = statistics.fmean(logs)
    return math.exp(middle - half), math.exp(middle + half)


def versions() -> str:
    """The packages that matter."""
    found = []
    for name in ("openai", "httpx", "aiohttp", "httpx-aiohttp", "litellm"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


def main() -> None:
    """Run all arms in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds of fewer cells")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("eval/results/concurrency.json"))
    asked = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(target=_serve, args=(there,), daemon=True)
    server.start()
    base = f"http://127.0.0.1:{here.recv()}"
    rounds, seconds = (2, 1.0) if asked.quick else (asked.rounds, 1.5)
    cells = [
        ("fixed", n, streamed) for n in ((256,) if asked.quick else (1, 32, 256, 1000)) for streamed in (False, True)
    ]
    cells += [] if asked.quick else [("decode", 256, True)]
    arms = [name for name in ARMS if name not in NEEDS or find_spec(NEEDS[name])]
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions()}. The server is simulated.")
    seen: dict[str, list[float]] = {}
    for k in range(rounds):
        for cell in cells:
            for name in random.Random(f"{k}{cell}").sample(arms, len(arms)):
                pace, at_once, streamed = cell
                got = asyncio.run(rate(ARMS[name], f"{base}/{pace}/v1", at_once, streamed, seconds))
                seen.setdefault(f"{pace}|{at_once}|{streamed}|{name}", []).append(got)
    server.terminate()
    server.join()
    print("| server | at once | | arm | calls/s, median | 95 % | times openai |\n|---|---|---|---|---|---|---|")
    for pace, at_once, streamed in cells:
        plain = seen[f"{pace}|{at_once}|{streamed}|openai"]
        for name in arms:
            values = seen[f"{pace}|{at_once}|{streamed}|{name}"]
            low, high = interval(values)
            ratios = [a / b for a, b in zip(values, plain, strict=True)]
            print(
                f"| {pace} | {at_once:,} | {'streamed' if streamed else 'unary'} | {name} "
                f"| {statistics.median(values):.1f} | {low:.1f} to {high:.1f} | {statistics.median(ratios):.2f} |"
            )
    for name in NEEDS.keys() - set(arms):
        print(f"{name}: not run, {NEEDS[name].replace('_', '-')} is not installed")
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(seen, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
