"""Every fault, in every framework, sync and async, whole and streamed: no question is lost, no half answer passes."""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from traceback import clear_frames
from typing import Any

import pytest

from nat_dynamo_plugin import CallRecord, DynamoModelConfig, DynamoPrefixContext

from .columns import COLUMNS, MODEL, Column
from .conftest import cells_wanted, recorded, settled
from .faults import FAULTS, KEY, RETRIES, TEXT, WORDS, Expect, Fault, Outcome
from .server import FaultServer
from .still_open import OPEN

LIMIT_S = 30.0
"""No call of the matrix may take longer (s)."""
MOST_CHARACTERS = 20_000
"""No exception's text may be longer."""
GATE_WAIT_S = 1.0
"""After this a question goes on although another holds the only place (s)."""
CELLS = cells_wanted()


def config_for(server: FaultServer, engine: str) -> DynamoModelConfig:
    """The LLM that is asked."""
    own = server.fault.config
    fields: dict[str, Any] = {"request_timeout": 5.0, "connect_timeout": 5.0, "max_retries": RETRIES, "api_key": KEY}
    fields |= {"base_url": server.base_url, "model_name": MODEL, "max_tokens": 48}
    fields["connection"] = {"engine": engine}
    # A question without a call under way gives its place up; one whose call was lost keeps it.
    fields |= {"max_active_prefixes": 1, "prefix_max_wait": GATE_WAIT_S, "prefix_idle": 0.02}
    # A port may have been another cell's a moment ago, whose failures would count as this server's.
    fields |= {"breaker": {"min_calls": 1000}}
    return DynamoModelConfig(**fields | own)


@dataclass
class Seen:
    """What the caller saw: a text or an exception; and what came after.

    Attributes:
        requests: how many requests and connections the call took.
        then: what became of the next question, if it was not answered well and at once.
        left: what was left behind when the client was closed.
    """

    text: str | None = None
    error: BaseException | None = None
    requests: tuple[int, int] = (0, 0)
    then: str = ""
    left: str = ""

    @property
    def words(self) -> str:
        """The texts of the exception and of what it came from."""
        return "\n".join(map(str, chain(self.error)))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it came from."""
    seen: set[int] = set()  # some libraries link errors in a circle
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


async def asked(column: Column, llm: Any) -> Seen:
    """Ask one question."""
    seen = Seen()
    try:
        async with asyncio.timeout(LIMIT_S):
            seen.text = await column.call(llm, "Is the valve shut?")
    except Exception as error:
        seen.error = error
        for part in chain(error):  # or the frames would keep alive what the caller has dropped
            clear_frames(part.__traceback__)
            part.__traceback__ = None
    return seen


async def called(server: FaultServer, column: Column, records: list[CallRecord], engine: str = "fast") -> Seen:
    """Make the client, ask a question that meets the fault and one that does not, close the client."""
    framework = column.framework
    config = config_for(server, engine)
    before = asyncio.all_tasks()
    async with framework.client(framework.driver(), config) as llm:
        # A question that is not over: its place goes to the next one because it has no call under way, or not at all.
        with DynamoPrefixContext.scope("first", ends=False):
            seen = await asked(column, llm)
        seen.requests = len(server.requests), server.connections
        await settled(lambda: bool(records), 1)
        if server.fault.listens:
            server.recover()
            with DynamoPrefixContext.scope("second"):
                next_one = await asked(column, llm)
            if next_one.text != TEXT:
                seen.then = f"the next question got {next_one.text!r}, {next_one.error!r}"
            elif records and (records[-1].gate_wait_ms or 0) > 500 * GATE_WAIT_S:
                seen.then = "the next question had to wait for the place of this one"
    DynamoPrefixContext.end("first")
    if not await settled(lambda: asyncio.all_tasks() <= before):
        seen.left = str(asyncio.all_tasks() - before)
    if not await settled(lambda: server.open_connections == 0):
        seen.left += f" and {server.open_connections} open connections"
    return seen


def sockets() -> set[str]:
    """The open sockets of this process."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(link.readlink()))
        except OSError:
            continue  # closed in the meantime
    return {name for name in found if name.startswith("socket:")}


@pytest.fixture(scope="module", autouse=True)
def warm() -> Iterator[None]:
    """A first call of each kind, so that what a framework opens once is not taken for a leak; and cheap clients."""
    with pytest.MonkeyPatch.context() as patch:
        # Each cell makes a client. These take 20 ms of that, and there is neither a certificate nor a new package.
        patch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: None)
        good = Fault("none", "", FAULTS["a byte a packet"].play, None, None, times=0)
        for column in COLUMNS:
            with recorded() as records, FaultServer(good) as server:
                seen = asyncio.run(called(server, column, records))
            assert (seen.text, seen.then, seen.left, len(records)) == (TEXT, "", "", 2)
        patch.setattr(importlib.metadata, "distributions", lambda **_: ())
        yield


def cell_of(fault: Fault, column: Column) -> Any:
    """A cell, which is not run while it is open."""
    marks = [pytest.mark.xfail(run=False, reason="open")] if str(column) in OPEN.get(fault.name, ()) else []
    return pytest.param((fault, column), id=f"{fault.name}-{column}", marks=marks)


@pytest.mark.parametrize("cell", [cell_of(*cell) for cell in CELLS])
def test_every_fault_ends_as_it_should(
    cell: tuple[Fault, Column],
    records: list[CallRecord],
    waits: list[float],
    request: pytest.FixtureRequest,
) -> None:
    fault, column = cell
    seen, problems = judged(fault, column, "fast", records, waits)
    assert not problems, "; ".join(problems)
    request.node.user_properties.append(("outcome", shown(seen, expected(fault, column))))


# What costs little, for `make test`; `--engine httpx` runs all.
ON_HTTPX = [
    pytest.param(fault, column, id=f"{fault.name}-{column}")
    for fault, column in CELLS
    if column.framework.name == "OpenAI"
    and fault.group != "Status"
    and not fault.config
    and str(column) not in OPEN.get(fault.name, ())
]


@pytest.mark.parametrize(("fault", "column"), ON_HTTPX)
def test_on_httpx_it_ends_so_too(fault: Fault, column: Column, records: list[CallRecord], waits: list[float]) -> None:
    _, problems = judged(fault, column, "httpx", records, waits)
    assert not problems, "; ".join(problems)


def expected(fault: Fault, column: Column) -> Expect:
    """What a client must make of the fault."""
    expect = fault.streamed if column.streamed else fault.unary
    assert expect is not None
    return expect


def judged(
    fault: Fault, column: Column, engine: str, records: list[CallRecord], waits: list[float]
) -> tuple[Seen, list[str]]:
    """What the caller saw of a fault, and what is wrong with that."""
    expect = expected(fault, column)
    before = sockets()
    with FaultServer(fault) as server:
        seen = asyncio.run(called(server, column, records, engine))
    left = sockets() - before
    problems = [
        *outcome_problems(seen, expect, column),
        *record_problems(seen, expect, fault, records),
        *server_problems(server, seen, fault, waits),
        *([seen.then] if seen.then else []),
        *([f"left behind: {seen.left}"] if seen.left else []),
        *([f"sockets left: {left}"] if left else []),
    ]
    return seen, problems


def shown(seen: Seen, expect: Expect) -> str:
    """A cell of the table."""
    if seen.error is not None:
        return f"`{type(seen.error).__name__}`"
    return "recovers" if expect.outcome is Outcome.RECOVERY else "answers"


def outcome_problems(seen: Seen, expect: Expect, column: Column) -> list[str]:
    """Where what the caller saw is not what the caller should have seen."""
    problems = []
    if seen.error is None:
        if expect.outcome is Outcome.ERROR:
            return [f"no exception, but the answer {seen.text!r}"]
        return [] if seen.text == TEXT else [f"the text is {seen.text!r}"]
    name = f"{type(seen.error).__name__}: {str(seen.error)[:200]}"
    if expect.outcome not in (Outcome.ERROR, Outcome.EITHER):
        return [f"lost: {name}"]
    if not isinstance(seen.error, wanted := column.framework.raises(expect.raises)):
        problems.append(f"{name}, which is no {wanted.__name__}")
    if expect.status is not None and getattr(seen.error, "status_code", None) != expect.status:
        problems.append(f"{name} does not have the status {expect.status}")
    if expect.words and WORDS not in seen.words:
        problems.append(f"{name} has not the server's words")
    if KEY in seen.words:
        problems.append("the exception shows the key")
    if (length := len(str(seen.error)) + len(repr(getattr(seen.error, "body", "")))) > MOST_CHARACTERS:
        problems.append(f"an exception of {length} characters")
    return problems


def record_problems(seen: Seen, expect: Expect, fault: Fault, records: list[CallRecord]) -> list[str]:
    """Where the record says something else than the caller saw."""
    if len(records) != 1 + fault.listens:
        return [f"{len(records)} records instead of {1 + fault.listens}"]
    record = records[0]
    problems = ["the record shows the key"] if KEY in repr(record.to_dict()) else []
    if seen.error is None:
        if (record.status, record.error) != (200, None):
            problems.append(f"the record of an answer has the status {record.status} and the error {record.error!r}")
        if fault.finish is not None and record.finish_reason != fault.finish:
            problems.append(f"the record has the finish reason {record.finish_reason!r}")
        return problems
    if not record.error:
        return [*problems, "the record of an exception has no error"]
    if expect.status is not None and record.status != expect.status:
        problems.append(f"the record has the status {record.status}")
    if expect.words and WORDS not in record.error:
        problems.append(f"the record has not the server's words but {record.error[:100]!r}")
    if len(record.error) > MOST_CHARACTERS:
        problems.append(f"a record of {len(record.error)} characters")
    return problems


def server_problems(server: FaultServer, seen: Seen, fault: Fault, waits: list[float]) -> list[str]:
    """What the server has to complain of."""
    problems = [server.overrun] if server.overrun else []
    if max(seen.requests) > fault.most:
        problems.append("{} requests on {} connections".format(*seen.requests))
    sessions = [request.headers.get("x-dynamo-session-id") for request in server.requests[: seen.requests[0]]]
    if len(set(sessions)) > 1:
        problems.append(f"one call went out under the sessions {sessions}")
    if fault.waits is not None and not any(fault.waits[0] <= wait <= fault.waits[1] for wait in waits):
        problems.append(f"waited {waits} s instead of {fault.waits}")
    if any(KEY in value for request in server.strangers for value in request.headers.values()):
        problems.append("another server got the key")
    return problems


@pytest.mark.parametrize("column", COLUMNS, ids=str)
def test_an_exception_says_who_was_asked_and_how_often(
    column: Column, records: list[CallRecord], waits: list[float]
) -> None:
    with FaultServer(FAULTS["503, always"]) as server:
        seen = asyncio.run(called(server, column, records))
    missing = [text for text in (WORDS, server.origin, MODEL) if text not in seen.words]
    assert not missing, seen.words
    assert re.search(rf"\b{RETRIES + 1}\b", seen.words.replace(server.origin, "")), seen.words


@pytest.mark.parametrize("column", COLUMNS, ids=str)
def test_an_exception_says_what_could_not_be_reached_and_why(
    column: Column, records: list[CallRecord], waits: list[float]
) -> None:
    with FaultServer(FAULTS["nobody listens"]) as server:
        seen = asyncio.run(called(server, column, records))
    assert seen.error is not None
    assert server.origin in str(seen.error)
    assert "refused" in str(seen.error) or "failed" in str(seen.error)
