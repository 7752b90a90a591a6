"""What our transport costs: time added to one request, and requests per second against a real Dynamo.

Every arm runs in one process, request by request in turn, so that whatever else the machine does hits all alike:

- `bare`: httpx as it is;
- `ours`: `DynamoTransport` with the default config and exporters;
- `builtin`: the transport of NAT's own `_type: dynamo`, hints on (async only, it has no other).

Added time is measured twice: against a transport that answers from memory (what our code costs), and against a small
HTTP server on loopback (what a user waits, sockets included). Throughput is measured against an embedded Dynamo.

    python eval/benchmarks/overhead.py [--quick] [--output DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import io
import json
import logging
import multiprocessing
import os
import platform
import pstats
import random
import statistics
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext
from nat_dynamo_plugin.telemetry import exporters as telemetry
from nat_dynamo_plugin.transport import DynamoTransport

SIZES = {"1 KB": 2**10, "32 KB": 2**15, "256 KB": 2**18, "1 MB": 2**20, "4 MB": 2**22}
REPETITIONS = {"1 KB": 1000, "32 KB": 1000, "256 KB": 300, "1 MB": 100, "4 MB": 40}
CONCURRENCY = {1: 300, 32: 1500, 256: 1000}
ROUNDS = 5
Keep = Callable[[str, dict[str, Any]], None]
"""Takes a row of a table of the results."""
SENTENCES = {
    "ASCII": "The tool returned 3 files; the largest is report_final.txt with 18,204 bytes, changed on Monday. ",
    "CJK": "工具返回了三个文件,其中最大的是季度报告,共一万八千字节,星期一修改过,请核对后再发送给客户。",
}
HEADERS = {
    "accept": "application/json",
    "content-type": "application/json",
    "user-agent": "AsyncOpenAI/Python 2.54.0",
    "x-stainless-lang": "python",
    "x-stainless-package-version": "2.54.0",
    "x-stainless-os": "Linux",
    "x-stainless-arch": "x64",
    "x-stainless-runtime": "CPython",
    "x-stainless-runtime-version": platform.python_version(),
    "authorization": "Bearer not-a-key",
}
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Here you are. " * 40}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 900, "completion_tokens": 160, "prompt_tokens_details": {"cached_tokens": 880}},
        "nvext": {"worker_id": {"decode_worker_id": 2**63 + 1}, "timing": {"ttft_ms": 8.1, "total_time_ms": 40.2}},
    }
).encode()


def _event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


EVENTS = [
    _event({"model": "m", "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]})
    for _ in range(100)
] + [
    _event({"model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
    _event({"model": "m", "choices": [], "usage": {"prompt_tokens": 900, "completion_tokens": 100}}),
    b"data: [DONE]\n\n",
]


def body(size: int, text: str, *, streamed: bool = False) -> bytes:
    """An agent's conversation of about `size` bytes: user turns, tool calls with JSON arguments, tool results."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "You call tools to solve the user's tasks. " * 4}]
    used = 0
    i = 0
    while used < size - 600:
        content = SENTENCES[text] * 6
        result = json.dumps({"line": i, "content": content}, ensure_ascii=False)
        call = {"id": f"call_{i}", "type": "function", "function": {"name": "cat", "arguments": f'{{"file": "f{i}"}}'}}
        turn = [
            {"role": "user", "content": content},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{i}", "content": result},
        ]
        messages += turn
        used += len(json.dumps(turn, ensure_ascii=False).encode())
        i += 1
    data = {"model": "m", "messages": messages, "max_tokens": 64, "temperature": 0.0} | (
        {"stream": True} if streamed else {}
    )
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


class _Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


class InMemory(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Reads the request as a network transport does, and answers from memory."""

    def __init__(self, streamed: bool) -> None:
        self._chunks = EVENTS if streamed else [ANSWER]
        kind = "text/event-stream" if streamed else "application/json"
        self._headers = [("content-type", kind), ("date", "now"), ("server", "memory")]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        _ = request.headers.raw
        return httpx.Response(200, headers=self._headers, stream=_Stream(self._chunks))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for _ in request.stream:  # type: ignore[union-attr]
            pass
        return self._answer(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async for _ in request.stream:  # type: ignore[union-attr]
            pass
        return self._answer(request)


def ours(transport: Any) -> DynamoTransport:
    """Our transport around another, as a user of the default config gets it."""
    config = DynamoModelConfig(model_name="m", base_url="http://127.0.0.1:1/v1")
    return DynamoTransport(transport, config)


def builtin(transport: Any) -> Any:
    """NAT's own transport around another, with the defaults of its config and hints on."""
    from nat.llm.dynamo_llm import _DynamoTransport

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _DynamoTransport(transport, total_requests=10, osl=512, iat=250)


def _spread(values: list[float]) -> dict[str, float]:
    quartiles = statistics.quantiles(values, n=4)
    return {"median": statistics.median(values), "p25": quartiles[0], "p75": quartiles[2]}


def _in_turn(names: list[str], repetitions: int) -> Iterator[str]:
    order = random.Random(1)
    for _ in range(repetitions):
        yield from order.sample(names, len(names))


def time_sync(clients: dict[str, httpx.Client], url: str, payload: bytes, streamed: bool, n: int) -> dict[str, Any]:
    """Microseconds of a request for each client."""
    times: dict[str, list[float]] = {name: [] for name in clients}
    for name in _in_turn(list(clients), n + 10):
        started = time.perf_counter()
        if streamed:
            with clients[name].stream("POST", url, content=payload, headers=HEADERS) as response:
                for _ in response.iter_raw():
                    pass
        else:
            clients[name].post(url, content=payload, headers=HEADERS)
        times[name].append((time.perf_counter() - started) * 1e6)
    return {name: _spread(values[10:]) for name, values in times.items()}


async def time_async(
    clients: dict[str, httpx.AsyncClient], url: str, payload: bytes, streamed: bool, n: int
) -> dict[str, Any]:
    """Microseconds of a request for each client."""
    times: dict[str, list[float]] = {name: [] for name in clients}
    for name in _in_turn(list(clients), n + 10):
        started = time.perf_counter()
        if streamed:
            async with clients[name].stream("POST", url, content=payload, headers=HEADERS) as response:
                async for _ in response.aiter_raw():
                    pass
        else:
            await clients[name].post(url, content=payload, headers=HEADERS)
        times[name].append((time.perf_counter() - started) * 1e6)
    return {name: _spread(values[10:]) for name, values in times.items()}


class _Loopback(asyncio.Protocol):
    """Answers each POST with a fixed answer as soon as its body has come."""

    def __init__(self) -> None:
        self._head = b""
        self._left = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            head, found, rest = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            lengths = [
                line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
            ]
            self._left, self._head, data = int(lengths[0]), b"", rest
        self._left -= len(data)
        if self._left <= 0:
            self._left = -1
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
                + ANSWER
            )


def _serve(ready: Any) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(_Loopback, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


@contextlib.contextmanager
def loopback_server() -> Iterator[str]:
    """A process of its own, so that client and server do not share an interpreter."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(send,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{receive.recv()}/v1/chat/completions"
    finally:
        process.terminate()
        process.join()


def added_time(scale: float, console: Console, keep: Keep) -> None:
    """The time added to a request, for every size, text, mode and network."""

    def note(row: dict[str, Any]) -> None:
        keep("added_time", row)
        console.print(f"  {row['network']}, {row['size']} {row['text']}, {row['mode']}", style="dim")

    memory_url = "http://127.0.0.1:1/v1/chat/completions"
    with loopback_server() as loopback_url:
        for size, text in ((s, t) for s in SIZES for t in SENTENCES):
            n = max(20, int(REPETITIONS[size] * scale))
            for network, url in (("memory", memory_url), ("loopback", loopback_url)):
                for streamed in (False, True) if network == "memory" else (False,):
                    payload = body(SIZES[size], text, streamed=streamed)
                    row = {"size": size, "text": text, "bytes": len(payload), "network": network}
                    mode = "streamed" if streamed else "unary"

                    def inner(sync: bool, network: str = network, streamed: bool = streamed) -> Any:
                        if network == "memory":
                            return InMemory(streamed)
                        return httpx.HTTPTransport() if sync else httpx.AsyncHTTPTransport()

                    clients = {
                        "bare": httpx.Client(transport=inner(True)),
                        "ours": httpx.Client(transport=ours(inner(True))),
                    }
                    note({**row, "mode": f"sync {mode}", **time_sync(clients, url, payload, streamed, n)})
                    for client in clients.values():
                        client.close()

                    async def run(
                        make: Callable[..., Any] = inner,
                        url: str = url,
                        payload: bytes = payload,
                        s: bool = streamed,
                        n: int = n,
                    ) -> dict[str, Any]:
                        arms = {
                            "bare": httpx.AsyncClient(transport=make(False)),
                            "ours": httpx.AsyncClient(transport=ours(make(False))),
                            "builtin": httpx.AsyncClient(transport=builtin(make(False))),
                        }
                        try:
                            return await time_async(arms, url, payload, s, n)
                        finally:
                            for arm in arms.values():
                                await arm.aclose()

                    note({**row, "mode": f"async {mode}", **asyncio.run(run())})


class Kept(httpx.BaseTransport):
    """Keeps the request that it was given last."""

    request: httpx.Request

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.request = request
        return httpx.Response(200, json={})


def what_ours_sends(url: str, content: bytes, workers: int) -> list[tuple[bytes, list[tuple[bytes, bytes]]]]:
    """Body and headers of each worker's request after our transport."""
    kept = Kept()
    sent = []
    with httpx.Client(transport=ours(kept)) as client:
        for n in range(workers):
            with DynamoPrefixContext.scope(f"load-{n}"):
                client.post(url, content=content, headers=HEADERS)
            sent.append((kept.request.content, kept.request.headers.raw))
    return sent


async def drive(
    client: httpx.AsyncClient, url: str, sent: list[tuple[bytes, Any]], count: int
) -> tuple[float, list[int]]:
    """Requests per second of as many workers as there are requests in `sent`, which share `count` requests, and the
    statuses they saw."""
    left = iter(range(count))
    statuses: list[int] = []

    async def worker(n: int) -> None:
        content, headers = sent[n]
        with DynamoPrefixContext.scope(f"load-{n}"):
            for _ in left:
                response = await client.post(url, content=content, headers=headers)
                statuses.append(response.status_code)

    started = time.perf_counter()
    await asyncio.gather(*(worker(n) for n in range(len(sent))))
    return count / (time.perf_counter() - started), statuses


async def throughput(scale: float, console: Console, keep: Keep) -> None:
    """Requests per second against an embedded Dynamo, arms in turn, several rounds.

    The server works on the same cores and does more for a call with hints (it warms the next turn, keeps a session and
    answers its timing). So there are two bare arms: one that sends the caller's request, and one that sends the very
    bytes that ours sends, which leaves the client's cost alone as the difference.
    """
    from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig

    payload = {"messages": [{"role": "user", "content": SENTENCES["ASCII"] * 3}], "max_tokens": 1}
    rounds = max(2, round(ROUNDS * min(1.0, scale * 2)))
    async with LocalDynamo(LocalDynamoConfig(workers=2, speedup=100)) as dynamo:
        url = f"{dynamo.base_url}/chat/completions"
        content = json.dumps({"model": dynamo.model_name, **payload}).encode()
        for concurrency, requests in CONCURRENCY.items():
            count = max(concurrency, int(requests * scale))
            limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
            rates: dict[str, list[float]] = {"bare": [], "same": [], "ours": []}
            refused = failed = 0

            order = random.Random(concurrency)
            clients = {
                "bare": httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(limits=limits), timeout=60),
                "same": httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(limits=limits), timeout=60),
                "ours": httpx.AsyncClient(transport=ours(httpx.AsyncHTTPTransport(limits=limits)), timeout=60),
            }
            plain = [(content, HEADERS)] * concurrency
            requests_of = {"bare": plain, "same": what_ours_sends(url, content, concurrency), "ours": plain}
            for round_ in range(rounds + 1):
                for name in order.sample(list(clients), len(clients)):
                    rate, statuses = await drive(clients[name], url, requests_of[name], count)
                    refused += statuses.count(400)
                    failed += sum(s != 200 for s in statuses)
                    if round_:  # the first round warms up
                        rates[name].append(rate)
            for client in clients.values():
                await client.aclose()
            ratios = {
                name: statistics.median(o / b for o, b in zip(rates["ours"], rates[name], strict=True))
                for name in ("bare", "same")
            }
            console.print(f"  concurrency {concurrency}", style="dim")
            keep(
                "throughput",
                {
                    "concurrency": concurrency,
                    "requests_a_round": count,
                    "rounds": rounds,
                    **{name: _spread(values) for name, values in rates.items()},
                    "ours_to_bare": ratios["bare"],
                    "ours_to_same": ratios["same"],
                    "refused": refused,
                    "failed": failed,
                },
            )


def profile_of_ours() -> str:
    """Where the remaining time goes: 5000 async unary requests of 1 KB, answered from memory."""
    payload = body(2**10, "ASCII")
    client = httpx.Client(transport=ours(InMemory(False)))
    for _ in range(200):
        client.post("http://127.0.0.1:1/v1/chat/completions", content=payload, headers=HEADERS)
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(5000):
        client.post("http://127.0.0.1:1/v1/chat/completions", content=payload, headers=HEADERS)
    profiler.disable()
    out = io.StringIO()
    stats = pstats.Stats(profiler, stream=out).strip_dirs().sort_stats("cumulative")
    stats.print_stats(
        r"(transport|planner|counters|serving|identity|scoped|endings|hints|speaker|said|splice|answers|record|otel)\.py"
    )
    lines = [line for line in out.getvalue().splitlines() if line.strip()]
    return "\n".join(lines[-32:])


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": next(
            (
                line.split(":", 1)[1].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")
            ),
            platform.processor(),
        ),
        "cores": os.cpu_count(),
        "load_average_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {
            name: version(name) for name in ("nat-dynamo-plugin", "nvidia-nat-core", "httpx", "ai-dynamo", "msgspec")
        },
    }


def show(console: Console, results: dict[str, Any]) -> None:
    """The tables."""
    for network in ("memory", "loopback"):
        title = "answered from memory" if network == "memory" else "a small HTTP server on loopback"
        table = Table(title=f"Time added to one request, µs, median ({title})")
        for column in ("body", "text", "mode"):
            table.add_column(column)
        for column in ("bare httpx", "+ ours", "+ built-in", "built-in / ours"):
            table.add_column(column, justify="right")
        for row in results["added_time"]:
            if row["network"] != network:
                continue
            bare, added = row["bare"]["median"], row["ours"]["median"] - row["bare"]["median"]
            theirs = row["builtin"]["median"] - bare if "builtin" in row else None
            table.add_row(
                row["size"],
                row["text"],
                row["mode"],
                f"{bare:,.0f}",
                f"{added:,.1f}",
                "-" if theirs is None else f"{theirs:,.1f}",
                "-" if theirs is None or added <= 0 else f"{theirs / added:.1f}",
            )
        console.print(table)
    table = Table(title="Requests per second against an embedded Dynamo (engines simulated), median (quartiles)")
    for column in (
        "concurrency", "bare httpx", "bare, same bytes", "ours", "ours / bare", "ours / same bytes", "400s", "failed",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for row in results["throughput"]:
        cells = [
            f"{row[a]['median']:,.0f} ({row[a]['p25']:,.0f}-{row[a]['p75']:,.0f})" for a in ("bare", "same", "ours")
        ]
        ratios = [f"{row[name]:.3f}" for name in ("ours_to_bare", "ours_to_same")]
        table.add_row(str(row["concurrency"]), *cells, *ratios, str(row["refused"]), str(row["failed"]))
    console.print(table)
    console.print("What is left (cProfile, which slows everything two- to threefold; 5000 requests):")
    console.print(results["profile"], markup=False, highlight=False)


def main() -> int:
    """Run the benchmark, print its tables and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions")
    parser.add_argument("--part", choices=("added_time", "throughput", "all"), default="all")
    parser.add_argument("--output", type=Path, default=Path("eval/results/bench-overhead"))
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    scale = 0.1 if arguments.quick else 1.0
    console = Console(width=None if sys.stdout.isatty() else 120)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "overhead.json"
    results: dict[str, Any] = {"machine": machine(), "scale": scale, "added_time": [], "throughput": [], "profile": ""}
    console.print(results["machine"])
    telemetry.set_exporters(None)

    def keep(part: str, row: dict[str, Any]) -> None:
        results[part].append(row)
        path.write_text(json.dumps(results, indent=2), encoding="utf-8")

    try:
        if arguments.part != "throughput":
            added_time(scale, console, keep)
        if arguments.part != "added_time":
            asyncio.run(throughput(scale, console, keep))
        results["profile"] = profile_of_ours()
    except KeyboardInterrupt:
        console.print("Interrupted: the tables have what was measured by then.")
    path.write_text(json.dumps(results, indent=2), encoding="utf-8")
    show(console, results)
    console.print(f"Figures: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
