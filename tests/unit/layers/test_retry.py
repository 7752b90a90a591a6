"""The one retry layer: what is made again, how often, and that nothing of an answer is lost by looking into it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import pytest
from httpx_retries import RetryTransport

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.layers.retry import retry_policies

Send = Callable[..., tuple[httpx.Response | Exception, int]]


class Scripted(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers with the given responses or errors, one after the other; the last goes on."""

    def __init__(self, answers: Iterable[tuple[int, str] | Exception]) -> None:
        self.answers = list(answers)
        self.bodies: list[bytes] = []

    def _answer(self, body: bytes) -> tuple[int, str]:
        self.bodies.append(body)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        status, text = self._answer(request.read())
        return httpx.Response(status, headers={"retry-after": "0"}, stream=_Stream(text.encode()))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        status, text = self._answer(await request.aread())
        return httpx.Response(status, headers={"retry-after": "0"}, stream=_Stream(text.encode()))


class _Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that can be read once, as from a socket."""

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data

    def _take(self) -> bytes:
        assert self._data is not None, "read twice"
        data, self._data = self._data, None
        return data

    def __iter__(self) -> Any:
        yield self._take()

    async def __aiter__(self) -> Any:
        yield self._take()


@pytest.fixture(params=["sync", "async"])
def send(request: pytest.FixtureRequest) -> Send:
    """Sends a request through the policy of a config; gives the answer and how many requests it took."""

    def sync(config: DynamoModelConfig, answers: list[Any]) -> tuple[httpx.Response | Exception, int]:
        scripted = Scripted(answers)
        policies = retry_policies(config)
        with httpx.Client(transport=RetryTransport(scripted, policies[0]) if policies else scripted) as client:
            try:
                return client.post("http://dynamo/v1/chat/completions", content=b"{}"), len(scripted.bodies)
            except httpx.HTTPError as error:
                return error, len(scripted.bodies)

    async def asynchronous(config: DynamoModelConfig, answers: list[Any]) -> tuple[httpx.Response | Exception, int]:
        scripted = Scripted(answers)
        policies = retry_policies(config)
        transport = RetryTransport(scripted, policies[1]) if policies else scripted
        async with httpx.AsyncClient(transport=transport) as client:
            try:
                return await client.post("http://dynamo/v1/chat/completions", content=b"{}"), len(scripted.bodies)
            except httpx.HTTPError as error:
                return error, len(scripted.bodies)

    if request.param == "sync":
        return sync
    return lambda config, answers: asyncio.run(asynchronous(config, answers))


def config(**fields: Any) -> DynamoModelConfig:
    return DynamoModelConfig(model_name="m", **{"max_retries": 2, **fields})


@pytest.mark.parametrize(
    ("fields", "requests"),
    [
        ({}, 3),
        ({"max_retries": 0}, 1),
        ({"num_retries": 2}, 2),
        ({"num_retries": 1}, 1),
        ({"do_auto_retry": False}, 1),
        ({"retry_on_status_codes": [500]}, 1),
        ({"retry_on_status_codes": ["5xx"]}, 3),
        ({"retry_on_status_codes": [], "retry_on_errors": None}, 3),
    ],
)
def test_a_persistent_503_costs_what_the_config_says(send: Send, fields: dict[str, Any], requests: int) -> None:
    answer, made = send(config(**fields), [(503, "cold")])
    assert made == requests
    assert isinstance(answer, httpx.Response)
    assert (answer.status_code, answer.text) == (503, "cold")


@pytest.mark.parametrize("status", [408, 409, 429, 529])
def test_overload_is_tried_again(send: Send, status: int) -> None:
    answer, made = send(config(), [(status, "busy"), (200, "well")])
    assert isinstance(answer, httpx.Response)
    assert (answer.text, made) == ("well", 2)


def test_an_error_with_a_listed_text_is_tried_again(send: Send) -> None:
    fields = {"retry_on_status_codes": [503], "retry_on_errors": ["Steam Pressure"]}
    answer, made = send(config(**fields), [(418, "no steam pressure yet"), (200, "well")])
    assert isinstance(answer, httpx.Response)
    assert (answer.text, made) == ("well", 2)
    answer, made = send(config(**fields), [(418, "no steam pressure yet")])
    assert isinstance(answer, httpx.Response)
    assert (answer.text, made) == ("no steam pressure yet", 3)


def test_an_error_without_a_listed_text_is_passed_on_whole(send: Send) -> None:
    answer, made = send(config(retry_on_errors=["steam"]), [(400, "bad at line 1 column 429")])
    assert isinstance(answer, httpx.Response)
    assert (answer.text, made) == ("bad at line 1 column 429", 1)


def test_a_status_among_the_texts_means_the_status(send: Send) -> None:
    answer, made = send(config(retry_on_status_codes=[503], retry_on_errors=["418"]), [(418, "teapot"), (200, "well")])
    assert isinstance(answer, httpx.Response)
    assert (answer.text, made) == ("well", 2)


@pytest.mark.parametrize("error", [httpx.ConnectError("no"), httpx.ReadError("cut"), httpx.ConnectTimeout("late")])
def test_a_broken_connection_is_tried_again(send: Send, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr("nat_dynamo_plugin.layers.retry.BACKOFF_S", 0.0)
    answer, made = send(config(), [error, (200, "well")])
    assert isinstance(answer, httpx.Response)
    assert made == 2


def test_a_read_timeout_is_not_tried_again(send: Send) -> None:
    answer, made = send(config(), [httpx.ReadTimeout("still at work")])
    assert isinstance(answer, httpx.ReadTimeout)
    assert made == 1
