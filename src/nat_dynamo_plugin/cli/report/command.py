"""The command line of `report`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN [RUN ...]", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The page; else report.html in RUN."
)
@click.option(
    "--recording",
    "recordings",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `record:` wrote, one for each RUN in their order; else the one that its config names.",
)
def report(runs: tuple[Path, ...], output: Path | None, recordings: tuple[Path, ...]) -> None:
    """Write a page about evaluations: failures, figures, why the cache missed, and each question in time.

    RUN is the `eval.general.output.dir` of a `nat eval`. With several, each other one is compared with the first. The
    page is one HTML file that needs no network. It quotes a few words of prompts where they differ, if there is a
    recording.
    """
    from nat_dynamo_plugin.cli.folder import ReportError, job_directory
    from nat_dynamo_plugin.cli.report.page import page
    from nat_dynamo_plugin.cli.report.run import load
    from nat_dynamo_plugin.files import write_text
    from nat_dynamo_plugin.recording.rows import RecordingError

    if len(recordings) > len(runs):
        raise click.UsageError(f"{len(recordings)} recordings for {len(runs)} runs; give one for each, or none")
    try:
        loaded = [load(run, recordings[n] if n < len(recordings) else None) for n, run in enumerate(runs)]
        to = output or job_directory(runs[0]) / "report.html"
        written = page(loaded)
        write_text(to, written)
    except (ReportError, RecordingError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{to} can not be written: {error.strerror}") from error
    click.echo(f"{to} ({to.stat().st_size / 1000:,.0f} kB)")
