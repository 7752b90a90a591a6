"""An agent recorded on a model behind an OpenAI-compatible server, and run again on the embedded Dynamo."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from nat_dynamo_plugin import DynamoModelConfig, DynamoPrefixContext, make_service
from nat_dynamo_plugin.recording.rows import RecordedCall, head, read
from nat_dynamo_plugin.running import running_service

from .plain_server import serving

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("stock", "price")
]
STOCK = {"bolt": 17, "nut": 4, "washer": 230}


class Model(BaseHTTPRequestHandler):
    """A model that asks for the stock, then for the price, then answers; in one piece or streamed."""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        results = [message for message in asked["messages"] if message["role"] == "tool"]
        item = re.findall("bolt|nut|washer", asked["messages"][1]["content"])[0]
        if len(results) < 2:
            function = {"name": TOOLS[len(results)]["function"]["name"], "arguments": json.dumps({"item": item})}  # type: ignore[index]
            call = {"id": f"call-{len(asked['messages'])}", "type": "function", "function": function}
            message: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [call]}
        else:
            message = {"role": "assistant", "content": f"There are {results[0]['content']} at {results[1]['content']}."}
        usage = {"prompt_tokens": 50, "completion_tokens": 12, "total_tokens": 62}
        head = {"id": "x", "created": 1, "model": "big"}
        if asked.get("stream"):
            delta = dict(message)
            if calls := delta.get("tool_calls"):
                delta["tool_calls"] = [calls[0] | {"index": 0}]
            chunks = [
                {"index": 0, "delta": delta, "finish_reason": None},
                {"index": 0, "delta": {}, "finish_reason": "stop"},
            ]
            lines = [json.dumps(head | {"object": "chat.completion.chunk", "choices": [chunk]}) for chunk in chunks]
            body = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()
            kind = "text/event-stream"
        else:
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps(head | {"object": "chat.completion", "choices": [choice], "usage": usage}).encode()
            kind = "application/json"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


async def agent(client: Any, model_name: str, item: str, *, streamed: bool, system: str = "You look things up.") -> str:
    """An agent with two tools, as simple as can be."""
    messages: list[Any] = [
        {"role": "system", "content": system * 20},
        {"role": "user", "content": f"How many {item}s are there, and at what price? My card is 1234-5678."},
    ]
    while True:
        asked = {"model": model_name, "messages": messages, "tools": TOOLS}
        if streamed:
            text, calls = "", []
            async for event in await client.chat.completions.create(**asked, stream=True):
                delta = event.choices[0].delta if event.choices else None
                text += (delta.content or "") if delta else ""
                calls += (delta.tool_calls or []) if delta else []
            called = [(call.id, call.function.name, call.function.arguments) for call in calls]
        else:
            message = (await client.chat.completions.create(**asked)).choices[0].message
            text, calls = message.content or "", message.tool_calls or []
            called = [(call.id, call.function.name, call.function.arguments) for call in calls]
        if not called:
            return text
        functions = [{"id": i, "type": "function", "function": {"name": n, "arguments": a}} for i, n, a in called]
        messages.append({"role": "assistant", "content": text or None, "tool_calls": functions})
        for number, name, arguments in called:
            found = STOCK[json.loads(arguments)["item"]] * (1 if name == "stock" else 2)
            messages.append({"role": "tool", "tool_call_id": number, "content": str(found)})


async def all_of(config: DynamoModelConfig, *, streamed: bool) -> list[str]:
    async with running_service(config) as service, service.http_clients() as http:
        client = http.async_openai()

        async def one(item: str) -> str:
            with DynamoPrefixContext.scope(f"stock-{item}"):
                return await agent(client, config.model_name, item, streamed=streamed)

        return await asyncio.gather(*map(one, STOCK))


def recorded(file: Path, *, streamed: bool) -> list[str]:
    with serving(Model) as url:
        record = {"file": file, "redact": [r"\d{4}-\d{4}"]}
        config = DynamoModelConfig(base_url=url, model_name="big", api_key="env:THE_KEY", record=record)
        return asyncio.run(all_of(config, streamed=streamed))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "sk-canary-0123456789")


@pytest.mark.parametrize("streamed", [False, True])
def test_an_agent_runs_again_without_its_model(tmp_path: Path, streamed: bool) -> None:
    file = tmp_path / "calls.jsonl"
    answers = recorded(file, streamed=streamed)
    assert answers == ["There are 17 at 34.", "There are 4 at 8.", "There are 230 at 460."]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert "1234-5678" not in text and "sk-canary" not in text and "My card is [redacted]." in text
    rows, _ = read(file)
    assert len(rows) == 9 and {row.question for row in rows} == {"stock-bolt", "stock-nut", "stock-washer"}

    again = DynamoModelConfig(model_name="embedded", local={"workers": 2, "speedup": 100, "answers": file})
    for other in (False, True):  # a recording of streams serves calls in one piece, and the other way round
        assert asyncio.run(all_of(again, streamed=other)) == answers


def test_a_call_that_differs_is_an_error_that_says_where(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    recorded(file, streamed=False)
    config = DynamoModelConfig(model_name="embedded", local={"workers": 1, "answers": file})

    async def run() -> str:
        async with running_service(config) as service, service.http_clients() as http:
            return await agent(http.async_openai(), "embedded", "bolt", streamed=False, system="You look up.")

    with pytest.raises(
        openai.NotFoundError,
        match=r"nearest is call \d .*message 1 differs from character \d+ on: recorded .*things up",
    ):
        asyncio.run(run())


def test_a_recording_is_gone_on_with_and_one_with_other_rules_is_not(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    recorded(file, streamed=False)
    recorded(file, streamed=True)
    assert len(read(file)[0]) == 18
    config = DynamoModelConfig(base_url="http://127.0.0.1:1/v1", model_name="m", record=file)
    with pytest.raises(ValueError, match=r"was begun with other rules in `redact`"):
        make_service(config)
    file.write_text("something else\n")
    with pytest.raises(ValueError, match="is no recording"):
        make_service(config)


def test_replay_says_what_each_size_of_cluster_does(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    recorded(file, streamed=False)
    argv = [sys.executable, "-m", "nat_dynamo_plugin.cli", "replay", str(file), "--workers", "1,2", "--rate", "50"]
    got = subprocess.run([*argv, "--json"], capture_output=True, text=True, timeout=300)
    found = json.loads(got.stdout)
    assert [one["workers"] for one in found] == [1, 2], got.stderr
    for one in found:
        assert one["questions"] == 3 and one["failed"] == 0 and 0 < one["reuse"] < 1, found
        assert 0 < one["p50_s"] <= one["p95_s"] <= one["all_s"] and one["ttft_p95_s"] > 0, found
    table = subprocess.run(argv, capture_output=True, text=True, timeout=300).stdout
    assert "3 questions, 9 calls, arriving 50 a second" in table and "3 of 3 |" in table, table


def test_an_answer_that_can_not_be_given_again_fails_its_own_call_only(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    asked = {name: [{"role": "user", "content": name}] for name in ("tagged", "empty")}
    rows = [
        RecordedCall("q", 0.0, 1.0, asked["tagged"], 'see <tool_call> {"name": "x"}'),
        RecordedCall("q", 2.0, 1.0, asked["empty"]),
    ]
    file.write_bytes(b"\n".join([head([]).strip(), *map(msgspec.json.encode, rows), b""]))
    config = DynamoModelConfig(model_name="embedded", local={"workers": 1, "speedup": 100, "answers": file})

    async def run() -> str | None:
        async with running_service(config) as service, service.http_clients() as http:
            client: Any = http.async_openai()
            first = await client.chat.completions.create(model="embedded", messages=asked["tagged"])
            with pytest.raises(openai.NotFoundError, match="call 2: field 'content': empty"):
                await client.chat.completions.create(model="embedded", messages=asked["empty"])
            with pytest.raises(openai.NotFoundError, match="this call is of responses"):
                await client.responses.create(model="embedded", input="tagged")
            content: str | None = first.choices[0].message.content
            return content

    assert asyncio.run(run()) == 'see <tool_call> {"name": "x"}'


def test_a_replay_in_which_nothing_is_answered_fails_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]
    row = RecordedCall("q", 0.0, 1.0, picture, "a valve")
    file.write_bytes(head([]) + msgspec.json.encode(row) + b"\n")
    argv = [sys.executable, "-m", "nat_dynamo_plugin.cli", "replay", str(file), "--workers", "1"]
    got = subprocess.run([*argv, "--json"], capture_output=True, text=True, timeout=300)
    [found] = json.loads(got.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert got.returncode == 1 and found["failed"] == 1 and found["mean_s"] is None and "400" in found["problem"]
    shown = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert shown.returncode == 1 and "0 of 1 |" in shown.stdout and "1 failed calls, the first: " in shown.stderr
