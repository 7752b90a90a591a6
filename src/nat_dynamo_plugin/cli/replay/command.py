"""The command line of `replay`, and its table."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nat_dynamo_plugin.cli.replay.play import Played


def _counts(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    try:
        counts = [int(part) for part in value.split(",")]
    except ValueError:
        counts = []
    if not counts or not all(1 <= count <= 64 for count in counts):
        raise click.BadParameter(f"{value!r}: give numbers from 1 to 64, as in 1,2,4,8")
    return counts


@click.command("replay")
@click.argument("recording", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--workers", default="1,2,4,8", show_default=True, callback=_counts, help="Sizes of cluster to try.")
@click.option("--kv-blocks", type=click.IntRange(16), default=8192, show_default=True, help="KV blocks of a worker.")
@click.option("--speedup", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="Hurry.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Questions a second; else as recorded.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the arrivals at that rate.")
@click.option("--queue", is_flag=True, help="Router queue threshold 0, so that priorities act.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def replay(
    recording: Path,
    workers: list[int],
    kv_blocks: int,
    speedup: float,
    rate: float | None,
    seed: int,
    queue: bool,
    as_json: bool,
) -> None:
    """Play a recording on embedded clusters: how many workers do these questions need?

    Each cluster has a real frontend and router and answers as recorded; its engines are simulated, so compare the rows
    with each other, not with a GPU. RECORDING is what `record: FILE` of a config wrote. Exit code 1 if a cluster
    answered no question in whole.
    """
    import asyncio

    from nat_dynamo_plugin.cli.replay.play import play
    from nat_dynamo_plugin.cli.replay.schedule import plan
    from nat_dynamo_plugin.config.local import LocalDynamoConfig
    from nat_dynamo_plugin.local import LocalDynamoError
    from nat_dynamo_plugin.recording.rows import read

    try:
        rows, _ = read(recording)
        questions = plan(rows, rate=rate, seed=seed)
        found = []
        for count in workers:
            local = LocalDynamoConfig(
                workers=count,
                kv_blocks=kv_blocks,
                speedup=speedup,
                answers=recording,
                queue_threshold=0 if queue else None,
                track_output_blocks=True,
            )
            found.append(asyncio.run(play(rows, questions, local)))
            if not as_json:
                click.echo(f"{count} workers: done", err=True)
    except (LocalDynamoError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
    else:
        for one in found:
            if one.problem is not None:
                click.echo(f"{one.workers} workers: {one.failed} failed calls, the first: {one.problem}", err=True)
        come = "as recorded" if rate is None else f"{rate:g} a second, at random (seed {seed})"
        click.echo(f"{len(questions)} questions, {len(rows)} calls, arriving {come}; engines are simulated.\n")
        click.echo(table(found, len(questions)))
    raise SystemExit(not all(one.questions for one in found))


def table(found: list[Played], questions: int) -> str:
    """The figures, as Markdown that lines up."""
    names = ("workers", "answered", "failed calls", "reuse", "mean s", "p50 s", "p95 s", "TTFT p95 s", "all done s")
    lines = [list(names)]
    for one in found:
        times = (one.mean_s, one.p50_s, one.p95_s, one.ttft_p95_s, one.all_s)
        figures = ["-" if value is None else f"{value:.2f}" for value in times]
        reuse = "-" if one.reuse is None else f"{one.reuse:.1%}"
        lines.append([str(one.workers), f"{one.questions} of {questions}", str(one.failed), reuse, *figures])
    widths = [max(len(line[k]) for line in lines) for k in range(len(names))]
    shown = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    shown.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(shown)
