"""A server and an LLM with a cache in front of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..redis_server import RedisServer
from .upstream import Model, Upstream


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """The server."""
    made = Upstream()
    yield made
    made.close()


@pytest.fixture
def model(upstream: Upstream) -> Model:
    """The LLM."""
    return Model(upstream)


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    """A Redis."""
    return redis_server
