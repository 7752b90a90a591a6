"""The command line of the doctor: what is asked, and how the findings are shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nat_dynamo_plugin.secrets import redacted, remember

if TYPE_CHECKING:
    from nat_dynamo_plugin.cli.doctor.findings import Finding

_MARKS = {"ok": "[green]ok[/]", "unknown": "[dim]?[/]", "warning": "[yellow]warning[/]", "bad": "[red]bad[/]"}


@click.command("doctor")
@click.argument("base_url", required=False)
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Look at a NAT config.")
@click.option("--model", help="The model to ask; the first one that is served, unless given.")
@click.option("--api-key", metavar="env:NAME|file:PATH", help="Where the key is; none is sent unless this says so.")
@click.option("--load", is_flag=True, help="Also send some hundred calls at once, to see whether priorities act.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(
    base_url: str | None, config: Path | None, model: str | None, api_key: str | None, load: bool, as_json: bool
) -> None:
    """Find out what a server does with what we send, and what to change.

    Sends about a hundred small calls to BASE_URL (as in http://127.0.0.1:8000/v1), or to the servers of a config. Exit
    code 0: all is well; 1: hints will not act; 2: no call is answered.
    """
    if (base_url is None) == (config is None):
        raise click.UsageError("Give a BASE_URL or --config FILE, one of them.")
    from nat_dynamo_plugin.cli.doctor.findings import exit_code

    found: list[Finding] = []
    if config is not None:
        from nat_dynamo_plugin.cli.doctor.configs import look_at_config

        servers, found = look_at_config(config)
        for name, url, served, key in servers:
            found += [_of(name, one) for one in asyncio.run(examine(url, model or served, key, load=load))]
    elif base_url is not None:
        found = asyncio.run(examine(base_url.rstrip("/"), model, key_from(api_key), load=load))
    if as_json:
        click.echo(
            json.dumps([{k: redacted(v) if isinstance(v, str) else v for k, v in asdict(f).items()} for f in found])
        )
    else:
        show(found)
    raise SystemExit(exit_code(found))


def _of(name: str, finding: Finding) -> Finding:
    from dataclasses import replace

    return replace(finding, topic=f"{name}: {finding.topic}")


def key_from(source: str | None) -> str | None:
    if source is None:
        return None
    from nat_dynamo_plugin.layers.key_sources import source_of

    if not source.startswith(("env:", "file:")):
        raise click.BadParameter("name where the key is, as env:NAME or file:PATH", param_hint="--api-key")
    try:
        return source_of(source).value()
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--api-key") from None


async def examine(base_url: str, model: str | None, key: str | None, *, load: bool = False) -> list[Finding]:
    """All that can be found out about a server.

    Args:
        base_url: of the server, with `/v1`.
        model: to ask; `None` for the first that is served.
        key: sent as a bearer token; `None` for none.
        load: whether some hundred calls at once may be sent.
    """
    import httpx

    from nat_dynamo_plugin.cli.doctor.findings import Finding, Seen, findings
    from nat_dynamo_plugin.cli.doctor.probes import Prober
    from nat_dynamo_plugin.cli.doctor.reach import PROXY_VARIABLES, Unreachable, reach, without_login

    if key is not None:
        remember(key)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=None)
    base_url, login = without_login(base_url)
    try:
        client = httpx.AsyncClient(headers=headers, limits=limits, auth=login, follow_redirects=True)
    except (ImportError, ValueError, httpx.InvalidURL) as error:  # of a proxy that the environment names
        return [Finding("proxy", "bad", str(error), "no call is answered", PROXY_VARIABLES, True)]
    async with client:
        try:
            models, found = await reach(base_url, client)
        except Unreachable as error:
            return [error.finding]
        if not models and model is None:
            return [*found, _no_model(base_url)]
        seen = Seen(models, model or models[0])
        await Prober(client, base_url, seen).look(load=load)
        return [*found, *findings(seen)]


def _no_model(base_url: str) -> Finding:
    from nat_dynamo_plugin.cli.doctor.findings import Finding

    what = f"none is known: {base_url}/models names none"
    return Finding("model", "bad", what, "no call is answered", "wait for the workers, or name one: --model", True)


def show(found: Sequence[Finding]) -> None:
    """Print findings for people: colours on a terminal, plain lines elsewhere."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        for one in found:
            seen, *more = _told(one)
            click.echo("\n".join([f"{one.state:8} {one.topic}: {seen}", *(f"{'':8} {text}" for text in more)]))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for one in found:
        table.add_row(_MARKS[one.state], escape(one.topic), escape("\n".join(_told(one))))
    console.print(table)


def _told(one: Finding) -> list[str]:
    """What was seen, what it costs and what to change, a line each, without secrets."""
    lines = [one.seen]
    lines += [f"costs: {one.costs}"] if one.costs else []
    lines += [f"change: {one.change}"] if one.change else []
    return [redacted(line) for line in lines]
