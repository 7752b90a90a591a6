"""README and docs are true: their YAML loads, their Python runs, and what they name is there."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from nat.data_models.config import Config
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from prometheus_client import CollectorRegistry

from nat_dynamo_plugin.admission.gauges import _GAUGES
from nat_dynamo_plugin.config.layers import ENTRY_POINT_GROUP as LAYERS
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.config.retry import RetryConfig
from nat_dynamo_plugin.dialects import ENTRY_POINT_GROUP as DIALECTS
from nat_dynamo_plugin.dialects.speaker import Speaker
from nat_dynamo_plugin.http.aiohttp_engine import AiohttpTransport
from nat_dynamo_plugin.http.flow import chained
from nat_dynamo_plugin.http.httpx_shell import HttpxShell
from nat_dynamo_plugin.layers.answer import AnswerLayer
from nat_dynamo_plugin.layers.question import QuestionLayer
from nat_dynamo_plugin.layers.record import RecordLayer
from nat_dynamo_plugin.layers.refusal import REMEMBERED_S
from nat_dynamo_plugin.layers.retry import MAX_WISH_S
from nat_dynamo_plugin.plan.planner import Planner
from nat_dynamo_plugin.question.hints import PrefixHints
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext
from nat_dynamo_plugin.telemetry.exporters import set_exporters
from nat_dynamo_plugin.telemetry.gauges import Gauge
from nat_dynamo_plugin.telemetry.names import (
    ERROR_TYPE,
    LATEST,
    OPERATION,
    PROVIDER,
    REQUEST_MODEL,
    RESPONSE_MODEL,
    SERVER_ADDRESS,
    SERVER_PORT,
    TOKEN_TYPE,
    V1_41,
)
from nat_dynamo_plugin.telemetry.prometheus import PrometheusExporter
from nat_dynamo_plugin.telemetry.record import CallRecord

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXTEND = (ROOT / "docs" / "extend.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


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

    def answer_at_once(*args: Any) -> httpx.Response:
        args[-1].read()
        kept.append(args[-1])
        return httpx.Response(200, json=ANSWER)

    monkeypatch.setattr(AiohttpTransport, "handle_async_request", answer)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", answer)
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer_at_once)
    return kept


@pytest.fixture(autouse=True)
def _exporters() -> Iterator[None]:
    yield
    set_exporters(None)


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
        # Two calls of OpenAI's async client, one of the blocking one.
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
    text = README + (ROOT / "CONTRIBUTING.md").read_text()
    targets = set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", text, flags=re.MULTILINE))
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_it_names_exists(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link
    for name in re.findall(
        r"(?<![\w/.])(?:configs|deploy|examples|eval|docs|tests|requirements|scripts)/[\w./-]*\w", text
    ):
        assert (ROOT / name).exists() or name.startswith("eval/results"), name


def test_every_heading_it_links_exists() -> None:
    titles = re.findall(r"^#+ (.*)", README, flags=re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    links = re.findall(r"\]\(#([^)]*)\)", README)
    assert links and set(links) <= headings


def test_what_it_installs_is_there() -> None:
    """`pip` would go on with a warning where an extra is misspelt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {
        extra for extras in re.findall(r'install "\.\[([^\]]*)\]"', README + METRICS) for extra in extras.split(",")
    }
    table = README.partition("| Extra | For |")[2].partition("\n\n")[0]
    listed = {extra for row in table.splitlines()[2:] for extra in re.findall(r"`([a-z-]+)`", row.split("|")[1])}
    assert {"langchain", "eval"} <= named <= listed == set(project["optional-dependencies"])
    assert "async-endpoints" in metadata("nvidia-nat-core").get_all("Provides-Extra", [])
    (pin,) = re.findall(r"pip install --no-deps (\S+?)`", README)
    assert pin in (ROOT / "requirements" / "no-deps.txt").read_text().splitlines()


def test_its_entry_points_are_those_of_the_examples() -> None:
    (text,) = blocks("toml", EXTEND)
    shown = tomllib.loads(text)["project"]["entry-points"]
    assert set(shown) == {LAYERS, DIALECTS}
    examples = tomllib.loads((ROOT / "examples" / "pyproject.toml").read_text())["project"]["entry-points"]
    assert shown[LAYERS] == examples[LAYERS]


def test_its_numbers_of_retries_are_the_defaults() -> None:
    block = RetryConfig()
    (statuses,) = re.findall(r"after ((?:\d{3}, )+\d{3})\s+and (\d{3})", README)
    named = {int(status) for status in ", ".join(statuses).split(", ")}
    assert named == block.statuses
    assert f"`retry.max_retries` times ({block.max_retries})" in README
    assert f"`Retry-After` is obeyed up to {MAX_WISH_S:g} s" in README
    assert REMEMBERED_S == 600 and "ten minutes" in README


def test_every_metric_is_listed() -> None:
    prometheus, otel = METRICS.split("## OpenTelemetry")
    registry = CollectorRegistry()
    exporter = PrometheusExporter(registry, gauges=lambda: [Gauge(name, "", {}, 1.0) for name, _, _ in _GAUGES])
    exporter(CallRecord(request_model="m", prompt_version="v"))  # without one these metrics are not there
    families = {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}
    named = re.findall(r"^\| (`nat_dynamo_[^|]*)\|", prometheus, re.M)
    assert set(re.findall(r"`(\w+)`", "".join(named))) == families
    rows = [row.split("|") for row in otel.splitlines() if row.startswith("| ") and "`" in row][1:]
    for column, metrics in ((3, V1_41), (4, LATEST)):
        listed = re.findall(r"`((?:gen_ai|nat_dynamo)\.[\w.]+)`", "".join(row[column] for row in rows))
        assert set(listed) - {TOKEN_TYPE} == {metric.name for metric in metrics}
    assert set(re.findall(r"`((?:gen_ai|server|error)\.[\w.]+)`", otel.partition("Attributes:")[2])) == {
        *(OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL, SERVER_ADDRESS, SERVER_PORT, ERROR_TYPE)
    }
