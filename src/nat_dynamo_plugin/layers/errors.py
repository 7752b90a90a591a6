"""Dynamo's error answers in OpenAI's shape, which frameworks look for the message in."""

from __future__ import annotations

import json

import httpx


class OpenAIErrors(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Puts a flat error object under `error`.

    Dynamo 1.6.0 answers `{"message": ..., "type": ..., "code": ...}` where OpenAI answers `{"error": {...}}`. The
    OpenAI library takes both, but Agno then says "Unknown model error".

    Args:
        transport: what sends; its sync or async side is used as it has it.
    """

    def __init__(self, transport: httpx.BaseTransport | httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and reshape an error answer."""
        assert isinstance(self._transport, httpx.BaseTransport)
        response = self._transport.handle_request(request)
        if not _is_json_error(response):
            return response
        response.read()
        return _reshaped(response)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and reshape an error answer."""
        assert isinstance(self._transport, httpx.AsyncBaseTransport)
        response = await self._transport.handle_async_request(request)
        if not _is_json_error(response):
            return response
        await response.aread()
        return _reshaped(response)

    def close(self) -> None:
        """Close the wrapped transport."""
        assert isinstance(self._transport, httpx.BaseTransport)
        self._transport.close()

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        assert isinstance(self._transport, httpx.AsyncBaseTransport)
        await self._transport.aclose()


def _is_json_error(response: httpx.Response) -> bool:
    return response.is_error and "json" in response.headers.get("content-type", "")


def _reshaped(response: httpx.Response) -> httpx.Response:
    """A response anew from one that was read, because its bytes are gone."""
    content = response.content
    try:
        error = json.loads(content)
    except ValueError:
        error = None
    if isinstance(error, dict) and "error" not in error and "message" in error:
        content = json.dumps({"error": error}).encode()
    described = {"content-encoding", "content-length", "transfer-encoding"}
    headers = [(name, value) for name, value in response.headers.multi_items() if name not in described]
    return httpx.Response(response.status_code, headers=headers, content=content, extensions=response.extensions)
