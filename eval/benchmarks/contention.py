"""What prefixes, priorities and admission are worth on a busy cluster: `make bench-contention`.

A light open-loop client replays questions of the recorded shape of the BFCL agent (`contention_shape`) through the
plugin's transport, against a fresh embedded Dynamo for each run, in shuffled order. Routing, queueing and cache reuse
are Dynamo's own; engine times are simulated, and so are latencies. Three parts:

- `matrix`: clients and frontend flags at three loads (light, at the knee, past the cliff), against the plain client on
  the same cluster with default flags;
- `auto`: `max_active_prefixes: auto` against fixed numbers on cluster sizes that it was not tuned on, and on one that
  loses or gains half of its workers in mid-run;
- `share`: two client processes on one cluster, each with a limit of its own.

    python eval/benchmarks/contention.py [--part matrix] [--quick] [--repetitions 5] [--output eval/results/contention]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")

import httpx  # noqa: E402
import numpy as np  # noqa: E402
from contention_client import Arm, Replay, arrivals, learn, replay  # noqa: E402
from contention_shape import Recorded, Shape  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from nat_dynamo_plugin.admission.capacity import count_workers  # noqa: E402
from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig  # noqa: E402
from nat_dynamo_plugin.local.engines.mocker import worker_command  # noqa: E402

SPEEDUP = 4.0
GAP_SCALE = 0.1
"""Times between calls were recorded on engines ten times faster than real; with this factor they are 15 ms or so, about
half an answer's decode time here, as they were there."""

DEFAULT_FLAGS: dict[str, Any] = {"session_affinity_ttl_s": None}
QUEUE_FLAGS: dict[str, Any] = {"session_affinity_ttl_s": None, "queue_threshold": 0.0}
WSPT_FLAGS: dict[str, Any] = {**QUEUE_FLAGS, "frontend_args": ["--router-queue-policy", "wspt"]}
"""The router's other queue policy: whoever has the fewest uncached tokens a unit of priority first, and no ageing."""
FLAGS = {"default": DEFAULT_FLAGS, "queue 0": QUEUE_FLAGS, "queue 0, wspt": WSPT_FLAGS}

_HONEST = {"prefix_total_requests": "auto", "prefix_osl": "auto", "prefix_iat": "auto"}
_CONSTANT = {"prefix_osl": 32, "prefix_iat": "LOW"}
AUTO = {"max_active_prefixes": "auto"}

PLAIN = Arm(name="openai", client="plain")
ADMISSION = Arm(name="ours: admission", fields=_CONSTANT | AUTO)
ARMS = (
    PLAIN,
    Arm(name="builtin_dynamo, hints off", client="builtin"),
    Arm(name="ours: sessions", fields=_CONSTANT),
    Arm(name="ours: priority", fields=_HONEST, knowledge="kind"),
    Arm(name="ours: priority, true totals", fields=_CONSTANT, knowledge="total"),
    ADMISSION,
    Arm(name="ours: both", fields=_HONEST | AUTO, knowledge="kind"),
    Arm(name="ours: both, true totals", fields=_CONSTANT | AUTO, knowledge="total"),
)
BASELINE = (PLAIN.name, "default")


@dataclass(frozen=True)
class Load:
    """Questions and how fast they come."""

    name: str
    count: int
    rate: float


LOADS = (Load("light", 12, 4.0), Load("knee", 32, 8.0), Load("past the cliff", 72, 14.0))


def cluster(workers: int = 2, kv_blocks: int = 2304, **flags: Any) -> LocalDynamoConfig:
    """The cluster that everything was tuned on; other sizes differ in workers or blocks."""
    return LocalDynamoConfig(
        workers=workers,
        kv_blocks=kv_blocks,
        block_size=16,
        speedup=SPEEDUP,
        max_num_seqs=64,
        max_num_batched_tokens=2048,
        **flags,
    )


def cluster_name(workers: int, kv_blocks: int, change: str) -> str:
    """A cluster's size, and what becomes of it, as the tables say it."""
    return f"{workers} x {kv_blocks} blocks" + (f", {change}" if change else "")


@dataclass
class Run:
    """One run's numbers. Latency of a question: arrival to last answer, s."""

    part: str
    load: str
    arm: str
    flags: str
    cluster: str
    seed: int
    mean: float
    p50: float
    p95: float
    all_done: float
    ttft: float
    cached: float
    per_second: float
    failures: int
    working_set: float
    limits: list[Any] = field(default_factory=list)
    jain: float | None = None


def measured(shape: Shape, plan: Sequence[tuple[float, Recorded]], result: Replay, tokens: int) -> dict[str, Any]:
    """A replay's numbers; `tokens` is the KV capacity of the whole cluster."""
    done = [row for row in result.asked if row["error"] is None]
    latencies = [row["done"] - row["arrived"] for row in done] or [float("nan")]
    calls = [call for call in result.calls if call["prompt_tokens"] is not None]
    ttfts = [call["server_ttft_ms"] for call in calls if call["server_ttft_ms"] is not None]
    end = max((row["done"] for row in done), default=float("nan"))
    return {
        "mean": statistics.fmean(latencies),
        "p50": float(np.percentile(latencies, 50)),
        "p95": float(np.percentile(latencies, 95)),
        "all_done": end,
        "ttft": statistics.fmean(ttfts) if ttfts else float("nan"),
        "cached": sum(c["cached_tokens"] or 0 for c in calls) / max(1, sum(c["prompt_tokens"] for c in calls)),
        "per_second": len(done) / end,
        "failures": len(result.asked) - len(done) + sum(call["error"] is not None for call in result.calls),
        "working_set": _working_set(shape, plan, result) / tokens,
    }


def _working_set(shape: Shape, plan: Sequence[tuple[float, Recorded]], result: Replay) -> float:
    """The most different prompt tokens of questions that were under way (arrived, not done) at one time."""
    events = sorted(
        [(row["arrived"], 1, i) for i, row in enumerate(result.asked)]
        + [(row["done"], 0, i) for i, row in enumerate(result.asked)]
    )
    live: set[int] = set()
    most = 0
    for _, arrived, i in events:
        if arrived:
            live.add(i)
        else:
            live.discard(i)
        heads = {plan[j][1].classes[: n + 1] for j in live for n in range(len(plan[j][1].classes))}
        shared = shape.system_tokens + sum(shape.class_tokens[head[-1]] for head in heads)
        own = sum(
            plan[j][1].calls[-1].prompt_tokens
            - shape.system_tokens
            - sum(shape.class_tokens[name] for name in plan[j][1].classes)
            for j in live
        )
        most = max(most, shared + own)
    return most


@dataclass(frozen=True)
class Job:
    """One run to make."""

    part: str
    load: Load
    arm: Arm
    flags: str
    seed: int
    workers: int = 2
    kv_blocks: int = 2304
    change: str = ""
    clients: int = 1

    @property
    def cluster(self) -> str:
        """The cluster's size, and what becomes of it."""
        return cluster_name(self.workers, self.kv_blocks, self.change)


class Bench:
    """Makes runs."""

    def __init__(self, folder: Path) -> None:
        self.shape = Shape.load()
        yesterday, self.today = self.shape.halves()
        self._folder = folder
        self._learned = folder / "learned.json"
        learn(yesterday, GAP_SCALE, self._learned)

    def arm(self, arm: Arm, name: str) -> Arm:
        """The arm with a copy of its own of what was learned."""
        if "auto" not in arm.fields.values() or arm.knowledge != "kind":
            return arm
        copy = self._folder / f"learned-{name}.json"
        shutil.copy(self._learned, copy)
        return replace(arm, fields={**arm.fields, "prefix_learned": copy})

    async def run(self, job: Job) -> Run:
        """One run on a fresh cluster."""
        config = cluster(job.workers, job.kv_blocks, **FLAGS[job.flags])
        tokens = job.workers * job.kv_blocks * config.block_size
        plan = arrivals(self.today, count=job.load.count, rate=job.load.rate, seed=job.seed)
        async with LocalDynamo(config) as dynamo:
            if job.clients > 1:
                results = await asyncio.to_thread(self._in_processes, job, dynamo.base_url, dynamo.model_name, plan)
                merged = Replay([row for r in results for row in r.asked], [c for r in results for c in r.calls])
                plans = [item for n in range(job.clients) for item in plan[n :: job.clients]]
                return Run(
                    job.part, job.load.name, job.arm.name, job.flags, job.cluster, job.seed,
                    **measured(self.shape, plans, merged, tokens),
                    limits=[r.limits for r in results],
                    jain=self._jain(results),
                )  # fmt: skip
            async with changing(dynamo, config, job):
                result = await replay(
                    self.arm(job.arm, "one"), dynamo.base_url, dynamo.model_name, self.shape, plan,
                    gap_scale=GAP_SCALE, label=f"{job.seed}",
                )  # fmt: skip
        return Run(
            job.part, job.load.name, job.arm.name, job.flags, job.cluster, job.seed,
            **measured(self.shape, plan, result, tokens),
            limits=result.limits,
        )  # fmt: skip

    def _in_processes(self, job: Job, url: str, model: str, plan: list[tuple[float, Recorded]]) -> list[Replay]:
        start = time.time() + 6.0
        with multiprocessing.get_context("spawn").Pool(job.clients) as pool:
            jobs = [
                (self.arm(job.arm, f"p{n}"), url, model, plan[n :: job.clients], f"{job.seed}-{n}", start)
                for n in range(job.clients)
            ]
            return pool.map(_client_process, jobs)

    @staticmethod
    def _jain(results: Sequence[Replay]) -> float:
        """Jain's index of the tokens served to each client while both had questions."""
        both = min(max(call["started_at"] + call["client_total_ms"] / 1000 for call in r.calls) for r in results)
        served = [
            sum(
                (call["prompt_tokens"] or 0) + (call["completion_tokens"] or 0)
                for call in r.calls
                if call["started_at"] + call["client_total_ms"] / 1000 <= both
            )
            for r in results
        ]
        return sum(served) ** 2 / (len(served) * sum(s * s for s in served))


def _client_process(job: tuple[Arm, str, str, list[tuple[float, Recorded]], str, float]) -> Replay:
    arm, url, model, plan, label, start = job
    return asyncio.run(replay(arm, url, model, Shape.load(), plan, gap_scale=GAP_SCALE, label=label, started_at=start))


class SecondHalf:
    """As many workers again as a running embedded Dynamo has, in a process of their own that can come and go."""

    def __init__(self, dynamo: LocalDynamo, config: LocalDynamoConfig) -> None:
        self._argv = worker_command(config, dynamo.work_dir / "model", dynamo.model_name, None)
        # The same discovery and event plane as the first half: what its supervisor has given it.
        environment = Path(f"/proc/{dynamo.pids['mocker']}/environ").read_bytes().decode().split("\0")
        self._environment = dict(pair.split("=", 1) for pair in environment if "=" in pair)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its workers register when they are ready, within a second."""
        self._process = subprocess.Popen(
            self._argv, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        """Kill it, as a node dies."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


async def _workers(dynamo: LocalDynamo) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        return count_workers((await client.get(f"{dynamo.frontend_url}/health")).json())


@asynccontextmanager
async def changing(dynamo: LocalDynamo, config: LocalDynamoConfig, job: Job) -> AsyncIterator[None]:
    """Let half of the workers go, or as many again come, when half of the questions have arrived."""
    if not job.change:
        yield
        return
    second = SecondHalf(dynamo, config)
    try:
        if job.change == "halves":
            second.start()
            while await _workers(dynamo) < 2 * config.workers:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        act = second.stop if job.change == "halves" else second.start
        timer = asyncio.get_running_loop().call_later(job.load.count / job.load.rate / 2, act)
        try:
            yield
        finally:
            timer.cancel()
    finally:
        second.stop()


QUICK = (
    BASELINE,
    ("openai", "queue 0, wspt"),
    ("ours: admission", "default"),
    ("ours: priority", "queue 0"),
    ("ours: both", "default"),
)


def _worth_running(load: str, arm: Arm, flags: str) -> bool:
    if flags == "queue 0, wspt":  # what the flag alone is worth
        return load == "past the cliff" and arm.client == "plain"
    if load == "past the cliff":
        # NAT's client sends what OpenAI's does, so once will do.
        return arm.client != "builtin" or flags == "default"
    # Elsewhere an upper bound bounds nothing, and flags matter to those who send a priority.
    sends_priority = arm.fields.get("prefix_total_requests") == "auto"
    return arm.client != "builtin" and arm.knowledge != "total" and (flags == "default" or sends_priority)


def matrix_jobs(seeds: Sequence[int], *, quick: bool) -> list[Job]:
    """Every arm with the flags that it is worth running with at a load; the quick look has the fewest that show
    something."""
    jobs = []
    for load in LOADS[2:] if quick else LOADS:
        for arm in ARMS:
            for flags in FLAGS:
                if (arm.name, flags) in QUICK if quick else _worth_running(load.name, arm, flags):
                    jobs += [Job("matrix", load, arm, flags, seed) for seed in seeds]
    return jobs


FIXED = (16, 24, 32, 48)
AUTO_CLUSTERS = ((2, 2816, ""), (3, 1664, ""), (4, 1408, ""), (2, 2688, "halves"), (2, 2688, "doubles"))


def auto_jobs(seeds: Sequence[int], *, quick: bool) -> list[Job]:
    """`auto` and fixed numbers of questions under way, on other clusters than the one it was tuned on."""
    jobs = []
    for workers, blocks, change in AUTO_CLUSTERS[:1] if quick else AUTO_CLUSTERS:
        # Two clusters' worth of questions where there are two clusters' worth of workers.
        scale = 2 if change else workers / 2
        load = Load("past the cliff", round(80 * scale**0.5), 14.0 * scale**0.5)
        arms = [PLAIN, replace(ADMISSION, name="auto")]
        # A cluster that doubles has room for more than any of the others.
        arms += [
            replace(ADMISSION, name=f"fixed {n}", fields=ADMISSION.fields | {"max_active_prefixes": n})
            for n in ((*FIXED, 64) if change == "doubles" else FIXED)
        ]
        for arm in arms:
            jobs += [
                Job("auto", load, arm, "default", seed, workers=workers, kv_blocks=blocks, change=change)
                for seed in seeds
            ]
    return jobs


def share_jobs(seeds: Sequence[int], *, quick: bool) -> list[Job]:
    """Two client processes on one cluster."""
    arms = (PLAIN, replace(ADMISSION, name="both on auto"))
    return [Job("share", LOADS[2], arm, "default", seed, clients=2) for arm in arms for seed in seeds]


METRICS = ("mean", "p50", "p95", "all_done")


def interval(values: Sequence[float], statistic: Callable[[Any], Any] = np.mean) -> tuple[float, float]:
    """A 95 % bootstrap interval (percentiles of 4000 resamples)."""
    if len(values) < 2:
        return (float("nan"), float("nan"))
    samples = np.random.default_rng(0).choice(np.asarray(values), size=(4000, len(values)))
    low, high = np.percentile(statistic(samples, axis=1), [2.5, 97.5])
    return float(low), float(high)


def summary(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row a part, cluster, load, arm and flags: means over the repetitions, and ratios to the plain client.

    A ratio is the geometric mean of the ratios of runs with the same questions at the same times (the same seed).
    """
    base = {(r.part, r.cluster, r.load, r.seed): r for r in runs if (r.arm, r.flags) == BASELINE}
    rows: dict[tuple[str, str, str, str, str], list[Run]] = {}
    for run in runs:
        rows.setdefault((run.part, run.cluster, run.load, run.arm, run.flags), []).append(run)
    out = []
    for (part, where, load, arm, flags), group in rows.items():
        row: dict[str, Any] = {"part": part, "cluster": where, "load": load, "arm": arm, "flags": flags}
        row["runs"] = len(group)
        for name in (*METRICS, "ttft", "cached", "per_second", "working_set"):
            values = [getattr(run, name) for run in group]
            row[name] = {"mean": statistics.fmean(values), "interval": interval(values)}
        row["failures"] = sum(run.failures for run in group)
        if group[0].jain is not None:
            indices = [run.jain or 0.0 for run in group]
            row["jain"] = {"mean": statistics.fmean(indices), "least": min(indices)}
        pairs = [(run, base[key]) for run in group if (key := (run.part, run.cluster, run.load, run.seed)) in base]
        for name in METRICS if pairs else ():
            logs = [float(np.log(getattr(run, name) / getattr(other, name))) for run, other in pairs]
            low, high = interval(logs)
            row[f"{name}_ratio"] = {
                "mean": float(np.exp(statistics.fmean(logs))),
                "interval": (float(np.exp(low)), float(np.exp(high))),
            }
        out.append(row)
    return sorted(out, key=_place)


def _place(row: dict[str, Any]) -> tuple[int, ...]:
    """Where a row stands: loads from light to heavy, clusters, arms and flags as they are listed above."""
    arms, loads = [arm.name for arm in ARMS], [load.name for load in LOADS]
    clusters = [cluster_name(*size) for size in AUTO_CLUSTERS]
    return (
        loads.index(row["load"]) if row["load"] in loads else len(loads),
        clusters.index(row["cluster"]) if row["cluster"] in clusters else len(clusters),
        arms.index(row["arm"]) if row["arm"] in arms else len(arms),
        int(row["arm"].removeprefix("fixed ")) if row["arm"].startswith("fixed ") else 0,
        list(FLAGS).index(row["flags"]),
    )


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print the tables, one a part, cluster and load."""
    for key in dict.fromkeys((row["part"], row["cluster"], row["load"]) for row in rows):
        group = [row for row in rows if (row["part"], row["cluster"], row["load"]) == key]
        table = Table(title=f"{key[0]}: {key[2]}, {key[1]}; ratios to the plain client, [95 % interval]")
        for name in ("arm", "flags", "mean s", "mean", "p50", "p95", "all done", "TTFT ms", "cached", "q/s", "failed"):
            table.add_column(name, justify="left" if name in ("arm", "flags") else "right")
        for row in group:
            ratios = [
                "{:.2f} [{:.2f}-{:.2f}]".format(row[f"{m}_ratio"]["mean"], *row[f"{m}_ratio"]["interval"])
                if f"{m}_ratio" in row
                else ""
                for m in METRICS
            ]
            table.add_row(
                row["arm"] + (f", Jain {row['jain']['mean']:.3f}" if "jain" in row else ""), row["flags"],
                f"{row['mean']['mean']:.2f}", *ratios, f"{row['ttft']['mean']:.0f}", f"{row['cached']['mean']:.3f}",
                f"{row['per_second']['mean']:.2f}", str(row["failures"]),
            )  # fmt: skip
        console.print(table)
        sets = [row["working_set"]["mean"] for row in group if (row["arm"], row["flags"]) == BASELINE]
        if sets:
            console.print(f"Working set of the plain client's questions: {sets[0]:.2f} of the KV cache.\n")


def draw(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """The ratios of mean and p95 by arm, one panel a part, cluster and load."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    keys = list(dict.fromkeys((row["part"], row["cluster"], row["load"]) for row in rows))
    figure, panels = pyplot.subplots(1, len(keys), figsize=(5.5 * len(keys), 6), squeeze=False, layout="constrained")
    for panel, key in zip(panels[0], keys, strict=True):
        group = [row for row in rows if (row["part"], row["cluster"], row["load"]) == key and "mean_ratio" in row][::-1]
        at = np.arange(len(group))
        for offset, metric, colour in ((0.2, "mean", "tab:blue"), (-0.2, "p95", "tab:orange")):
            ratio = [row[f"{metric}_ratio"] for row in group]
            centre = np.array([r["mean"] for r in ratio])
            low, high = np.array([r["interval"] for r in ratio]).reshape(-1, 2).T
            spread = np.nan_to_num([centre - low, high - centre]).clip(0)
            panel.barh(at + offset, centre, 0.38, xerr=spread, label=metric, color=colour)
        panel.set_yticks(at, [f"{row['arm']} ({row['flags']})" for row in group], fontsize=7)
        panel.axvline(1.0, color="black", linewidth=0.8)
        panel.set_title(f"{key[2]}, {key[1]}", fontsize=9)
        panel.set_xlim(left=0)
        panel.set_xlabel("question latency / plain client's")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


async def run_all(
    bench: Bench, jobs: list[Job], order: int, console: Console, keep: Callable[[list[Run]], None]
) -> list[Run]:
    """Make all runs in shuffled order; what is done is kept at once."""
    random.Random(order).shuffle(jobs)
    runs: list[Run] = []
    began = time.monotonic()
    for number, job in enumerate(jobs, start=1):
        run = await bench.run(job)
        runs.append(run)
        keep(runs)
        left = (time.monotonic() - began) / number * (len(jobs) - number) / 60
        console.print(
            f"{number}/{len(jobs)} {job.part} {job.load.name}, {job.cluster}: {job.arm.name} ({job.flags}, "
            f"seed {job.seed}): mean {run.mean:.2f} s, p95 {run.p95:.2f} s, done {run.all_done:.1f} s, "
            f"cached {run.cached:.3f}; {left:.0f} min left",
            highlight=False,
        )
    return runs


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--part", choices=("matrix", "auto", "share", "all"), default="matrix")
    parser.add_argument("--quick", action="store_true", help="two minutes: past the cliff, few arms, one repetition")
    parser.add_argument("--repetitions", type=int, help="5 for the matrix, 3 otherwise")
    parser.add_argument("--load", action="append", choices=[load.name for load in LOADS], help="only this load")
    parser.add_argument("--seed", type=int, default=100, help="the first repetition's seed")
    parser.add_argument("--output", type=Path, default=Path("eval/results/contention"))
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    console = Console(width=200)
    parts = ("matrix", "auto", "share") if options.part == "all" else (options.part,)
    makers = {"matrix": matrix_jobs, "auto": auto_jobs, "share": share_jobs}
    jobs: list[Job] = []
    for part in parts:
        repetitions = options.repetitions or (1 if options.quick else 5 if part == "matrix" else 3)
        jobs += makers[part](range(options.seed, options.seed + repetitions), quick=options.quick)
    if options.load:
        jobs = [job for job in jobs if job.load.name in options.load]
    machine = {
        "machine": f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        "dynamo": version("ai-dynamo"),
        "nvidia-nat": version("nvidia-nat-core"),
        "simulated": "engine times; routing, queueing and KV cache reuse are Dynamo's own",
        "load_average": os.getloadavg(),
    }
    console.print(f"{machine['machine']}; ai-dynamo {machine['dynamo']}; simulated are {machine['simulated']}")
    options.output.mkdir(parents=True, exist_ok=True)
    name = options.part + ("-quick" if options.quick else "")

    def keep(runs: list[Run]) -> None:
        data = {**machine, "runs": [asdict(run) for run in runs], "summary": summary(runs)}
        (options.output / f"{name}.json").write_text(json.dumps(data, indent=1), encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        runs = asyncio.run(run_all(Bench(Path(folder)), jobs, options.seed, console, keep))
    rows = summary(runs)
    show(rows, console)
    draw(rows, options.output / f"{name}.png")
    console.print(f"{options.output / name}.json and .png")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
