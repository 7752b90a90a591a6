"""One classification of what went wrong, whoever says it."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.telemetry.kinds import ADVICE, Kind, classify, kind_of
from nat_dynamo_plugin.telemetry.record import CallRecord


@pytest.mark.parametrize(
    ("status", "error_type", "text", "kind"),
    [
        (529, "529", "", Kind.OVERLOAD),
        (429, "429", "slow down", Kind.OVERLOAD),
        (503, "503", "All workers are busy, please retry later", Kind.OVERLOAD),
        (503, "503", "Server overloaded: worker at capacity", Kind.OVERLOAD),
        (503, "503", "no instances found for endpoint backend.generate", Kind.NOT_READY),
        (404, "404", "", Kind.NOT_READY),
        (404, "404", "HTTP 404, and no word why", Kind.NOT_READY),
        (404, "404", "Model not found: boiler", Kind.UNKNOWN_MODEL),
        (500, "500", "Stream ended before generation completed", Kind.WORKER_LOST),
        (200, "error_in_answer", "Disconnected: worker 7 is gone", Kind.WORKER_LOST),
        (200, "error_in_answer", "out of memory", Kind.SERVER_ERROR),
        (500, "500", "boom", Kind.SERVER_ERROR),
        (502, "502", "<html>Bad Gateway</html>", Kind.SERVER_ERROR),
        (400, "400", "max_tokens is too large", Kind.BAD_REQUEST),
        (422, "422", "field required", Kind.BAD_REQUEST),
        (413, "413", "", Kind.BAD_REQUEST),
        (400, "400", "The response was filtered: content_filter", Kind.CONTENT_FILTER),
        (401, "401", "no such key", Kind.AUTHENTICATION),
        (403, "403", "", Kind.AUTHENTICATION),
        (408, "408", "", Kind.READ_TIMEOUT),
        (200, "cut_short", "", Kind.CUT_SHORT),
        (200, "unreadable", "", Kind.UNREADABLE),
        (200, "left", "", Kind.LEFT),
        (None, "deadline", "", Kind.DEADLINE),
        (500, "deadline", "", Kind.DEADLINE),
        (None, "circuit_open", "", Kind.CIRCUIT_OPEN),
        (200, "too_long", "", Kind.TOO_LONG),
        (302, "redirect", "", Kind.REDIRECT),
        (None, "CancelledError", "", Kind.CANCELLED),
        (None, "ZeroDivisionError", "", Kind.OTHER),
        (None, None, "", Kind.OTHER),
    ],
)
def test_what_went_wrong(status: int | None, error_type: str | None, text: str, kind: Kind) -> None:
    assert classify(status, error_type, text) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError, Kind.UNREACHABLE),
        (httpx.ProxyError, Kind.UNREACHABLE),
        (httpx.UnsupportedProtocol, Kind.UNREACHABLE),
        (httpx.ConnectTimeout, Kind.CONNECT_TIMEOUT),
        (httpx.ReadTimeout, Kind.READ_TIMEOUT),
        (httpx.WriteTimeout, Kind.WRITE_TIMEOUT),
        (httpx.PoolTimeout, Kind.POOL_TIMEOUT),
        (httpx.ReadError, Kind.BROKEN_OFF),
        (httpx.WriteError, Kind.BROKEN_OFF),
        (httpx.RemoteProtocolError, Kind.BROKEN_OFF),
    ],
)
def test_every_exception_of_a_connection_is_known(error: type[Exception], kind: Kind) -> None:
    assert classify(None, error.__name__) is kind


def test_a_whole_answer_has_no_kind() -> None:
    assert kind_of(CallRecord(status=200)) is None
    assert kind_of(CallRecord(status=400)) is Kind.BAD_REQUEST
    assert kind_of(CallRecord(status=503)) is Kind.SERVER_ERROR
    assert kind_of(CallRecord(error="gone", error_type="ReadError")) is Kind.BROKEN_OFF


def test_advice_is_for_what_can_be_helped() -> None:
    assert ADVICE.keys() <= set(Kind) and all(text and not text.endswith(".") for text in ADVICE.values())


@given(st.none() | st.integers(100, 599), st.none() | st.text(), st.text())
def test_there_is_always_a_kind(status: int | None, error_type: str | None, text: str) -> None:
    assert isinstance(classify(status, error_type, text), Kind)
