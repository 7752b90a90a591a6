"""What went wrong, in one word for every HTTP library, status and server: the one classification of failed calls."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Protocol


class Kind(StrEnum):
    """Kinds of failure; the value is what records, metrics and messages say."""

    OVERLOAD = "overload"
    """The server is alive and takes no more: 429, 529, or a 503 that says so."""
    WORKER_LOST = "worker_lost"
    """The frontend answers, and the worker behind it is gone."""
    NOT_READY = "not_ready"
    """Dynamo 1.6.0 before it knows the model: 404 with an empty body; or a server without a worker yet."""
    UNREACHABLE = "unreachable"
    """No connection: refused, unknown host, TLS."""
    BROKEN_OFF = "broken_off"
    """The connection broke while the call was made or answered."""
    CONNECT_TIMEOUT = "connect_timeout"
    READ_TIMEOUT = "read_timeout"
    WRITE_TIMEOUT = "write_timeout"
    POOL_TIMEOUT = "pool_timeout"
    DEADLINE = "deadline"
    """`call_timeout` or `question_deadline` is over."""
    CIRCUIT_OPEN = "circuit_open"
    """Not sent, for the server has failed again and again."""
    LIMITED = "rate_limited"
    """Not sent: a limit of ours (`limits:`) is reached."""
    BUDGET = "insufficient_quota"
    """Not sent: a budget of ours is spent; OpenAI's word for it."""
    BAD_REQUEST = "bad_request"
    AUTHENTICATION = "authentication"
    UNKNOWN_MODEL = "unknown_model"
    CONTENT_FILTER = "content_filter"
    CUT_SHORT = "cut_short"
    """An answer without its end."""
    UNREADABLE = "unreadable"
    """No answer in any format we know."""
    TOO_LONG = "too_long"
    """An answer above `max_answer_bytes`."""
    REDIRECT = "redirect"
    SERVER_ERROR = "server_error"
    """Any other error of the server's, inside an answer too."""
    LEFT = "left"
    """Closed by its reader before its end."""
    CANCELLED = "cancelled"
    OTHER = "other"


ADVICE = {
    Kind.OVERLOAD: "ask with fewer calls at once (max_active_prefixes: auto, max_concurrency), or add workers",
    Kind.WORKER_LOST: "look at the workers' logs; --migration-limit lets Dynamo move a call to another worker",
    Kind.NOT_READY: "the server is up and does not serve this model yet",
    Kind.UNREACHABLE: "check host, port and scheme of base_url, and that the server runs",
    Kind.BROKEN_OFF: "look at the server's log",
    Kind.CONNECT_TIMEOUT: "check host and port of base_url, or raise connect_timeout",
    Kind.READ_TIMEOUT: "raise request_timeout if the server may think so long",
    Kind.POOL_TIMEOUT: "raise max_connections or pool_timeout",
    Kind.LIMITED: "raise the limit, or limits.max_wait",
    Kind.BUDGET: "raise the budget under limits",
    Kind.DEADLINE: "raise call_timeout or question_deadline if calls may take so long",
    Kind.AUTHENTICATION: "check api_key",
    Kind.UNKNOWN_MODEL: "check model_name against what GET /v1/models lists",
    Kind.TOO_LONG: "raise max_answer_bytes if answers may be so long",
}
"""What to do about it, where there is something to say."""

_BY_ERROR_TYPE = {
    "ConnectError": Kind.UNREACHABLE,
    "ProxyError": Kind.UNREACHABLE,
    "UnsupportedProtocol": Kind.UNREACHABLE,
    "ConnectTimeout": Kind.CONNECT_TIMEOUT,
    "PoolTimeout": Kind.POOL_TIMEOUT,
    "ReadTimeout": Kind.READ_TIMEOUT,
    "WriteTimeout": Kind.WRITE_TIMEOUT,
    "ReadError": Kind.BROKEN_OFF,
    "WriteError": Kind.BROKEN_OFF,
    "CloseError": Kind.BROKEN_OFF,
    "RemoteProtocolError": Kind.BROKEN_OFF,
    "CancelledError": Kind.CANCELLED,
    "KeyboardInterrupt": Kind.CANCELLED,
    "GeneratorExit": Kind.LEFT,
    "error_in_answer": Kind.SERVER_ERROR,
    **{kind.value: kind for kind in (Kind.DEADLINE, Kind.CIRCUIT_OPEN, Kind.CUT_SHORT, Kind.UNREADABLE)},
    **{kind.value: kind for kind in (Kind.TOO_LONG, Kind.REDIRECT, Kind.LEFT, Kind.LIMITED, Kind.BUDGET)},
}
_BY_STATUS = {
    401: Kind.AUTHENTICATION,
    403: Kind.AUTHENTICATION,
    404: Kind.UNKNOWN_MODEL,
    408: Kind.READ_TIMEOUT,
    429: Kind.OVERLOAD,
    529: Kind.OVERLOAD,
}
_OVERLOAD = re.compile(r"overload|too many requests|workers are busy|at capacity|queue is full", re.IGNORECASE)
_FILTER = re.compile(r"content.?filter|content.?management.?policy|responsible.?ai", re.IGNORECASE)
# Dynamo 1.6.0: "no instances found for endpoint", "Disconnected", "Stream ended before generation completed".
_WORKER_LOST = re.compile(
    r"no responders|disconnected|stream ended before|worker .{0,40}(?:lost|gone|died|down)"
    r"|instance .{0,60}(?:not found|lost)",
    re.IGNORECASE,
)
_NO_WORKER = re.compile(r"no instances|no workers? |model.{0,40}not ready|not.{0,10}available yet", re.IGNORECASE)


class Failed(Protocol):
    """What is looked at of a `CallRecord`."""

    status: int | None
    error: str | None
    error_type: str | None


def kind_of(record: Failed) -> Kind | None:
    """The kind of a call's failure; `None` for a call that has not failed."""
    if record.error is None and (record.status is None or record.status < 400):
        return None
    return classify(record.status, record.error_type, record.error or "")


def classify(status: int | None, error_type: str | None, text: str = "") -> Kind:
    """The kind of a failure.

    Args:
        status: HTTP status of the last answer, if there was one.
        error_type: class of the exception, or one of our own words; see `CallRecord.error_type`.
        text: the server's words, of which only the best known are looked for.
    """
    kind = _BY_ERROR_TYPE.get(error_type or "")
    if kind is not None and kind is not Kind.SERVER_ERROR:
        return kind
    if kind is None and (status is None or status < 400):
        return Kind.OTHER
    if _FILTER.search(text):
        return Kind.CONTENT_FILTER
    if kind is None and status is not None and status < 500:
        if status == 404 and (not text or text.startswith("HTTP 404")):
            return Kind.NOT_READY
        return _BY_STATUS.get(status, Kind.BAD_REQUEST)
    if status == 529 or _OVERLOAD.search(text):
        return Kind.OVERLOAD
    if _NO_WORKER.search(text):
        return Kind.NOT_READY
    return Kind.WORKER_LOST if _WORKER_LOST.search(text) else Kind.SERVER_ERROR
