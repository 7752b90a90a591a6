"""All tests can be run on the other engine: `--engine httpx`."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest

from nat_dynamo_plugin.http.engines import Connection, Engines


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", choices=("fast", "httpx"), help="the engine where a config has the default one")


@pytest.fixture(autouse=True, scope="session")
def _on_the_engine_asked_for(request: pytest.FixtureRequest) -> None:
    engine = request.config.getoption("--engine")
    if engine is None:
        return
    made = Engines.__init__

    def init(self: Engines, library: ModuleType, connection: Connection, base_url: str | None) -> None:
        made(self, library, replace(connection, engine=engine), base_url)

    Engines.__init__ = init  # type: ignore[method-assign]
