"""The command line of `top`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from nat_dynamo_plugin.secrets import redacted

if TYPE_CHECKING:
    from nat_dynamo_plugin.cli.top.counts import Counts, View
    from nat_dynamo_plugin.cli.top.sources import Source

Look = list["View | str"]
"""What is seen of each source; an error's text where one can not be looked at."""


@click.command("top")
@click.argument("targets", nargs=-1)
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Look once, and show what was since the beginning.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON a look.")
def top(targets: tuple[str, ...], interval: float, once: bool, as_json: bool) -> None:
    """Show what goes on: what is under way and waiting, reuse, time to first token, errors, each worker.

    TARGETS are base URLs of Dynamo (http://127.0.0.1:8000/v1), of a `nat serve` that exposes its metrics, or output
    folders of a `nat eval` with the plugin, running or not; without any, what `up` has started. Figures are of the time
    since the last look; with --once, of all time. Ctrl-C ends it. Exit code 1 with --once if a target tells nothing.
    """
    from importlib.util import find_spec

    from nat_dynamo_plugin.cli.top.sources import NoSource, source_of

    if find_spec("prometheus_client") is None:
        raise click.ClickException("prometheus-client: not installed; pip install 'nat-dynamo-plugin[telemetry]'")
    try:
        sources = [source_of(target) for target in targets or _embedded()]
    except NoSource as error:
        raise click.UsageError(redacted(str(error))) from None
    looks = _looks(sources, interval, once=once)
    try:
        if as_json or once:
            failed = _print(looks, as_json=as_json)
            raise SystemExit(1 if failed and once else 0)
        _live(looks)
    except KeyboardInterrupt:
        return


def _embedded() -> list[str]:
    from nat_dynamo_plugin.cli.embedded.running import all_running

    found = [one for one in all_running()[0] if not one.starting]
    if not found:
        raise click.UsageError("Give a base URL or a folder of an evaluation; no embedded Dynamo of ours is running.")
    return [one.base_url for one in found]


def _looks(sources: Sequence[Source], interval_s: float, *, once: bool) -> Iterator[Look]:
    """A look at all sources each interval; the first at once."""
    from nat_dynamo_plugin.cli.top.counts import view
    from nat_dynamo_plugin.cli.top.sources import NoSource

    before: dict[str, tuple[float, Counts]] = {}
    while True:
        look: Look = []
        for source in sources:
            try:
                counts, at_s = source.look(), time.monotonic()
            except NoSource as error:
                look.append(str(error))
                continue
            then_s, then = before.get(source.name, (None, None))
            look.append(view(source.name, counts, then, None if then_s is None else at_s - then_s))
            before[source.name] = at_s, counts
        yield look
        if once:
            return
        time.sleep(interval_s)


def _print(looks: Iterator[Look], *, as_json: bool) -> bool:
    """Print looks as plain lines or JSON; whether a source could not be looked at in the last one."""
    from nat_dynamo_plugin.cli.top.shown import lines

    failed = False
    for look in looks:
        failed = any(isinstance(seen, str) for seen in look)
        if as_json:
            data = [{"error": redacted(seen)} if isinstance(seen, str) else asdict(seen) for seen in look]
            click.echo(json.dumps(data))
        else:
            for seen in look:
                click.echo(redacted(seen if isinstance(seen, str) else "\n".join(lines(seen))))
    return failed


def _live(looks: Iterator[Look]) -> None:
    """Show looks in place on a terminal, as plain lines elsewhere."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from nat_dynamo_plugin.cli.top.shown import panel

    console = Console()
    if not console.is_terminal:
        _print(looks, as_json=False)
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for look in looks:
            parts = [Text(redacted(seen), style="red") if isinstance(seen, str) else panel(seen) for seen in look]
            live.update(Group(*parts, Text("Ctrl-C ends it.", style="dim")), refresh=True)
