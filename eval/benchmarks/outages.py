"""What is lost when Dynamo is slow, full, broken or gone: nothing, with the defaults.

Frontend, router, protocol, refusals and migration are Dynamo's own; the engines and their speed are simulated, and what
they say is scripted, so that every text can be checked. A question is a chain of calls, each with the conversation so
far. An agent asks a call again only if its stream broke after a token was delivered, which nobody below it can mend;
any other failed call loses its question.

    python eval/benchmarks/outages.py [SCENARIO ...] [--questions 200] [--quick] [--output FILE]

Scenarios: worker, frontend, all, overload, nobody, crowd; all of them unless named.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import platform
import random
import socket
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")

import openai  # noqa: E402
from outages_cluster import FRONTEND, MODEL, Cluster  # noqa: E402

from nat_dynamo_plugin.config.model import DynamoModelConfig  # noqa: E402
from nat_dynamo_plugin.dialects.scripted import Replay  # noqa: E402
from nat_dynamo_plugin.local import LocalDynamoConfig, ScriptedAnswer, scripted_answer  # noqa: E402
from nat_dynamo_plugin.local.answers import current_scripted_answer  # noqa: E402
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext  # noqa: E402
from nat_dynamo_plugin.service import make_service  # noqa: E402
from nat_dynamo_plugin.telemetry.record import CallRecord  # noqa: E402

CALLS = 5
AT_ONCE = 64
AGENT_RETRIES = 5
_TEXT = "the river of words runs on past mills and towns where nobody counts what it carries away to sea"

logger = logging.getLogger("outages")


def script(questions: int, words: int, seed: int = 7) -> dict[str, str]:
    """Answers by key, each its own text of so many words."""
    source, vocabulary = random.Random(seed), _TEXT.split()
    return {
        f"q{question}/c{call}": f"Answer {call} to question {question}: "
        + " ".join(source.choice(vocabulary) for _ in range(words))
        + "."
        for question in range(questions)
        for call in range(CALLS)
    }


@dataclass
class Tally:
    """What became of a scenario's questions. Times are seconds."""

    questions: int = 0
    lost: int = 0
    wrong: int = 0
    repeated: int = 0
    broken_streams: int = 0
    wall: float = 0.0
    latencies: list[float] = field(default_factory=list)
    records: list[CallRecord] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    example: str = ""

    @property
    def sent(self) -> int:
        """Requests."""
        return sum(record.attempts for record in self.records)

    @property
    def retries(self) -> float:
        """Requests besides the first, as a share of the calls."""
        return sum(max(0, record.attempts - 1) for record in self.records) / max(1, len(self.records))

    @property
    def answers_per_s(self) -> float:
        """Whole answers a second."""
        return sum(not record.failed for record in self.records) / self.wall if self.wall else float("nan")

    def row(self, name: str) -> dict[str, Any]:
        """As it is shown."""
        calls = [(record.client_total_ms or 0.0) / 1000.0 for record in self.records] or [float("nan")]
        return {
            "scenario": name,
            "questions": self.questions,
            "lost": self.lost,
            "wrong texts": self.wrong,
            "repeated after migration": self.repeated,
            "streams broken after a token": self.broken_streams,
            "calls": len(self.records),
            "requests": self.sent,
            "retries": round(self.retries, 3),
            "wall_s": round(self.wall, 1),
            "question_p50_s": round(statistics.median(self.latencies or [float("nan")]), 2),
            "call_p50_s": round(statistics.median(calls), 2),
            "call_max_s": round(max(calls), 1),
            "answers_per_s": round(self.answers_per_s, 1),
            "outage_wait_max_s": round(max((r.outage_wait_ms for r in self.records), default=0.0) / 1000.0, 1),
            "slot_wait_max_s": round(max((r.slot_wait_ms for r in self.records), default=0.0) / 1000.0, 1),
            "failures": dict(self.failures),
            "example": self.example[:400],
        }


class Asker:
    """Asks scripted questions through the plugin and OpenAI's library, as an agent does."""

    def __init__(self, url: str, answers: dict[str, str], *, streamed: bool, **fields: Any) -> None:
        self._url = f"{url}/v1"
        self._answers = answers
        self._streamed = streamed
        self._config = DynamoModelConfig(model_name=MODEL, base_url=self._url, **fields)
        self.tally = Tally()
        self.done = 0
        self.started = 0.0

    async def ask_all(self, questions: int, at_once: int) -> Tally:
        """Ask so many questions, so many of them at once."""
        tally = self.tally
        gc.collect()  # what clients share of a server lives as long as one of them: none may inherit what was learned
        service = make_service(
            self._config, api_key="unused", script=Replay(current_scripted_answer), emit_record=tally.records.append
        )
        room = asyncio.Semaphore(at_once)
        async with service.http_clients() as http:
            client = http.async_openai()

            async def ask(number: int) -> None:
                async with room:
                    began = time.perf_counter()
                    await self._ask(client, number)
                    tally.latencies.append(time.perf_counter() - began)
                    self.done += 1

            self.started = time.perf_counter()
            await asyncio.gather(*(ask(number) for number in range(questions)))
            tally.wall = time.perf_counter() - self.started
        service.close()
        return tally

    async def _ask(self, client: Any, number: int) -> None:
        tally = self.tally
        tally.questions += 1
        messages = [{"role": "user", "content": f"Question {number}. " + "Tell me more about it. " * 20}]
        with DynamoPrefixContext.scope(f"{os.getpid()}-{id(self)}-{number}"):
            for call in range(CALLS):
                key = f"q{number}/c{call}"
                text = await self._call(client, key, messages)
                if text is None:
                    tally.lost += 1
                    return
                expected = self._answers[key]
                if text != expected:
                    head = text.removesuffix(expected)
                    if head != text and expected.startswith(head):
                        tally.repeated += 1
                    else:
                        tally.wrong += 1
                        tally.example = tally.example or f"{text!r} for {expected!r}"
                messages += [
                    {"role": "assistant", "content": text},
                    {"role": "user", "content": f"And then, {call}?"},
                ]

    async def _call(self, client: Any, key: str, messages: list[dict[str, str]]) -> str | None:
        for _ in range(AGENT_RETRIES):
            pieces: list[str] = []
            try:
                with scripted_answer(key):
                    return await self._answer(client, messages, pieces)
            except (openai.APIError, ConnectionError) as error:
                text = f"{type(error).__name__}: {error}"
                if pieces:
                    self.tally.broken_streams += 1
                    continue
                self.tally.failures[self.tally.records[-1].kind or "?"] += 1
                self.tally.example = self.tally.example or text
                return None
        return None

    async def _answer(self, client: Any, messages: list[dict[str, str]], pieces: list[str]) -> str:
        arguments = {"model": MODEL, "messages": messages, "max_tokens": 4096}
        if not self._streamed:
            completion = await client.chat.completions.create(**arguments)
            return completion.choices[0].message.content or ""
        async with await client.chat.completions.create(**arguments, stream=True) as stream:
            async for chunk in stream:
                pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
        return "".join(pieces)


Disturb = Callable[[Cluster], Awaitable[None]]


async def disturbed(cluster: Cluster, asker: Asker, questions: int, at_once: int, disturb: Disturb) -> Tally:
    """Ask while somebody breaks things."""
    asking = asyncio.create_task(asker.ask_all(questions, at_once))
    breaking = asyncio.create_task(disturb(cluster))
    try:
        done, _ = await asyncio.wait((asking, breaking), return_when=asyncio.FIRST_COMPLETED)
        if breaking in done:
            breaking.result()
        return await asking
    finally:
        for task in (asking, breaking):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class Run:
    """Scenarios and their rows."""

    def __init__(self, questions: int, *, quick: bool) -> None:
        self.questions = questions
        self.quick = quick
        self.rows: list[dict[str, Any]] = []

    def note(self, name: str, tally: Tally, **more: Any) -> None:
        """Keep a row and show it."""
        row = tally.row(name) | more
        self.rows.append(row)
        print(json.dumps(row), flush=True)

    def cluster(self, answers: dict[str, str], **fields: Any) -> Cluster:
        """Four workers, as fast as real ones unless said otherwise."""
        config = LocalDynamoConfig(**{"workers": 4, "speedup": 1.0, **fields})
        return Cluster(config, [ScriptedAnswer(key, text) for key, text in answers.items()])

    async def worker(self) -> None:
        """A worker of four is killed every 3 s, and started again a second later."""
        answers = script(self.questions, 100)
        for limit in (3, 0):
            for mode in ("soft", "hard"):
                for streamed in (False, True):
                    async with self.cluster(answers, migration_limit=limit, session_affinity_mode=mode) as cluster:
                        kills = 0

                        async def disturb(cluster: Cluster) -> None:
                            nonlocal kills
                            while True:
                                await asyncio.sleep(2.0)
                                name = cluster.workers[kills % len(cluster.workers)]
                                cluster.kill(name)
                                kills += 1
                                await asyncio.sleep(1.0)
                                cluster.start(name)

                        asker = Asker(cluster.url, answers, streamed=streamed)
                        tally = await disturbed(cluster, asker, self.questions, AT_ONCE, disturb)
                    form = "streamed" if streamed else "unary"
                    self.note(
                        f"worker killed every 3 s, migration {limit}, {mode} affinity, {form}", tally, kills=kills
                    )

    async def frontend(self) -> None:
        """The frontend is killed, and back after 10 s."""
        await self._gone("frontend", 10.0, lambda cluster: [FRONTEND])

    async def all(self) -> None:
        """Frontend, workers and broker are killed, and back after 30 s."""
        await self._gone("frontend, workers and broker", 30.0, lambda cluster: cluster.names)

    async def _gone(self, what: str, seconds: float, names: Callable[[Cluster], list[str]]) -> None:
        answers = script(self.questions, 40)
        for at_once in (AT_ONCE, 1):
            questions = self.questions if at_once > 1 else 3
            for streamed in (False, True):
                async with self.cluster(answers) as cluster:

                    async def disturb(cluster: Cluster) -> None:
                        await asyncio.sleep(2.0)
                        cluster.kill(*names(cluster))
                        await asyncio.sleep(seconds)
                        cluster.start(*names(cluster))
                        await cluster.ready()
                        logger.info("%s back and ready", what)

                    asker = Asker(cluster.url, answers, streamed=streamed)
                    tally = await disturbed(cluster, asker, questions, at_once, disturb)
                form = "streamed" if streamed else "unary"
                self.note(f"{what} gone for {seconds:g} s, {form}, {at_once} at once", tally)

    async def overload(self) -> None:
        """Four times as much at once as a cluster does best with, behind each of Dynamo's thresholds for 529."""
        answers = script(self.questions, 40)
        thresholds = {
            "--active-decode-blocks-threshold": "0.5",
            "--active-prefill-tokens-threshold": "1000",
            "--active-prefill-tokens-threshold-frac": "0.5",
        }
        for flag, value in thresholds.items():
            fields = {
                "workers": 2, "kv_blocks": 1024, "max_num_seqs": 16, "max_num_batched_tokens": 2048, "speedup": 4.0,
                "frontend_args": [flag, value],
            }  # fmt: skip
            async with self.cluster(answers, **fields) as cluster:
                capacity, best = 0.0, 0
                for limit in (8, 16, 24, 32, 48):
                    asker = Asker(cluster.url, answers, streamed=False, max_concurrency=None)
                    tally = await asker.ask_all(max(limit, self.questions // 2), limit)
                    self.note(f"{flag} {value}: {limit} at once", tally)
                    if tally.answers_per_s > capacity:
                        capacity, best = tally.answers_per_s, limit
                for streamed in (False, True):
                    asker = Asker(cluster.url, answers, streamed=streamed)
                    tally = await asker.ask_all(self.questions, 4 * best)
                    form = "streamed" if streamed else "unary"
                    share = round(tally.answers_per_s / capacity, 2)
                    self.note(f"{flag} {value}: {4 * best} at once, {form}", tally, of_capacity=share)

    async def nobody(self) -> None:
        """Nobody listens, 200 callers at once."""
        answers = script(200, 1)
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{held.getsockname()[1]}"
            for fields in ({}, {"on_outage": "fail"}, {"on_outage": "ignore"}):
                asker = Asker(url, answers, streamed=False, **fields)
                tally = await asker.ask_all(200, 200)
                self.note(f"nobody listens, 200 at once, {fields or 'defaults'}", tally)
            await self._open(url, answers)

    async def _open(self, url: str, answers: dict[str, str]) -> None:
        records: list[CallRecord] = []
        config = DynamoModelConfig(model_name=MODEL, base_url=f"{url}/v1", on_outage="fail", breaker={"open_for": 60.0})
        service = make_service(config, api_key="unused", emit_record=records.append)
        times = []
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
        async with service.http_clients() as http:
            for _ in range(1000):
                with suppress(openai.APIError):
                    await http.async_openai().chat.completions.create(**body)
                if records[-1].kind == "circuit_open":
                    break
            for _ in range(500):
                began = time.perf_counter()
                response = await http.asynchronous.post(f"{url}/v1/chat/completions", json=body)
                times.append((time.perf_counter() - began) * 1000.0)
                assert response.status_code == 503 and records[-1].attempts == 0
        times.sort()
        row = {"scenario": "open circuit, ms a call", "p50": times[250], "p99": times[495], "max": times[-1]}
        row["example"] = response.json()["error"]["message"]
        self.rows.append(row)
        print(json.dumps(row), flush=True)

    async def crowd(self) -> None:
        """1,000 questions at once against a small cluster."""
        questions = 200 if self.quick else 1000
        answers = script(questions, 10)
        fields = {"workers": 2, "speedup": 10.0, "kv_blocks": 1024, "max_num_seqs": 16}
        for more in ({}, {"max_concurrency": 32}):
            args = ["--active-decode-blocks-threshold", "0.5"] if not more else []
            async with self.cluster(answers, **fields, frontend_args=args) as cluster:
                asker = Asker(cluster.url, answers, streamed=False, **more)
                tally = await asker.ask_all(questions, questions)
            self.note(f"{questions} questions at once, 2 workers {args}, {more or 'defaults'}", tally)


def machine() -> str:
    """Where this runs."""
    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in cpus if line.startswith("model name")), "?")
    packages = ", ".join(f"{name} {version(name)}" for name in ("ai-dynamo", "nvidia-nat-core", "openai"))
    return (
        f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}, {packages}. "
        "Simulated: the engines and their speed; scripted: what they say. Frontend and router are Dynamo's."
    )


SCENARIOS = ("worker", "frontend", "all", "overload", "nobody", "crowd")


def write(output: Path, rows: Any) -> None:
    """Keep what was seen."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1), encoding="utf-8")


async def main(names: Sequence[str], questions: int, quick: bool, output: Path | None) -> None:
    """Run the scenarios."""
    print(machine(), flush=True)
    run = Run(questions, quick=quick)
    for name in names:
        await getattr(run, name)()
    if output is not None:
        write(output, run.rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", default=SCENARIOS)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="40 questions")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--log", default="ERROR", help="level of what is logged")
    asked = parser.parse_args()
    if unknown := set(asked.scenarios) - set(SCENARIOS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    logging.basicConfig(level=asked.log, format="%(relativeCreated)8.0f %(name)s %(message)s")
    asyncio.run(main(asked.scenarios, 40 if asked.quick else asked.questions, asked.quick, asked.output))
