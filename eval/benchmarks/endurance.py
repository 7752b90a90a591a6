"""Does one process that makes 50,000 calls, of which one in twenty meets a fault, stay as it is?

The calls go through OpenAI's library on our clients as users get them: either engine, unary and streamed, async and
from threads, each in a question of its own behind the gate. The server is a process of its own on loopback; it answers
at once, but one request in twenty meets a fault: a reset before the answer or within it, 429, 503, 529, an answer that
is cut, garbage, a first byte that is late, or silence until the client's read time-out. Besides, one stream in fifty is
dropped by its caller after the first event, without being closed. Answers are scripted; no engine computes.

    python eval/benchmarks/endurance.py [--calls 50000] [--output FILE] [--trace]

After every 5,000 calls a row says what the process holds when nothing is under way, after a garbage collection.
**Flat** means all of this, and the exit code is 1 if it is not:

- resident set: over the second half of the calls, sampled every 1,000, the slope of the regression line is below 50
  bytes a call, with the upper end of its 95 % interval;
- tasks, threads and descriptors other than connections to the server are as many after each later row as after the
  first one, and connections never more than the calls that were under way at once;
- no question holds or waits for a place at the gate, no call is without its record, no call is alive;
- once the clients are closed, no connection is open, on either side;
- no call ended in anything but an answer or an exception of OpenAI's library, and no answer had a wrong text.

The first half is not judged, for caches that are bounded (16,384 questions) fill during it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import multiprocessing
import os
import platform
import random
import socket
import struct
import sys
import threading
import time
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import openai
from loopback import Requests, serve
from scipy import stats

from nat_dynamo_plugin import DynamoModelConfig, DynamoPrefixContext, make_service
from nat_dynamo_plugin.admission.gate import gates
from nat_dynamo_plugin.http.call import Call

MODEL = "model"
TEXT = "The valve is shut."
FAULTY = 0.05
"""Share of the requests that meet a fault."""
LEFT = 0.02
"""Share of the streams that their caller drops."""
AT_ONCE = 16
READ_TIMEOUT_S = 0.3
LATE_S = 0.1
STEP = 1_000
ROW = 5
"""Steps between two rows."""
MOST_BYTES = 50.0
"""Slope of the resident set, a call, that still counts as flat."""


# The server.

_BASE = {"id": "c", "created": 1, "model": MODEL}
_EVENTS = [
    json.dumps(
        _BASE
        | {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
    )
    for delta, end in [*(({"content": word}, None) for word in ("The ", "valve ", "is ", "shut.")), ({}, "stop")]
]  # fmt: skip
_WHOLE = json.dumps(
    _BASE
    | {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 5, "total_tokens": 305},
    }
).encode()


def _answer(status: int, body: bytes, kind: str = "application/json") -> bytes:
    return f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def _stream(events: list[str]) -> bytes:
    parts = [f"data: {event}\n\n".encode() for event in events]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


_GOOD = {True: _stream([*_EVENTS, "[DONE]"]), False: _answer(200, _WHOLE)}
_CUT = {True: _stream(_EVENTS[:2]), False: _answer(200, _WHOLE[:-40])}
_GARBAGE = {True: _stream([*_EVENTS[:1], '{"choices": [{', "\x00\x01"]), False: _answer(200, b"<html>no</html>")}
_REFUSALS = {
    status: _answer(status, json.dumps({"error": {"message": "no room", "type": "overloaded"}}).encode())
    for status in (429, 503, 529)
}
FAULTS = ("reset before", "reset within", "429", "503", "529", "cut", "garbage", "late", "silence")


class _Server(Requests):
    """One connection: answers a request when it is whole, or does not."""

    dice = random.Random(1)
    open = 0
    seen: Counter[str] = Counter()  # noqa: RUF012

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        _Server.open += 1

    def connection_lost(self, error: Exception | None) -> None:
        _Server.open -= 1

    def asked(self, head: bytes, streamed: bool) -> None:
        if head.startswith(b"get /seen"):
            self.to.write(_answer(200, json.dumps({"open": _Server.open - 1, "seen": self.seen}).encode()))
        else:
            faulty = self.dice.random() < FAULTY
            self._play(self.dice.choice(FAULTS) if faulty else "", streamed)

    def _play(self, fault: str, streamed: bool) -> None:
        self.seen[fault] += 1
        good = _GOOD[streamed]
        match fault:
            case "":
                self.to.write(good)
            case "429" | "503" | "529":
                self.to.write(_REFUSALS[int(fault)])
            case "cut":
                self.to.write(_CUT[streamed])
            case "garbage":
                self.to.write(_GARBAGE[streamed])
            case "late":
                asyncio.get_running_loop().call_later(LATE_S, self.to.write, good)
            case "reset before" | "reset within":
                self.to.write(good[: len(good) // 2] if fault == "reset within" else b"")
                linger = struct.pack("ii", 1, 0)
                self.to.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                asyncio.get_running_loop().call_soon(self.to.abort)


def asked_of(port: int) -> dict[str, Any]:
    """What the server has seen, and how many connections of others it has open."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /seen HTTP/1.1\r\nhost: x\r\n\r\n")
        data = b""
        while (head := data.partition(b"\r\n\r\n"))[2] == b"" or len(head[2]) < int(head[0].rpartition(b":")[2]):
            data += connection.recv(65536)
        found: dict[str, Any] = json.loads(head[2])
        return found


# The calls.


@dataclass
class Tally:
    """What came of the calls."""

    calls: int = 0
    records: int = 0
    left: int = 0
    answers: int = 0
    wrong: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    strange: Counter[str] = field(default_factory=Counter)

    def take(self, _record: Any) -> None:
        """Count a record."""
        self.records += 1

    def ended(self, result: str | Exception | None) -> None:
        """Count what a caller saw; `None` for a stream that it left."""
        if result is None:
            self.left += 1
        elif isinstance(result, openai.OpenAIError):
            self.failures[type(result).__name__] += 1
        elif isinstance(result, Exception):
            self.strange[f"{type(result).__name__}: {result}"[:200]] += 1
        else:
            self.answers += 1
            self.wrong += result != TEXT


class Arm:
    """One way to call: an engine, unary or streamed, async or from threads."""

    def __init__(self, http: Any, tally: Tally, streamed: bool, threads: ThreadPoolExecutor | None) -> None:
        self._client = http.async_openai() if threads is None else http.openai()
        self._tally = tally
        self._streamed = streamed
        self._threads = threads
        self._dice = random.Random(2)

    async def calls(self, first: int, count: int) -> None:
        """Make the calls, `AT_ONCE` at once."""
        numbers = iter(range(first, first + count))

        async def worker() -> None:
            loop = asyncio.get_running_loop()
            for number in numbers:
                self._tally.calls += 1
                leaves = self._streamed and self._dice.random() < LEFT
                if self._threads is None:
                    result = await self._ask(number, leaves)
                else:
                    result = await loop.run_in_executor(self._threads, self._ask_sync, number, leaves)
                self._tally.ended(result)

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))

    def _body(self, number: int) -> dict[str, Any]:
        text = f"Question {number}: is the valve shut? " * 10
        messages = [{"role": "user", "content": text}]
        return {"model": MODEL, "messages": messages, "max_tokens": 64, "stream": self._streamed}

    async def _ask(self, number: int, leaves: bool) -> str | Exception | None:
        try:
            with DynamoPrefixContext.scope(f"question-{number}-of-a-long-day"):
                answer = await self._client.chat.completions.create(**self._body(number))
                if not self._streamed:
                    return str(answer.choices[0].message.content)
                pieces = []
                async for event in answer:
                    if leaves:
                        return None
                    pieces += [choice.delta.content or "" for choice in event.choices]
                return "".join(pieces)
        except Exception as error:
            return error.with_traceback(None)

    def _ask_sync(self, number: int, leaves: bool) -> str | Exception | None:
        try:
            with DynamoPrefixContext.scope(f"question-{number}-of-a-long-day"):
                answer = self._client.chat.completions.create(**self._body(number))
                if not self._streamed:
                    return str(answer.choices[0].message.content)
                pieces = []
                for event in answer:
                    if leaves:
                        return None
                    pieces += [choice.delta.content or "" for choice in event.choices]
                return "".join(pieces)
        except Exception as error:
            return error.with_traceback(None)


# What the process holds.


@dataclass(frozen=True)
class Held:
    """What the process holds at one moment."""

    calls: int
    resident_bytes: int
    descriptors: int
    connections: int
    tasks: int
    threads: int
    places: int
    records_open: int
    calls_alive: int


def connections_to(port: int) -> int:
    """Sockets of this process that are connected to a port on loopback, in whatever state (Linux)."""
    inodes = set()
    for line in Path("/proc/self/net/tcp").read_text(encoding="utf-8").splitlines()[1:]:
        parts = line.split()
        if int(parts[2].rpartition(":")[2], 16) == port:
            inodes.add(f"socket:[{parts[9]}]")
    return sum(name in inodes for name in descriptors())


def descriptors() -> list[str]:
    """What the open descriptors of this process are."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except OSError:
            continue  # the one that listed them
    return found


def resident() -> int:
    """Resident set of this process, bytes (Linux)."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGESIZE")


async def held(tally: Tally, port: int) -> Held:
    """What is held now that nothing is under way; waits until what was left behind is let go, for 5 s at most."""
    until = time.monotonic() + 5.0
    while True:
        gc.collect()
        places = sum(gate.under_way + gate.waiting for gate in gates())
        alive = sum(isinstance(one, Call) for one in gc.get_objects())
        if (tally.calls == tally.records and not places and not alive) or time.monotonic() > until:
            break
        await asyncio.sleep(0.02)
    connections = connections_to(port)
    return Held(
        calls=tally.calls,
        resident_bytes=resident(),
        descriptors=len(descriptors()) - connections,
        connections=connections,
        tasks=len(asyncio.all_tasks()),
        threads=threading.active_count(),
        places=places,
        records_open=tally.calls - tally.records,
        calls_alive=alive,
    )


def slope(samples: list[Held]) -> tuple[float, float]:
    """Bytes a call by which the resident set grows over the second half, and the half width of the 95 % interval."""
    late = [sample for sample in samples if sample.calls * 2 >= samples[-1].calls]
    line = stats.linregress([sample.calls for sample in late], [sample.resident_bytes for sample in late])
    return float(line.slope), float(line.stderr * stats.t.ppf(0.975, len(late) - 2))


def problems(samples: list[Held], tally: Tally, most: int) -> list[str]:
    """Why this is not flat; empty if it is."""
    found = []
    grows, half = slope(samples)
    if grows + half >= MOST_BYTES:
        found.append(f"the resident set grows by {grows:.0f} ± {half:.0f} B a call")
    rows = samples[ROW - 1 :: ROW]
    for name in ("descriptors", "tasks", "threads"):
        counts = [getattr(row, name) for row in rows]
        if len(set(counts)) > 1:
            found.append(f"{name}: {counts}")
    for name, bound in (("connections", most), ("places", 0), ("records_open", 0), ("calls_alive", 0)):
        if (worst := max(getattr(sample, name) for sample in samples)) > bound:
            found.append(f"{name}: up to {worst}")
    if tally.wrong or tally.strange:
        found.append(f"{tally.wrong} wrong texts, exceptions {dict(tally.strange)}")
    return found


def line_of(row: Held) -> str:
    """A row of the table."""
    figures = [getattr(row, name) for name in ("descriptors", "connections", "tasks", "threads", "places")]
    rest = " | ".join(map(str, [*figures, row.records_open, row.calls_alive]))
    return f"| {row.calls:,} | {row.resident_bytes / 2**20:.1f} | {rest} |"


HEAD = (
    "| calls | resident set, MiB | descriptors | connections | tasks | threads | places | records open | calls alive "
    "|\n"
    "|---|---|---|---|---|---|---|---|---|"
)


async def run(port: int, calls: int, trace: bool) -> tuple[list[Held], Tally, int]:
    """Make the calls; what was held after each step, what came of them, and the connections that stay."""
    tally, samples, arms = Tally(), [], []
    threads = ThreadPoolExecutor(AT_ONCE, "caller")
    async with AsyncExitStack() as stack:
        for engine in ("fast", "httpx"):
            config = DynamoModelConfig(
                base_url=f"http://127.0.0.1:{port}/v1", model_name=MODEL, api_key="x" * 8, max_retries=3,
                request_timeout=READ_TIMEOUT_S, connection={"engine": engine}, max_active_prefixes=4 * AT_ONCE,
                max_concurrency=AT_ONCE,  # refusals at random would teach `auto` to send one at a time
            )  # fmt: skip
            service = make_service(config, emit_record=tally.take)
            http = await stack.enter_async_context(service.http_clients())
            arms += [Arm(http, tally, s, t) for t in (None, threads) for s in (False, True)]
        print(HEAD, flush=True)
        before = None
        for step in range(calls // STEP):
            for k, arm in enumerate(arms):
                each = STEP // len(arms)
                await arm.calls(step * STEP + k * each, each)
            samples.append(await held(tally, port))
            if (step + 1) % ROW == 0:
                print(line_of(samples[-1]), flush=True)
            if trace and step + 1 == calls // STEP // 2:
                tracemalloc.start(12)
                before = tracemalloc.take_snapshot()
        if before is not None:
            for one in tracemalloc.take_snapshot().compare_to(before, "lineno")[:15]:
                print(one)
    threads.shutdown()
    await asyncio.sleep(0.1)
    return samples, tally, connections_to(port)


def machine() -> str:
    """Where this runs."""
    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in cpus if line.startswith("model name")), "?")
    packages = ", ".join(f"{name} {version(name)}" for name in ("openai", "aiohttp", "urllib3", "httpx"))
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}, {packages}"


def main() -> int:
    """Run, print the table and what is not flat; exit code 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--calls", type=int, default=50_000, help=f"a multiple of {STEP * ROW:,}; {STEP * ROW * 2:,} or more"
    )
    parser.add_argument("--output", type=Path)
    parser.add_argument("--trace", action="store_true", help="show what allocates memory in the second half (slow)")
    asked = parser.parse_args()
    if asked.calls % (STEP * ROW) or asked.calls < 2 * STEP * ROW:
        parser.error(f"--calls: a multiple of {STEP * ROW:,}, at least twice that")
    logging.disable(logging.ERROR)
    print(machine(), flush=True)
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(_Server, theirs), daemon=True)
    server.start()
    port = ours.recv()
    began = time.perf_counter()
    samples, tally, stay = asyncio.run(run(port, asked.calls, asked.trace))
    took = time.perf_counter() - began
    seen = asked_of(port)
    server.terminate()
    grows, half = slope(samples)
    wrong = problems(samples, tally, AT_ONCE * 8)
    if stay or seen["open"]:
        wrong.append(f"{stay} connections stay open here and {seen['open']} at the server once the clients are closed")
    faults = {name: count for name, count in seen["seen"].items() if name}
    print(
        f"\n{tally.calls:,} calls in {took:.0f} s: {tally.answers:,} answered, {tally.left} left by the caller, "
        f"failed: {dict(tally.failures)}.\n{sum(seen['seen'].values()):,} requests, {sum(faults.values()):,} with a "
        f"fault: {faults}."
        f"\nResident set, second half: {grows:.1f} ± {half:.1f} B a call.\n" + ("Flat." if not wrong else "Not flat:")
    )
    print("\n".join(wrong))
    if asked.output is not None:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        found = {"machine": machine(), "samples": [asdict(one) for one in samples], "tally": vars(tally)}
        rest = {"faults": faults, "slope": [grows, half], "problems": wrong}
        asked.output.write_text(json.dumps(found | rest, indent=1), encoding="utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
