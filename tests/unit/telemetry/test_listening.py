from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest

from nat_dynamo_plugin.telemetry import listening
from nat_dynamo_plugin.telemetry.listening import METRICS_ADDRESS, PORTS, expose_metrics


@pytest.fixture(autouse=True)
def _not_served_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_served_by", None)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def address_in(caplog: pytest.LogCaptureFixture) -> str:
    (message,) = [one.getMessage() for one in caplog.records if one.name == listening.__name__]
    return message.removeprefix("Metrics are at ")


def test_nothing_is_served_unless_asked_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.delenv(METRICS_ADDRESS, raising=False)
    expose_metrics()
    assert not caplog.records and listening._served_by is None


def test_it_serves_beside_who_has_the_port_already(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, taken: int
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(METRICS_ADDRESS, str(taken))
    expose_metrics()
    expose_metrics()
    url = address_in(caplog)
    assert taken < int(url.rpartition(":")[2].partition("/")[0]) < taken + PORTS
    assert url.startswith("http://127.0.0.1:")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url) as answer:
        assert b"python_info" in answer.read()


@pytest.mark.parametrize(
    ("address", "why"),
    [("no", "give a port"), ("0", "give a port"), ("127.0.0.1:70000", "give a port"), ("256.0.0.1:9", "")],
)
def test_what_can_not_be_served_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str, why: str
) -> None:
    monkeypatch.setenv(METRICS_ADDRESS, address)
    expose_metrics()
    (warning,) = caplog.records
    assert warning.levelname == "WARNING" and f"{METRICS_ADDRESS}={address!r}: no metrics" in warning.getMessage()
    assert why in warning.getMessage()


@pytest.mark.parametrize(
    ("address", "parsed"),
    [("9464", ("127.0.0.1", 9464)), ("0.0.0.0:1", ("0.0.0.0", 1)), ("[::1]:9464", ("::1", 9464))],
)
def test_host_and_port(address: str, parsed: tuple[str, int]) -> None:
    assert listening._parsed(address) == parsed


def test_a_service_serves_them() -> None:
    """In a process of its own, which has the variable from its start."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text = (
        "import logging; logging.basicConfig(level='INFO')\n"
        "from nat_dynamo_plugin.config.model import DynamoModelConfig as C\n"
        "from nat_dynamo_plugin.service import make_service\n"
        "make_service(C(model_name='m', base_url='http://127.0.0.1:9/v1'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, METRICS_ADDRESS: str(port)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Metrics are at http://127.0.0.1:" in done.stderr
