from __future__ import annotations

from collections.abc import Iterator

import pytest

from nat_dynamo_plugin.telemetry import exporters
from nat_dynamo_plugin.telemetry.record import CallRecord


@pytest.fixture
def record() -> CallRecord:
    return CallRecord(
        prefix_id="q",
        session_id="q",
        function_path=("wf",),
        hints={"osl": 9},
        api="chat_completions",
        request_model="m",
        model="m-2026",
        origin="http://dynamo:8000",
        attempts=2,
        status=200,
        started_at=100.0,
        worker_id=2**63 + 5,
        prompt_tokens=50,
        cached_tokens=32,
        completion_tokens=7,
        server_ttft_ms=20.0,
        client_ttft_ms=30.0,
        client_total_ms=250.0,
    )


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The exporters of a process that has sent no record yet."""
    monkeypatch.setattr(exporters, "_exporters", exporters._Exporters())
    yield
