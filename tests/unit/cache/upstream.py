"""A server that answers as it is told, and an LLM's clients in front of it."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

import httpx

from nat_dynamo_plugin import DynamoModelConfig, make_service
from nat_dynamo_plugin.http.clients import HttpClients
from nat_dynamo_plugin.service import Service
from nat_dynamo_plugin.telemetry.record import CallRecord

PATIENCE_S = 60.0
"""After so long something counts as never."""

USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


def answer(text: str = "forty two", **changes: Any) -> dict[str, Any]:
    """An answer in one piece."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
        **changes,
    }


def stream(text: str = "forty two", *, usage: bool = True, ending: str = "stop") -> bytes:
    """The same as a stream, a letter an event."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    deltas = [{"role": "assistant", "content": ""}, *({"content": one} for one in text)]
    chunks: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": ending}]})
    if usage:
        chunks.append({**head, "choices": [], "usage": USAGE})
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks) + b"data: [DONE]\n\n"


class Upstream:
    """Counts what it is asked.

    Attributes:
        asked: the bodies.
        say: gives status, content type and body for a request; the plain answer or its stream unless set.
        go: answers wait until it is set.
        chunked: whether the end of a body that is cut would be said, so that a client can tell.
        cut: how many bytes of a body are sent before the connection is closed; `None` for all.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.say: Callable[[dict[str, Any]], tuple[int, str, bytes]] = self.plainly
        self.go = threading.Event()
        self.go.set()
        self.came = threading.Semaphore(0)
        self.cut: int | None = None
        self.chunked = True
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"upstream": self}))
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    @staticmethod
    def plainly(body: dict[str, Any]) -> tuple[int, str, bytes]:
        if body.get("stream"):
            usage = bool((body.get("stream_options") or {}).get("include_usage"))
            return 200, "text/event-stream", stream(usage=usage)
        return 200, "application/json", json.dumps(answer()).encode()

    def close(self) -> None:
        self.go.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65_536  # headers and body leave in one piece
    upstream: Upstream

    def do_POST(self) -> None:
        upstream = self.upstream
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        upstream.asked.append(body)
        upstream.came.release()
        upstream.go.wait(PATIENCE_S)
        status, kind, content = upstream.say(body)
        self.send_response(status)
        self.send_header("content-type", kind)
        if upstream.cut is None:
            self.send_header("content-length", str(len(content)))
        else:
            self.close_connection = True
            self.send_header("connection", "close")
            if upstream.chunked:
                self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            if upstream.cut is None:
                self.wfile.write(content)
            elif not upstream.chunked:
                self.wfile.write(content[: upstream.cut])
            elif upstream.cut:
                self.wfile.write(b"%x\r\n%b\r\n" % (upstream.cut, content[: upstream.cut]))
        except OSError:
            pass

    def log_message(self, *_: Any) -> None:
        pass


_numbers = count(10_000)


class Model:
    """An LLM with a cache.

    Attributes:
        records: of the calls that are over.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.records: list[CallRecord] = []
        self.services: list[Service] = []
        self.max_entries = next(_numbers)  # LLMs of one config share a cache, tests do not

    def service(self, cache: Any = None, **fields: Any) -> Service:
        config = DynamoModelConfig(
            base_url=self.upstream.base_url,
            model_name="m",
            cache={"max_wait": PATIENCE_S, "max_entries": self.max_entries, **(cache or {})},
            retry={"max_retries": 0},
            breaker={"on_outage": "ignore"},
            **fields,
        )
        service = make_service(config, emit_record=self.records.append)
        self.services.append(service)  # for a cache lives as long as somebody uses it
        return service

    @asynccontextmanager
    async def clients(self, cache: Any = None, **fields: Any) -> AsyncIterator[HttpClients]:
        async with self.service(cache, **fields).http_clients() as clients:
            yield clients


def body(text: str = "What is it?", **fields: Any) -> dict[str, Any]:
    """A request that may be answered from the cache."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0, **fields}


async def post(clients: HttpClients, asked: dict[str, Any], headers: dict[str, str] | None = None) -> httpx.Response:
    """Ask, awaiting."""
    return await clients.asynchronous.post(f"{clients.base_url}/chat/completions", json=asked, headers=headers)
