"""Waits without waiting, the records of a test, and the table in `docs/faults.md`."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import anyio._backends._asyncio
import pytest

from nat_dynamo_plugin import CallRecord
from nat_dynamo_plugin.telemetry.exporters import set_exporters

from .columns import COLUMNS
from .faults import FAULTS

_sleep, _async_sleep = time.sleep, asyncio.sleep


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the code under test wants to wait, in s; it need not. Sleeps are the only way a retry may wait."""
    kept: list[float] = []

    def sleep(seconds: float) -> None:
        kept.append(seconds)

    async def async_sleep(seconds: float, result: Any = None) -> Any:
        if seconds > 0 and isfinite(seconds):
            kept.append(seconds)
            seconds = 0.001  # not 0, so that a task which looks again and again lets others run
        return await _async_sleep(seconds, result)

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(asyncio, "sleep", async_sleep)
    monkeypatch.setattr(anyio._backends._asyncio, "sleep", async_sleep)
    return kept


@contextmanager
def recorded() -> Iterator[list[CallRecord]]:
    """The telemetry of the calls made in the block."""
    kept: list[CallRecord] = []
    set_exporters([kept.append])
    yield kept
    set_exporters(None)


@pytest.fixture
def records() -> Iterator[list[CallRecord]]:
    """The telemetry of the calls made in a test."""
    with recorded() as kept:
        yield kept


async def settled(done: Callable[[], bool], most_s: float = 3.0) -> bool:
    """Whether something becomes true soon."""
    end = time.monotonic() + most_s
    collected = False
    while not done():
        if time.monotonic() > end:
            return False
        await _async_sleep(0.002)
        if not collected and time.monotonic() > end - most_s + 0.1:
            collected = bool(gc.collect()) or True
    return True


# The table of faults. It is made of the outcomes of the tests and of nothing else.

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN = "<!-- faults: written by `pytest tests/faults --write-faults-table` -->"
END = "<!-- /faults -->"
CELLS = pytest.StashKey[dict[tuple[str, str], str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-faults-table", action="store_true", help="write the table in docs/faults.md")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    report: pytest.TestReport = outcome.get_result()
    if not isinstance(item, pytest.Function) or "cell" not in getattr(item, "fixturenames", ()):
        return
    cells = item.config.stash.setdefault(CELLS, {})
    fault, column = item.callspec.params["cell"]
    if report.failed or hasattr(report, "wasxfail"):
        cells[fault.name, str(column)] = "**no**"
    elif report.when == "call":
        outcome = dict(report.user_properties)["outcome"]
        cells.setdefault((fault.name, str(column)), EITHER.get((fault.name, outcome), outcome))


# Whether the break is seen with the first piece or behind it depends on how the bytes come; both are right.
EITHER = {
    ("content-length too short", "`OpenAIAPIError`"): "`OpenAIConnectionError`",
    ("content-length too short", "`InternalServerError`"): "`APIConnectionError`",
}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """When the whole matrix has run: write the table, or fail if the page shows another."""
    made = tables(session.config.stash.get(CELLS, {}))
    if made is None:
        return
    text = PAGE.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        problem = f"{PAGE.name} has no place for the table of faults between {BEGIN} and {END}"
    elif (wanted := f"{before}{begin}\n\n{made}\n\n{end}{after}") == text:
        return
    elif session.config.getoption("--write-faults-table", default=False):
        PAGE.write_text(wanted, encoding="utf-8")
        return
    else:
        problem = f"{PAGE.name} does not show the table that these tests give; write it with --write-faults-table"
    sys.stderr.write(f"\n{problem}\n")
    if session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def cells_wanted() -> list[tuple[Any, Any]]:
    """Every fault with every column that it is for."""
    return [
        (fault, column)
        for fault in FAULTS.values()
        for column in COLUMNS
        if (fault.streamed if column.streamed else fault.unary) is not None
    ]


def tables(cells: dict[tuple[str, str], str]) -> str | None:
    """A table for each group of faults, a fault a row; `None` unless every cell is known."""
    if any((fault.name, str(column)) not in cells for fault, column in cells_wanted()):
        return None
    made = []
    for group in dict.fromkeys(fault.group for fault in FAULTS.values()):
        faults = [fault for fault in FAULTS.values() if fault.group == group]
        columns = [c for c in COLUMNS if any(f.streamed if c.streamed else f.unary for f in faults)]
        rows = [["The server", "A client must", *map(str, columns)], ["---"] * (len(columns) + 2)]
        for fault in faults:
            wishes = list(dict.fromkeys(str(expect) for expect in (fault.unary, fault.streamed) if expect))
            wish = wishes[0] if len(wishes) == 1 else f"{wishes[0]}; streamed: {wishes[1]}"
            rows.append([fault.name, wish, *(cells.get((fault.name, str(column)), "") for column in columns)])
        lines = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        made.append(f"### {group}\n\n{lines}")
    return "\n\n".join(made)
