"""One real Dynamo for all frameworks, with a relay before it that writes down what the server gets; and the table."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.dialects.scripted import Replay
from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig, ScriptedAnswer, current_scripted_answer
from nat_dynamo_plugin.service import make_service
from nat_dynamo_plugin.telemetry import exporters as telemetry
from nat_dynamo_plugin.telemetry.record import CallRecord

from .drivers import DRIVERS, PATIENCE_S, TOOL, Driver, make_client
from .servers import Exchange, Fault, FaultServer, Relay

# Before any framework is imported: none of them is to call home.
os.environ |= {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "AGNO_TELEMETRY": "false",
    "NAT_TELEMETRY_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}

PLAIN = "The valve is shut."
AFTER_TOOL = "There are 17 bolts."


def scripted() -> list[ScriptedAnswer]:
    """What the simulated engines say."""
    return [
        ScriptedAnswer("plain", PLAIN),
        ScriptedAnswer("tool", tool_calls=[(TOOL, {"item": "bolts"})]),
        ScriptedAnswer("after-tool", AFTER_TOOL),
    ]


class Dynamo:
    """The real Dynamo behind its relay."""

    def __init__(self, relay: Relay, trace: Path, model_name: str) -> None:
        self.relay = relay
        self.model_name = model_name
        self._trace = trace

    def exchanges(self, text: str) -> list[Exchange]:
        """Requests that had `text` in their body, in order."""
        return [exchange for exchange in self.relay.exchanges if text in json.dumps(exchange.body)]

    def _traced(self) -> list[dict[str, Any]]:
        """The events of Dynamo's own request trace; its last line may not be whole yet."""
        lines = self._trace.read_text().split("\n")[:-1] if self._trace.exists() else []
        return [json.loads(line)["event"] for line in lines]

    def sessions_in_trace(self) -> list[str | None]:
        """The session of each request so far, by Dynamo's own request trace."""
        return [event["agent_context"]["session_id"] for event in self._traced()]

    def session_in_trace(self, exchange: Exchange) -> str | None:
        """The session of a request, by Dynamo's own request trace."""
        assert exchange.answer_id is not None
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:  # the trace is written behind the answer
            for event in self._traced():
                request = event.get("request", {})
                if exchange.answer_id in (request.get("request_id"), request.get("x_request_id")):
                    session = event["agent_context"]["session_id"]
                    return None if session is None else str(session)
            time.sleep(0.02)
        raise AssertionError(f"Dynamo's trace does not name the request {exchange.answer_id}")


@pytest.fixture(scope="session")
def dynamo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dynamo]:
    folder = tmp_path_factory.mktemp("dynamo")
    answers = folder / "answers.jsonl"
    rows = (
        {
            "key": answer.key,
            "content": answer.content,
            "tool_calls": [{"name": name, "arguments": arguments} for name, arguments in answer.tool_calls],
        }
        for answer in scripted()
    )
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    trace = folder / "trace.jsonl"
    local = LocalDynamo(LocalDynamoConfig(speedup=100, scripted_answers=str(answers), request_trace=trace))
    asyncio.run(local.start())
    try:
        with Relay(local.base_url) as relay:
            yield Dynamo(relay, trace, local.model_name)
    finally:
        asyncio.run(local.stop())


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.framework.value)
def driver(request: pytest.FixtureRequest) -> Driver:
    made: Driver = request.param()
    return made


@pytest.fixture
def records() -> Iterator[list[CallRecord]]:
    """The telemetry of the calls made in a test."""
    kept: list[CallRecord] = []
    telemetry.set_exporters([kept.append])
    yield kept
    telemetry.set_exporters(None)


Client = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def client(dynamo: Dynamo, driver: Driver) -> Client:
    """Makes the framework's client: for the real Dynamo, or for the `base_url` given."""

    @asynccontextmanager
    async def make(**fields: Any) -> AsyncIterator[Any]:
        fields = {"base_url": dynamo.relay.base_url, "model_name": dynamo.model_name, "max_tokens": 48, **fields}
        config = DynamoModelConfig(**fields)
        config.running_service = make_service(config, script=Replay(current_scripted_answer))
        async with make_client(driver, config) as llm:
            yield llm

    return make


@pytest.fixture
def faults() -> Iterator[Callable[..., FaultServer]]:
    """Starts servers that answer with a fault."""
    servers: list[FaultServer] = []

    def start(fault: Fault | Callable[[int], Fault]) -> FaultServer:
        answer = fault if callable(fault) else lambda _: fault
        servers.append(FaultServer(answer).__enter__())
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__(None, None, None)


async def settled(done: Callable[[], bool]) -> bool:
    """Whether something becomes true, however long that takes, within reason."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > deadline:
            return False
        gc.collect()
        await asyncio.sleep(0.02)
    return True


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "point(name): the column of the README's table of frameworks")


# The table of frameworks in the README. It is made of the outcomes of these tests and of nothing else.

README = Path(__file__).parents[3] / "README.md"
BEGIN = "<!-- frameworks: written by `pytest tests/conformance/frameworks --write-frameworks-table` -->"
END = "<!-- /frameworks -->"
NAMES = {
    "langchain": "LangChain",
    "llama_index": "LlamaIndex",
    "adk": "Google ADK",
    "crewai": "CrewAI",
    "agno": "Agno",
    "autogen": "AutoGen",
    "semantic_kernel": "Semantic Kernel",
    "strands": "Strands",
}
POINTS = (
    "answer, async",
    "answer, sync",
    "streamed answer",
    "tool call",
    "five questions at once",
    "hints",
    "telemetry",
    "caller's `nvext`",
    "server's error",
    "`request_timeout`",
    "one retry layer",
    "nothing left",
    "Responses API",
    "`nat run`",
    "own layer",
)
CELLS = pytest.StashKey[dict[tuple[str, str], str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-frameworks-table", action="store_true", help="write the README's table of frameworks")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    report: pytest.TestReport = outcome.get_result()
    marker = item.get_closest_marker("point")
    if marker is None or not isinstance(item, pytest.Function):
        return
    cells = item.config.stash.setdefault(CELLS, {})
    cell = (item.callspec.params["driver"].framework.value, marker.args[0])
    if report.failed:
        cells[cell] = "**no**"
    elif report.skipped and isinstance(report.longrepr, tuple):
        cells[cell] = report.longrepr[2].removeprefix("Skipped: ")
    elif report.when == "call":
        cells.setdefault(cell, "yes")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """When the whole suite has run: write the table, or fail if the README shows another."""
    made = table(session.config.stash.get(CELLS, {}))
    if made is None:
        return
    text = README.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        problem = f"README.md has no place for the table of frameworks between {BEGIN} and {END}"
    elif (wanted := f"{before}{begin}\n\n{made}\n\n{end}{after}") == text:
        return
    elif session.config.getoption("--write-frameworks-table"):
        README.write_text(wanted, encoding="utf-8")
        return
    else:
        problem = (
            f"README.md does not show the table that these tests give; write it with --write-frameworks-table:\n{made}"
        )
    sys.stderr.write(f"\n{problem}\n")
    if session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def table(cells: dict[tuple[str, str], str]) -> str | None:
    """The table, a framework a row; `None` unless every cell is known."""
    frameworks = [driver.framework.value for driver in DRIVERS]
    if any((framework, point) not in cells for framework in frameworks for point in POINTS):
        return None
    rows = [["", *POINTS], ["---"] * (len(POINTS) + 1)]
    rows += [[NAMES[framework], *(cells[framework, point] for point in POINTS)] for framework in frameworks]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
