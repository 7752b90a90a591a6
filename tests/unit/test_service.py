"""What the provider hands to clients; the embedded Dynamo itself is tested in tests/local and tests/conformance."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from nat_dynamo_plugin import guards
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.http.flow import Layer
from nat_dynamo_plugin.layers.recording import ReplayLayer
from nat_dynamo_plugin.recording.conversations import Conversations
from nat_dynamo_plugin.running import running_service, service_of
from nat_dynamo_plugin.service import make_service

KEY = "sk-not-a-real-key"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def config(**fields: object) -> DynamoModelConfig:
    return DynamoModelConfig(**{"model_name": "m", "base_url": "http://127.0.0.1:1/v1", **fields})


async def test_clients_of_one_build_share_a_service() -> None:
    c = config()
    async with running_service(c) as service:
        assert service_of(c) is service
        assert service.planner is not None and service.admission is None
    assert c.running_service is None


async def test_a_service_left_in_another_task_is_over_everywhere() -> None:
    c = config(model_name="old")
    running = running_service(c)
    old = await running.__aenter__()
    await asyncio.create_task(running.__aexit__(None, None, None))
    assert service_of(c) is not old
    # Whatever a new config's id may be, it is not the old one.
    assert all(service_of(config(model_name="new")).model_name == "new" for _ in range(3))


async def test_builds_of_one_config_at_once_have_a_service_each() -> None:
    c, both = config(), asyncio.Barrier(2)

    async def build() -> None:
        async with running_service(c) as service:
            await both.wait()
            assert service_of(c) is service
            await both.wait()

    await asyncio.gather(build(), build())


def test_llms_of_one_server_and_model_share_gate_counters_and_what_it_refuses() -> None:
    made = [make_service(config(max_active_prefixes=8, temperature=t)) for t in (0, 1)]
    other = make_service(config(max_active_prefixes=8, model_name="other"))
    gates = [service.admission.gate for service in (*made, other) if service.admission is not None]
    counters = [service.planner.counters for service in (*made, other) if service.planner is not None]
    assert gates[0] is gates[1] is not gates[2]
    assert counters[0] is counters[1] is not counters[2]


def test_what_is_not_configured_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def names(layers: Iterable[Layer]) -> None:
        seen.append([type(layer).__name__ for layer in layers])

    monkeypatch.setattr("nat_dynamo_plugin.service.chained", names)
    off = {"max_retries": 0, "max_concurrency": None, "on_outage": "ignore", "connection": {"follow_redirects": False}}
    make_service(config(prefix_template=None, **off))
    make_service(config(prefix_total_requests="auto", max_active_prefixes=4, call_timeout=9))
    plain, full = seen
    assert plain == ["RecordLayer", "PayloadHeadersLayer", "AnswerLayer"]
    assert full == [
        *("RecordLayer", "PayloadHeadersLayer", "QuestionLayer", "DeadlineLayer", "LearningLayer", "AdmissionLayer"),
        *("RefusalLayer", "RetryLayer", "ConcurrencyLayer", "BreakerLayer", "RedirectLayer", "AnswerLayer"),
    ]


def test_what_shortens_a_conversation_stands_below_the_recording_and_above_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(
        "nat_dynamo_plugin.service.chained", lambda layers: seen.append([type(layer).__name__ for layer in layers])
    )
    replay = ReplayLayer(Conversations([]), lambda number: nullcontext())
    fields = {"context": {"max_tokens": 1000}, "cache": {}, "record": {"file": tmp_path / "calls.jsonl"}}
    make_service(config(**fields), replay=replay)
    at = seen[0].index("RecordingLayer")
    assert seen[0][at : at + 5] == ["RecordingLayer", "ReplayLayer", "ContextLayer", "CacheLayer", "QuestionLayer"]


@pytest.mark.parametrize(
    ("fields", "wait_s"), [({"outage_max_wait": 7}, 7.0), ({"outage_max_wait": 7, "on_outage": "fail"}, 0.0)]
)
def test_a_call_waits_for_a_server_that_is_down_as_the_config_says(fields: dict[str, Any], wait_s: float) -> None:
    layer = guards.breaker(config(**fields), "http://127.0.0.1:1")
    assert layer is not None and layer.max_wait_s == wait_s
    assert guards.breaker(config(on_outage="ignore"), "http://127.0.0.1:1") is None


def test_no_server_is_an_error() -> None:
    with pytest.raises(ValueError, match="base_url"):
        service_of(config(base_url=None))


async def test_a_config_nobody_started_is_served_all_the_same() -> None:
    c = config()
    assert service_of(c) is service_of(c)
    assert service_of(c).base_url == "http://127.0.0.1:1/v1"


def test_an_embedded_dynamo_that_nobody_started_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="is not running"):
        service_of(DynamoModelConfig(local={}))


def test_the_environment_gives_url_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:2/v1")
    url = "http://127.0.0.1:2/v1/models"
    service = make_service(config(base_url=None))
    assert service.base_url == "http://127.0.0.1:2/v1" and service.keys is not None
    assert service.keys.header_for(url, None) == f"Bearer {KEY}".encode()
    service = make_service(config(base_url=None, api_key="sk-of-the-config"))
    assert service.keys is not None and service.keys.header_for(url, None) == b"Bearer sk-of-the-config"


def test_clients_have_a_placeholder_for_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_service(config()).api_key == make_service(config(api_key=KEY)).api_key == "unused"
    assert make_service(config()).keys is None and make_service(config(api_key="unused")).keys is None
    with pytest.raises(ValueError, match="api_key=env:NO_SUCH_KEY: the environment variable is not set"):
        make_service(config(api_key="env:NO_SUCH_KEY"))


def test_no_key_in_what_is_printed() -> None:
    assert KEY not in repr(make_service(config(api_key=KEY)))
    assert KEY not in repr(config(api_key=KEY))
