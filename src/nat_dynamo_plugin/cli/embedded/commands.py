"""The command lines of `up`, `status`, `logs` and `down`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nat_dynamo_plugin.cli.embedded.running import Running

END_S = 15.0
"""Seconds until one that was asked to end is killed."""
_LOOK_S = 0.05


@click.command("up")
@click.option("--engine", type=click.Choice(["mocker", "vllm"]), default="mocker", show_default=True, help="Workers.")
@click.option("--model-dir", metavar="DIR", help="vLLM: a real model's folder; else one of random weights.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="How many workers.")
@click.option("--kv-blocks", type=click.IntRange(16), help="KV blocks of each. [default: 8192; vllm: 4096]")
@click.option("--speedup", type=float, help="mocker: times faster than real time. [default: 1.0]")
@click.option("--port", type=click.IntRange(1, 65535), help="The frontend's port; a free one, unless given.")
@click.option("--model", default="nat-dynamo-local", show_default=True, help="The model's name.")
@click.option("--answers", metavar="FILE", help="Scripted answers; else answers are random tokens.")
@click.option("--queue", is_flag=True, help="Let priorities act: router queue threshold 0.")
@click.option("--detach", is_flag=True, help="Return when it serves; `down` ends it.")
@click.option("--json", "as_json", is_flag=True, help="Print where it is as JSON.")
def up(
    engine: str,
    model_dir: str | None,
    workers: int,
    kv_blocks: int | None,
    speedup: float | None,
    port: int | None,
    model: str,
    answers: str | None,
    queue: bool,
    detach: bool,
    as_json: bool,
) -> None:
    """Start an embedded Dynamo for any client: a real frontend and router, on loopback only.

    Its engines are simulated; with `--engine vllm` (docs/engine.md) they compute, which takes a minute to start.
    The router has the flags that we recommend for clusters: cache-aware, soft session affinity, output blocks counted.
    """
    if detach:
        _tell(_detached(click.get_current_context()), as_json, "`nat dynamo down` ends it.")
        return
    import asyncio

    from nat_dynamo_plugin.cli.embedded.keeper import keep_one
    from nat_dynamo_plugin.config.local import LocalDynamoConfig
    from nat_dynamo_plugin.local import LocalDynamoError

    simulated = engine == "mocker"
    given = {"kv_blocks": kv_blocks, "speedup": 1.0 if simulated and speedup is None else speedup, "model": model_dir}
    settings = {name: value for name, value in given.items() if value is not None} | {
        "engine": engine,
        "workers": workers,
        "port": port,
        "scripted_answers": answers,
        "queue_threshold": 0 if queue else None,
        "track_output_blocks": True,
    }
    _show_progress()
    try:
        config = LocalDynamoConfig.model_validate(settings)
        asyncio.run(keep_one(config, model, lambda one: _tell(one, as_json, "Ctrl-C ends it.")))
    except (LocalDynamoError, ValueError) as error:
        raise click.ClickException(str(error)) from None


def _show_progress() -> None:
    """Print how far a start is that takes long, where `--json` does not look."""
    import logging

    from nat_dynamo_plugin.local.engines.engine import progress

    progress.addHandler(logging.StreamHandler(sys.stderr))
    progress.setLevel(logging.INFO)
    progress.propagate = False


def _tell(one: Running, as_json: bool, hint: str) -> None:
    if as_json:
        click.echo(json.dumps(one.to_dict()))
    else:
        click.echo(_text(one, hint))
    sys.stdout.flush()


def _text(one: Running, hint: str) -> str:
    question = json.dumps({"model": one.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16})
    kind = "simulated" if one.engine == "mocker" else one.engine
    return f"""Dynamo with {one.workers} {kind} workers serves {one.model} on {one.base_url}. {hint}

llms:
  my_llm:
    _type: dynamo
    base_url: {one.base_url}
    model_name: {one.model}

curl {one.base_url}/chat/completions -H 'content-type: application/json' -d '{question}'"""


def _detached(context: click.Context) -> Running:
    """Start the same command without `--detach`, in a session of its own, and wait until it serves.

    Raises:
        click.ClickException: it can not be started.
    """
    from nat_dynamo_plugin.cli.embedded.running import Running, beginning, forget, keep

    asked = ["--json"]
    for option in context.command.params:
        value = context.params[option.name or ""]
        if option.name not in ("detach", "as_json") and value not in (None, False):
            asked += [option.opts[0], *([] if value is True else [str(value)])]
    # A pipe would be closed with this process, and what is logged later would break the other one.
    with tempfile.TemporaryFile("w+") as problems:
        process = subprocess.Popen(
            [sys.executable, "-m", "nat_dynamo_plugin.cli", "up", *asked],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=problems,
            text=True,
            start_new_session=True,
        )
        # `down` is to find it before it has got as far as to say so itself.
        start = beginning(
            process.pid,
            port=context.params["port"],
            model=context.params["model"],
            workers=context.params["workers"],
        )
        with contextlib.suppress(OSError):  # it says so itself
            keep(start)
        assert process.stdout is not None
        with process.stdout as said:
            line = said.readline()
        forget(start)
        if not line:
            status = process.wait()
            problems.seek(0)
            text = problems.read().strip().split("Error: ", 1)[-1]  # after how far it was
            ended = "it was asked to end while it started" if status in (0, -signal.SIGTERM) else ""
            raise click.ClickException(text or ended or f"it ended with status {status}")
    found = json.loads(line)
    found.pop("base_url")
    return Running(**found)


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def status(as_json: bool) -> None:
    """Show the embedded Dynamos that `up` has started. Exit code 1 if none serves."""
    found = _running()
    if as_json:
        click.echo(json.dumps([one.to_dict() for one in found]))
    else:
        for one in found:
            where = "starting" if one.starting else one.base_url
            click.echo(f"{where}  {one.model}  {one.workers} workers  process {one.pid}")
        if not found:
            click.echo("None is running.")
    raise SystemExit(0 if any(not one.starting for one in found) else 1)


def _running() -> list[Running]:
    """Those that run; of those that were killed it is said once."""
    from nat_dynamo_plugin.cli.embedded.running import all_running

    found, gone = all_running()
    for one in gone:
        click.echo(f"{one.name} is gone: its process {one.pid} was killed", err=True)
    return found


def _chosen(port: int | None) -> list[Running]:
    found = _running()
    if port is None:
        return found
    if chosen := [one for one in found if one.port == port]:
        return chosen
    ports = ", ".join(str(one.port) for one in found) or "none"
    raise click.BadParameter(f"{port}: no embedded Dynamo of ours is there; running: {ports}", param_hint="--port")


@click.command("logs")
@click.option("--port", type=int, help="Of the one on this port, if several run.")
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C, or until it ends.")
def logs(port: int | None, follow: bool) -> None:
    """Print what the processes of an embedded Dynamo have logged."""
    found = [one for one in _chosen(port) if not one.starting]
    if len(found) != 1:
        raise click.UsageError("None is running." if not found else "Several run: choose one by --port.")
    one, read = found[0], dict[Path, int]()
    while True:
        for file in sorted(Path(one.log_dir).glob("*.log")):
            with file.open(encoding="utf-8", errors="replace") as text:
                text.seek(read.get(file, 0))
                for line in text:
                    click.echo(f"{file.stem}: {line}", nl=False)
                read[file] = text.tell()
        if not follow or not one.lives:
            return
        time.sleep(0.2)


@click.command("down")
@click.option("--port", type=int, help="Only the one on this port.")
def down(port: int | None) -> None:
    """End the embedded Dynamos that `up` has started, also those that are still starting. Harmless if none runs."""
    from nat_dynamo_plugin.cli.embedded.running import forget

    found = _chosen(port)
    for one in found:
        _signal(one, signal.SIGTERM)
    deadline = time.monotonic() + END_S
    for one in found:
        while one.lives and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        if one.lives:
            _signal(one, signal.SIGKILL)  # its supervisor ends the rest
        forget(one)  # if it could not do so itself
        click.echo(f"{one.name} is down")
    if not found:
        click.echo("None is running.")


def _signal(one: Running, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(one.pid, number)
