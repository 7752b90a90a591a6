"""The files of a sweep: optimized_config.yml, trials.csv and report.html, for their owner only. None holds a key."""

from __future__ import annotations

import csv
import io
import logging
import sys
from pathlib import Path
from typing import Any

from nat_dynamo_plugin.files import write_text
from nat_dynamo_plugin.secrets import redacted
from nat_dynamo_plugin.sweep.interval import Interval
from nat_dynamo_plugin.sweep.results import SweepResult, TrialRow
from nat_dynamo_plugin.sweep.snapshot import Snapshot
from nat_dynamo_plugin.sweep.statement import verdict_text

logger = logging.getLogger(__name__)

CONFIG, TRIALS, REPORT = "optimized_config.yml", "trials.csv", "report.html"


def write_results(result: SweepResult, folder: Path, snapshot: Snapshot) -> None:
    """Write all files, and say on standard output what came of the sweep and where it is.

    Raises:
        RuntimeError: if the config can not be written so that it reads as what was measured; all else is written.
    """
    from nat_dynamo_plugin.sweep.report import report_html

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / TRIALS, redacted(trials_csv(result)), newline="")
    write_text(folder / REPORT, redacted(report_html(result)))
    written = [TRIALS, REPORT]
    target = folder / CONFIG
    try:
        if snapshot.file is None:
            logger.warning("No %s: the config was not given as a file", CONFIG)
        elif snapshot.file.resolve() == target.resolve():
            logger.warning("%s is the config that was given; it is left as it is", target)
        else:
            snapshot.write(result.chosen, target)
            written.insert(0, CONFIG)
    finally:
        files = ", ".join(str(folder / name) for name in written)
        print(f"\n{verdict_text(result)}\n{files}", file=sys.stdout, flush=True)


def trials_csv(result: SweepResult) -> str:
    """All trials, one a row: state, values, gain over the current config, calls, the configuration."""
    table = [_columns(result, row) for row in result.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, table[0])
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _columns(result: SweepResult, row: TrialRow) -> dict[str, Any]:
    values = row.values or [None] * len(result.objectives)
    return {
        "trial": row.index,
        "state": row.state,
        "gain": row.gain,
        **{o.name: value for o, value in zip(result.objectives, values, strict=True)},
        **{name: row.others.get(name) for name in result.others},
        **{result.names[path]: row.config.get(path) for path in result.current},
        "runs": row.runs,
        "calls": row.calls,
        "server_calls": row.server_calls,
        "seconds": round(row.seconds, 3),
        "pareto": row.pareto,
        **_final_columns(result, row.index),
        "problem": row.problem,
        "process": row.owner,
    }


def _final_columns(result: SweepResult, index: int) -> dict[str, float | None]:
    """The gain of a finalist and its values, each with its interval; of the current config only the values."""
    comparisons = result.finals.comparisons
    found = next(iter(comparisons.values()), None) if index == 0 else comparisons.get(index)
    intervals: dict[str, Interval | None] = {"gain": found.overall if found and index else None}
    for k, objective in enumerate(result.objectives):
        intervals[objective.name] = (found.values if index else found.baseline)[k] if found else None
    return {
        f"final_{name}{end}": getattr(interval, which, None)
        for name, interval in intervals.items()
        for end, which in (("", "estimate"), ("_low", "low"), ("_high", "high"))
    }
