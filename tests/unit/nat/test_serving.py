"""`nat serve` with its metrics."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nat_dynamo_plugin.nat import serving


@pytest.fixture(autouse=True)
def _config_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAT_CONFIG_FILE", str(tmp_path / "config.yml"))  # as `nat serve` sets it


def config(**front_end: Any) -> Any:
    from nat.data_models.config import Config
    from nat.runtime.loader import PluginTypes, discover_and_register_plugins

    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    llm = {"_type": "dynamo", "base_url": "http://127.0.0.1:9/v1", "model_name": "m", "retry": {"max_retries": 0}}
    return Config.model_validate(
        {
            "general": {"front_end": {"_type": "fastapi", **front_end}},
            "llms": {"a": llm},
            "workflow": {"_type": "chat_completion", "llm_name": "a"},
        }
    )


def test_metrics_are_there_from_the_beginning_and_count_calls() -> None:
    app = serving.MetricsWorker(config()).build_app()
    with TestClient(app, raise_server_exceptions=False) as client:
        first = client.get("/metrics")
        assert first.status_code == 200 and first.headers["content-type"].startswith("text/plain")
        assert "# TYPE nat_dynamo_calls_total counter" in first.text
        before = _unreachable(first.text)
        client.post("/generate", json={"input_message": "hello"})
        assert _unreachable(client.get("/metrics").text) == before + 1
        assert client.get("/health").status_code == 200  # NAT's own routes are there
        assert "/metrics" not in client.get("/openapi.json").json()["paths"]


def _unreachable(text: str) -> float:
    start = 'nat_dynamo_errors_total{error="unreachable",model="m"} '
    return sum(float(line.removeprefix(start)) for line in text.splitlines() if line.startswith(start))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"nat-dynamo-plugin\[telemetry\]"):
        serving.MetricsWorker(config())


def test_where_processes_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registered: list[Any] = []
    monkeypatch.setattr(serving.atexit, "register", registered.append)
    monkeypatch.delenv(serving.FOLDER_VARIABLE, raising=False)
    assert serving._folder(SimpleNamespace(use_gunicorn=False, workers=4)) is None  # NAT's Uvicorn has one process
    assert serving._folder(SimpleNamespace(use_gunicorn=True, workers=1)) is None
    made = serving._folder(SimpleNamespace(use_gunicorn=True, workers=2))
    assert made is not None and stat.S_IMODE(made.stat().st_mode) == 0o700
    [remove] = registered
    pid = os.getpid()
    monkeypatch.setattr(serving.os, "getpid", lambda: pid + 1)
    remove()
    assert made.is_dir()  # a process that was forked leaves it
    monkeypatch.setattr(serving.os, "getpid", lambda: pid)
    remove()
    assert not made.exists()
    monkeypatch.setenv(serving.FOLDER_VARIABLE, str(tmp_path / "own"))
    own = serving._folder(SimpleNamespace(use_gunicorn=False, workers=1))
    assert own == tmp_path / "own" and own.is_dir() and len(registered) == 1
