"""Failed calls in NAT's log."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from nat_dynamo_plugin.http.brief import BriefHandler, brief_logs

FAILED = "Connection error. [http://127.0.0.1:9, model m, prefix p, 2 attempts in 0.3 s: unreachable; check base_url]"


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What NAT's logger writes."""
    nat = logging.getLogger("nat")
    kept, level = list(nat.handlers), nat.level
    text = io.StringIO()
    nat.handlers[:] = [logging.StreamHandler(text)]
    nat.setLevel(logging.INFO)
    brief_logs()
    brief_logs()
    assert sum(isinstance(handler, BriefHandler) for handler in nat.handlers) == 1
    yield text
    nat.handlers[:] = kept
    nat.setLevel(level)


def fail(error: Exception, message: str, *arguments: object) -> None:
    try:
        raise error
    except Exception:
        logging.getLogger("nat.tool.some").exception(message, *arguments)


def test_a_failed_call_is_a_line(logged: io.StringIO) -> None:
    fail(ConnectionError(FAILED), "chat completion %s", "failed")
    assert logged.getvalue() == f"chat completion failed: ConnectionError: {FAILED}\n"


def test_what_is_said_already_is_not_said_twice(logged: io.StringIO) -> None:
    fail(ConnectionError(FAILED), "it failed: %s", FAILED)
    assert logged.getvalue() == f"it failed: {FAILED}\n"


def test_other_errors_and_debugging_keep_their_tracebacks(logged: io.StringIO) -> None:
    fail(KeyError("x"), "failed")
    assert "Traceback" in logged.getvalue() and "KeyError: 'x'" in logged.getvalue()
    logged.truncate(0)
    logging.getLogger("nat").setLevel(logging.DEBUG)
    fail(ConnectionError(FAILED), "failed")
    assert "Traceback" in logged.getvalue()
