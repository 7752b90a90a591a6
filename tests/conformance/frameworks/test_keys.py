"""A canary for a key, told back by a server that takes no key: nothing that any framework says or logs has it."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from nat_dynamo_plugin.telemetry.record import CallRecord

from .conftest import Client
from .drivers import Driver
from .servers import Fault, FaultServer

CANARY = "sk-canary+of/all=frameworks"


@pytest.fixture(params=["env", "file", "clear"])
def api_key(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The canary's place, each with the line end that mounted secrets have."""
    if request.param == "env":
        monkeypatch.setenv("CANARY_API_KEY", f"{CANARY}\n")
        return "env:CANARY_API_KEY"
    if request.param == "file":
        (tmp_path / "key").write_text(f"{CANARY}\n")
        return f"file:{tmp_path / 'key'}"
    return f"{CANARY}\n"


def has_canary(text: str) -> bool:
    """Whether a text has it, as it is or escaped, or the better part of it."""
    forms = (CANARY, quote(CANARY, safe=""), quote(CANARY), json.dumps(CANARY).replace("/", "\\/")[1:-1])
    return any(form[:12] in text for form in forms)


@pytest.mark.parametrize("status", [401, 500])
async def test_no_canary_is_said(
    driver: Driver,
    client: Client,
    faults: Callable[..., FaultServer],
    records: list[CallRecord],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    api_key: str,
    status: int,
) -> None:
    message = f"Incorrect API key provided: {CANARY}; b'Bearer {CANARY}\\n'; ?key={quote(CANARY, safe='')}"
    server = faults(Fault(status, message, {}))
    written: list[Any] = []
    with caplog.at_level(logging.DEBUG):
        async with client(base_url=server.base_url, api_key=api_key, max_retries=0, **driver.plain_config) as llm:
            for ask in (driver.ask, driver.stream):
                with pytest.raises(Exception) as caught:
                    await ask(llm, "Is the valve shut?")
                written += [str(caught.value), repr(caught.value), *traceback.format_exception(caught.value)]
            written.append(repr(llm))
    written += [repr(record) + json.dumps(record.to_dict()) for record in records]
    written += [caplog.text, *(repr(vars(record)) for record in caplog.records), *capfd.readouterr()]
    assert {exchange.headers["authorization"] for exchange in server.exchanges} == {f"Bearer {CANARY}"}
    assert records and all(record.failed for record in records)
    assert not [text for text in written if has_canary(text)]
    # What is not the key is still said.
    assert any("Incorrect API key provided: ***" in text for text in written)
