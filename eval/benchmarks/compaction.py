"""Long conversations in a quarter of their length: `context:` beside trimming, which cuts a little at every call.

The BFCL tasks of the most calls go one after the other through an embedded Dynamo, three times: whole, trimmed by
LangChain's `trim_messages` to what just fits, and with `context:`. Tools and system prompt are sent in any case; the
window is these and a quarter of what the conversation adds to them, by the server's count in the whole run. In each
task and arm the prompt begins in words of its own, so that nothing cached is shared between them (the simulated engines
take no notice of a KV cache salt).

Simulated: the engines, and what they say, which is the benchmark's own solution; so accuracy tells whether the agent
still gets through with what is sent, and not what a model would have made of it. Real: Dynamo's frontend, router and
prefix matching, the tokens of the prompts, and which of them are cached. The cost is of input tokens alone, a cached
one at a tenth, relative to the whole arm's.

    python eval/benchmarks/compaction.py [--tasks N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import platform
import sys
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

from langchain_core.messages import AnyMessage, convert_to_openai_messages, trim_messages
from langchain_openai import ChatOpenAI

from nat_dynamo_bfcl.agent import SYSTEM_PROMPT, WAYS_OF_ASKING, BfclAgent, Model
from nat_dynamo_bfcl.answers import solution
from nat_dynamo_bfcl.benchmark import Task, check, tasks
from nat_dynamo_plugin import CallRecord, DynamoModelConfig, DynamoPrefixContext, make_service
from nat_dynamo_plugin.layers.cache_scope import take_answer_key
from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig, current_scripted_answer

ARMS = ("whole", "trimmed", "context")
KEEP = 2
CACHED_PRICE = 0.1


@dataclass
class Arm:
    """What came of the tasks in one way."""

    records: list[CallRecord] = field(default_factory=list)
    right: int = 0
    errors: int = 0
    later: list[int] = field(default_factory=list)
    """Tokens that were not cached, of each call after a task's first."""

    @property
    def prompt(self) -> int:
        """Prompt tokens of all calls."""
        return sum(record.prompt_tokens or 0 for record in self.records)

    @property
    def cached(self) -> int:
        """Those of them that were cached."""
        return sum(record.cached_tokens or 0 for record in self.records)

    @property
    def cost(self) -> float:
        """Of the input, in tokens at full price."""
        return self.prompt - (1 - CACHED_PRICE) * self.cached


@dataclass(frozen=True)
class Room:
    """The window of a task (tokens), what of it the messages may take, and the bytes of a token."""

    window: int
    messages: int
    bytes_per_token: float


def size(messages: list[AnyMessage]) -> int:
    """Bytes of messages as they are sent."""
    return len(json.dumps(convert_to_openai_messages(messages), separators=(",", ":")))


def trimming(room: Room) -> Any:
    """Asks with what just fits, the newest messages and the system's."""

    async def ask(model: Model, messages: list[AnyMessage]) -> Any:
        kept = trim_messages(
            messages,
            max_tokens=room.messages,
            token_counter=lambda some: round(size(some) / room.bytes_per_token),
            strategy="last",
            include_system=True,
            start_on=("human", "ai"),
        )
        return await model.ainvoke(kept)

    return ask


async def answered(dynamo: LocalDynamo, task: Task, name: str, arm: Arm, room: Room | None) -> list[CallRecord]:
    """One task in one way; gives the records of its calls, in order."""
    records: list[CallRecord] = []
    context = {"max_tokens": room.window, "keep": KEEP} if room is not None and name == "context" else None
    config = DynamoModelConfig(model_name=dynamo.model_name, base_url=dynamo.base_url, context=context)
    system = f"{name} {task.id}\n{SYSTEM_PROMPT}"
    service = make_service(
        config,
        api_key="unused",
        script=dynamo.script(partial(take_answer_key, current_scripted_answer)),
        emit_record=records.append,
    )
    WAYS_OF_ASKING["trimmed"] = WAYS_OF_ASKING["async"] if room is None else trimming(room)
    async with service.http_clients() as http:
        llm = ChatOpenAI(
            model=http.model_name,
            base_url=http.base_url,
            api_key=http.api_key,
            http_client=http.sync,
            http_async_client=http.asynchronous,
            max_retries=0,
            temperature=0,
            max_tokens=1024,
        )
        with DynamoPrefixContext.scope(f"{name}-{task.id}"):
            result = await BfclAgent(llm, system_prompt=system, ask="trimmed" if name == "trimmed" else "async").answer(
                task
            )
    arm.errors += result.error is not None
    arm.right += result.error is None and bool(check(task, result.calls)["valid"])
    arm.records += records
    arm.later += [(record.prompt_tokens or 0) - (record.cached_tokens or 0) for record in records[1:]]
    return records


def quarter(records: list[CallRecord], sent: list[int]) -> Room:
    """The window: what the first call has, and a quarter of what was added to it."""
    first, last = records[0].prompt_tokens or 0, records[-1].prompt_tokens or 0
    per_token = (sent[-1] - sent[0]) / max(1, last - first)
    window = first + (last - first) // 4
    return Room(window, round(sent[0] / per_token) + (last - first) // 4, per_token)


async def run(count: int) -> None:
    """Measure and print."""
    chosen = sorted(tasks().values(), key=lambda task: (-sum(map(len, solution(task))) - len(task.turns), task.id))
    arms = {name: Arm() for name in ARMS}
    local = LocalDynamoConfig(
        workers=2,
        kv_blocks=8192,
        block_size=16,
        speedup=50,
        scripted_answers="nat_dynamo_bfcl.answers:scripted_answers",
    )
    async with LocalDynamo(local, model_name="m") as dynamo:
        for task in chosen[:count]:
            sent: list[int] = []

            async def noting(model: Model, messages: list[AnyMessage], sent: list[int] = sent) -> Any:
                sent.append(size(messages))
                return await model.ainvoke(messages)

            plain, WAYS_OF_ASKING["async"] = WAYS_OF_ASKING["async"], noting
            try:
                whole = await answered(dynamo, task, "whole", arms["whole"], None)
            finally:
                WAYS_OF_ASKING["async"] = plain
            room = quarter(whole, sent)
            for name in ARMS[1:]:
                await answered(dynamo, task, name, arms[name], room)
    print(f"{platform.machine()}, ai-dynamo {version('ai-dynamo')}, {count} tasks, keep {KEEP}, engines simulated")
    print("arm      tasks right  calls  prompt  cached share  computed  input cost  left out")
    for name, arm in arms.items():
        calls = len(arm.records)
        left_out = sum(record.messages_left_out for record in arm.records) / calls
        errors = f"  ({arm.errors} errors)" if arm.errors else ""
        print(
            f"{name:8} {arm.right:5d} of {count:<3d} {calls:5d}  {arm.prompt / calls:6.0f}  "
            f"{arm.cached / arm.prompt:12.3f}  {sum(arm.later) / len(arm.later):8.0f}  "
            f"{arm.cost / arms['whole'].cost:10.2f}  {left_out:8.1f}{errors}"
        )
    print(
        "prompt: tokens a call. computed: uncached tokens of each call after a task's first. left out: messages a call"
    )


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=16, help="the longest ones, 1 to 200 (default 16)")
    logging.disable(logging.WARNING)
    asyncio.run(run(parser.parse_args().tasks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
