"""Calls a second with many at once: what a user would run instead, and ours, in one run.

Each arm asks a server in a process of its own, which answers after a fixed time (200 ms) or at the pace of a decode
(first token after 50 ms, then one every 4 ms, 50 tokens); simulated, no engine computes anything. What the server can
do is shown by a load generator of raw sockets, which is none of the arms. Arms take turns in each round, in another
order each time.

    python eval/benchmarks/concurrency.py [--quick] [--rounds 7] [--output FILE]

An arm that is not through with its cell after 8 s is measured by what it did until then. `sync` is as many threads with
one blocking client. The arm `openai on aiohttp` needs the package httpx-aiohttp; without it the table says so.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loopback import Requests, serve

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

MODEL = "model"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Is the valve shut? " * 50}], "max_tokens": 64}
TOKENS = 50
LONGEST_S = 8.0
"""Seconds after which an arm's cell is measured by what was done until then."""
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


class Paced(Requests):
    """Answers as a request's path asks."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()

    def asked(self, head: bytes, streamed: bool) -> None:
        """Answer after a fixed time, or at the pace of a decode."""
        if b"/decode/" not in head:
            answer = _SSE + b"".join(_PIECES) + b"0\r\n\r\n" if streamed else _JSON + _WHOLE
            self._loop.call_later(0.2, self.to.write, answer)
        elif streamed:
            self._loop.call_later(0.05, self._next, 0)
        else:
            self._loop.call_later(0.05 + 0.004 * TOKENS, self.to.write, _JSON + _WHOLE)

    def _next(self, k: int) -> None:
        if self.to.is_closing():
            return
        if k >= TOKENS:
            self.to.write(b"".join(_PIECES[k:]) + b"0\r\n\r\n")
            return
        self.to.write((_SSE if k == 0 else b"") + _PIECES[k])
        self._loop.call_later(0.004, self._next, k + 1)


Ask = Callable[[bool], Awaitable[None]]


async def drain(client: Any, streamed: bool) -> None:
    """Make a call with OpenAI's library, and take all of its answer."""
    await _taken(await client.chat.completions.create(**BODY, stream=streamed), streamed)


async def _taken(answer: Any, streamed: bool) -> None:
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
    return lambda streamed: drain(client, streamed)


async def aiohttp_arm(url: str, stack: AsyncExitStack) -> Ask:
    """OpenAI's library on aiohttp, as it offers it."""
    import openai

    return await openai_arm(url, stack, http_client=openai.DefaultAioHttpClient())


async def builtin_arm(url: str, stack: AsyncExitStack) -> Ask:
    """OpenAI's library on the HTTP client of NAT's own `_type: dynamo`, with its hints, which stock Dynamo refuses."""
    from nat.llm import dynamo_llm as builtin

    config = builtin.DynamoModelConfig(model_name=MODEL, base_url=url, api_key="x", enable_nvext_hints=True)
    http = await stack.enter_async_context(builtin._create_httpx_client_with_dynamo_hooks(config))
    return await openai_arm(url, stack, http_client=http)


async def litellm_arm(url: str, stack: AsyncExitStack) -> Ask:
    """LiteLLM's SDK."""
    import litellm

    async def ask(streamed: bool) -> None:
        more = {"api_base": url, "api_key": "x", "stream": streamed, "max_retries": 0}
        await _taken(await litellm.acompletion(**BODY | {"model": f"openai/{MODEL}"}, **more), streamed)

    return ask


def ours(engine: str) -> Callable[[str, AsyncExitStack], Awaitable[Ask]]:
    """OpenAI's library on our HTTP client, with the default layers."""

    async def arm(url: str, stack: AsyncExitStack) -> Ask:
        from nat_dynamo_plugin import DynamoModelConfig, make_service

        config = DynamoModelConfig(base_url=url, model_name=MODEL, api_key="x" * 8, connection={"engine": engine})
        http = await stack.enter_async_context(make_service(config, emit_record=lambda record: None).http_clients())
        client = http.async_openai()
        return lambda streamed: drain(client, streamed)

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
    "NAT's built-in": builtin_arm,
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
        done = 0

        async def worker(seconds: float) -> None:
            nonlocal done
            while True:
                await ask(streamed)
                done += 1
                if time.perf_counter() - started >= seconds:
                    return

        for seconds in (0.0, s):
            gc.collect()
            started, done = time.perf_counter(), 0
            workers = [asyncio.create_task(worker(seconds)) for _ in range(at_once)]
            ended, late = await asyncio.wait(workers, timeout=LONGEST_S)
            took, counted = time.perf_counter() - started, done
            for one in late:
                one.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            for one in ended:
                one.result()
            if late:
                break
        return max(counted, 1) / took  # of an arm that has answered none, what it stays below


def _openai_sync(url: str, stack: ExitStack, **more: Any) -> Any:
    import openai

    return stack.enter_context(openai.OpenAI(base_url=url, api_key="x", max_retries=0, **more))


def _ours_sync(engine: str) -> Callable[[str, ExitStack], Any]:
    def arm(url: str, stack: ExitStack) -> Any:
        from nat_dynamo_plugin import DynamoModelConfig, make_service

        config = DynamoModelConfig(base_url=url, model_name=MODEL, api_key="x" * 8, connection={"engine": engine})
        clients, loop = make_service(config, emit_record=lambda record: None).http_clients(), asyncio.new_event_loop()
        stack.callback(loop.close)
        http = loop.run_until_complete(clients.__aenter__())
        stack.callback(lambda: loop.run_until_complete(clients.__aexit__(None, None, None)))
        return http.openai()

    return arm


SYNC_ARMS: dict[str, Callable[[str, ExitStack], Any]] = {
    "openai": _openai_sync,
    "ours": _ours_sync("fast"),
    "ours, httpx": _ours_sync("httpx"),
}


def rate_sync(arm: Callable[[str, ExitStack], Any], url: str, threads: int, streamed: bool, s: float) -> float:
    """Calls a second of so many threads with one client; see `rate`."""
    with ExitStack() as stack:
        client = arm(url, stack)

        def worker(until: float) -> int:
            done = 0
            while True:
                answer = client.chat.completions.create(**BODY, stream=streamed)
                last = list(answer)[-1] if streamed else answer
                assert last.choices[0].finish_reason == "stop"
                done += 1
                if time.perf_counter() >= until:
                    return done

        with ThreadPoolExecutor(threads) as pool:
            for seconds in (0.0, s):
                gc.collect()
                started = time.perf_counter()
                done = sum(pool.map(worker, [started + seconds] * threads))
                took = time.perf_counter() - started
        return done / took


def interval(values: list[float]) -> tuple[float, float]:
    """The t interval (95 %) of the geometric mean."""
    from scipy import stats

    logs = [math.log(value) for value in values]
    if len(logs) < 2:
        return values[0], values[0]
    half = stats.t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    middle = statistics.fmean(logs)
    return math.exp(middle - half), math.exp(middle + half)


def machine() -> str:
    """Processor, load and the packages that matter."""
    found = []
    for name in ("nat-dynamo-plugin", "nvidia-nat-core", "openai", "httpx", "aiohttp", "httpx-aiohttp", "litellm"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    models = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    cpu = f"{os.cpu_count()} cores ({models[0] if models else platform.machine()}), load {os.getloadavg()[0]:.1f}"
    return f"{cpu}, Python {platform.python_version()}, {', '.join(found)}"


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


Cell = tuple[str, str, int, bool]
"""How the server answers (`fixed` or `decode`), `async` or `sync`, how many at once, whether streamed."""


def cells_of(quick: bool) -> list[Cell]:
    """What is measured."""
    counts = (256,) if quick else (1, 32, 256, 1000)
    cells: list[Cell] = [("fixed", "async", n, streamed) for n in counts for streamed in (False, True)]
    if not quick:
        cells += [("decode", "async", 256, streamed) for streamed in (False, True)]
        cells += [("fixed", "sync", n, streamed) for n in (64, 256) for streamed in (False, True)]
    return cells


def arms_of(cell: Cell) -> list[str]:
    """The arms of a cell that can run here."""
    arms: list[str] = list(ARMS if cell[1] == "async" else SYNC_ARMS)
    return [name for name in arms if name not in NEEDS or find_spec(NEEDS[name])]


def measure(cell: Cell, name: str, base: str, seconds: float) -> float:
    """One arm in one cell, calls a second."""
    pace, mode, at_once, streamed = cell
    url = f"{base}/{pace}/v1"
    if mode == "sync":
        return rate_sync(SYNC_ARMS[name], url, at_once, streamed, seconds)
    return asyncio.run(rate(ARMS[name], url, at_once, streamed, seconds))


def table(seen: dict[Cell, dict[str, list[float]]]) -> str:
    """What was measured, as Markdown."""
    lines = [
        "| server | | at once | | arm | calls/s, median | 95 % | times openai |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (pace, mode, at_once, streamed), arms in seen.items():
        for name, values in arms.items():
            low, high = interval(values)
            ratios = [a / b for a, b in zip(values, arms["openai"], strict=True)]
            lines.append(
                f"| {pace} | {mode} | {at_once:,} | {'streamed' if streamed else 'unary'} | {name} "
                f"| {statistics.median(values):.1f} | {low:.1f} to {high:.1f} | {statistics.median(ratios):.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run all arms in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds of fewer cells")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("eval/results/concurrency.json"))
    asked = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(target=serve, args=(Paced, there), daemon=True)
    server.start()
    base = f"http://127.0.0.1:{here.recv()}"
    rounds, seconds = (2, 1.0) if asked.quick else (asked.rounds, 1.0)
    print(f"{machine()}. The server is simulated.", flush=True)
    seen: dict[Cell, dict[str, list[float]]] = {cell: {n: [] for n in arms_of(cell)} for cell in cells_of(asked.quick)}
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    for k in range(rounds):
        for cell, arms in seen.items():
            for name in random.Random(f"{k}{cell}").sample(list(arms), len(arms)):
                arms[name].append(measure(cell, name, base, seconds))
        kept = [{"cell": cell, "arms": arms} for cell, arms in seen.items()]
        asked.output.write_text(json.dumps({"machine": machine(), "seen": kept}, indent=1), encoding="utf-8")
        print(f"round {k + 1} of {rounds} done", flush=True)
    server.terminate()
    server.join()
    print(table(seen))
    for name, package in NEEDS.items():
        if not find_spec(package):
            needed = package.replace("_", "-")
            print(f"{name}: not run, {needed} is not installed (pip install {needed})")


if __name__ == "__main__":
    main()
