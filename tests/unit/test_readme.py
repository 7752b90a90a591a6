"""The README is true: its YAML loads, its Python runs, its flags and targets exist."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from nat.data_models.config import Config
from nat.runtime.loader import PluginTypes, discover_and_register_plugins

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.dialects.speaker import Speaker
from nat_dynamo_plugin.http.aiohttp_engine import AiohttpTransport
from nat_dynamo_plugin.http.flow import chained
from nat_dynamo_plugin.http.httpx_shell import HttpxShell
from nat_dynamo_plugin.layers.answer import AnswerLayer
from nat_dynamo_plugin.layers.question import QuestionLayer
from nat_dynamo_plugin.layers.record import RecordLayer
from nat_dynamo_plugin.plan.planner import Planner
from nat_dynamo_plugin.question.hints import PrefixHints
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext
from nat_dynamo_plugin.telemetry.record import CallRecord

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXTEND = (ROOT / "docs" / "extend.md").read_text()


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def _plugins() -> None:
    discover_and_register_plugins(PluginTypes.ALL)


def test_there_is_something_to_check() -> None:
    assert len(blocks("yaml")) >= 3 and len(blocks("python")) >= 1


@pytest.mark.parametrize("text", [*blocks("yaml"), *blocks("yaml", EXTEND)])
def test_every_yaml_block_is_a_valid_config(text: str) -> None:
    given: dict[str, Any] = yaml.safe_load(text)
    llms = given.setdefault("llms", {"my_llm": {"_type": "openai", "model_name": "m"}})
    workflow = given.setdefault("workflow", {})
    # `my_workflow` stands for the reader's own.
    workflow |= {"_type": "chat_completion", "llm_name": next(iter(llms))}
    config = Config.model_validate(given)
    if "_type: dynamo\n" in text:
        assert isinstance(next(iter(config.llms.values())), DynamoModelConfig)
    assert config.workflow.middleware == workflow.get("middleware", [])


ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "my-model",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Yes."}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, "prompt_cache_hit_tokens": 4},
}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """Requests that reach the server, which is in memory whatever sends to it."""
    kept: list[httpx.Request] = []

    async def answer(*args: Any) -> httpx.Response:
        await args[-1].aread()
        kept.append(args[-1])
        return httpx.Response(200, json=ANSWER)

    monkeypatch.setattr(AiohttpTransport, "handle_async_request", answer)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", answer)
    return kept


def run(text: str, **names: Any) -> dict[str, Any]:
    """What a block defines, once it has run inside a coroutine."""
    body = "".join(f"    {line}\n" for line in text.splitlines())
    names["__name__"] = "a_page"
    exec(f"async def run():\n{body}    return locals()\n", names)
    found: dict[str, Any] = asyncio.run(names["run"]())
    return found


@pytest.mark.parametrize("text", blocks("python"))
def test_every_python_block_runs(text: str, sent: list[httpx.Request]) -> None:
    from nat_dynamo_plugin import DynamoHints, DynamoPrefixContext

    seen: list[tuple[object, object]] = []

    class Agent:
        async def ainvoke(self, *_: object) -> None:
            seen.append((DynamoPrefixContext.get(), DynamoHints.current()))

    run(text, agent=Agent())
    if "agent." in text:
        assert seen and all(prefix and hints for prefix, hints in seen)
    else:
        assert sent[0].headers["x-prefix-id"] == "ticket-4711"


class TestExtending:
    """docs/extend.md."""

    def test_every_block_runs(self, sent: list[httpx.Request]) -> None:
        made = [run(text) for text in blocks("python", EXTEND)]
        assert len(made) == 5
        # Two calls of OpenAI's client, one of an httpx client.
        assert [request.headers["x-dynamo-session-id"] for request in sent] == ["ticket-4711"] * 3
        assert json.loads(sent[1].content)["nvext"]["agent_hints"]["osl"] == 512

    def test_its_layer_and_its_dialect_do_what_it_says(self) -> None:
        layer, dialect = (run(text) for text in blocks("python", EXTEND)[3:])
        statuses = iter([418, 200])
        requests: list[httpx.Request] = []

        def serve(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            return httpx.Response(next(statuses), json=ANSWER)

        records: list[CallRecord] = []
        speaker = Speaker([dialect["CacheKey"]()])
        planner = Planner("x", PrefixHints(), say=speaker.say)
        send = chained(
            [
                RecordLayer(emit=records.append),
                layer["Patient"](0.0),
                QuestionLayer(speaker, planner),
                AnswerLayer(speaker.usage_readers),
            ]
        )
        shell = HttpxShell(httpx.MockTransport(serve), send)
        with httpx.Client(transport=shell) as client, DynamoPrefixContext.scope("ticket-1"):
            client.post("http://server/v1/chat/completions", json={"model": "m"})
        assert [json.loads(request.content)["prompt_cache_key"] for request in requests] == ["ticket-1"] * 2
        assert requests[0].headers["x-team"] == "search"
        assert (records[0].attempts, records[0].cached_tokens) == (2, 4)


def test_the_frontend_takes_the_flags_it_names() -> None:
    command = next(b for b in blocks("sh") if "dynamo.frontend" in b)
    shown = subprocess.run(
        [sys.executable, "-m", "dynamo.frontend", "--help"], capture_output=True, text=True, check=True
    ).stdout
    flags = re.findall(r"--[a-z-]+", command)
    assert len(flags) >= 5
    for flag in flags:
        assert flag in shown


def test_make_has_the_targets_it_names() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, flags=re.MULTILINE))
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_file_it_links_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
