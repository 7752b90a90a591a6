"""The files of a sweep: optimized_config.yml, trials.csv and report.html. None of them holds a key."""

from __future__ import annotations

import csv
import io
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from nat.data_models.config import Config

from nat_dynamo_plugin.sweep.results import SweepResult
from nat_dynamo_plugin.sweep.space import value_at

logger = logging.getLogger(__name__)

CONFIG, TRIALS, REPORT = "optimized_config.yml", "trials.csv", "report.html"


def write_results(result: SweepResult, folder: Path, base: Config, file: Path | None, names: Mapping[str, str]) -> None:
    """Write all files, and say on standard output what came of the sweep and where it is.

    Raises:
        RuntimeError: if the written config does not load with the tuned values.
    """
    from nat_dynamo_plugin.sweep.report import report_html

    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRIALS).write_text(trials_csv(result, names), encoding="utf-8", newline="")
    (folder / REPORT).write_text(report_html(result, names), encoding="utf-8")
    written = [TRIALS, REPORT]
    if file is not None and file.resolve() != (folder / CONFIG).resolve():
        write_config(result, folder / CONFIG, base, file)
        written.insert(0, CONFIG)
    elif file is not None:
        logger.warning("%s is the config that was given; it is left as it is", folder / CONFIG)
    else:
        logger.warning("No %s: the config was not given as a file", CONFIG)
    print(f"\n{result.verdict}\n{', '.join(str(folder / name) for name in written)}", file=sys.stdout, flush=True)


def write_config(result: SweepResult, target: Path, base: Config, file: Path) -> None:
    """Write the user's config with the chosen values, and see that it loads."""
    from nat.runtime.loader import load_config

    from nat_dynamo_plugin.sweep.yaml_output import tuned_text

    target.write_text(tuned_text(file, base, result.chosen, target), encoding="utf-8")
    loaded = load_config(target)
    for path, value in result.chosen.items():
        found = value_at(loaded, path)
        if found != value:
            raise RuntimeError(f"{target}: {path} is {found!r} after writing {value!r}")


def trials_csv(result: SweepResult, names: Mapping[str, str]) -> str:
    """All trials, one a row: state, values, gain over the current config, calls, the configuration."""
    text = io.StringIO()
    others = sorted({name for row in result.rows for name in row.others})
    paths = list(result.current)
    fields = [
        "trial",
        "state",
        "gain",
        *(o.name for o in result.objectives),
        *others,
        *(names[path] for path in paths),
        "runs",
        "calls",
        "server_calls",
        "seconds",
        "pareto",
        "final_gain",
        "final_gain_low",
        "final_gain_high",
        *(f"final_{o.name}{end}" for o in result.objectives for end in ("", "_low", "_high")),
        "problem",
        "process",
    ]
    writer = csv.writer(text)
    writer.writerow(fields)
    for row in result.rows:
        writer.writerow(
            [
                row.index,
                row.state,
                row.gain,
                *(row.values or [None] * len(result.objectives)),
                *(row.others.get(name) for name in others),
                *(row.config.get(path) for path in paths),
                row.runs,
                row.calls,
                row.server_calls,
                round(row.seconds, 3),
                row.pareto,
                *_final_columns(result, row.index),
                row.problem,
                row.owner,
            ]
        )
    return text.getvalue()


def _final_columns(result: SweepResult, index: int) -> list[float | None]:
    comparisons = result.finals.comparisons
    found = next(iter(comparisons.values()), None) if index == 0 else comparisons.get(index)
    if found is None:
        return [None] * (3 + 3 * len(result.objectives))
    gain = [None] * 3 if index == 0 else [found.overall.estimate, found.overall.low, found.overall.high]
    values = found.baseline if index == 0 else found.values
    return [*gain, *(number for value in values for number in (value.estimate, value.low, value.high))]
