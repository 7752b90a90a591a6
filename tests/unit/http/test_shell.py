"""The shell and the flows, of httpx and httpx2, sync and async, against transports in memory."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

from nat_dynamo_plugin.http.banned import Banned
from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import Close, Enter, Failure, Flow, Layer, ReadBody, Send, Sleep, chained
from nat_dynamo_plugin.http.httpx2_shell import Httpx2Shell
from nat_dynamo_plugin.http.httpx_shell import HttpxShell
from nat_dynamo_plugin.telemetry.record import CallRecord

URL = "http://127.0.0.1:1/v1/chat/completions"
SHELLS = {"httpx": HttpxShell, "httpx2": Httpx2Shell}
Handler = Callable[[Any], Any]


class Ends:
    """A layer that keeps what it is told at the end of calls."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []
        self.calls: list[Call] = []
        self.ended = threading.Event()

    def flow(self, call: Call, send: Send) -> Flow:
        self.calls.append(call)
        call.on_end(self._end)
        return (yield from send(call))

    def _end(self, record: CallRecord) -> None:
        self.records.append(record)
        self.ended.set()


class Way:
    """A client of one library, blocking or not, on layers; and how to use it the same way for both."""

    def __init__(self, library: ModuleType, asynchronous: bool) -> None:
        self.library = library
        self.asynchronous = asynchronous
        self.shell = SHELLS[library.__name__]

    def stream(self, chunks: list[bytes], error: Exception | None = None, closed: list[bool] | None = None) -> Any:
        """A body of the library that comes in chunks and may break."""
        lib = self.library

        class Body(lib.SyncByteStream, lib.AsyncByteStream):  # type: ignore[name-defined,misc]
            def __iter__(self) -> Iterator[bytes]:
                yield from chunks
                if error is not None:
                    raise error

            async def __aiter__(self) -> AsyncIterator[bytes]:
                for chunk in chunks:
                    await asyncio.sleep(0)
                    yield chunk
                if error is not None:
                    raise error

            def close(self) -> None:
                if closed is not None:
                    closed.append(True)

            async def aclose(self) -> None:
                self.close()

        return Body()

    def post(self, handler: Handler, *layers: Layer, **kwargs: Any) -> Any:
        """The response to one POST, read to its end."""
        transport = self.shell(self._mock(handler), chained(layers))
        kwargs = {"json": {"a": 1}, **kwargs}
        if not self.asynchronous:
            with self.library.Client(transport=transport) as client:
                return client.post(URL, **kwargs)

        async def send() -> Any:
            async with self.library.AsyncClient(transport=transport) as client:
                return await client.post(URL, **kwargs)

        return asyncio.run(send())

    def lines(self, handler: Handler, *layers: Layer, most: int = 1000) -> list[bytes]:
        """The first chunks of a streamed response, which is closed then."""
        transport = self.shell(self._mock(handler), chained(layers))
        seen: list[bytes] = []
        if not self.asynchronous:
            with (
                self.library.Client(transport=transport) as client,
                client.stream("POST", URL, json={"a": 1}) as response,
            ):
                for chunk in response.iter_raw():
                    seen.append(chunk)
                    if len(seen) == most:
                        break
            return seen

        async def read() -> None:
            async with (
                self.library.AsyncClient(transport=transport) as client,
                client.stream("POST", URL, json={"a": 1}) as response,
            ):
                async for chunk in response.aiter_raw():
                    seen.append(chunk)
                    if len(seen) == most:
                        break

        asyncio.run(read())
        return seen

    def _mock(self, handler: Handler) -> Any:
        if not self.asynchronous:
            return self.library.MockTransport(handler)

        async def asynchronous(request: Any) -> Any:
            return handler(request)

        return self.library.MockTransport(asynchronous)


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> ModuleType:
    made: ModuleType = request.param
    return made


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def way(request: pytest.FixtureRequest, library: ModuleType) -> Way:
    return Way(library, request.param)


class TestALayer:
    def test_changes_what_is_sent(self, way: Way) -> None:
        seen: list[Any] = []

        class Sets:
            def flow(self, call: Call, send: Send) -> Flow:
                assert call.body.raw == b'{"a":1}' and call.api == "chat_completions" and call.url == URL
                call.headers.set("X-Team", "search")
                call.headers.remove("ACCEPT")
                call.body.parts = (b'{"b":2,', memoryview(b'{"a":1}')[1:])
                return (yield from send(call))

        def handler(request: Any) -> Any:
            seen.append((dict(request.headers), request.read() if not way.asynchronous else None))
            return way.library.Response(200, json={})

        assert way.post(handler, Sets(), headers={"x-team": "old"}).status_code == 200
        headers, body = seen[0]
        assert headers["x-team"] == "search" and "accept" not in headers
        assert headers["content-length"] == str(len(b'{"b":2,"a":1}'))
        assert body in (None, b'{"b":2,"a":1}')

    def test_may_send_often_sleep_read_and_close(self, way: Way) -> None:
        closed: list[bool] = []
        answers = iter([503, 200])

        class Again:
            def flow(self, call: Call, send: Send) -> Flow:
                reply = yield from send(call)
                if reply.status == 503:
                    assert (yield ReadBody(reply, 100)) == b"busy"
                    yield Close(reply)
                    yield Sleep(0.0)
                    reply = yield from send(call)
                return reply

        def handler(request: Any) -> Any:
            status = next(answers)
            body = way.stream([b"bu", b"sy"] if status == 503 else [b"ok"], closed=closed)
            return way.library.Response(status, stream=body)

        ends = Ends()
        assert way.post(handler, ends, Again()).content == b"ok"
        assert closed == [True, True] and ends.records[0].attempts == 2

    def test_may_answer_by_itself(self, way: Way) -> None:
        class Answers:
            def flow(self, call: Call, send: Send) -> Flow:
                return Reply.made(429, b'{"error":{}}', {"retry-after": "3"})
                yield  # a generator that sends nothing

        ends = Ends()
        response = way.post(lambda request: pytest.fail("it was sent"), ends, Answers())
        assert (response.status_code, response.json(), response.headers["retry-after"]) == (429, {"error": {}}, "3")
        assert len(ends.records) == 1

    def test_changes_what_comes_back(self, way: Way) -> None:
        class Sets:
            def flow(self, call: Call, send: Send) -> Flow:
                reply = yield from send(call)
                reply.headers.set("x-seen", "yes")
                reply.status = 418
                return reply

        handler: Handler = lambda request: way.library.Response(200, stream=way.stream([b"a", b"b"]))  # noqa: E731
        response = way.post(handler, Sets())
        assert (response.status_code, response.headers["x-seen"], response.content) == (418, "yes", b"ab")

    def test_reads_the_beginning_of_a_body_and_passes_all_of_it_on(self, way: Way) -> None:
        class Peeks:
            def flow(self, call: Call, send: Send) -> Flow:
                reply = yield from send(call)
                assert (yield ReadBody(reply, 3)) == b"aabb"
                assert (yield ReadBody(reply, 5)) == b"aabbcc"
                return reply

        handler: Handler = lambda request: way.library.Response(  # noqa: E731
            200, stream=way.stream([b"aa", b"bb", b"cc", b"dd"])
        )
        assert b"".join(way.lines(handler, Peeks())) == b"aabbccdd"

    def test_waits_for_a_manager_both_ways(self, way: Way) -> None:
        entered: list[str] = []

        class Manager:
            def __enter__(self) -> str:
                entered.append("sync")
                return "in"

            def __exit__(self, *_: object) -> None: ...

            async def __aenter__(self) -> str:
                entered.append("async")
                return "in"

            async def __aexit__(self, *_: object) -> None: ...

        class Waits:
            def flow(self, call: Call, send: Send) -> Flow:
                assert (yield Enter(Manager())) == "in"
                return (yield from send(call))

        way.post(lambda request: way.library.Response(200), Waits())
        assert entered == ["async" if way.asynchronous else "sync"]

    def test_sees_failures_and_the_caller_the_librarys_own(self, way: Way) -> None:
        kinds: list[str] = []

        class Sees:
            def flow(self, call: Call, send: Send) -> Flow:
                try:
                    return (yield from send(call))
                except Failure as failure:
                    kinds.append(failure.kind)
                    raise

        def handler(request: Any) -> Any:
            raise way.library.ConnectTimeout("too far")

        ends = Ends()
        with pytest.raises(way.library.ConnectTimeout, match="too far") as raised:
            way.post(handler, ends, Sees())
        assert kinds == ["connect timeout"] and not isinstance(raised.value.__context__, Failure)
        assert ends.records[0].error == "ConnectTimeout: too far"

    def test_order(self, way: Way) -> None:
        order: list[str] = []

        class Named:
            def __init__(self, name: str) -> None:
                self.name = name

            def flow(self, call: Call, send: Send) -> Flow:
                order.append(self.name)
                call.on_end(lambda record: order.append(f"end {self.name}"))
                reply = yield from send(call)
                order.append(f"back {self.name}")
                return reply

        way.post(lambda request: way.library.Response(200), Named("a"), Named("b"))
        assert order == ["a", "b", "back b", "back a", "end b", "end a"]


class TestTheEnd:
    """Told exactly once, whatever happens."""

    def test_of_an_answer(self, way: Way) -> None:
        ends = Ends()
        way.post(lambda request: way.library.Response(200, stream=way.stream([b"a"])), ends)
        assert len(ends.records) == 1 and ends.records[0].error is None

    def test_of_a_body_that_breaks(self, way: Way) -> None:
        ends = Ends()
        error = way.library.ReadError("cut")
        with pytest.raises(way.library.ReadError):
            way.post(lambda request: way.library.Response(200, stream=way.stream([b"a"], error)), ends)
        gc.collect()
        assert [record.error for record in ends.records] == ["ReadError: cut"]

    @pytest.mark.parametrize("most", [0, 10_000])
    def test_of_a_body_that_breaks_while_a_layer_reads_it(self, way: Way, most: int) -> None:
        class Reads:
            def flow(self, call: Call, send: Send) -> Flow:
                reply = yield from send(call)
                yield ReadBody(reply, most)
                return reply

        ends, closed = Ends(), []
        stream = way.stream([] if most == 0 else [b"a"], way.library.ReadError("cut"), closed)
        with pytest.raises(way.library.ReadError):
            way.post(lambda request: way.library.Response(500, stream=stream), ends, Reads())
        assert [record.error for record in ends.records] == ["ReadError: cut"] and closed

    def test_of_a_stream_left_early(self, way: Way) -> None:
        ends, closed = Ends(), []
        handler: Handler = lambda request: way.library.Response(  # noqa: E731
            200, stream=way.stream([b"a", b"b", b"c"], closed=closed)
        )
        assert way.lines(handler, ends, most=1) == [b"a"]
        assert len(ends.records) == 1 and closed == [True]

    def test_when_a_callback_raises_the_others_are_told(self, way: Way) -> None:
        class Bad:
            def flow(self, call: Call, send: Send) -> Flow:
                call.on_end(lambda record: 1 / 0)
                return (yield from send(call))

        ends = Ends()
        assert way.post(lambda request: way.library.Response(200), ends, Bad()).status_code == 200
        assert len(ends.records) == 1

    def test_in_the_context_of_the_call(self, way: Way) -> None:
        variable: ContextVar[str] = ContextVar("variable", default="outside")
        seen: list[str] = []

        class Looks:
            def flow(self, call: Call, send: Send) -> Flow:
                call.on_end(lambda record: seen.append(variable.get()))
                return (yield from send(call))

        token = variable.set("inside")
        try:
            way.post(lambda request: way.library.Response(200), Looks())
        finally:
            variable.reset(token)
        assert seen == ["inside"]

    def test_of_an_answer_that_is_never_closed(self, library: ModuleType) -> None:
        way, ends, closed = Way(library, False), Ends(), []
        transport = way.shell(
            library.MockTransport(lambda r: library.Response(200, stream=way.stream([b"a", b"b"], closed=closed))),
            chained([ends]),
        )
        client = library.Client(transport=transport)
        response = client.send(client.build_request("POST", URL, json={}), stream=True)
        assert next(response.iter_raw()) == b"a"
        del response
        gc.collect()
        assert ends.ended.wait(30) and closed == [True] and len(ends.records) == 1

    @pytest.mark.parametrize("closes", [False, True], ids=["dropped", "closed by what is dropped with it"])
    def test_what_is_never_closed_is_not_ended_by_the_collector(self, library: ModuleType, closes: bool) -> None:
        # httpcore takes the lock of its pool there, which the thread that collects may hold.
        ended_in: list[threading.Thread] = []
        ended = threading.Event()

        class Pooled(library.SyncByteStream):  # type: ignore[misc, name-defined]
            def __iter__(self) -> Iterator[bytes]:
                try:
                    yield b"a"
                    yield b"b"
                finally:
                    ended_in.append(threading.current_thread())
                    ended.set()

        way = Way(library, False)
        reply = lambda _: library.Response(200, stream=Pooled())  # noqa: E731
        transport = way.shell(library.MockTransport(reply), chained([Ends()]))
        client = library.Client(transport=transport)
        response = client.send(client.build_request("POST", URL, json={}), stream=True)
        pieces = response.iter_raw()
        assert next(pieces) == b"a"

        class Closes:
            def __init__(self, response: Any) -> None:
                self.response = response

            def __del__(self) -> None:
                self.response.close()

        circle: list[Any] = [response, pieces, Closes(response) if closes else None]
        circle.append(circle)
        del response, pieces, circle
        gc.collect()
        assert ended.wait(30) and ended_in != [threading.current_thread()]

    async def test_of_an_async_answer_that_is_never_closed(self, library: ModuleType) -> None:
        way, ends = Way(library, True), Ends()
        closed: list[bool] = []
        is_closed = asyncio.Event()

        class Noted(list[bool]):
            def append(self, value: bool) -> None:
                closed.append(value)
                is_closed.set()

        async def handler(request: Any) -> Any:
            return library.Response(200, stream=way.stream([b"a", b"b"], closed=Noted()))

        client = library.AsyncClient(transport=way.shell(library.MockTransport(handler), chained([ends])))
        response = await client.send(client.build_request("POST", URL, json={}), stream=True)
        del response
        gc.collect()
        await asyncio.wait_for(is_closed.wait(), 30)
        assert await asyncio.to_thread(ends.ended.wait, 30) and len(ends.records) == 1 and closed == [True]

    async def test_of_a_cancelled_call(self, library: ModuleType) -> None:
        way, ends, reached = Way(library, True), Ends(), asyncio.Event()

        async def handler(request: Any) -> Any:
            reached.set()
            await asyncio.Event().wait()

        client = library.AsyncClient(transport=way.shell(library.MockTransport(handler), chained([ends])))
        task = asyncio.create_task(client.post(URL, json={}))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [record.error for record in ends.records] == ["CancelledError: "]

    async def test_of_a_call_that_is_cancelled_while_a_layer_reads_an_error(self, library: ModuleType) -> None:
        ends, reading, closed = Ends(), asyncio.Event(), []

        class Hangs(library.AsyncByteStream):  # type: ignore[name-defined,misc]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                yield b'{"message":'
                reading.set()
                await asyncio.Event().wait()

            async def aclose(self) -> None:
                closed.append(True)

        class Reads:
            def flow(self, call: Call, send: Send) -> Flow:
                reply = yield from send(call)
                yield ReadBody(reply, 1000)
                return reply

        async def handler(request: Any) -> Any:
            return library.Response(500, stream=Hangs())

        transport = Way(library, True).shell(library.MockTransport(handler), chained([ends, Reads()]))
        task = asyncio.create_task(library.AsyncClient(transport=transport).post(URL, json={}))
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [record.error for record in ends.records] == ["CancelledError: "] and closed

    async def test_closed_by_another_task_while_it_is_read(self, library: ModuleType) -> None:
        way, ends, reading = Way(library, True), Ends(), asyncio.Event()

        class Endless(library.AsyncByteStream):  # type: ignore[name-defined,misc]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                yield b"data: [DONE]\n\n"
                reading.set()
                await asyncio.Event().wait()

        class Complete:
            complete, problem = True, None

            def feed(self, chunk: bytes, now_ms: float) -> None: ...

            def finish(self, now_ms: float) -> None: ...

        class Reads:
            def flow(self, call: Call, send: Send) -> Flow:
                reply = yield from send(call)
                call.reader = Complete()
                return reply

        async def handler(request: Any) -> Any:
            return library.Response(200, stream=Endless())

        client = library.AsyncClient(transport=way.shell(library.MockTransport(handler), chained([ends, Reads()])))
        response = await client.send(client.build_request("POST", URL, json={}), stream=True)

        async def read() -> None:
            async for _ in response.aiter_raw():
                pass

        task = asyncio.create_task(read())
        await reading.wait()
        await response.aclose()
        assert len(ends.records) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_other_requests_pass_untouched(way: Way) -> None:
    ends = Ends()
    transport = way.shell(way._mock(lambda request: way.library.Response(200, json=[])), chained([ends]))
    if way.asynchronous:

        async def get() -> Any:
            async with way.library.AsyncClient(transport=transport) as client:
                return await client.get("http://127.0.0.1:1/v1/models")

        assert asyncio.run(get()).json() == []
    else:
        with way.library.Client(transport=transport) as client:
            assert client.get("http://127.0.0.1:1/v1/models").json() == []
    assert not ends.calls


@pytest.mark.parametrize("value", ["line\nbreak", " blank", "blank ", "\x7f"])
def test_a_header_that_could_not_travel_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="can not travel"):
        Reply.made(200, b"", {}).headers.set("x-a", value)


@pytest.mark.parametrize("path", ["chat/completions", "models"])
def test_what_is_banned_leaves_with_no_request(library: ModuleType, path: str) -> None:
    seen: list[Any] = []

    def handler(request: Any) -> Any:
        seen.append(request)
        return library.Response(200, json={})

    async def handle_async(request: Any) -> Any:
        return handler(request)

    banned, key = Banned(["User-Agent", "x-team", "x-s-*"]), lambda url, given: b"Bearer k"
    url, headers = f"http://127.0.0.1:1/v1/{path}", {"X-Team": "t", "x-s-lang": "py", "x-kept": "k"}
    shell = SHELLS[library.__name__]
    for _ in range(2):
        transport = shell(library.MockTransport(handler), chained([]), key=key, banned=banned)
        with library.Client(transport=transport) as client:
            sent = client.build_request("POST", url, json={"a": 1}, headers=headers)
            assert client.send(sent).json() == {} and sent.headers["x-team"] == "t"  # the caller's own stays as it is

    async def post() -> None:
        transport = shell(library.MockTransport(handle_async), chained([]), key=key, banned=banned)
        async with library.AsyncClient(transport=transport) as client:
            await client.post(url, json={"a": 1}, headers=headers)

    asyncio.run(post())
    assert len(seen) == 3
    for request in seen:
        names = {name.decode().lower() for name, _ in request.headers.raw}
        assert {"host", "content-length", "x-kept"} <= names and not {"user-agent", "x-team", "x-s-lang"} & names
        assert request.headers.get("authorization") == (None if path == "chat/completions" else "Bearer k")
