"""The process that keeps one embedded Dynamo: starts it, says where it is, and ends it when asked to."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from nat_dynamo_plugin.cli.embedded.running import Running, beginning, folder, forget, keep
from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoError
from nat_dynamo_plugin.processes import this_process

LOOK_S = 0.5
"""Seconds between looks whether Dynamo is still alive."""


async def keep_one(config: LocalDynamoConfig, model: str, ready: Callable[[Running], None]) -> None:
    """Run an embedded Dynamo until SIGINT or SIGTERM.

    Args:
        config: its settings.
        model: the model's name.
        ready: is told where it is, once all workers serve.

    Raises:
        LocalDynamoError: it can not be started, one of its processes died, or where it is can not be written down.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    start = beginning(os.getpid(), port=config.port, model=model, workers=config.workers)
    _keep(start)
    try:
        dynamo = LocalDynamo(config, model_name=model)
        if not await _started(dynamo, asked):
            return
        try:
            await _until_asked(dynamo, _serving(dynamo, model), asked, start, ready)
        finally:
            await dynamo.stop()
    finally:
        forget(start)


def _serving(dynamo: LocalDynamo, model: str) -> Running:
    return Running(
        pid=os.getpid(),
        owner=this_process(),
        port=int(dynamo.frontend_url.rpartition(":")[2]),
        model=model,
        workers=dynamo.config.workers,
        work_dir=str(dynamo.work_dir),
        log_dir=str(dynamo.log_dir),
        engine=dynamo.config.engine,
    )


def _keep(one: Running) -> None:
    try:
        keep(one)
    except OSError as error:
        raise LocalDynamoError(
            f"{str(folder())!r} can not be written: {error.strerror}; XDG_STATE_HOME: a folder of yours"
        ) from None


async def _until_asked(
    dynamo: LocalDynamo, one: Running, asked: asyncio.Event, start: Running, ready: Callable[[Running], None]
) -> None:
    """Let it be found while it serves."""
    _keep(one)
    forget(start)
    try:
        ready(one)
        while not asked.is_set():
            dynamo.check_alive()
            try:
                await asyncio.wait_for(asked.wait(), LOOK_S)
            except TimeoutError:
                continue
    finally:
        forget(one)


async def _started(dynamo: LocalDynamo, asked: asyncio.Event) -> bool:
    """Start it, unless it is asked to end before it serves."""
    starting, ending = asyncio.ensure_future(dynamo.start()), asyncio.ensure_future(asked.wait())
    await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.wait((starting,))
        return False
    starting.result()
    return True
