"""The engines: the same answers and the same exceptions from each, for httpx and httpx2, sync and async."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

from nat_dynamo_plugin.http.engines import Connection, Engines, proxy_for
from nat_dynamo_plugin.http.flow import chained
from nat_dynamo_plugin.http.httpx2_shell import Httpx2Shell
from nat_dynamo_plugin.http.httpx_shell import HttpxShell

SHELLS = {"httpx": HttpxShell, "httpx2": Httpx2Shell}
Serve = Callable[[socket.socket], None]


def request_of(connection: socket.socket) -> bytes:
    """The head of a request, and its body by its content length."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65_536)
        if not piece:
            raise ConnectionError
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            while len(body) < int(line[15:]):
                body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


def reset(connection: socket.socket) -> None:
    """Close with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def says(*pieces: bytes, then: Serve = lambda connection: connection.close()) -> Serve:
    def serve(connection: socket.socket) -> None:
        request_of(connection)
        for piece in pieces:
            connection.sendall(piece)
        then(connection)

    return serve


def hangs(connection: socket.socket) -> None:
    connection.recv(1)  # until the client gives up


OK = b"HTTP/1.1 200 OK\r\n"
FAULTS: dict[str, Serve] = {
    "closed before headers": says(),
    "reset before headers": says(then=reset),
    "closed within headers": says(OK + b"content-le"),
    "reset within headers": says(OK + b"content-le", then=reset),
    "hangs before headers": says(then=hangs),
    "hangs within headers": says(OK, then=hangs),
    "no HTTP": says(b"220 smtp ready\r\n\r\n"),
    "a body too short": says(OK + b"content-length: 10\r\n\r\nabc"),
    "a body reset": says(OK + b"content-length: 10\r\n\r\nabc", then=reset),
    "a body that hangs": says(OK + b"content-length: 10\r\n\r\nabc", then=hangs),
    "chunks cut": says(OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
    "chunks cut within one": says(OK + b"transfer-encoding: chunked\r\n\r\nff\r\nabc"),
    "chunks of garbage": says(OK + b"transfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"),
    "chunks that hang": says(OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", then=hangs),
}


def shell(library: ModuleType, engine: Any) -> Any:
    """The engine as the clients have it, without layers."""
    return SHELLS[library.__name__](engine, chained([]))


class Server:
    """Serves each connection in a thread, with one function."""

    def __init__(self) -> None:
        self.serve: Serve = says()
        self.heads: list[bytes] = []
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1/chat/completions?a=%2F"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        try:
            with connection:
                self.serve(connection)
        except OSError:
            pass

    def answers(self, connection: socket.socket) -> None:
        """Answer as long as the client asks."""
        while True:
            request = request_of(connection)
            self.heads.append(request)
            body = request.partition(b"\r\n\r\n")[2]
            connection.sendall(OK + b"content-length: %d\r\nX-Twice: a\r\nX-Twice: b\r\n\r\n%s" % (len(body), body))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> ModuleType:
    made: ModuleType = request.param
    return made


Post = Callable[..., Any]


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def post(request: pytest.FixtureRequest, library: ModuleType) -> Post:
    """Posts by an engine of the library; gives the response read to its end."""
    asynchronous = request.param

    def send(url: str, engine: Any = "fast", read_s: float = 30.0, **kwargs: Any) -> Any:
        engines = Engines(library, Connection(engine=engine, read_s=read_s), url)
        timeout = Connection(read_s=read_s).timeout(library)
        kwargs = {"json": {"a": 1}, **kwargs}
        if not asynchronous:
            with library.Client(transport=shell(library, engines.sync()), timeout=timeout) as client:
                return client.post(url, **kwargs)

        async def post() -> Any:
            async with library.AsyncClient(transport=shell(library, engines.asynchronous()), timeout=timeout) as client:
                return await client.post(url, **kwargs)

        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            answer = asyncio.run(post())
            gc.collect()
            return answer

    return send


@pytest.mark.parametrize("fault", FAULTS)
def test_the_exception_of_a_fault_is_that_of_httpx(server: Server, post: Post, library: ModuleType, fault: str) -> None:
    server.serve = FAULTS[fault]
    raised = []
    for engine in ("httpx", "fast"):
        with pytest.raises(library.HTTPError) as error:
            post(server.url, engine, read_s=0.3)
        raised.append(error.value)
    kinds = [type(error).__name__ for error in raised]
    assert kinds[0] == kinds[1]
    assert str(raised[1])


def test_nobody_there(post: Post, library: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1/chat/completions"
    for engine in ("httpx", "fast"):
        with pytest.raises(library.ConnectError):
            post(url, engine)
        with pytest.raises(library.ConnectError):
            post("http://no-such-host.invalid/v1/chat/completions", engine)
        with pytest.raises(library.ConnectError):
            post(url.replace("http:", "https:"), engine)


def test_tls_to_a_plain_port(server: Server, post: Post, library: ModuleType) -> None:
    server.serve = lambda connection: connection.sendall(b"HTTP/1.1 400 no TLS here\r\n\r\n")
    for engine in ("httpx", "fast"):
        with pytest.raises(library.ConnectError):
            post(server.url.replace("http:", "https:"), engine)


@pytest.mark.parametrize("engine", ["fast", "httpx"])
def test_what_is_sent_is_what_the_caller_gave(server: Server, post: Post, engine: str) -> None:
    server.serve = server.answers
    response = post(server.url, engine, headers={"X-Case": "a b", "x-twice": "1"})
    assert response.json() == {"a": 1} and response.headers.get_list("x-twice") == ["a", "b"]
    assert response.http_version == "HTTP/1.1" and response.reason_phrase == "OK"
    head = server.heads[0]
    assert head.startswith(b"POST /v1/chat/completions?a=%2F HTTP/1.1\r\n")
    lines = [line.lower().split(b": ")[0] for line in head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    names = {b"host", b"accept", b"accept-encoding", b"user-agent", b"content-length", b"content-type"}
    assert set(lines) - {b"connection"} == names | {b"x-case", b"x-twice"} and len(lines) == len(set(lines))


@pytest.mark.parametrize("engine", ["fast", "httpx"])
def test_a_request_in_pieces(server: Server, post: Post, engine: str) -> None:
    server.serve = server.answers
    body = b"x" * 100_000
    assert post(server.url, engine, json=None, content=body).content == body


async def test_connections_are_kept_and_given_back(server: Server, library: ModuleType) -> None:
    server.serve = server.answers
    engines = Engines(library, Connection(max_connections=4), server.url)
    async with library.AsyncClient(transport=shell(library, engines.asynchronous()), timeout=30) as client:
        for _ in range(5):
            await asyncio.gather(*(client.post(server.url, json={}) for _ in range(12)))
        assert server.connections <= 4
        # Left early: not read to its end, so its connection is closed and its place is free again.
        for _ in range(8):
            async with client.stream("POST", server.url, content=b"x" * 10_000_000) as response:
                async for _ in response.aiter_raw():
                    break
        assert (await client.post(server.url, json={})).status_code == 200


async def test_a_cancelled_call_gives_its_connection_back(server: Server, library: ModuleType) -> None:
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hanging(connection: socket.socket) -> None:
        request_of(connection)
        loop.call_soon_threadsafe(reached.set)
        connection.recv(1)

    engines = Engines(library, Connection(max_connections=1), server.url)
    async with library.AsyncClient(transport=shell(library, engines.asynchronous()), timeout=30) as client:
        server.serve = hanging
        for _ in range(3):
            task = asyncio.create_task(client.post(server.url, json={}))
            await reached.wait()
            reached.clear()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        server.serve = server.answers
        assert (await client.post(server.url, json={})).status_code == 200


@pytest.mark.parametrize("engine", ["fast", "httpx"])
async def test_no_connection_free_in_time(server: Server, library: ModuleType, engine: Any) -> None:
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hanging(connection: socket.socket) -> None:
        request_of(connection)
        loop.call_soon_threadsafe(reached.set)
        connection.recv(1)

    server.serve = hanging
    engines = Engines(library, Connection(max_connections=1, engine=engine), server.url)
    timeout = library.Timeout(30, pool=0.05)
    async with library.AsyncClient(transport=shell(library, engines.asynchronous()), timeout=timeout) as client:
        task = asyncio.create_task(client.post(server.url, json={}))
        await reached.wait()
        with pytest.raises(library.PoolTimeout):
            await client.post(server.url, json={})
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_no_connection_free_in_time_for_a_thread(server: Server, library: ModuleType) -> None:
    reached, go = threading.Event(), threading.Event()

    def hanging(connection: socket.socket) -> None:
        request_of(connection)
        reached.set()
        go.wait(30)

    server.serve = hanging
    engines = Engines(library, Connection(max_connections=1), server.url)
    with library.Client(transport=shell(library, engines.sync()), timeout=library.Timeout(30, pool=0.05)) as client:

        def first() -> None:
            with pytest.raises(library.RemoteProtocolError):
                client.post(server.url, json={})

        thread = threading.Thread(target=first)
        thread.start()
        assert reached.wait(30)
        with pytest.raises(library.PoolTimeout):
            client.post(server.url, json={})
        go.set()
        thread.join()


def test_threads_share_the_connections(server: Server, library: ModuleType) -> None:
    server.serve = server.answers
    engines = Engines(library, Connection(max_connections=4), server.url)
    with library.Client(transport=shell(library, engines.sync()), timeout=30) as client:
        threads = [threading.Thread(target=client.post, args=(server.url,), kwargs={"json": {}}) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.connections <= 4 and len(server.heads) == 24
        with client.stream("POST", server.url, content=b"x" * 10_000_000) as response:
            next(response.iter_raw())
        assert client.post(server.url, json={}).status_code == 200


@pytest.mark.parametrize("engine", ["fast", "httpx"])
def test_the_environments_proxy(server: Server, post: Post, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server.serve = server.answers
    proxy = server.url.partition("/v1")[0]
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert post("http://llm.invalid/v1/chat/completions", engine).json() == {"a": 1}
    assert server.heads[0].startswith(b"POST http://llm.invalid/v1/chat/completions HTTP/1.1\r\n")


def test_which_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert proxy_for("http://a/v1") is None
    monkeypatch.setenv("https_proxy", "proxy:3128")
    monkeypatch.setenv("no_proxy", "b.example,localhost")
    assert proxy_for("https://a/v1") == "http://proxy:3128" and proxy_for("http://a/v1") is None
    assert proxy_for("https://b.example:8443/v1") is None and proxy_for("https://sub.b.example/v1") is None
    assert proxy_for(None) == "http://proxy:3128"


@pytest.mark.parametrize("fields", [{"http2": True}, {"engine": "httpx"}])
async def test_what_only_httpx_speaks(library: ModuleType, fields: dict[str, Any]) -> None:
    engines = Engines(library, Connection(**fields), "http://127.0.0.1:1/v1")
    assert isinstance(engines.sync(), library.HTTPTransport)
