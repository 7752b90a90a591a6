"""What 1,000 and 5,000 calls at once cost one process: memory, descriptors that stay open, warnings at the end.

Each cell has a process of its own, which makes the calls, closes its client and ends. The server, in another process,
answers at the pace of a decode (first token after 50 ms, then one every 4 ms, 50 tokens) and is simulated. Exit code 1
if a descriptor is left, Python warns of something left open, or a call is not answered.

    python eval/benchmarks/crowd.py

The arm `openai on aiohttp` needs the package httpx-aiohttp and is left out without it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import resource
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from concurrency import MODEL, NEEDS, Paced, aiohttp_arm, drain, machine
from loopback import serve

CROWDS = (1000, 5000)
SETTLED_S = 10.0
"""Longest wait for the sockets of a client that is closed, in seconds."""


def allow_descriptors() -> int:
    """As many open files as this process may have; how many that is."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def resident_mib() -> float:
    """Resident set of this process, MiB (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def descriptors() -> int:
    """Open files of this process (Linux)."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def _ours(url: str, stack: AsyncExitStack, calls: int) -> Any:
    from nat_dynamo_plugin import DynamoModelConfig, make_service

    connection = {"max_connections": calls}
    config = DynamoModelConfig(base_url=url, model_name=MODEL, api_key="x" * 8, connection=connection)
    http = await stack.enter_async_context(make_service(config, emit_record=lambda record: None).http_clients())
    client = http.async_openai()
    return lambda streamed: drain(client, streamed)


async def _openai(url: str, stack: AsyncExitStack, calls: int) -> Any:
    return await aiohttp_arm(url, stack)


ARMS = {"ours": _ours, "openai on aiohttp": _openai}


async def at_once(arm: str, url: str, calls: int, streamed: bool) -> dict[str, Any]:
    """Make so many calls at once; what they took."""

    async def ask(count: int) -> int:
        async with AsyncExitStack() as stack:
            one = await ARMS[arm](url, stack, count)
            ended = await asyncio.gather(*(one(streamed) for _ in range(count)), return_exceptions=True)
            return sum(isinstance(answer, BaseException) for answer in ended)

    await ask(1)  # imports
    gc.collect()
    before, open_before, started = resident_mib(), descriptors(), time.perf_counter()
    failed = await ask(calls)
    took = time.perf_counter() - started
    for _ in range(int(SETTLED_S * 100)):
        if descriptors() <= open_before:
            break
        await asyncio.sleep(0.01)  # sockets are closed by the loop's next turns
    return {
        "added": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before,
        "left": descriptors() - open_before,
        "failed": failed,
        "s": took,
    }


def crowds(url: str) -> bool:
    """Print a line for each cell; whether ours left anything open, unsaid or unanswered."""
    bad = False
    print("| at once | answer | arm | MiB added at most | KiB a call | s | descriptors left | warnings | failed |")
    print("|---" * 9 + "|")
    for streamed in (False, True):
        for calls in CROWDS:
            for arm in ARMS:
                if not find_spec(NEEDS.get(arm, "sys")):
                    continue
                asked = ["--child", arm, url, str(calls), *(["--streamed"] if streamed else [])]
                argv = [sys.executable, "-Walways::ResourceWarning", __file__, *asked]
                run = subprocess.run(argv, capture_output=True, text=True)
                if run.returncode:
                    print(run.stderr, file=sys.stderr)
                    return True
                found = json.loads(run.stdout.splitlines()[-1])
                warned = sum("ResourceWarning" in x or "nclosed" in x for x in run.stderr.splitlines())
                print(
                    f"| {calls:,} | {'streamed' if streamed else 'unary'} | {arm} | {found['added']:.0f} "
                    f"| {found['added'] * 1024 / calls:.0f} | {found['s']:.1f} | {found['left']} | {warned} "
                    f"| {found['failed']} |",
                    flush=True,
                )
                bad |= arm == "ours" and bool(found["left"] or warned or found["failed"])
    return bad


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--streamed", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    most = allow_descriptors()
    if asked.child:
        arm, url, calls = asked.child
        print(json.dumps(asyncio.run(at_once(arm, url, int(calls), asked.streamed))))
        return 0
    print(f"{machine()}, {most:,} descriptors allowed. The server is simulated.")
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(target=serve, args=(Paced, there), daemon=True)
    server.start()
    try:
        return int(crowds(f"http://127.0.0.1:{here.recv()}/decode/v1"))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    sys.exit(main())
