"""A Dynamo that goes away in the middle of the work and comes back: no call is lost, and every text is right."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from nat_dynamo_plugin import CallRecord, DynamoModelConfig, DynamoPrefixContext, make_service
from nat_dynamo_plugin.dialects.scripted import ANNOTATION
from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig

TEXTS = [f"The answer to question {k} has some words, so that it takes a while to say it." for k in range(24)]
MODEL = "there-and-back"


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps({"key": f"k{k}", "content": text}) + "\n" for k, text in enumerate(TEXTS)))
    return file


async def ask(client: Any, number: int, *, streamed: bool) -> str:
    asked = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Question {number}?"}],
        "max_tokens": 64,
        "extra_body": {"nvext": {"annotations": [f"{ANNOTATION}:k{number}"]}},
    }
    with DynamoPrefixContext.scope(f"question-{number}"):
        if not streamed:
            return str((await client.chat.completions.create(**asked)).choices[0].message.content)
        pieces = [
            event.choices[0].delta.content or ""
            async for event in await client.chat.completions.create(**asked, stream=True)
            if event.choices
        ]
        return "".join(pieces)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_frontend_that_is_gone_and_comes_back_loses_no_call(answers: Path, streamed: bool) -> None:
    settings: dict[str, Any] = {"workers": 2, "speedup": 20, "scripted_answers": str(answers)}
    first = LocalDynamo(LocalDynamoConfig(**settings), model_name=MODEL)
    await first.start()
    port = int(first.frontend_url.rpartition(":")[2])
    records: list[CallRecord] = []
    config = DynamoModelConfig(
        base_url=first.base_url, model_name=MODEL, api_key="env:NOBODYS_KEY", breaker={"on_outage": "wait"}
    )
    got: dict[int, str] = {}
    numbers = iter(range(len(TEXTS)))
    answered, idle, down = asyncio.Event(), asyncio.Event(), asyncio.Event()
    under_way = 0

    async def worker(client: Any) -> None:
        nonlocal under_way
        for number in numbers:
            if len(got) >= len(TEXTS) // 3:
                answered.set()
                if not under_way:
                    idle.set()
                await down.wait()  # what is left is asked while it is down
            under_way += 1
            got[number] = await ask(client, number, streamed=streamed)
            under_way -= 1

    async def outage() -> LocalDynamo:
        # A stream that breaks after its first token is its caller's to make again; any other call is ours.
        await (idle if streamed else answered).wait()
        await first.stop()
        down.set()
        second = LocalDynamo(LocalDynamoConfig(**settings, port=port), model_name=MODEL)
        await second.start()
        return second

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOBODYS_KEY", "unused-by-dynamo")
        async with make_service(config, emit_record=records.append).http_clients() as http:
            client = http.async_openai()
            running = asyncio.create_task(outage())
            try:
                await asyncio.gather(*(worker(client) for _ in range(4)))
            finally:
                await (await running).stop()
    assert [got[number] for number in range(len(TEXTS))] == TEXTS
    assert len(records) == len(TEXTS) and not any(record.failed for record in records)
    assert any(record.attempts > 1 or record.outage_wait_ms > 0 for record in records)
