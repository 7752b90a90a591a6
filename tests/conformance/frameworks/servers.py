"""Two HTTP servers on loopback: one that passes everything on to the real Dynamo and writes down what it saw, and one
that makes the faults which Dynamo does not make on demand."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

_ANSWER_ID = re.compile(rb'"id"\s*:\s*"(?:chatcmpl-|resp_)?([^"]+)"')


@dataclass
class Exchange:
    """One request as it reached the server, and what came back."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    status: int = 0
    answer_id: str | None = None
    """Dynamo's id of the request, which its own trace names too."""


class Server:
    """A threaded server that counts its open connections; use it as a context manager."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.open_connections = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_of": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def base_url(self) -> str:
        """What OpenAI clients call base URL."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def connected(self, change: int) -> None:
        """Count a connection."""
        with self._lock:
            self.open_connections += change

    def serve(self, exchange: Exchange, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        """Answer a request."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: ClassVar[Server]

    def setup(self) -> None:
        super().setup()
        self.server_of.connected(1)

    def finish(self) -> None:
        self.server_of.connected(-1)
        super().finish()

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        exchange = Exchange(self.path, headers, json.loads(body))
        self.server_of.exchanges.append(exchange)
        self.server_of.serve(exchange, self, body)

    def log_message(self, *_: object) -> None:
        pass


class Relay(Server):
    """Passes requests on to a real Dynamo as they are, and its answers back as they come."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = urlsplit(target).netloc

    def serve(self, exchange: Exchange, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        upstream = http.client.HTTPConnection(self._target, timeout=300)
        try:
            skipped = {"host", "connection", "accept-encoding"}
            headers = {name: value for name, value in exchange.headers.items() if name not in skipped}
            upstream.request("POST", exchange.path, body, headers)
            answer = upstream.getresponse()
            exchange.status = answer.status
            handler.send_response(answer.status)
            handler.send_header("content-type", answer.getheader("content-type", "application/json"))
            handler.send_header("transfer-encoding", "chunked")
            handler.end_headers()
            while chunk := answer.read1(65536):
                if exchange.answer_id is None and (found := _ANSWER_ID.search(chunk)):
                    exchange.answer_id = found[1].decode()
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            handler.wfile.write(b"0\r\n\r\n")
        finally:
            upstream.close()


@dataclass
class Fault:
    """What the fault server answers: an error, or nothing before `release` is set."""

    status: int = 503
    message: str = "The boiler is cold"
    headers: dict[str, str] = field(default_factory=lambda: {"retry-after": "0"})
    release: threading.Event | None = None


class FaultServer(Server):
    """Answers every request with the fault that `answer` gives for its number (0 for the first)."""

    def __init__(self, answer: Callable[[int], Fault]) -> None:
        super().__init__()
        self._answer = answer

    def serve(self, exchange: Exchange, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        fault = self._answer(len(self.exchanges) - 1)
        if fault.release is not None:
            fault.release.wait()
        exchange.status = fault.status
        error = {"message": fault.message, "type": "Error", "code": fault.status}
        answer = json.dumps({"error": error}).encode()
        handler.send_response(fault.status)
        for name, value in {**fault.headers, "content-type": "application/json"}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)
