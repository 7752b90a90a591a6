"""Every fault, in every framework, sync and async, whole and streamed: no question is lost, no half answer passes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.telemetry.record import CallRecord

from .columns import COLUMNS, Column
from .conftest import cells_wanted, settled
from .faults import FAULTS, KEY, RETRIES, TEXT, WORDS, Expect, Fault, Outcome
from .server import FaultServer

LIMIT_S = 30.0
"""No call of the matrix may take longer (s)."""
MOST_CHARACTERS = 20_000
"""No exception's text may be longer."""
CELLS = cells_wanted()


def config_for(server: FaultServer) -> DynamoModelConfig:
    """The LLM that is asked. A field that the plugin has not would go to the framework as an argument."""
    own = server.fault.config
    if missing := [name for name in own if name not in DynamoModelConfig.model_fields]:
        pytest.fail(f"nothing ends this call: DynamoModelConfig has no {', '.join(missing)}")
    fields: dict[str, Any] = {"request_timeout": 5.0, "connect_timeout": 5.0, "max_retries": RETRIES, "api_key": KEY}
    fields |= {"base_url": server.base_url, "model_name": "boiler", "max_tokens": 48}
    return DynamoModelConfig(**fields | own)


@dataclass
class Seen:
    """What the caller saw: a text or an exception; and what was left behind when the client was closed."""

    text: str | None = None
    error: BaseException | None = None
    tasks: str = ""

    @property
    def words(self) -> str:
        """The texts of the exception and of what it came from."""
        texts = []
        seen: set[int] = set()
        cause = self.error
        while cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            texts.append(str(cause))
            cause = cause.__cause__ or cause.__context__
        return "\n".join(texts)


async def called(server: FaultServer, column: Column) -> Seen:
    """Make the client, ask one question, close the client."""
    seen = Seen()
    framework = column.framework
    config = config_for(server)
    before = asyncio.all_tasks()
    async with framework.client(framework.driver(), config) as llm:
        try:
            async with asyncio.timeout(LIMIT_S):
                seen.text = await column.call(llm, "Is the valve shut?")
        except Exception as error:
            seen.error = error
    if not await settled(lambda: asyncio.all_tasks() <= before):
        seen.tasks = str(asyncio.all_tasks() - before)
    if not await settled(lambda: server.open_connections == 0):
        seen.tasks += f" and {server.open_connections} open connections"
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
def warm() -> None:
    """A first call of each kind, so that what a framework opens once is not taken for a leak."""
    good = Fault("none", "", FAULTS["a byte a packet"].play, None, None, times=0)
    for column in COLUMNS:
        with FaultServer(good) as server:
            assert asyncio.run(called(server, column)).text == TEXT


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell[0].name}-{cell[1]}")
def test_every_fault_ends_as_it_should(
    cell: tuple[Fault, Column],
    records: list[CallRecord],
    waits: list[float],
    record_property: Any,
) -> None:
    fault, column = cell
    expect = fault.streamed if column.streamed else fault.unary
    assert expect is not None
    before = sockets()
    with FaultServer(fault) as server:
        seen = asyncio.run(called(server, column))
    left = sockets() - before
    problems = [
        *outcome_problems(seen, expect, column),
        *record_problems(seen, expect, fault, records),
        *server_problems(server, fault, waits),
        *([f"left behind: {seen.tasks}"] if seen.tasks else []),
        *([f"sockets left: {left}"] if left else []),
    ]
    assert not problems, "; ".join(problems)
    record_property("outcome", shown(seen, expect))


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
    if len(records) != 1:
        return [f"{len(records)} records"]
    [record] = records
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


def server_problems(server: FaultServer, fault: Fault, waits: list[float]) -> list[str]:
    """What the server has to complain of."""
    problems = [server.overrun] if server.overrun else []
    if len(server.requests) > fault.most or server.connections > fault.most:
        problems.append(f"{len(server.requests)} requests on {server.connections} connections")
    if fault.waits is not None and not any(fault.waits[0] <= wait <= fault.waits[1] for wait in waits):
        problems.append(f"waited {waits} s instead of {fault.waits}")
    if any(KEY in value for request in server.strangers for value in request.headers.values()):
        problems.append("another server got the key")
    return problems
