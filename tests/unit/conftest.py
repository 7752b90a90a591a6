"""A clock that stands until it is moved, for the package `limits` too; and a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from .redis_server import RedisServer


class Clock:
    """Seconds since the epoch."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0 - 1_700_000_000.0 % 86400  # a window of any length begins

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def limits_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("limits.storage.memory.time", SimpleNamespace(time=made))
    monkeypatch.setattr("nat_dynamo_plugin.limits.ledger.time", made)
    return made


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path)
    made.start()
    yield made
    made.close()
