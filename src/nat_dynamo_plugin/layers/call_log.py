"""One line a call in the log, at INFO, by the logger `nat_dynamo_plugin.calls`."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import Flow, Send
from nat_dynamo_plugin.layers.content import Content
from nat_dynamo_plugin.secrets import redacted
from nat_dynamo_plugin.telemetry.record import CallRecord

logger = logging.getLogger("nat_dynamo_plugin.calls")

_FIELDS = (
    ("prefix", "prefix_id"),
    ("session", "session_id"),
    ("function", "function_path"),
    ("model", "model"),
    ("api", "api"),
    ("streamed", "streamed"),
    ("status", "status"),
    ("cache", "cache"),
    ("attempts", "attempts"),
    ("total_ms", "client_total_ms"),
    ("ttft_ms", "client_ttft_ms"),
    ("gate_wait_ms", "gate_wait_ms"),
    ("retry_wait_ms", "retry_wait_ms"),
    ("limit_wait_ms", "limit_wait_ms"),
    ("prompt_tokens", "prompt_tokens"),
    ("cached_tokens", "cached_tokens"),
    ("completion_tokens", "completion_tokens"),
    ("cost_usd", "cost_usd"),
    ("worker", "worker_id"),
    ("finish", "finish_reason"),
    ("prompt_version", "prompt_version"),
    ("org", "org"),
    ("request", "request_ids"),
    ("trace", "trace_id"),
    ("span", "span_id"),
    ("kind", "kind"),
    ("error", "error"),
)
"""What a line says, and the field of `CallRecord` that says it."""
_LEFT_OUT: tuple[object, ...] = (None, (), "")
_ZERO_LEFT_OUT = ("retry_wait_ms", "limit_wait_ms")
_SIGNIFICANT = 6
"""Digits of an amount in USD; a call may cost millionths."""


class CallLogLayer:
    """Logs each call when it is over. Stands above the record's layer, so that it sees the finished record.

    Args:
        as_json: whether a line is a JSON object, not `name=value` pairs.
        content: whether it holds prompt and answer.
        redact: takes out of them what must not be in a log; known secrets are never there.
    """

    def __init__(self, *, as_json: bool = False, content: bool = False, redact: Callable[[str], str] = str) -> None:
        self._as_json = as_json
        self._content = content
        self._redact = redact

    def flow(self, call: Call, send: Send) -> Flow:
        """Send."""
        if not self._content:
            call.on_end(partial(self._ended, None))
            return send(call)
        return self._watched(call, send)

    def _watched(self, call: Call, send: Send) -> Flow:
        content = Content(call)
        call.on_end(partial(self._ended, content))
        reply: Reply = yield from send(call)
        content.watch(call, reply)
        return reply

    def _ended(self, content: Content | None, record: CallRecord) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        told = fields_of(record)
        if content is not None:
            for name, text in (("prompt", content.prompt), ("answer", content.answer)):
                if text is not None:
                    told[name] = self._redact(text)
        # Once for the line, which takes no longer than for a word of it.
        logger.info("%s", redacted(_json(told, record) if self._as_json else _pairs(told)))


def fields_of(record: CallRecord) -> dict[str, Any]:
    """What is told of a call, without what is not known; secrets are still in it."""
    told: dict[str, Any] = {}
    for name, field in _FIELDS:
        value = getattr(record, field)
        if value in _LEFT_OUT or (not value and name in _ZERO_LEFT_OUT):
            continue
        if isinstance(value, float):
            value = float(f"{value:.{_SIGNIFICANT}g}") if name == "cost_usd" else round(value, 1)
        told[name] = value
    if "model" not in told and record.request_model:
        told["model"] = record.request_model
    if "function" in told:
        told["function"] = "/".join(record.function_path)
    if "request" in told:
        told["request"] = record.request_ids[-1]
    return told


def _json(told: dict[str, Any], record: CallRecord) -> str:
    began = datetime.fromtimestamp(record.started_at, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"event": "llm_call", "started_at": began, **told}, ensure_ascii=False)


def _pairs(told: dict[str, Any]) -> str:
    return "call " + " ".join(f"{name}={_value(value)}" for name, value in told.items())


def _value(value: Any) -> str:
    if not isinstance(value, str):
        return str(value)
    # One call, one line, whatever a server or a caller has written; and still to be told apart.
    return json.dumps(value, ensure_ascii=False) if not value or _NEEDS_QUOTES(value) else value


_NEEDS_QUOTES = re.compile(r'[\s"=\\\x00-\x1f\x7f-\x9f]').search
