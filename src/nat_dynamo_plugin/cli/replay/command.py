"""The command line of `replay`, and its table."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nat_dynamo_plugin.cli.tables import markdown

if TYPE_CHECKING:
    from nat_dynamo_plugin.cli.replay.play import Played
    from nat_dynamo_plugin.recording.rows import RecordedCall


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
@click.option("--questions", type=click.IntRange(1), help="Of a trace only so many, the first ones.")
@click.option("--scale", type=click.FloatRange(0, 10, min_open=True), default=1.0, help="Of a trace's token counts.")
@click.option("--queue", is_flag=True, help="Router queue threshold 0, so that priorities act.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def replay(
    recording: Path,
    workers: list[int],
    kv_blocks: int,
    speedup: float,
    rate: float | None,
    seed: int,
    questions: int | None,
    scale: float,
    queue: bool,
    as_json: bool,
) -> None:
    """Play a recording on embedded clusters: how many workers do these questions need?

    Each cluster has a real frontend and router and answers as recorded; its engines are simulated, so compare the rows
    with each other, not with a GPU. RECORDING is what `record: FILE` of a config wrote, or a trace without content:
    Mooncake's format, or all_requests_profiler_traces.json of NAT's profiler. Exit code 1 if a cluster answered no
    question in whole.
    """
    import asyncio

    from nat_dynamo_plugin.cli.replay.play import play
    from nat_dynamo_plugin.cli.replay.schedule import plan
    from nat_dynamo_plugin.config.local import LocalDynamoConfig
    from nat_dynamo_plugin.local import LocalDynamoError
    from nat_dynamo_plugin.recording.rows import read
    from nat_dynamo_plugin.recording.traces.load import is_recording

    try:
        has_content = is_recording(recording)
        rows = read(recording)[0] if has_content else _traced(recording, questions, scale)
        asked = plan(rows, rate=rate, seed=seed)
        found = []
        for count in workers:
            local = LocalDynamoConfig(
                workers=count,
                kv_blocks=kv_blocks,
                speedup=speedup,
                answers=recording if has_content else None,
                queue_threshold=0 if queue else None,
                track_output_blocks=True,
            )
            found.append(asyncio.run(play(rows, asked, local)))
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
        click.echo(f"{len(asked)} questions, {len(rows)} calls, arriving {come}; engines are simulated.\n")
        click.echo(table(found, len(asked)))
    raise SystemExit(not all(one.questions for one in found))


def _traced(trace: Path, questions: int | None, scale: float) -> list[RecordedCall]:
    """A trace's calls, in words of the embedded model."""
    from nat_dynamo_plugin.local.model import load_tokenizer, tokenizer_file
    from nat_dynamo_plugin.recording.traces.load import read_trace
    from nat_dynamo_plugin.recording.traces.shape import Fit
    from nat_dynamo_plugin.recording.words import words

    try:
        counted = len(load_tokenizer(tokenizer_file()).encode(words("calibration", 1000)).ids)
    except ImportError as error:
        raise click.ClickException(f"{error}: the extra `local` is not installed") from None
    return read_trace(trace, Fit(counted / 1000, scale, questions))


def table(found: list[Played], questions: int) -> str:
    """The figures, as Markdown that lines up."""
    names = ("workers", "answered", "failed calls", "reuse", "mean s", "p50 s", "p95 s", "TTFT p95 s", "all done s")
    lines = []
    for one in found:
        times = (one.mean_s, one.p50_s, one.p95_s, one.ttft_p95_s, one.all_s)
        figures = ["-" if value is None else f"{value:.2f}" for value in times]
        reuse = "-" if one.reuse is None else f"{one.reuse:.1%}"
        lines.append([str(one.workers), f"{one.questions} of {questions}", str(one.failed), reuse, *figures])
    return markdown(names, lines)
