"""The transport against scripted servers in memory: what Dynamo does not do on demand."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.dialects.scripted import Replay
from nat_dynamo_plugin.question.hints import DynamoHints
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext
from nat_dynamo_plugin.service import make_service
from nat_dynamo_plugin.telemetry.exporters import set_exporters
from nat_dynamo_plugin.telemetry.record import CallRecord
from nat_dynamo_plugin.transport import DynamoTransport

URL = "http://127.0.0.1:1/v1/chat/completions"
ANSWER = {
    "model": "m",
    "choices": [{"message": {}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 4, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}},
    "nvext": {"worker_id": {"decode_worker_id": 7}, "timing": {"ttft_ms": 1.5, "total_time_ms": 3.0}},
}
_numbers = itertools.count()
Handler = Callable[[httpx.Request], httpx.Response]


class Server:
    """A scripted server that keeps what it was sent."""

    def __init__(self, answer: Handler | None = None) -> None:
        self.requests: list[httpx.Request] = []
        self.bodies: list[Any] = []
        self._answer = answer or (lambda request: httpx.Response(200, json=ANSWER))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        return self._take(request)

    async def asynchronous(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self._take(request)

    def _take(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        try:
            self.bodies.append(json.loads(request.content))
        except ValueError:
            self.bodies.append(request.content)
        assert int(request.headers.get("content-length", len(request.content))) == len(request.content)
        return self._answer(request)


class Setup:
    """A sync and an async client on one service, and the records they leave."""

    def __init__(self, server: Server, **config: Any) -> None:
        self.server = server
        self.records: list[CallRecord] = []
        # A server of its own, for what is known of servers is shared.
        url = f"http://server-{next(_numbers)}/v1"
        made = DynamoModelConfig(**{"model_name": "m", "base_url": url, "max_retries": 0, **config})
        self.url = f"{url}/chat/completions"
        self.service = make_service(made, emit_record=self.records.append)
        self.sync = httpx.Client(transport=DynamoTransport(httpx.MockTransport(server), self.service))
        self.asynchronous = httpx.AsyncClient(
            transport=DynamoTransport(httpx.MockTransport(server.asynchronous), self.service)
        )


@pytest.fixture(params=["sync", "async"])
def post(request: pytest.FixtureRequest) -> Callable[..., httpx.Response]:
    def send(setup: Setup, url: str | None = None, **kwargs: Any) -> httpx.Response:
        url = url or setup.url
        if request.param == "sync":
            return setup.sync.post(url, **kwargs)
        return asyncio.run(setup.asynchronous.post(url, **kwargs))

    return send


Post = Callable[..., httpx.Response]


class TestWhatIsSent:
    def test_headers_body_and_record(self, post: Post) -> None:
        setup = Setup(Server())
        with DynamoPrefixContext.scope("q1"):
            assert post(setup, json={"model": "m", "messages": []}).json() == ANSWER
        request, body = setup.server.requests[0], setup.server.bodies[0]
        assert request.headers["x-dynamo-session-id"] == "q1" == request.headers["x-prefix-id"]
        assert request.headers["x-prefix-osl"] == "MEDIUM"
        assert body["nvext"] == {
            "agent_hints": {"osl": 512, "speculative_prefill": True},
            "extra_fields": ["worker_id", "timing"],
        }
        assert body["messages"] == []
        (record,) = setup.records
        assert (record.prefix_id, record.session_id, record.call_index) == ("q1", "q1", 0)
        assert (record.worker_id, record.cached_tokens, record.status) == (7, 0, 200)
        assert record.hints == {"osl": 512, "speculative_prefill": True}
        assert record.wire == ("dynamo", "prefix_headers") and record.api == "chat_completions"

    def test_the_callers_headers_and_nvext_win(self, post: Post) -> None:
        setup = Setup(Server())
        with DynamoPrefixContext.scope("q"):
            post(
                setup,
                json={"nvext": {"agent_hints": {"osl": 3}, "annotations": ["k:v"]}},
                headers={"X-Dynamo-Session-Id": "his"},
            )
        assert setup.server.requests[0].headers.get_list("x-dynamo-session-id") == ["his"]
        nvext = setup.server.bodies[0]["nvext"]
        assert nvext["agent_hints"]["osl"] == 3 and nvext["annotations"] == ["k:v"]
        assert setup.records[0].hints == nvext["agent_hints"], "the record says what was sent"
        assert (setup.records[0].session_id, setup.records[0].prefix_id) == ("his", "q")

    def test_hints_off_leaves_a_call_as_it_is(self, post: Post) -> None:
        setup = Setup(Server(), prefix_template=None)
        post(setup, json={"model": "m"})
        assert setup.server.bodies[0] == {"model": "m"}
        assert not [h for h in setup.server.requests[0].headers if h.startswith(("x-dynamo", "x-prefix"))]
        assert setup.records[0].worker_id == 7 and setup.records[0].prefix_id is None

    def test_hints_off_and_telemetry_asked_for(self, post: Post) -> None:
        setup = Setup(Server(), prefix_template=None, prefix_wire=["telemetry"])
        post(setup, json={"model": "m"})
        assert setup.server.bodies[0] == {"nvext": {"extra_fields": ["worker_id", "timing"]}, "model": "m"}
        assert not [h for h in setup.server.requests[0].headers if h.startswith(("x-dynamo", "x-prefix"))]

    def test_the_record_says_what_was_sent(self, post: Post) -> None:
        setup = Setup(Server())
        with DynamoPrefixContext.scope("q1"):
            post(setup, json={"nvext": {"agent_hints": {"osl": 3}}}, headers={"x-dynamo-session-id": "his"})
        (record,) = setup.records
        assert record.hints["osl"] == 3 and record.hints["speculative_prefill"] is True
        assert (record.prefix_id, record.session_id, record.parent_session_id) == ("q1", "his", None)

    def test_the_record_says_what_is_to_come_and_how_often_was_asked(self, post: Post) -> None:
        statuses = iter([200, 500, 200, 200])
        setup = Setup(Server(lambda request: httpx.Response(next(statuses), json=ANSWER)), max_retries=1)
        with DynamoPrefixContext.scope("q1"), DynamoHints.scope(total_requests=3):
            for _ in range(3):
                post(setup, json={"model": "m"})
        assert [(r.call_index, r.calls_to_come, r.attempts) for r in setup.records] == [(0, 2, 1), (1, 1, 2), (2, 0, 1)]
        assert [r.retry_wait_ms > 0 for r in setup.records] == [False, True, False]

    @pytest.mark.parametrize("base_url", ["http://ann:hunter2@llm.invalid/v1", None])
    def test_a_password_in_the_url_is_neither_recorded_nor_logged(
        self, post: Post, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, base_url: str | None
    ) -> None:
        monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
        statuses = iter([500, 400, 200])
        setup = Setup(
            Server(lambda request: httpx.Response(next(statuses), json=ANSWER)), max_retries=1, base_url=base_url
        )
        with caplog.at_level(logging.DEBUG, "nat_dynamo_plugin"):
            post(setup, "http://ann:hunter2@llm.invalid/v1/chat/completions", json={})
        assert len(caplog.records) == 2, "a retry and a refusal"
        assert all("http://llm.invalid" in record.getMessage() for record in caplog.records)
        assert setup.records[0].origin == "http://llm.invalid" and "hunter2" not in caplog.text

    @pytest.mark.parametrize("path", ["completions", "responses", "chat/completions/"])
    def test_the_other_apis(self, post: Post, path: str) -> None:
        setup = Setup(Server())
        post(setup, f"http://127.0.0.1:1/v1/{path}", json={"model": "m"})
        assert "nvext" in setup.server.bodies[0]

    @pytest.mark.parametrize("path", ["embeddings", "models", "chat/completions/x"])
    def test_other_paths_pass_untouched(self, post: Post, path: str) -> None:
        setup = Setup(Server())
        post(setup, f"http://127.0.0.1:1/v1/{path}", json={"model": "m"})
        assert setup.server.bodies == [{"model": "m"}] and not setup.records
        assert "x-prefix-id" not in setup.server.requests[0].headers

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"content": b"[1,2]", "headers": {"content-type": "application/json"}},
            {"content": b"", "headers": {"content-type": "application/json"}},
            {"content": b'{"a":1}', "headers": {"content-type": "text/plain"}},
            {"content": b'{"a":1}', "headers": {"content-encoding": "gzip"}},
            {"data": {"a": "1"}},
            {"files": {"a": b"1"}},
        ],
    )
    def test_a_body_that_is_no_plain_json_object_keeps_its_bytes(self, post: Post, kwargs: dict[str, Any]) -> None:
        setup = Setup(Server())
        plain: list[bytes] = []
        httpx.Client(transport=httpx.MockTransport(lambda r: plain.append(r.read()) or httpx.Response(200))).post(
            URL, **kwargs
        )
        post(setup, **kwargs)
        if "files" not in kwargs:  # whose boundary is random
            assert setup.server.requests[0].content == plain[0]
        assert setup.records[0].hints == {}

    def test_a_streaming_upload_passes(self) -> None:
        setup = Setup(Server())

        def pieces() -> Iterator[bytes]:
            yield b'{"a":'
            yield b"1}"

        setup.sync.post(URL, content=pieces(), headers={"content-type": "application/json"})
        assert setup.server.bodies == [{"a": 1}]

    def test_the_callers_request_is_left_as_it_is(self) -> None:
        setup = Setup(Server())
        request = setup.sync.build_request("POST", URL, json={"model": "m"})
        before = (request.headers.raw, request.read())
        setup.sync.send(request)
        setup.sync.send(request)
        assert (request.headers.raw, request.read()) == before
        assert setup.server.bodies[0] == setup.server.bodies[1]

    def test_a_scope_reaches_the_wire(self, post: Post) -> None:
        setup = Setup(Server())
        with DynamoHints.scope(total_requests=1, osl=77, priority=5):
            post(setup, json={})
        hints = setup.server.bodies[0]["nvext"]["agent_hints"]
        assert hints["osl"] == 77 and hints["priority"] == 5 and "speculative_prefill" not in hints
        assert "x-dynamo-session-id" not in setup.server.requests[0].headers

    def test_the_embedded_servers_script_is_named(self, post: Post) -> None:
        setup = Setup(Server())
        service = make_service(
            DynamoModelConfig(model_name="m", prefix_template=None),
            script=Replay(lambda: "task/0/1"),
            emit_record=print,
        )
        setup.sync = httpx.Client(transport=DynamoTransport(httpx.MockTransport(setup.server), service))
        transport = DynamoTransport(httpx.MockTransport(setup.server.asynchronous), service)
        setup.asynchronous = httpx.AsyncClient(transport=transport)
        post(setup, json={})
        assert setup.server.bodies[0]["nvext"]["annotations"] == ["output_replay_id:task/0/1"]


def refusing(message: str, status: int = 400) -> Handler:
    def answer(request: httpx.Request) -> httpx.Response:
        if b"nvext" in request.content:
            return httpx.Response(status, json={"error": {"message": message}})
        return httpx.Response(200, json=ANSWER)

    return answer


class TestRefusal:
    @pytest.mark.parametrize("status", [400, 422])
    def test_the_call_goes_through_and_the_server_is_remembered(
        self, post: Post, caplog: pytest.LogCaptureFixture, status: int
    ) -> None:
        setup = Setup(Server(refusing("Unrecognized request argument supplied: nvext", status)))
        with caplog.at_level(logging.WARNING, "nat_dynamo_plugin"):
            for _ in range(5):
                assert post(setup, json={"model": "m"}).status_code == 200
        assert len(setup.server.requests) == 6, "one extra request, once"
        assert ["nvext" in body for body in setup.server.bodies] == [True, False, False, False, False, False]
        assert all("x-dynamo-session-id" in r.headers for r in setup.server.requests)
        assert len(caplog.records) == 1 and "refuses" in caplog.text
        assert len(setup.records) == 5 and all(r.hints == {} and r.status == 200 for r in setup.records)

    def test_another_400_is_passed_on_and_turns_nothing_off(self, post: Post) -> None:
        setup = Setup(Server(lambda r: httpx.Response(400, json={"error": {"message": "max_tokens is too large"}})))
        for _ in range(2):
            response = post(setup, json={})
            assert response.status_code == 400
            assert response.json()["error"]["message"].startswith("max_tokens is too large [")
        assert ["nvext" in body for body in setup.server.bodies] == [True, False, True, False]
        assert [record.error for record in setup.records] == ["max_tokens is too large"] * 2

    def test_sync_and_async_share_what_was_learned(self) -> None:
        setup = Setup(Server(refusing("unknown field `agent_hints`")))
        setup.sync.post(setup.url, json={})
        asyncio.run(setup.asynchronous.post(setup.url, json={}))
        assert len(setup.server.requests) == 3


class Pieces(httpx.AsyncByteStream, httpx.SyncByteStream):
    """A response body in pieces that knows whether it was closed."""

    def __init__(self, pieces: list[bytes], error: Exception | None = None) -> None:
        self.pieces, self.error, self.closed = pieces, error, False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.error:
            raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
            await asyncio.sleep(0)
        if self.error:
            raise self.error

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


EVENTS = [b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'] * 3 + [
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
]


def streaming(body: Pieces) -> Handler:
    return lambda request: httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=body)


class TestStreams:
    async def test_bytes_pass_unchanged(self) -> None:
        body = Pieces(EVENTS)
        setup = Setup(Server(streaming(body)))
        async with setup.asynchronous.stream("POST", URL, json={}) as response:
            assert [chunk async for chunk in response.aiter_raw()] == EVENTS
        assert body.closed
        (record,) = setup.records
        assert record.streamed and record.finish_reason == "stop" and record.error is None

    async def test_an_early_close_closes_the_servers_side_and_is_said(self) -> None:
        body = Pieces(EVENTS)
        setup = Setup(Server(streaming(body)))
        async with setup.asynchronous.stream("POST", URL, json={}) as response:
            async for _ in response.aiter_raw():
                break
        assert body.closed
        assert setup.records[0].error == "closed before the answer was complete"

    def test_an_early_close_sync(self) -> None:
        body = Pieces(EVENTS)
        setup = Setup(Server(streaming(body)))
        with setup.sync.stream("POST", URL, json={}) as response:
            next(response.iter_raw())
        assert body.closed and len(setup.records) == 1

    async def test_cancellation_closes_and_is_recorded_once(self) -> None:
        started = asyncio.Event()

        class Hanging(Pieces):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                yield EVENTS[0]
                started.set()
                await asyncio.Event().wait()

        body = Hanging([])
        setup = Setup(Server(streaming(body)))

        async def read() -> None:
            async with setup.asynchronous.stream("POST", URL, json={}) as response:
                async for _ in response.aiter_raw():
                    pass

        task = asyncio.create_task(read())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert body.closed
        assert len(setup.records) == 1 and "CancelledError" in (setup.records[0].error or "")

    @pytest.mark.parametrize("ends", [True, False])
    async def test_a_stream_that_is_left_at_its_last_event_keeps_its_connection_if_it_ends(self, ends: bool) -> None:
        connections = 0

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    (length,) = re.findall(rb"content-length: (\d+)", head.lower())
                    await reader.readexactly(int(length))
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
                    writer.write(b"transfer-encoding: chunked\r\n\r\n")
                    for event in EVENTS:
                        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                        await writer.drain()
                        await asyncio.sleep(0.001)
                    if ends:
                        writer.write(b"0\r\n\r\n")
            writer.close()

        records: list[CallRecord] = []
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            service = make_service(DynamoModelConfig(model_name="m"), emit_record=records.append)
            transport = DynamoTransport(httpx.AsyncHTTPTransport(), service)
            async with httpx.AsyncClient(transport=transport) as client:
                for _ in range(3):
                    url = f"http://127.0.0.1:{port}/v1/chat/completions"
                    async with client.stream("POST", url, json={}) as response:
                        async for line in response.aiter_lines():
                            if line == "data: [DONE]":
                                break
        assert connections == (1 if ends else 3)
        assert [record.error for record in records] == [None, None, None]

    async def test_a_broken_connection_keeps_its_error(self) -> None:
        setup = Setup(Server(streaming(Pieces(EVENTS[:1], httpx.ReadError("reset")))))
        with pytest.raises(httpx.ReadError):
            await setup.asynchronous.post(URL, json={})
        assert setup.records[0].error == "ReadError: reset"

    def test_no_answer_at_all_is_recorded(self, post: Post) -> None:
        def gone(request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused")

        setup = Setup(Server(gone))
        with pytest.raises(httpx.ConnectError):
            post(setup, json={})
        assert setup.records[0].status is None and setup.records[0].error == "ConnectError: refused"


class TestIsolation:
    async def test_a_thousand_concurrent_questions_see_only_their_own(self) -> None:
        setup = Setup(Server())

        async def question(i: int) -> None:
            with DynamoPrefixContext.scope(f"q{i}"), DynamoHints.scope(total_requests=2 + i % 40, osl=i + 1):
                for _ in range(3):
                    await setup.asynchronous.post(URL, json={"user": str(i)})
                    await asyncio.sleep(0)

        await asyncio.gather(*map(question, range(1000)))
        assert len(setup.server.requests) == 3000
        for request, body in zip(setup.server.requests, setup.server.bodies, strict=True):
            i = int(body["user"])
            assert request.headers["x-dynamo-session-id"] == f"q{i}"
            assert request.headers["x-prefix-total-requests"] == str(2 + i % 40)
            assert body["nvext"]["agent_hints"]["osl"] == i + 1
        indexes: dict[str | None, list[int]] = {}
        for record in setup.records:
            indexes.setdefault(record.prefix_id, []).append(record.call_index)
        assert len(indexes) == 1000 and all(sorted(v) == [0, 1, 2] for v in indexes.values())

    def test_threads_count_each_call_once(self) -> None:
        setup = Setup(Server())

        def question() -> None:
            with DynamoPrefixContext.scope("shared"):
                for _ in range(20):
                    setup.sync.post(URL, json={})

        threads = [threading.Thread(target=question) for _ in range(8)]
        # It would end with a thread that is done before the next one begins.
        with DynamoPrefixContext.held("shared"):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted(r.call_index for r in setup.records) == list(range(160))

    def test_an_exporter_that_fails_does_not_fail_the_call(self) -> None:

        def broken(record: CallRecord) -> None:
            raise RuntimeError("broken")

        seen: list[CallRecord] = []
        set_exporters([broken, seen.append])
        try:
            client = httpx.Client(transport=DynamoTransport(httpx.MockTransport(Server())))
            assert client.post(URL, json={}).status_code == 200
        finally:
            set_exporters(None)
        assert len(seen) == 1
