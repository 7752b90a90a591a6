"""Summary table of a finished `nat eval`, read from the files it wrote.

    python -m nat_dynamo_plugin.cli.summary OUTPUT_DIR

NAT 1.9 writes `<evaluator>_output.json` for each evaluator, `workflow_output.json` (the trajectories) and
the configuration. The counts (calls, tokens, workers) come from the trajectories if they hold the custom
steps, which NAT drops unless `eval.general.output.workflow_output_step_filter` names them, and else from the
reasoning of the Dynamo evaluators, which has the same counts. Of an evaluation that was cut, the journal has what was
done.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nat_dynamo_plugin.cli.costs import cost_lines
from nat_dynamo_plugin.cli.engines import said_of_engines
from nat_dynamo_plugin.cli.folder import (
    SUFFIX,
    WORKFLOW_OUTPUT,
    ReportError,
    job_directory,
    load_config,
    load_json,
    mapping,
)
from nat_dynamo_plugin.cli.formats import count, kinds, value
from nat_dynamo_plugin.evaluators.prompt_versions import rows, together
from nat_dynamo_plugin.evaluators.records import Question, QuestionFigures
from nat_dynamo_plugin.nat.journal import JOURNAL, Entries, read
from nat_dynamo_plugin.telemetry.record import STEP_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """One evaluator's result. `value` is `None` when the evaluator had nothing to average."""

    name: str
    value: float | None
    unit: str
    statistic: str
    meaning: str
    file: Path
    questions: int
    problem: str | None = None
    failures: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class EvalReport:
    """What a finished evaluation says, or one that was cut, which has no metrics.

    `figures` has one entry a question; it is empty when no file holds the counts. `failures` counts the questions that
    failed, by kind; they are in no average.
    """

    directory: Path
    metrics: list[MetricRow]
    figures: list[QuestionFigures]
    workflow_output: Path | None = None
    engines: Sequence[str] = ()
    failures: Mapping[str, int] = field(default_factory=dict)
    runs: int = 1
    notes: list[str] = field(default_factory=list)

    @property
    def questions(self) -> int:
        """Number of questions evaluated."""
        return max([len(self.figures), *(row.questions for row in self.metrics)], default=0)

    @property
    def wall_time_s(self) -> float | None:
        """Seconds from the first question's start to the last question's end, those without a question left out if
        the evaluation was resumed."""
        spans = [(f.started_at, f.ended_at) for f in self.figures if f.started_at is not None]
        known = sorted((start, end) for start, end in spans if end is not None)
        if not known:
            return None
        if self.runs == 1:
            return max(end for _, end in known) - known[0][0]
        total, upto = 0.0, known[0][0]
        for start, end in known:
            total += max(0.0, end - max(start, upto))
            upto = max(upto, end)
        return total


def load_report(directory: Path) -> EvalReport:
    """Read the output directory of a `nat eval`.

    Raises:
        ReportError: no such directory, no evaluator's output in it and no journal, or a file that can not be read.
    """
    if not directory.is_dir():
        raise ReportError(f"{directory} is not a directory; give the eval.general.output.dir of a finished run")
    directory = job_directory(directory)
    config = load_config(directory / "config_effective.yml")
    metrics: list[MetricRow] = []
    figures: list[QuestionFigures] = []
    for path in sorted(directory.glob("*" + SUFFIX)):
        if path.name == WORKFLOW_OUTPUT:
            continue
        output = load_json(path)
        if not isinstance(output, dict) or not isinstance(output.get("eval_output_items"), list):
            continue
        metrics.append(_metric_row(path, output))
        items = [item for item in output["eval_output_items"] if isinstance(item, dict)]
        counted = [f for item in items if (f := QuestionFigures.from_reasoning(item.get("reasoning")))]
        if len(counted) > len(figures):
            figures = counted
    journal = read(directory / JOURNAL)
    if not metrics and journal.questions:
        return _cut_report(directory, journal)
    if not metrics:
        raise ReportError(
            f"{directory} holds no <evaluator>{SUFFIX}; nat eval writes its files once it has finished "
            "and at least one evaluator gave a result"
        )
    order = {name: position for position, name in enumerate(mapping(config, "eval", "evaluators"))}
    metrics.sort(key=lambda row: order.get(row.name, len(order)))

    workflow_output = directory / WORKFLOW_OUTPUT
    report = EvalReport(directory=directory, metrics=metrics, figures=figures)
    if workflow_output.is_file():
        report.workflow_output = workflow_output
        report.figures = _figures_from_trajectories(load_json(workflow_output), config) or figures
    report.engines = said_of_engines(mapping(config, "llms").values())
    report.runs = max(1, journal.runs)
    report.failures = max((row.failures for row in metrics), key=lambda one: sum(one.values()))
    report.notes = [f"{row.name}: {row.problem}" for row in metrics if row.problem]
    if journal.questions and not journal.finished:
        report.notes.append(f"a later run in this folder was cut: {_how_far(journal)}")
    report.notes += _problem_notes(report.figures)
    return report


def print_report(report: EvalReport, console: Console) -> None:
    """Print the table of metrics, the counts, what was left out, and where the files are."""
    if report.metrics:
        console.print(_table(report))
    console.print(*report.engines, "", sep="\n")
    for label, text in _counts(report):
        console.print(f"{label:<12} {text}", markup=False, highlight=False)
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    console.print()
    console.print("Files:", highlight=False)
    if report.workflow_output is not None:
        _print_path(console, report.workflow_output, "answers and trajectories")
    if (report.directory / JOURNAL).is_file():
        _print_path(console, report.directory / JOURNAL, "journal of calls and questions")
    for row in report.metrics:
        _print_path(console, row.file, "score and reasoning of each question")


def _table(report: EvalReport) -> Table:
    table = Table(title=f"Evaluation of {count(report.questions, 'question')}", title_justify="left")
    table.add_column("metric", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("statistic", no_wrap=True)
    table.add_column("meaning", overflow="fold")
    for row in report.metrics:
        table.add_row(escape(row.name), value(row.value, row.unit), row.statistic, escape(row.meaning))
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 when the summary was printed, 2 when there is nothing to summarise."""
    parser = argparse.ArgumentParser(
        prog="python -m nat_dynamo_plugin.cli.summary",
        description="Summarise what a finished nat eval wrote.",
    )
    parser.add_argument("directory", type=Path, help="the eval.general.output.dir of the run")
    arguments = parser.parse_args(argv)
    try:
        report = load_report(arguments.directory)
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_report(report, Console())
    return 0


def _metric_row(path: Path, output: dict[str, Any]) -> MetricRow:
    average = output.get("average_score")
    value = None
    if isinstance(average, int | float) and math.isfinite(average):
        value = float(average)
    summary = mapping(output, "metric")
    problem = summary.get("problem")
    if value is None and problem is None:
        problem = "it gave no average"
    return MetricRow(
        name=path.name.removesuffix(SUFFIX),
        value=value,
        unit=str(summary.get("unit", "")),
        statistic=str(summary.get("statistic", "mean")),
        meaning=str(summary.get("meaning", "average score")),
        file=path,
        questions=len(output["eval_output_items"]),
        problem=problem,
        failures={str(kind): n for kind, n in mapping(summary, "failures").items() if isinstance(n, int)},
    )


def _cut_report(directory: Path, journal: Entries) -> EvalReport:
    """What was done before an evaluation was cut: counts, and no metrics, which NAT makes at the end."""
    figures = [
        QuestionFigures.of(Question.from_trajectory(one.id, one.trajectory)) for one in journal.questions.values()
    ]
    report = EvalReport(directory=directory, metrics=[], figures=figures, failures=journal.failures)
    report.notes = [f"the run was cut or still goes on: {_how_far(journal)}", *_problem_notes(figures)]
    unfinished = len(journal.calls) - sum(f.calls for f in figures)
    if unfinished > 0:
        report.notes.append(f"{count(unfinished, 'LLM call')} more were made, for questions that were cut or repeated")
    return report


def _how_far(journal: Entries) -> str:
    answered = len(journal.questions) - sum(journal.failures.values())
    of = f"{answered:,} of {journal.total or '?'}"
    return f"{of} questions are answered, and the same `nat eval` command asks the others"


def _figures_from_trajectories(workflow_output: Any, config: Any) -> list[QuestionFigures]:
    """One entry a question, or nothing if no trajectory holds a call's steps."""
    if not isinstance(workflow_output, list):
        return []
    dataset = mapping(config, "eval", "general", "dataset")
    key = mapping(dataset, "structure").get("trajectory_key", "intermediate_steps")
    trajectories = [
        (item.get(dataset.get("id_key", "id")), item[key])
        for item in workflow_output
        if isinstance(item, dict) and isinstance(item.get(key), list)
    ]
    if not any(_is_call(step) for _, steps in trajectories for step in steps):
        return []
    return [QuestionFigures.of(Question.from_trajectory(name, steps)) for name, steps in trajectories]


def _is_call(step: Any) -> bool:
    return isinstance(step, dict) and mapping(step, "payload").get("name") == STEP_NAME


def _counts(report: EvalReport) -> list[tuple[str, str]]:
    figures = report.figures
    asked = _questions(report)
    if not figures:
        return [*asked, ("LLM calls", "not known: neither a Dynamo evaluator nor the saved trajectories counted them")]
    calls = sum(f.calls for f in figures)
    failed = sum(f.failed_calls for f in figures)
    silent = sum(f.calls_without_dynamo_data for f in figures)
    workers: Counter[str] = Counter()
    for entry in figures:
        workers.update(entry.workers)
    spread = f"{min(workers.values()):,} to {max(workers.values()):,}" if workers else ""
    wall = report.wall_time_s
    by_kind = sum((Counter(f.failures) for f in figures), Counter[str]())
    return [
        *asked,
        ("LLM calls", f"{calls:,} ({failed:,} failed, {silent:,} answered without Dynamo data)"),
        *([("failed calls", kinds(by_kind))] if by_kind else []),
        ("prefix ids", f"{len({prefix for f in figures for prefix in f.prefix_ids}):,} distinct"),
        ("workers", f"{len(workers)} used" + (f" ({spread} calls each)" if workers else "")),
        (
            "tokens",
            f"{_tokens(figures, 'prompt_tokens')} prompt ({_tokens(figures, 'cached_tokens')} cached), "
            f"{_tokens(figures, 'completion_tokens')} completion",
        ),
        *rows(together(f.prompt_versions for f in figures)),
        *cost_lines(figures, [row.file for row in report.metrics]),
        ("wall time", "not known" if wall is None else f"{wall:,.2f} s, {_measured(report.runs)}"),
    ]


def _measured(runs: int) -> str:
    if runs == 1:
        return "first question's start to last one's end"
    return f"in which questions were under way, in {runs} runs"


def _questions(report: EvalReport) -> list[tuple[str, str]]:
    failed = sum(report.failures.values())
    if not failed:
        return [("questions", f"{report.questions:,} (0 failed)")]
    return [("questions", f"{report.questions:,} ({failed:,} failed, in no average: {kinds(report.failures)})")]


def _problem_notes(figures: Sequence[QuestionFigures]) -> list[str]:
    problems = [problem for entry in figures for problem in entry.problems]
    if not problems:
        return []
    return [f"{count(len(problems), 'problem')} in the call records, the first: {problems[0]}"]


def _tokens(figures: Sequence[QuestionFigures], name: str) -> str:
    known = [value for entry in figures if (value := getattr(entry, name)) is not None]
    return f"{sum(known):,}" if known else "unknown"


def _print_path(console: Console, path: Path, what: str) -> None:
    # A path must stay copyable, however long it is.
    console.print(f"  {path}  ({what})", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
