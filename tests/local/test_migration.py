"""A scripted answer is exact although its worker died: Dynamo migrates the call, and the other worker goes on."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig
from nat_dynamo_plugin.local.commands import environment
from nat_dynamo_plugin.local.engines.mocker import worker_command
from nat_dynamo_plugin.local.server import count_workers

WORDS = " ".join(f"wörd{number}" for number in range(120))
ARGUMENTS = {"query": WORDS[:400], "limit": 7}
TOOLS = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}]
AT_ONCE = 6


@pytest.fixture
def config(tmp_path: Path) -> LocalDynamoConfig:
    answers = tmp_path / "answers.jsonl"
    rows = [
        {"key": "text", "content": WORDS},
        {"key": "call", "tool_calls": [{"name": "search", "arguments": ARGUMENTS}]},
    ]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # As slow as a GPU, so that answers are under way when their worker dies.
    return LocalDynamoConfig(workers=1, speedup=1, scripted_answers=str(answers), migration_limit=3)


@contextmanager
def second_worker(dynamo: LocalDynamo, config: LocalDynamoConfig) -> Iterator[subprocess.Popen[bytes]]:
    """Another worker process of the same cluster, as a pod of its own would be."""
    folder = dynamo.work_dir
    worker = subprocess.Popen(
        worker_command(config, folder / "model", dynamo.model_name, folder / "answers.jsonl"),
        env=environment(config, folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()


async def until(condition: Any) -> None:
    async with asyncio.timeout(120):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("streamed", [True, False])
async def test_answers_are_exact_after_the_death_of_a_worker(config: LocalDynamoConfig, streamed: bool) -> None:
    """About half of the calls are on each of two workers; the one that does not belong to the house is killed."""
    async with (
        LocalDynamo(config) as dynamo,
        httpx.AsyncClient(trust_env=False, verify=False, timeout=120) as client,
    ):
        # A machine may be so busy that all is over before the worker is dead.
        for _ in range(5):
            with second_worker(dynamo, config) as worker:
                answers = await _asked_while_it_dies(client, dynamo, worker, streamed)
            for number, (text, calls) in enumerate(answers):
                if number % 2:
                    assert (text, calls) == ("", [("search", ARGUMENTS)])
                else:
                    assert (text, calls) == (WORDS, [])
            if await _metric(client, dynamo, "dynamo_frontend_model_migration_total"):
                return
    pytest.fail("no call was on the worker that was killed")


async def _asked_while_it_dies(
    client: httpx.AsyncClient, dynamo: LocalDynamo, worker: subprocess.Popen[bytes], streamed: bool
) -> list[tuple[str, list[tuple[str, Any]]]]:
    async def are_two() -> bool:
        return count_workers((await client.get(f"{dynamo.frontend_url}/health")).json()) == 2

    await until(are_two)
    first = "dynamo_frontend_time_to_first_token_seconds_count"
    before = await _metric(client, dynamo, first)

    async def are_answering() -> bool:
        # Of a streamed tool call the first token counts when the call is whole, which is too late.
        return await _metric(client, dynamo, first) >= before + AT_ONCE // 2

    async def death() -> None:
        await until(are_answering)
        worker.kill()

    *answers, _ = await asyncio.gather(*(ask(client, dynamo, number, streamed) for number in range(AT_ONCE)), death())
    return answers


async def ask(
    client: httpx.AsyncClient, dynamo: LocalDynamo, number: int, streamed: bool
) -> tuple[str, list[tuple[str, Any]]]:
    """One call; its text and its tool calls."""
    body = {
        "model": dynamo.model_name,
        "messages": [{"role": "user", "content": f"question {number}"}],
        "max_tokens": 2000,
        "tools": TOOLS,
        "stream": streamed,
        "nvext": {"annotations": [f"output_replay_id:{'call' if number % 2 else 'text'}"]},
    }
    url = f"{dynamo.base_url}/chat/completions"
    if not streamed:
        message = (await client.post(url, json=body)).json()["choices"][0]["message"]
        called = [call["function"] for call in message.get("tool_calls") or []]
        return message.get("content") or "", [(one["name"], json.loads(one["arguments"])) for one in called]
    text, names, arguments = "", [], ""
    async with client.stream("POST", url, json=body) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line.removeprefix("data: ")).get("choices", []):
                text += choice["delta"].get("content") or ""
                for call in choice["delta"].get("tool_calls") or []:
                    names += [call["function"]["name"]] if call["function"].get("name") else []
                    arguments += call["function"].get("arguments") or ""
    return text, [(name, json.loads(arguments)) for name in names]


async def _metric(client: httpx.AsyncClient, dynamo: LocalDynamo, name: str) -> float:
    lines = (await client.get(f"{dynamo.frontend_url}/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))
