"""The shell that carries a call between an HTTP library and our layers; thin, and the same for httpx and httpx2.

The two libraries have the same interface under different types, so a shell is a class here and a few lines that give it
its library's types (`httpx_shell`, `httpx2_shell`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from nat_dynamo_plugin.http.banned import Banned
from nat_dynamo_plugin.http.call import Call, Reply, api_of
from nat_dynamo_plugin.http.flow import Failure, Send, run, run_async
from nat_dynamo_plugin.http.headers import Headers
from nat_dynamo_plugin.http.io import AsyncIO, SyncIO
from nat_dynamo_plugin.http.lost import watch
from nat_dynamo_plugin.http.passing import Passing
from nat_dynamo_plugin.http.streams import Parts, SentHeaders, as_stream
from nat_dynamo_plugin.http.words import tell, told

KeyOf = Callable[[str, str | None], bytes | None]
"""What `Authorization` is to say in a request, by its URL and what it says; `None` to leave it as it is."""


class Shell:
    """Carries calls through layers. Other requests of the client (`GET /models`, ...) pass untouched.

    Args:
        transport: what really sends: a sync transport of the library, an async one, or one that is both.
        send: the layers; see `flow.chained`.
        http2: whether the transport may speak HTTP/2, which takes bytes only.
        key: puts a key into other requests.
        banned: headers that leave with no request, those that pass untouched otherwise included.
    """

    library: ClassVar[Any]
    """httpx or httpx2."""

    def __init__(
        self,
        transport: Any,
        send: Send,
        *,
        http2: bool = False,
        key: KeyOf | None = None,
        banned: Banned | None = None,
    ) -> None:
        self._transport = transport
        self._send = send
        self._key = key
        self._banned = banned
        self._http2 = http2
        self._request = self.library.Request
        self._headers = self.library.Headers
        self._parts = as_stream(Parts, self.library)
        self._passing = as_stream(Passing, self.library)
        errors = self.library.TransportError
        request_of = self.request_of if banned is None else self._allowed_request_of
        self._sync = SyncIO(transport, request_of, errors) if hasattr(transport, "handle_request") else None
        has_async = hasattr(transport, "handle_async_request")
        self._async = AsyncIO(transport, request_of, errors) if has_async else None

    def handle_request(self, request: Any) -> Any:
        """Send a request of a blocking client."""
        if self._sync is None:
            raise RuntimeError("This transport wraps an async transport; use it with an AsyncClient")
        call = self._call(request)
        if call is None:
            return self._transport.handle_request(self._passed(request))
        try:
            reply = run(self._send(call), self._sync)
        except BaseException as error:
            failed = self._failed(call, error)
        else:
            return self._handed_over(call, reply)
        raise failed  # out here, for its context stays as it was

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request of an async client."""
        if self._async is None:
            raise RuntimeError("This transport wraps a sync transport; use it with a Client")
        call = self._call(request)
        if call is None:
            return await self._transport.handle_async_request(self._passed(request))
        try:
            reply = await run_async(self._send(call), self._async)
        except BaseException as error:
            failed = self._failed(call, error)
        else:
            return self._handed_over(call, reply, asyncio.get_running_loop())
        raise failed

    def close(self) -> None:
        """Close the wrapped transport."""
        if self._sync is not None:
            self._transport.close()

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        if self._async is not None:
            await self._transport.aclose()

    def request_of(self, call: Call) -> Any:
        """The library's request for a call as its layers have left it; the caller's own stays as it is."""
        callers = call.native
        # `Request.__init__` would check and convert again what the caller's request has passed already.
        request = object.__new__(self._request)
        request.method = call.method
        request.url = self.library.URL(call.url) if call.is_sent_elsewhere else callers.url
        headers, parts = call.headers, call.body.to_send
        raw = headers.raw
        if parts is None:
            request.stream = callers.stream
        else:
            if self._http2:
                parts = (b"".join(parts),)
            request.stream = self._parts(parts)
            at = headers.names.index(b"content-length")
            raw = raw.copy()
            raw[at] = (raw[at][0], b"%d" % (len(parts[0]) if len(parts) == 1 else sum(map(len, parts))))
        request.headers = SentHeaders(raw, self._headers)
        request.extensions = callers.extensions
        if call.deadline is not None:
            request.extensions = _in_time(callers.extensions, call.left_s)
        return request

    def _allowed_request_of(self, call: Call) -> Any:
        """What `request_of` makes, without what is banned."""
        request = self.request_of(call)
        assert self._banned is not None
        request.headers = SentHeaders(self._banned.without(request.headers.raw), self._headers)
        return request

    def _passed(self, request: Any) -> Any:
        """A request that is no call, with the key that it needs and without what is banned; the caller's own stays."""
        raw = headers = request.headers.raw
        own = "x-api-key" in request.headers or "api-key" in request.headers  # the client's own, of Anthropic or Azure
        key = None if own else self._key
        if key is not None and (header := key(str(request.url), request.headers.get("authorization"))) is not None:
            raw = [(name, value) for name, value in raw if name.lower() != b"authorization"]
            raw.append((b"authorization", header))
        if self._banned is not None:
            raw = self._banned.without(raw)
        if raw is headers:
            return request
        return self._request(
            request.method,
            request.url,
            headers=raw,
            stream=request.stream,
            extensions=request.extensions,
        )

    def _call(self, request: Any) -> Call | None:
        api = api_of(request.method, request.url.raw_path)
        if api is None:
            return None
        headers = Headers(request.headers.raw)
        return Call(request, api, headers, self._body(request, headers))

    def _body(self, request: Any, headers: Headers) -> bytes | None:
        """The body, if it is in memory with its length declared, and neither compressed nor said to be no JSON."""
        names = headers.names
        if b"content-encoding" in names or b"content-length" not in names:
            return None
        if b"content-type" in names and b"json" not in headers.raw[names.index(b"content-type")][1].lower():
            return None
        try:
            content: bytes = request.content
        except self.library.RequestNotRead:
            return None
        return content

    def _failed(self, call: Call, error: BaseException) -> BaseException:
        """End a call that has no reply; the exception as the caller knows it."""
        known = self._known(error)
        call.fail(known)
        if known is not error and isinstance(known, Exception):
            tell(call, known)
        call.finish()
        return known

    def _known(self, error: BaseException) -> BaseException:
        """An exception as the HTTP library has it."""
        if not isinstance(error, Failure):
            return error
        known: BaseException = self.library.ReadTimeout(str(error)) if error.original is None else error.original
        return known

    def _handed_over(self, call: Call, reply: Reply, loop: asyncio.AbstractEventLoop | None = None) -> Any:
        """The reply as the library's response; from here on the call ends when its stream is closed or lost."""
        if reply.status >= 400 and call.record.attempts:  # what a layer answers by itself stands
            reply = told(call, reply)
        native = reply.native
        # Of a stream that has ended, it has still to be said whether it was whole.
        is_events = call.record.streamed and reply.rest is not None and native is not None
        if is_events and reply.content is not None:
            reply.head = [reply.content] if reply.content else []
        elif reply.content is not None:
            call.exhausted()
            call.finish()
            if native is None or (native.is_closed and reply.has_own_headers):
                return self.library.Response(
                    reply.status,
                    headers=reply.raw_headers,
                    stream=self.library.ByteStream(reply.content),
                    extensions={} if native is None else native.extensions,
                )
            if not native.is_closed:
                native.stream = self.library.ByteStream(reply.content)
            return self._with_changes(native, reply)
        for chunk in reply.head:
            call.feed(chunk)
        watch()
        call.goes_on()
        native.stream = self._passing(call, reply, self._known, self.library.TransportError, loop)
        return self._with_changes(native, reply)

    def _with_changes(self, native: Any, reply: Reply) -> Any:
        native.status_code = reply.status
        if reply.has_own_headers:
            native.headers = self.library.Headers(reply.raw_headers)
        return native


def _in_time(extensions: Any, left_s: float) -> dict[str, Any]:
    """A request's extensions with no timeout longer than what is left."""
    left = max(left_s, 0.001)
    given = extensions.get("timeout", {})
    shorter = {
        name: left if given.get(name) is None else min(given[name], left)
        for name in ("connect", "read", "write", "pool")
    }
    return {**extensions, "timeout": shorter}
