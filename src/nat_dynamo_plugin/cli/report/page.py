"""The page: everything in one file, which needs neither a network nor JavaScript."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nat_dynamo_plugin.cli.formats import count, value
from nat_dynamo_plugin.cli.report import figures
from nat_dynamo_plugin.cli.report.cards import cards, code, origin
from nat_dynamo_plugin.cli.report.misses import findings, misses
from nat_dynamo_plugin.cli.report.pictures import load, strip, timeline, tones
from nat_dynamo_plugin.cli.report.run import Asked, Run
from nat_dynamo_plugin.drawing.charts import Bar, Series, columns, cumulative
from nat_dynamo_plugin.drawing.page import style
from nat_dynamo_plugin.drawing.svg import element

MOST_BYTES = 900_000
"""About what a page may weigh; timelines that would make it heavier are left out, and that is said."""
_STRIP_BYTES = 450
_STRIPS_SHARE = 0.4
"""Which share of its bytes a page has at most for the map of workers."""
_REST_BYTES = 60_000
_MOST_WORKERS = 24


def page(runs: Sequence[Run]) -> str:
    """The page about one run, or several: each of them, and all others against the first.

    Everything that a run says is escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from nat_dynamo_plugin.cli.report.comparison import comparison

    environment = Environment(
        loader=PackageLoader("nat_dynamo_plugin.cli", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = distinct_names(runs)
    own = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    shown = [
        _run(run, name, number, MOST_BYTES // len(runs))
        for number, (run, name) in enumerate(zip(runs, names, strict=True), start=1)
    ]
    title = f"Evaluation {names[0]}" if len(runs) == 1 else f"Evaluations {', '.join(names)}"
    return environment.get_template("page.html.j2").render(
        title=title,
        css=Markup(style() + own),
        runs=shown,
        comparisons=[
            comparison(runs[0], names[0], other, name) for other, name in zip(runs[1:], names[1:], strict=True)
        ],
    )


def distinct_names(runs: Sequence[Run]) -> list[str]:
    """The folders' names; with those above where two are the same, and with a number where even those are."""
    paths = [run.summary.directory.resolve() for run in runs]
    for depth in range(1, 4):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({n})" for n, name in enumerate(names, start=1)]


def _run(run: Run, name: str, number: int, budget: int) -> dict[str, Any]:
    calls = run.calls
    missed = misses(calls)
    served = figures.workers(calls)
    numbers = {worker.id: worker.number for worker in served}
    tone = tones(served)
    most = int(_STRIPS_SHARE * budget / _STRIP_BYTES)
    shown: dict[str, Any] = {
        "name": name,
        "about": _about(run),
        "engines": run.summary.engines,
        "failures": _failures(run, numbers),
        "failed": _failed(run),
        "notes": [code(note) for note in (*run.summary.notes, *run.notes)],
        "tiles": _tiles(run),
        "tokens": origin(figures.tokens(calls, missed)),
        **cards(run, findings(missed)),
        "charts": list(_charts(run)),
        "has_times": bool(figures.call_times(calls)),
        "workers": _loads(served, tone),
        "stickiness": _stickiness(run, len(served)),
        "left_out": _left_out(run, len(served), most),
        "legend": _legend(served, tone),
    }
    drawn, about = _timelines(run, number, numbers, budget - _STRIP_BYTES * min(most, len(run.questions)))
    linked = {one["id"]: one["anchor"] for one in drawn}
    shown["strips"] = [
        element("a", picture_, href=f"#{linked[asked.id]}") if asked.id in linked else picture_
        for asked in run.questions[:most]
        if asked.calls
        for picture_ in (strip(asked, numbers, tone),)
    ]
    return shown | {"timelines": drawn, "timelines_about": about}


def _about(run: Run) -> str:
    begin = min((one.started_at for one in run.questions if one.started_at), default=None)
    parts = [count(len(run.questions) or run.summary.questions, "question"), count(len(run.calls), "LLM call")]
    if begin is not None:
        parts.append(f"begun {datetime.fromtimestamp(begin, UTC):%Y-%m-%d %H:%M} UTC")
    if (wall := run.summary.wall_time_s) is not None:
        parts.append(f"{value(wall, 's')} in all")
    return ", ".join(parts)


def _failed(run: Run) -> str:
    failed = sum(asked.failure is not None for asked in run.questions)
    calls = run.calls
    failed_calls = sum(call.record.failed for call in calls)
    retried = [call for call in calls if call.record.attempts > 1]
    said = (
        f"{failed:,} of {count(len(run.questions), 'question')} failed, {failed_calls:,} of {len(calls):,} LLM calls."
    )
    if not failed and not failed_calls:
        said = f"All {count(len(run.questions), 'question')} were answered, and no LLM call failed."
    if retried:
        waited = sum(call.record.retry_wait_ms for call in retried) / 1000
        said += (
            f" {count(len(retried), 'call')} needed more than one attempt, with {value(waited, 's')} of waits between."
        )
    return said


def _failures(run: Run, numbers: dict[int, int]) -> list[dict[str, Any]]:
    found = []
    for cause in figures.failure_causes(run.questions):
        workers = [f"{n:,} at worker {numbers[worker]}" for worker, n in cause.workers.most_common()]
        found.append(
            {
                "kind": cause.kind,
                "questions": cause.questions,
                "calls": cause.calls,
                "error": cause.error,
                "first": f"first in {cause.first}",
                "where": f"; {', '.join(workers)}" if workers else "",
            }
        )
    return found


def _tiles(run: Run) -> list[dict[str, str]]:
    tiles = [
        {"name": f"{row.name} ({row.statistic}): {row.meaning}", "value": value(row.value, row.unit)}
        for row in run.summary.metrics
    ]
    latencies = (
        ("time to first token", "ms", figures.ttfts(run.calls)),
        ("call", "ms", figures.call_times(run.calls)),
        ("question", "s", figures.question_times(run.questions)),
    )
    for name, unit, values in latencies:
        if values:
            p50, p95 = figures.quantile(values, 0.5), figures.quantile(values, 0.95)
            tiles.append({"name": f"{name}, p50; p95 {value(p95, unit)}", "value": value(p50, unit)})
    return tiles


def _charts(run: Run) -> Iterable[dict[str, Any]]:
    turns = figures.by_turn(run.calls)
    if turns:
        bars = [
            Bar(
                str(turn.number),
                turn.cached / turn.prompt if turn.prompt else 0.0,
                f"call {turn.number}: {turn.cached:,} of {turn.prompt:,} tokens cached, of {turn.calls:,} calls",
            )
            for turn in turns
        ]
        drawn = columns(bars, unit="", under="n-th call of its chain", label="KV reuse by turn", share=True)
        yield {"name": "KV reuse by turn", "picture": drawn}
    for name, unit, values in (
        ("Time to first token", "ms", figures.ttfts(run.calls)),
        ("Time of a call", "ms", figures.call_times(run.calls)),
        ("Time of a question", "s", figures.question_times(run.questions)),
    ):
        if values:
            yield {"name": name, "picture": cumulative([Series(name.lower(), values)], unit=unit, label=name)}


def _loads(served: Sequence[figures.Worker], tone: dict[int, int]) -> list[dict[str, Any]]:
    most = max((max(worker.load) for worker in served), default=0.0) or 1.0
    busiest = sorted(served, key=lambda worker: -worker.calls)[:_MOST_WORKERS]
    return [
        {
            "name": f"worker {worker.number}",
            "calls": count(worker.calls, "call"),
            "load": load(worker, most, tone[worker.id]),
        }
        for worker in sorted(busiest, key=lambda worker: worker.number)
    ]


def _legend(served: Sequence[figures.Worker], tone: dict[int, int]) -> list[dict[str, Any]]:
    own = {n: [worker for worker in served if tone[worker.id] == n] for n in sorted(set(tone.values()))}
    return [
        {"tone": n, "name": f"worker {those[0].number}" if len(those) == 1 else f"{len(those)} others"}
        for n, those in own.items()
    ]


def _stickiness(run: Run, workers: int) -> str:
    moved, might = figures.moves(run.calls)
    if not might:
        return f"{count(workers, 'worker')}; no chain has a second call, so there is no stickiness to be seen."
    share = f"{100 * moved / might:.1f} %"
    return (
        f"{count(workers, 'worker')}. {moved:,} of {might:,} calls that followed another one of their chain ({share}) "
        "went to another worker than that."
    )


def _left_out(run: Run, workers: int, most: int) -> str:
    """What the map does not show."""
    said = []
    if workers > _MOST_WORKERS:
        said.append(f"of {workers:,} workers the {_MOST_WORKERS} busiest")
    if len(run.questions) > most:
        said.append(f"of {len(run.questions):,} questions the first {most:,}")
    return f"Shown are {' and '.join(said)}." if said else ""


def _timelines(run: Run, number: int, numbers: dict[int, int], budget: int) -> tuple[list[dict[str, Any]], str]:
    """Questions that failed first, then the slowest, as many as the page can carry."""
    order = sorted(run.questions, key=lambda one: (one.failure is None, -(one.seconds or 0.0)))
    room = budget - _REST_BYTES
    drawn: list[dict[str, Any]] = []
    known = 0
    for asked in order:
        line = timeline(asked, numbers)
        if line is None:
            continue
        known += 1
        room -= len(line) + 200
        if room > 0:
            drawn.append(
                {
                    "id": asked.id,
                    "anchor": f"r{number}q{known}",
                    "about": _question(asked, numbers),
                    "error": asked.failure.kind if asked.failure else None,
                    "picture": line,
                }
            )
    about = "Questions that failed come first, then the slowest." if known else ""
    if len(drawn) < known:
        about = f"{about} {len(drawn):,} of {known:,} are shown: with more the page would be too heavy."
    return drawn, about


def _question(asked: Asked, numbers: dict[int, int]) -> str:
    parts = [value(asked.seconds, "s"), count(len(asked.calls), "call")]
    counted = figures.tokens(asked.calls, ())
    if counted is not None and counted.total:
        parts.append(f"reuse {100 * counted.cached / counted.total:.0f} %")
    served = sorted({numbers[worker] for call in asked.calls if (worker := call.record.worker_id) is not None})
    if served:
        parts.append(f"worker{'s' if len(served) > 1 else ''} {', '.join(map(str, served))}")
    return " · ".join(parts)
