"""The command line of the bench."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from nat_dynamo_plugin.secrets import redacted

_NEEDS = ("openai", "scipy")


def _levels(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    try:
        levels = sorted({int(part) for part in value.split(",")})
    except ValueError:
        levels = []
    if not levels or not all(1 <= level <= 4096 for level in levels):
        raise click.BadParameter(f"{value!r}: give numbers from 1 to 4096, as in 1,4,16")
    return levels


class _NotMeasurable(click.ClickException):
    exit_code = 2


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("bench")
@click.argument("base_url")
@click.option("--model", help="The model to ask; the first one that is served, unless given.")
@click.option("--api-key", metavar="env:NAME|file:PATH", help="Where the key is; none is sent unless this says so.")
@click.option("--concurrency", default="1,4,16", show_default=True, callback=_levels, help="Questions at once, rising.")
@click.option("--rounds", type=click.IntRange(3, 200), default=5, show_default=True, help="Of both clients, a load.")
@click.option("--per-slot", type=click.IntRange(1), default=3, show_default=True, help="Questions a round for each.")
@click.option("--recording", type=_FILE, help="Ask what `record: FILE` of a config kept.")
@click.option(
    "--trace", type=_FILE, help="Ask what a trace tells of, without content: Mooncake's, or NAT's profiler's."
)
@click.option("--questions", type=click.IntRange(1), default=64, show_default=True, help="Of a trace, the first ones.")
@click.option("--scale", type=click.FloatRange(0, 10, min_open=True), default=1.0, help="Of a trace's token counts.")
@click.option("--pause", type=click.FloatRange(0), default=1.0, show_default=True, help="Longest, in s, between calls.")
@click.option("--limit", type=click.FloatRange(1), default=600.0, show_default=True, help="Seconds; then it hurries.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the load and of the order.")
@click.option("--json", "as_json", is_flag=True, help="Print all that was measured as JSON.")
def bench(
    base_url: str,
    model: str | None,
    api_key: str | None,
    concurrency: list[int],
    rounds: int,
    per_slot: int,
    recording: Path | None,
    trace: Path | None,
    questions: int,
    scale: float,
    pause: float,
    limit: float,
    seed: int,
    as_json: bool,
) -> None:
    """Does the plugin pay on this server, by how much, and from which load on?

    Asks BASE_URL (as in http://127.0.0.1:8000/v1) the same questions by OpenAI's own client as it comes and by the
    plugin's with its defaults, in turns whose order is drawn, at each load. Every turn's prompts begin with words of
    their own, so that no turn finds what another one has left in a cache. This is real load: mind who else uses the
    server. Exit code 1: no verdict; 2: the server can not be measured.
    """
    if recording is not None and trace is not None:
        raise click.UsageError("Give --recording or --trace, one of them.")
    from importlib.util import find_spec

    from nat_dynamo_plugin.cli.doctor.command import key_from
    from nat_dynamo_plugin.recording.rows import RecordingError

    if missing := [name for name in _NEEDS if find_spec(name) is None]:
        raise click.ClickException(f"{', '.join(missing)}: not installed; pip install 'nat-dynamo-plugin[bench]'")
    from nat_dynamo_plugin.cli.bench.judged import verdict
    from nat_dynamo_plugin.cli.bench.run import Plan, run
    from nat_dynamo_plugin.cli.bench.server import NotMeasurable
    from nat_dynamo_plugin.cli.bench.shown import as_data, as_text

    plan = Plan(concurrency, rounds, per_slot, recording, trace, questions, scale, pause, limit, seed)
    told = click.echo if not as_json else _silent
    try:
        server, load, found = asyncio.run(run(base_url.rstrip("/"), model, key_from(api_key), plan, told=told))
    except RecordingError as error:
        raise click.BadParameter(str(error), param_hint="--recording" if recording else "--trace") from None
    except NotMeasurable as error:
        raise _NotMeasurable(redacted(str(error))) from None
    text = json.dumps(as_data(server, load, found)) if as_json else as_text(server, load, found)
    click.echo(redacted(text))
    raise SystemExit(1 if verdict(found).startswith("No verdict") else 0)


def _silent(text: str) -> None:
    """Nothing is told beside JSON."""
