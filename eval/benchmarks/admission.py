"""Clients on busy clusters, over a family of workloads: who is held back, by whom, and what that is worth.

The frontend, its router and the cache reuse are Dynamo's own; engine times are simulated (`dynamo.mocker`). Each run
has a fresh cluster; arms take turns in shuffled order. What is compared is a question's latency, arrival to last
answer. An interval is Student's t of the log ratios to the plain client, paired by repetition.

    python eval/benchmarks/admission.py [--workload bfcl growing 63 ...] [--arm plain auto ...] [--repetitions 3]

A number is a workload of the family (`workloads/family.py`); `--aside N` takes the first N of those that were set
aside. Runs are appended to `--output`, a file of JSON lines, so that a table may be made of several sittings
(`--table` makes no run) and of several checkouts: `--label old` names the arm `auto` of the code that is imported.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import math
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from contention_client import Arm, client_of
from rich.console import Console
from rich.table import Table
from scipy import stats
from workloads import family, recorded
from workloads.questions import Question, Workload, prompts

from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig
from nat_dynamo_plugin.question.hints import DynamoHints
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext
from nat_dynamo_plugin.telemetry.record import CallRecord

TRACE = Path("eval/results/mooncake-synthetic.jsonl")
"""The synthetic trace of Mooncake's FAST 2025 release (kvcache-ai/Mooncake, Apache-2.0); not in this repository."""
THUNDERAGENT = """
request_classifier:
  type: thunderagent
  parameters: {scheduler_interval_seconds: 0.1, session_retention_seconds: 2.0, acting_decay_tau_seconds: 0.5}
worker_selection:
  aggregated: ta
  instances: [{name: ta, type: thunderagent}]
"""
_PLAIN = {"session_affinity_ttl_s": None}
_QUEUE = {"session_affinity_ttl_s": None, "queue_threshold": 0.0}


@dataclass(frozen=True)
class Bench:
    """A client and the flags of its frontend.

    Attributes:
        flags: of `local`.
        oracle: whether each call says how many are to come after it, as no agent can know.
        sessions: whether calls name their session, and the last one that it is final.
        policy: whether the frontend has the policy file.
    """

    arm: Arm
    flags: dict[str, Any] = field(default_factory=lambda: dict(_PLAIN))
    oracle: bool = False
    sessions: bool = False
    policy: bool = False


def _ours(name: str, **fields: Any) -> Arm:
    return Arm(name=name, fields={"prefix_osl": 32, "prefix_iat": "LOW", **fields})


_OPENAI = Arm(name="plain", client="plain")
ARMS = {
    "plain": Bench(_OPENAI),
    "wspt": Bench(_OPENAI, {**_QUEUE, "frontend_args": ["--router-queue-policy", "wspt"]}),
    "oracle": Bench(_OPENAI, _QUEUE, oracle=True),
    "thunderagent": Bench(_OPENAI, policy=True, sessions=True),
    "thunderagent, priorities": Bench(_OPENAI, _QUEUE, oracle=True, policy=True, sessions=True),
    "fixed 24": Bench(_ours("fixed 24", max_active_prefixes=24)),
    "auto": Bench(_ours("auto", max_active_prefixes="auto")),
}


def workload(name: str, repetition: int) -> Workload:
    """A workload by its name."""
    match name:
        case "bfcl":
            return recorded.bfcl(100 + repetition)
        case "bfcl light":
            return recorded.bfcl(100 + repetition, 24, 4.0)
        case "growing":
            return recorded.growing(34 + repetition)
        case "trace":
            return recorded.trace(TRACE, 1 + repetition)
        case _:
            return family.draw(int(name), repetition)


async def run(bench: Bench, load: Workload, repetition: int) -> dict[str, Any]:
    """One run on a fresh cluster; its numbers."""
    with tempfile.TemporaryDirectory() as folder:
        flags = dict(bench.flags)
        if bench.policy:
            file = Path(folder) / "policy.yml"
            file.write_text(THUNDERAGENT, encoding="utf-8")
            flags["frontend_args"] = [*flags.get("frontend_args", ()), "--router-policy-config", str(file)]
        config = LocalDynamoConfig(
            workers=load.cluster.workers,
            kv_blocks=load.cluster.blocks,
            speedup=family.SPEEDUP,
            max_num_seqs=load.cluster.max_num_seqs,
            max_num_batched_tokens=2048,
            **flags,
        )
        async with LocalDynamo(config) as dynamo:
            return await _replay(bench, load, dynamo.base_url, dynamo.model_name, repetition)


async def _replay(bench: Bench, load: Workload, url: str, model: str, repetition: int) -> dict[str, Any]:
    label = f"{load.name}-{repetition}"
    texts = [prompts(question, f"{label}-{number}") for number, question in enumerate(load.questions)]
    records: list[CallRecord] = []
    latencies: list[float] = []
    errors: list[str] = []
    async with client_of(bench.arm, url, model, records) as (client, _):
        start = time.perf_counter()

        async def ask(number: int, question: Question) -> None:
            await asyncio.sleep(max(0.0, question.arrival_s - (time.perf_counter() - start)))
            with ExitStack() as scopes:
                scopes.enter_context(DynamoPrefixContext.scope(f"{label}-{number}"))
                scopes.enter_context(DynamoHints.scope(kind=question.kind))
                try:
                    for index, call in enumerate(question.calls):
                        body = (
                            f'{{"model":"{model}","max_tokens":{call.output_tokens},"prompt":[{texts[number][index]}]}}'
                        )
                        reply = await client.post(
                            f"{url}/completions",
                            content=body.encode(),
                            headers=_headers(bench, question, number, index),
                        )
                        reply.raise_for_status()
                        if index + 1 < len(question.calls):
                            await asyncio.sleep(call.gap_s)
                except httpx.HTTPError as error:
                    errors.append(f"{type(error).__name__}: {error}")
            latencies.append(time.perf_counter() - start - question.arrival_s)
            texts[number] = []

        await asyncio.gather(*(ask(number, question) for number, question in enumerate(load.questions)))
        took = time.perf_counter() - start
    told = [record for record in records if record.prompt_tokens is not None]
    return {
        "mean": float(np.mean(latencies)),
        "p50": float(np.percentile(latencies, 50)),
        "p95": float(np.percentile(latencies, 95)),
        "all_done": took,
        "cached": sum(r.cached_tokens or 0 for r in told) / max(1, sum(r.prompt_tokens or 0 for r in told)),
        "waited_ms": float(np.mean([record.gate_wait_ms or 0.0 for record in records])),
        "failures": len(errors),
        "error": errors[0] if errors else None,
    }


def _headers(bench: Bench, question: Question, number: int, index: int) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    to_come = len(question.calls) - 1 - index
    if bench.oracle:
        headers["x-dynamo-request-strict-priority"] = str(max(0, 100 - to_come))
    if bench.sessions:
        headers["x-dynamo-session-id"] = f"s{number}"
        if not to_come:
            headers["x-dynamo-session-final"] = "true"
    return headers


def ratios(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, tuple[float, float, float]], float]]:
    """Workload, arm, and each number's ratio to the plain client with its 95 % interval, and the mean cached share."""
    plain = {(row["workload"], row["repetition"]): row for row in rows if row["arm"] == "plain"}
    kept = [row for row in rows if (row["workload"], row["repetition"]) in plain]
    key = lambda row: (str(row["workload"]), row["arm"])  # noqa: E731
    for (name, arm), group in itertools.groupby(sorted(kept, key=key), key=key):
        runs = list(group)
        found = {
            what: _ratio([math.log(r[what] / plain[r["workload"], r["repetition"]][what]) for r in runs])
            for what in ("mean", "p50", "p95", "all_done")
        }
        yield name, arm, found, float(np.mean([r["cached"] for r in runs]))


def _ratio(logs: list[float]) -> tuple[float, float, float]:
    middle = float(np.mean(logs))
    if len(logs) < 2 or not any(logs):
        return math.exp(middle), math.nan, math.nan
    half = float(stats.t.ppf(0.975, len(logs) - 1) * stats.sem(logs))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """The table."""
    table = Table("workload", "arm", "runs", "mean", "p50", "p95", "all done", "cached")
    for name, arm, found, cached in ratios(rows):
        runs = [row for row in rows if str(row["workload"]) == name and row["arm"] == arm]
        cells = [f"{m:.2f}" + ("" if math.isnan(lo) else f" ({lo:.2f} to {hi:.2f})") for m, lo, hi in found.values()]
        if arm == "plain":
            cells = [f"{np.mean([r[what] for r in runs]):.2f} s" for what in found]
        table.add_row(name, arm, str(len(runs)), *cells, f"{cached:.2f}")
    console.print(table)


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--workload", nargs="*", default=["bfcl", "growing"])
    parser.add_argument("--aside", type=int, default=0)
    parser.add_argument("--arm", nargs="*", default=["plain", "auto"], choices=list(ARMS))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first repetition's number")
    parser.add_argument("--label", help="the arm `auto` under another name")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no run after so long")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("eval/results/admission.jsonl"))
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    console = Console(width=160)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    before = options.output.read_text().splitlines() if options.output.exists() else []
    rows = [json.loads(line) for line in before]
    if not options.table:
        aside = itertools.islice(family.seeds(aside=True), options.aside)
        names = [*options.workload, *map(str, aside)]
        repetitions = range(options.first, options.first + options.repetitions)
        jobs = [(n, a, r) for r in repetitions for n in names for a in options.arm]
        # Whole repetitions one after the other, so that what is cut off is whole too.
        jobs.sort(key=lambda job: (job[2], random.Random(f"{job}").random()))
        console.print(
            f"{platform.platform()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; "
            f"ai-dynamo {version('ai-dynamo')}"
        )
        begun = time.monotonic()
        for name, arm, repetition in jobs:
            if time.monotonic() - begun > 60 * options.minutes:
                break
            shown = options.label or arm if arm == "auto" else arm
            if any((str(r["workload"]), r["arm"], r["repetition"]) == (name, shown, repetition) for r in rows):
                continue
            load = workload(name, repetition)
            numbers = asyncio.run(run(ARMS[arm], load, repetition))
            row = {"workload": name, "arm": shown, "repetition": repetition, **numbers, **asdict(load.cluster)}
            rows.append(row)
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            console.print(
                f"{name} {shown} {repetition}: mean {row['mean']:.2f} s, p95 {row['p95']:.2f} s, done "
                f"{row['all_done']:.1f} s, cached {row['cached']:.2f}, failures {row['failures']}",
                highlight=False,
            )
    show(rows, console)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
