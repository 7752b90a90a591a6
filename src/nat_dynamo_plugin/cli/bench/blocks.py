"""Plays a load by both clients in turns, and keeps what each question took."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from time import perf_counter
from typing import Any

from nat_dynamo_plugin.cli.bench.calls import Seen, salted, stream
from nat_dynamo_plugin.cli.bench.server import Server
from nat_dynamo_plugin.cli.replay.asking import ask_question, asked
from nat_dynamo_plugin.cli.replay.schedule import PlannedQuestion
from nat_dynamo_plugin.recording.rows import RecordedCall

ARMS = ("plain", "plugin")
"""What is compared: OpenAI's client as it comes, and the plugin's."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A client.

    Attributes:
        client: OpenAI's async client.
        question: entered around all calls of a question, with the question's name.
    """

    client: Any
    question: Callable[[str], AbstractContextManager[Any]] = lambda name: nullcontext()


@dataclass(frozen=True, slots=True)
class Question:
    """A question that was answered in whole.

    Attributes:
        took_s: from its beginning to the end of its last call, pauses included.
        calls: what each brought.
    """

    took_s: float
    calls: tuple[Seen, ...]


@dataclass(slots=True)
class Block:
    """One arm on all questions of a round.

    Attributes:
        answered: questions by name.
        failed: calls that were not answered.
        problem: the first error.
        took_s: all of it.
    """

    answered: dict[str, Question] = field(default_factory=dict)
    failed: int = 0
    problem: str | None = None
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked.

    Attributes:
        rows: the calls.
        questions: when which of them is asked; all are asked at every concurrency, and once more as far as is needed.
        name: for people.
    """

    rows: Sequence[RecordedCall]
    questions: Sequence[PlannedQuestion]
    name: str

    def at(self, concurrency: int, per_slot: int) -> list[tuple[str, PlannedQuestion]]:
        """The questions of a block, each with its name there: `per_slot` for each that is under way at once."""
        count = max(concurrency * per_slot, min(len(self.questions), 2 * per_slot))
        copies = [(f"{k // len(self.questions)}", self.questions[k % len(self.questions)]) for k in range(count)]
        return [(f"{one.name}-{copy}", one) for copy, one in copies]


async def play_block(
    arm: Arm, load: Load, server: Server, asking: Sequence[tuple[str, PlannedQuestion]], concurrency: int, salt: str
) -> Block:
    """Ask the questions, so many at once, each begun when one has ended.

    Args:
        arm: who asks.
        load: where the calls are.
        server: who is asked.
        asking: the questions by their names, in order.
        concurrency: questions under way at once.
        salt: of this block. A question that comes again has another one, so it finds nothing of its own in a cache.
    """
    block = Block()
    waiting = iter(asking)

    async def one(name: str, planned: PlannedQuestion) -> None:
        seen: list[Seen] = []
        # Copies share no prefix with each other; the questions of one copy share theirs, as those of an agent do.
        words = f"[{salt} {name.rpartition('-')[2]}]"

        async def call(number: int) -> None:
            row = load.rows[number]
            arguments = asked(row, server.model, row.completion_tokens or 64)
            arguments["messages"] = salted(row.messages, words)
            try:
                seen.append(await stream(arm.client, arguments | server.stream_options))
            except Exception as error:
                block.failed += 1
                block.problem = block.problem or f"{type(error).__name__}: {error}"

        began = perf_counter()
        with arm.question(f"{salt}-{name}"):
            await ask_question(planned, call)
        if len(seen) == len(planned.calls):
            block.answered[name] = Question(perf_counter() - began, tuple(seen))

    async def slot() -> None:
        for name, planned in waiting:
            await one(name, planned)

    began = perf_counter()
    await asyncio.gather(*(slot() for _ in range(concurrency)))
    block.took_s = perf_counter() - began
    return block


@dataclass(frozen=True, slots=True)
class Level:
    """What was measured with so many questions under way at once.

    Attributes:
        concurrency: questions under way at once.
        rounds: for each round the block of each arm.
    """

    concurrency: int
    rounds: tuple[Mapping[str, Block], ...]


async def measure(
    arms: Mapping[str, Arm],
    load: Load,
    server: Server,
    concurrency: int,
    *,
    rounds: int,
    per_slot: int,
    seed: int,
    salt: str,
    enough: Callable[[int], bool],
    told: Callable[[str], None],
) -> Level:
    """Measure one level of load: in each round both arms, in an order that is drawn, on the same questions.

    Args:
        arms: the clients by name.
        load: what is asked.
        server: who is asked.
        concurrency: questions under way at once.
        rounds: how many.
        per_slot: questions a round for each that is under way at once.
        seed: of the order of arms and questions.
        salt: of this run.
        enough: whether so many rounds must do, as time is up.
        told: hears of each round.
    """
    drawn = random.Random(f"{seed} {concurrency}")
    found: list[Mapping[str, Block]] = []
    for number in range(rounds):
        asking = load.at(concurrency, per_slot)
        drawn.shuffle(asking)
        blocks = {}
        for name in drawn.sample(sorted(arms), len(arms)):
            own = sha256(f"{salt} {concurrency} {number} {name}".encode()).hexdigest()[:12]
            blocks[name] = await play_block(arms[name], load, server, asking, concurrency, own)
        found.append(blocks)
        told(f"{concurrency} at once, round {number + 1} of {rounds}: {max(b.took_s for b in blocks.values()):.1f} s")
        if enough(number + 1) or not all(block.answered for block in blocks.values()):
            break
    return Level(concurrency, tuple(found))
