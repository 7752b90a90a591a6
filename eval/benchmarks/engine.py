"""What clients and routers are worth where the work is computed: `make bench-engine`.

Questions of the recorded shape of the BFCL agent (`contention_shape`) go to two vLLM workers that compute a small
model of random weights on this machine's CPU. All arms meet the same workers, one after the other in shuffled order,
each through a frontend of its own flags, and find nothing in the caches that another left. Two loads: what is under
way fits into the KV caches, or does not.

First the cached share and the workers' CPU seconds, which a busy machine hardly changes; latencies after them are this
machine's. Ratios are geometric means over the repetitions against the first arm, with the t interval (95 %) of the log
ratios.

    python eval/benchmarks/engine.py [--quick] [--repetitions 5] [--minutes 8] [--output eval/results/engine-bench]

With `--minutes` it stops after that time, and goes on from there when it is called again with the same `--output`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")

import httpx  # noqa: E402
import numpy as np  # noqa: E402
from contention import AUTO, GAP_SCALE, PLAIN, Bench, Load, measured  # noqa: E402
from contention_client import Arm, arrivals, replay  # noqa: E402
from contention_shape import Recorded, Shape  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scipy import stats  # noqa: E402

from nat_dynamo_plugin.config.engine import RandomModel  # noqa: E402
from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig  # noqa: E402
from nat_dynamo_plugin.local.commands import frontend_command  # noqa: E402

WORKERS, KV_BLOCKS, BLOCK = 2, 640, 32
"""20,480 tokens of KV cache a worker: room for three questions or so."""
MODEL = RandomModel(layers=2, hidden=256)
LOADS = (Load("below", 3, 1.0), Load("past", 8, 4.0))
_HONEST = {"prefix_total_requests": "auto", "prefix_osl": "auto", "prefix_iat": "auto"}
_CONSTANT = {"prefix_osl": 32, "prefix_iat": "LOW"}
_NO_AFFINITY: dict[str, Any] = {"session_affinity_ttl_s": None}
FIGURES = {"cached": "cached share", "cpu_s": "worker CPU, s", "mean": "question, s", "ttft": "TTFT, ms"}


@dataclass(frozen=True)
class Row:
    """A client, and the frontend's flags that it meets."""

    name: str
    client: Arm = PLAIN
    flags: dict[str, Any] = field(default_factory=lambda: dict(_NO_AFFINITY))


def _ours(name: str, knowledge: str = "none", **fields: Any) -> Arm:
    return Arm(name=name, fields=fields, knowledge=knowledge)


ROWS = (
    Row("plain, round-robin", flags={**_NO_AFFINITY, "router_mode": "round-robin"}),
    Row("plain, kv"),
    Row("sessions, kv, soft affinity", _ours("sessions", **_CONSTANT), {}),
    Row("priority, kv, queue 0", _ours("priority", "kind", **_HONEST), {**_NO_AFFINITY, "queue_threshold": 0.0}),
    Row("admission, kv", _ours("admission", **_CONSTANT, **AUTO)),
    Row("all, kv, soft affinity, queue 0", _ours("all", "kind", **_HONEST, **AUTO), {"queue_threshold": 0.0}),
)


def config(**flags: Any) -> LocalDynamoConfig:
    """The cluster, or a frontend of its own flags before it."""
    return LocalDynamoConfig(
        engine="vllm", workers=WORKERS, kv_blocks=KV_BLOCKS, block_size=BLOCK, max_num_seqs=16, model=MODEL, **flags
    )


@contextmanager
def frontends(dynamo: LocalDynamo, rows: Sequence[Row]) -> Iterator[dict[str, str]]:
    """URLs of a further frontend for each row, before the workers of a running instance."""
    pairs = (Path(f"/proc/{dynamo.pids['frontend']}/environ").read_bytes().split(b"\0"))[:-1]
    environment = dict(pair.decode().split("=", 1) for pair in pairs)
    urls, processes = {}, []
    try:
        for row in rows:
            with _free_port() as port, (dynamo.log_dir / "further.log").open("ab") as log:
                argv = frontend_command(config(**row.flags), port)
                processes.append(subprocess.Popen(argv, env=environment, stdout=log, stderr=log))
                urls[row.name] = f"http://127.0.0.1:{port}"
        for url in urls.values():
            _wait(url)
        yield urls
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def _free_port() -> Iterator[int]:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


def _wait(url: str) -> None:
    with httpx.Client(trust_env=False, verify=False) as client:
        for _ in range(600):
            try:
                instances = client.get(f"{url}/health").json().get("instances", ())
                if (
                    sum(one["endpoint"] == "generate" for one in instances) == WORKERS
                    and (client.get(f"{url}/v1/models").json()["data"])
                ):
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    raise SystemExit(f"{url} does not serve")


def cpu_seconds(dynamo: LocalDynamo) -> float:
    """What the workers, with all processes in their groups, have used of CPUs."""
    groups = {pid for name, pid in dynamo.pids.items() if name.startswith("worker")}
    ticks = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                told = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(told[2]) in groups:
                ticks += int(told[11]) + int(told[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Fresh:
    """The questions' prompts with a block before them that no other run has, so that no run finds another's blocks."""

    def __init__(self, shape: Shape, run: str) -> None:
        self._shape = shape
        self._block = ",".join(str(token) for token in random.Random(run).choices(range(300, 32_000), k=BLOCK))

    def prompts(self, question: Recorded, instance: Any) -> list[str]:
        """See `Shape.prompts`."""
        return [f"{self._block},{prompt}" for prompt in self._shape.prompts(question, instance)]


async def one_run(bench: Bench, dynamo: LocalDynamo, url: str, row: Row, load: Load, seed: int) -> dict[str, Any]:
    """One arm under one load, from caches that know nothing of it."""
    label = f"{seed}-{row.name}-{load.name}"
    fresh: Any = Fresh(bench.shape, label)
    plan = arrivals(bench.today, count=load.count, rate=load.rate, seed=seed)
    before = cpu_seconds(dynamo)
    result = await replay(
        bench.arm(row.client, f"{row.name}-{load.name}-{seed}".replace(" ", "")), f"{url}/v1", dynamo.model_name,
        fresh, plan, gap_scale=GAP_SCALE, label=label,
    )  # fmt: skip
    told = measured(bench.shape, plan, result, WORKERS * KV_BLOCKS * BLOCK)
    figures = {"seed": seed, "row": row.name, "load": load.name, "cpu_s": cpu_seconds(dynamo) - before}
    return figures | told


def todo(seeds: Sequence[int], rows: Sequence[Row], loads: Sequence[Load], done: set[Any]) -> list[Any]:
    """What is still to be run, repetition by repetition, shuffled within each."""
    jobs: list[Any] = []
    for seed in seeds:
        some = [(seed, row, load) for row in rows for load in loads]
        random.Random(seed).shuffle(some)
        jobs += [job for job in some if (job[0], job[1].name, job[2].name) not in done]
    return jobs


@asynccontextmanager
async def running() -> AsyncIterator[LocalDynamo]:
    """The workers, with a progress line."""
    started = time.monotonic()
    async with LocalDynamo(config()) as dynamo:
        print(f"two workers are warm after {time.monotonic() - started:.0f} s", file=sys.stderr)
        yield dynamo


async def run_all(jobs: Sequence[Any], until: float, folder: Path) -> None:
    """Run jobs until the time is up; each result is a line of `runs.jsonl`."""
    with tempfile.TemporaryDirectory() as learned:
        bench = Bench(Path(learned))
        async with running() as dynamo:
            with frontends(dynamo, list({job[1].name: job[1] for job in jobs}.values())) as urls:
                for seed, row, load in jobs:
                    if time.monotonic() > until:
                        break
                    told = await one_run(bench, dynamo, urls[row.name], row, load, seed)
                    with (folder / "runs.jsonl").open("a") as file:
                        file.write(json.dumps(told | {"loadavg": os.getloadavg()[0]}) + "\n")
                    print(f"{row.name}, {load.name}, {seed}: {told['cpu_s']:.1f} CPU s", file=sys.stderr)


def ratio(ours: Sequence[float], base: Sequence[float]) -> str:
    """The geometric mean of the ratios and its t interval (95 %)."""
    logs = np.log(np.asarray(ours) / np.asarray(base))
    mean = float(np.exp(logs.mean()))
    if len(logs) < 2 or not logs.std():
        return f"{mean:.2f}"
    low, high = np.exp(stats.t.interval(0.95, len(logs) - 1, logs.mean(), stats.sem(logs)))
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def show(runs: Sequence[dict[str, Any]], console: Console) -> None:
    """A table for each load: medians, and ratios against the first row over the repetitions that have both."""
    for load in LOADS:
        mine = {(run["row"], run["seed"]): run for run in runs if run["load"] == load.name}
        table = Table(
            title=f"{load.name} capacity: {load.count} questions in {load.count / load.rate:.0f} s (computed)"
        )
        for name in ("client, router", "runs", *FIGURES.values(), "CPU / first", "question / first", "failed"):
            table.add_column(name)
        for row in ROWS:
            seeds = [seed for name, seed in mine if name == row.name and (ROWS[0].name, seed) in mine]
            if not seeds:
                continue
            own, base = ([mine[name, seed] for seed in seeds] for name in (row.name, ROWS[0].name))
            cells = [f"{np.median([run[key] for run in own]):.{3 if key == 'cached' else 1}f}" for key in FIGURES]
            cells += [ratio([r[key] for r in own], [r[key] for r in base]) for key in ("cpu_s", "mean")]
            table.add_row(row.name, str(len(seeds)), *cells, str(sum(run["failures"] for run in own)))
        console.print(table)


def main() -> None:
    """Run what is missing, and show all that is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one repetition")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--output", type=Path, default=Path("eval/results/engine-bench"))
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    options.output.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.WARNING)
    file = options.output / "runs.jsonl"
    runs = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(run["seed"], run["row"], run["load"]) for run in runs}
    jobs = todo(range(1, 2 if options.quick else options.repetitions + 1), ROWS, LOADS, done)
    if jobs:
        asyncio.run(run_all(jobs, until, options.output))
    runs = [json.loads(line) for line in file.read_text().splitlines()]
    console = Console(width=200)
    console.print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, {WORKERS} vLLM workers of one thread,")
    console.print(f"{MODEL.layers} layers, hidden size {MODEL.hidden}, {KV_BLOCKS} KV blocks of {BLOCK}; computed.")
    show(runs, console)
    if len(runs) < len(done) + len(jobs):
        console.print(f"{len(done) + len(jobs) - len(runs)} runs are missing: call it again")


if __name__ == "__main__":
    main()
