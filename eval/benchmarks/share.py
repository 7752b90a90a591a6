"""Our share of a call in CPU time, of this checkout and of another one, in turn in one run.

A call is answered from memory, once by bare httpx and once by our transport around it; the difference is our layers'.
What is counted is the CPU time of the thread, in blocks of calls that take turns, so that a busy machine blurs the
figures but does not shift them. Each checkout has a process of its own, and the two take turns too.

    python eval/benchmarks/share.py [--quick] [--against DIR] [--profile]

`--against` names another checkout of this repository (`git worktree add DIR COMMIT`); its `eval/benchmarks/overhead.py`
says how its transport is made, so that one may be compared whose layout was another.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import json
import logging
import os
import pstats
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import thread_time_ns
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
URL = "http://127.0.0.1:1/v1/chat/completions"
CASES = {
    "1 KB unary, sync": ("sync", False, 2**10),
    "1 KB unary, async": ("async", False, 2**10),
    "32 KB unary, sync": ("sync", False, 2**15),
    "32 KB unary, async": ("async", False, 2**15),
    "100 events, sync": ("sync", True, 2**10),
    "100 events, async": ("async", True, 2**10),
}
CALLS = {False: 100, True: 20}
"""Calls of a block, unary and streamed."""
TARGET_US = {False: 40.0, True: 140.0}
"""What we may take of a call: 40 µs of a unary one, 1 µs an event besides of a streamed one."""


class Arms:
    """The bare client and ours, blocking and async."""

    def __init__(self, overhead: Any) -> None:
        import httpx

        self._overhead = overhead
        self._loop = asyncio.new_event_loop()
        self._clients: dict[tuple[str, bool, str], Any] = {}
        for streamed in (False, True):
            for arm, make in (("bare", lambda transport: transport), ("ours", overhead.ours)):
                self._clients["sync", streamed, arm] = httpx.Client(transport=make(overhead.InMemory(streamed)))
                self._clients["async", streamed, arm] = httpx.AsyncClient(transport=make(overhead.InMemory(streamed)))

    def block(self, mode: str, streamed: bool, size: int, arm: str, calls: int) -> float:
        """CPU time of a call, in µs, the mean of a block of them."""
        client = self._clients[mode, streamed, arm]
        payload = self._overhead.body(size, "ASCII")
        if streamed:
            payload = payload[:-1] + b',"stream":true}'  # here, for the other checkout's `overhead` may not know it
        started = thread_time_ns()
        if mode == "sync":
            for _ in range(calls):
                with client.stream("POST", URL, content=payload, headers=self._overhead.HEADERS) as response:
                    for _ in response.iter_raw():
                        pass
        else:
            self._loop.run_until_complete(self._calls(client, payload, calls))
        return (thread_time_ns() - started) / calls / 1000.0

    async def _calls(self, client: Any, payload: bytes, calls: int) -> None:
        for _ in range(calls):
            async with client.stream("POST", URL, content=payload, headers=self._overhead.HEADERS) as response:
                async for _ in response.aiter_raw():
                    pass


def work() -> None:
    """Measures in this process what comes in over stdin, a case a line, and answers (bare, ours) in µs."""
    import overhead  # type: ignore[import-not-found]

    logging.disable(logging.WARNING)
    arms = Arms(overhead)
    order = random.Random(1)
    for line in sys.stdin:
        case = json.loads(line)
        calls = CALLS[case["streamed"]]
        took = {
            arm: arms.block(case["mode"], case["streamed"], case["size"], arm, calls)
            for arm in order.sample(["bare", "ours"], 2)
        }
        print(json.dumps([took["bare"], took["ours"]]), flush=True)


@contextlib.contextmanager
def worker(checkout: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that measures a checkout."""
    paths = (checkout / "src", checkout / "eval" / "benchmarks", checkout / "eval" / "src")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONHASHSEED": "0"}
    # The other checkout's folder must come before this file's own, so that its `overhead` is the one that is imported.
    code = f"import sys; from importlib.util import spec_from_file_location as s, module_from_spec as m; \
sys.path.pop(0); d = s('share', {str(Path(__file__).resolve())!r}); x = m(d); d.loader.exec_module(x); x.work()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ask(process: subprocess.Popen[str], mode: str, streamed: bool, size: int) -> tuple[float, float]:
    """One block of each arm."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps({"mode": mode, "streamed": streamed, "size": size}) + "\n")
    process.stdin.flush()
    bare, ours = json.loads(process.stdout.readline())
    return bare, ours


def profile() -> str:
    """Where the time of a blocking unary call of 1 KB goes, in our functions alone."""
    sys.path.insert(0, str(Path(__file__).parent))
    import overhead

    arms = Arms(overhead)
    arms.block("sync", False, 2**10, "ours", 200)
    profiler = cProfile.Profile()
    profiler.enable()
    arms.block("sync", False, 2**10, "ours", 5000)
    profiler.disable()
    rows = []
    for (file, line, name), (_, calls, own, whole, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        if "nat_dynamo_plugin" in file:
            where = f"{file.rpartition('nat_dynamo_plugin/')[2]}:{line} {name}"
            rows.append((own / 5000 * 1e6, whole / 5000 * 1e6, calls / 5000, where))
    rows.sort(reverse=True)
    return "\n".join(f"{own:6.2f} {whole:7.2f} {calls:5.1f}  {where}" for own, whole, calls, where in rows[:40])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds")
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--profile", action="store_true", help="only show where the time goes")
    arguments = parser.parse_args()
    if arguments.profile:
        print("own µs, with what it calls, calls, function (cProfile, which slows everything two- to threefold)")
        print(profile())
        return 0
    rounds = 40 if arguments.quick else 200
    checkouts = {"this": ROOT} | ({"other": arguments.against.resolve()} if arguments.against else {})
    added: dict[tuple[str, str], list[float]] = {(c, case): [] for c in checkouts for case in CASES}
    with contextlib.ExitStack() as stack:
        processes = {name: stack.enter_context(worker(path)) for name, path in checkouts.items()}
        for round_ in range(rounds + 2):
            for case, (mode, streamed, size) in CASES.items():
                for name in checkouts if round_ % 2 else reversed(checkouts):
                    bare, ours = ask(processes[name], mode, streamed, size)
                    if round_ > 1:
                        added[name, case].append(ours - bare)
    print(f"{'CPU time added to a call, µs, median (quartiles)':50}" + "".join(f"{name:>26}" for name in checkouts))
    for case, (_, streamed, _) in CASES.items():
        cells = ""
        for name in checkouts:
            low, median, high = statistics.quantiles(added[name, case], n=4)
            cells += f"{median:10.1f} ({low:.1f} to {high:.1f})".rjust(26)
        print(f"{case + f', target {TARGET_US[streamed]:.0f}':50}{cells}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
