from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pytest_httpserver import HTTPServer

from nat_dynamo_plugin.admission import capacity
from nat_dynamo_plugin.admission.capacity import CapacityProbe, count_workers, worker_tokens

METRICS = """\
# HELP dynamo_frontend_model_total_kv_blocks Total KV cache blocks available for a worker serving the model
# TYPE dynamo_frontend_model_total_kv_blocks gauge
dynamo_frontend_model_total_kv_blocks{model="other"} 9
dynamo_frontend_model_total_kv_blocks{model="m"} 1664
dynamo_frontend_model_kv_cache_block_size{a="b",model="m"} 16 1700000000
dynamo_frontend_model_kv_cache_block_size{model="other"} 64
dynamo_frontend_inflight_requests{model="m"} 3
"""


def instance(component: str, endpoint: str = "generate") -> dict[str, str]:
    return {"namespace": "dynamo", "component": component, "endpoint": endpoint}


HEALTH = {"instances": [instance("backend"), instance("backend"), instance("backend", "kv_query"), instance("prefill")]}


def test_tokens_of_a_worker() -> None:
    assert worker_tokens(METRICS, "m") == 1664 * 16
    assert worker_tokens(METRICS, "other") == 9 * 64
    assert worker_tokens(METRICS, "unknown") is None
    assert worker_tokens("", "m") is None
    assert worker_tokens('dynamo_frontend_model_total_kv_blocks{model="m"}', "m") is None


@pytest.mark.parametrize(
    ("health", "count"), [(HEALTH, 2), ({}, 0), ({"instances": None}, 0), ([], 0), ({"instances": [3]}, 0), (None, 0)]
)
def test_workers_are_the_instances_that_generate(health: object, count: int) -> None:
    assert count_workers(health) == count


class Frontend:
    """A frontend's pages, and a probe that asks for them; `url` is that of a call."""

    def __init__(self, server: HTTPServer, root: str = "") -> None:
        self.server = server
        self.root = root
        self.told: list[int] = []
        self.probe = CapacityProbe("m", self.told.append)
        self.url = httpx.URL(server.url_for(f"{root}/v1/chat/completions"))

    def serve(self, page: str, **answer: Any) -> None:
        respond = self.server.expect_request(f"{self.root}{page}")
        respond.respond_with_json(answer["json"]) if "json" in answer else respond.respond_with_data(**answer)

    def call(self) -> None:
        """A call, and the end of what it begins."""
        self.probe.called(self.url)
        for thread in threading.enumerate():
            if thread.name == "dynamo-capacity":
                thread.join(10)

    def pages(self) -> list[str]:
        return [request.path for request, _ in self.server.log]


@pytest.mark.parametrize("root", ["", "/behind/a/gateway"])
def test_asks_the_frontend_that_serves_the_call(httpserver: HTTPServer, root: str) -> None:
    frontend = Frontend(httpserver, root)
    frontend.serve("/metrics", response_data=METRICS)
    frontend.serve("/health", json=HEALTH)
    frontend.call()
    assert frontend.told == [2 * 1664 * 16]
    frontend.call()
    assert len(frontend.told) == 1, "it was asked a moment ago"


def test_asks_again_how_many_workers_there_are(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "EVERY_S", 0.0)
    frontend = Frontend(httpserver)
    frontend.serve("/metrics", response_data=METRICS)
    frontend.serve("/health", json=HEALTH)
    frontend.call()
    frontend.call()
    assert frontend.told == [2 * 1664 * 16] * 2
    assert frontend.pages() == ["/metrics", "/health", "/health"]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda frontend: None,
        lambda frontend: frontend.serve("/metrics", response_data="nothing of ours"),
        lambda frontend: frontend.serve("/metrics", status=401),
        lambda frontend: (
            frontend.serve("/metrics", response_data=METRICS),
            frontend.serve("/health", response_data="<html>"),
        ),
        lambda frontend: (
            frontend.serve("/metrics", response_data=METRICS),
            frontend.serve("/health", json={"instances": []}),
        ),
    ],
    ids=["no pages", "other metrics", "refused", "other health", "no workers"],
)
def test_a_server_that_does_not_say_is_asked_ever_less_often(
    httpserver: HTTPServer, break_it: Callable[[Frontend], None], caplog: pytest.LogCaptureFixture
) -> None:
    frontend = Frontend(httpserver)
    break_it(frontend)
    with caplog.at_level("INFO", logger="nat_dynamo_plugin.admission.capacity"):
        for misses in range(1, 4):
            frontend.probe._next = 0.0
            frontend.call()
            assert frontend.probe._misses == misses
    assert frontend.told == []
    (message,) = [
        record.getMessage() for record in caplog.records if record.name == "nat_dynamo_plugin.admission.capacity"
    ]
    assert "goes by what answers tell alone" in message


def test_a_server_that_is_not_there_is_no_error() -> None:
    told: list[int] = []
    probe = CapacityProbe("m", told.append)
    probe._ask(httpx.URL("http://127.0.0.1:9/"))
    assert told == []


def test_a_server_that_never_says_is_asked_for_ever() -> None:
    probe = CapacityProbe("m", lambda tokens: None)
    probe._misses = 5000
    probe._asking = True
    probe._ask(httpx.URL("http://127.0.0.1:9/"))
    assert not probe._asking
