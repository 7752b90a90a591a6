"""One small agent a framework through `nat run`, as a user would start it, with the configs of this repository."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from nat_dynamo_plugin.telemetry.record import CallRecord

from .drivers import DRIVERS, Driver

CONFIGS = Path(__file__).parents[3] / "configs" / "frameworks"
QUESTION = "How many bolts are in stock?"


@contextmanager
def log_of(name: str) -> Iterator[list[str]]:
    """What a logger and those below it are told."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Keep()
    logging.getLogger(name).addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger(name).removeHandler(handler)


def nat(*arguments: str) -> str:
    """Run a `nat` command in this process, where the frameworks are imported already."""
    from nat.cli.entrypoint import cli

    # Wide, for NAT's tables cut words where a long version makes a column narrow.
    result = CliRunner().invoke(cli, arguments, env={"COLUMNS": "400"})
    assert result.exception is None, result.exception
    assert result.exit_code == 0
    return result.output


@pytest.mark.point("`nat run`")
def test_runs_an_agent(driver: Driver, records: list[CallRecord]) -> None:
    config = CONFIGS / f"{driver.framework.value}.yml"
    with log_of("nat") as log:
        nat("run", "--config_file", str(config), "--input", QUESTION)
    assert "There are 17 bolts in stock." in "\n".join(log)
    first, second = records
    assert first.status == second.status == 200
    assert first.session_id == second.session_id
    assert (first.call_index, second.call_index) == (0, 1)
    # The second prompt grew out of the first.
    assert first.worker_id == second.worker_id is not None
    assert second.cached_tokens


def test_nat_lists_all_eight_clients() -> None:
    listed = nat("info", "components", "-t", "llm_client")
    # A component takes several lines; the first names its package and kind, the others go on with its name.
    found: list[list[str]] = []
    for line in listed.splitlines():
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        if len(cells) == 5:
            if cells[2] == "llm_client":
                found.append([cells[0]])
            found[-1].append(cells[3])
    ours = [" ".join(names) for package, *names in found if package.startswith("nat-dynamo")]
    for made in DRIVERS:
        assert any(f"dynamo (llm_provider) - {made.framework.value} " in name + " " for name in ours)
