"""The process that keeps one embedded Dynamo."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from nat_dynamo_plugin.cli.embedded import keeper
from nat_dynamo_plugin.cli.embedded.running import all_running
from nat_dynamo_plugin.config.local import LocalDynamoConfig


def test_one_that_is_asked_to_end_while_it_starts_does_not_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    happened = []

    class NeverServes:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        async def start(self) -> None:
            happened.extend(one.starting for one in all_running()[0])
            os.kill(os.getpid(), signal.SIGTERM)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                happened.append("cancelled")
                raise

    monkeypatch.setattr(keeper, "LocalDynamo", NeverServes)
    asyncio.run(keeper.keep_one(LocalDynamoConfig(), "m", lambda one: happened.append("ready")))
    assert happened == [True, "cancelled"]
    assert all_running() == ([], [])
