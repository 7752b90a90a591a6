"""Dynamo's error answers in OpenAI's shape, which frameworks look for the message in."""

from __future__ import annotations

import json

from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import Flow, ReadBody, Send

MAX_ERROR_BYTES = 65_536
"""Errors above this size pass as they are."""


class OpenAIErrorsLayer:
    """Puts a flat error object under `error`.

    Dynamo 1.6.0 answers `{"message": ..., "type": ..., "code": ...}` where OpenAI answers `{"error": {...}}`. The
    OpenAI library takes both, but Agno then says "Unknown model error".
    """

    def flow(self, call: Call, send: Send) -> Flow:
        """Send, and reshape an error answer."""
        reply = yield from send(call)
        if reply.status < 400 or "json" not in (reply.headers.get("content-type") or ""):
            return reply
        yield ReadBody(reply, MAX_ERROR_BYTES)
        return reply if reply.content is None else reshaped(reply, reply.content)


def reshaped(reply: Reply, content: bytes) -> Reply:
    """The reply with its error object under `error`, or as it is if that is where it lies."""
    try:
        error = json.loads(content)
    except ValueError:
        return reply
    if not isinstance(error, dict) or "error" in error or "message" not in error:
        return reply
    reply.content = json.dumps({"error": error}).encode()
    reply.headers.remove("content-encoding")
    reply.headers.set("content-length", str(len(reply.content)))
    return reply
