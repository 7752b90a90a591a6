"""Header rules: what is added to each call and its answer, and what is taken out of the answer.

What must not leave is no layer's business, for the engine's headers come behind all of them: see `http.banned`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from nat_dynamo_plugin.http.banned import Banned
from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import Flow, Send
from nat_dynamo_plugin.http.headers import Headers, raw_header
from nat_dynamo_plugin.question.once import warn_once

logger = logging.getLogger(__name__)

HeaderValue = str | Callable[[], str | None]
"""A value, or what gives one for each call, in the caller's context; `None` for no header. It must not block."""


class HeaderRulesLayer:
    """Adds headers and takes some out of answers. What the caller or the server has set stays as it is.

    Args:
        add: values of the request's headers by name.
        add_response: the same of the answer's.
        ban_response: what the caller does not see of the answer's.
    """

    def __init__(
        self,
        add: Mapping[str, HeaderValue] | None = None,
        add_response: Mapping[str, HeaderValue] | None = None,
        ban_response: Banned | None = None,
    ) -> None:
        self._add = tuple((add or {}).items())
        self._add_response = tuple((add_response or {}).items())
        self._ban_response = ban_response

    def flow(self, call: Call, send: Send) -> Flow:
        """Add, and send."""
        _put(call.headers, self._add)
        if self._add_response or self._ban_response is not None:
            return self._with_response(call, send)
        return send(call)

    def _with_response(self, call: Call, send: Send) -> Flow:
        reply: Reply = yield from send(call)
        headers = reply.headers
        if self._ban_response is not None:
            for name in {name for name, _ in headers if self._ban_response.pattern_of(name)}:
                headers.remove(name)
        _put(headers, self._add_response)
        return reply


def _put(headers: Headers, values: tuple[tuple[str, HeaderValue], ...]) -> None:
    for name, value in values:
        if name in headers:
            continue
        text = value if isinstance(value, str) else _called(name, value)
        if text is not None:
            headers.set(name, text)


def _called(name: str, value: Callable[[], Any]) -> str | None:
    """What a callable gives; nothing if it fails or gives what fits no header, which must not cost the call."""
    try:
        text = value()
        if text is not None:
            raw_header(text)
    except Exception as error:
        warn_once(
            logger,
            ("header", name, repr(value)),
            "%s left out (said once): %r failed",
            f"headers: {name}",
            value,
            error=error,
        )
        return None
    return text if text is None or isinstance(text, str) else None
