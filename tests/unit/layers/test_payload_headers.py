"""NAT's payload fields as headers; a field that fits none fails no call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from nat.builder.context import ContextState
from pydantic import BaseModel, ConfigDict

from nat_dynamo_plugin.http.call import Reply
from nat_dynamo_plugin.layers.payload_headers import PayloadHeadersLayer


class Message(BaseModel):
    model_config = ConfigDict(extra="allow")


@pytest.fixture(autouse=True)
def no_message_stays() -> Iterator[None]:
    variable = ContextState.get().input_message
    token = variable.set(None)
    yield
    variable.reset(token)


def sent(drive: Any, scripted: Any, **extra: Any) -> dict[str, str]:
    token = ContextState.get().input_message.set(Message(**extra))
    try:
        server = scripted(Reply.made(200, b""))
        drive(PayloadHeadersLayer(), server)
        headers: dict[str, str] = server.sent[0]["headers"]
        return headers
    finally:
        ContextState.get().input_message.reset(token)


def test_a_field_is_a_header(drive: Any, scripted: Any) -> None:
    assert sent(drive, scripted, user_id="u 7", size=3, none=None) == {
        "X-Payload-user-id": "u 7",
        "X-Payload-size": "3",
    }


@pytest.mark.parametrize(
    "extra",
    [
        {"note": "line 1\nline 2"},
        {"user text": "x"},
        {"note": "trailing "},
        {"note": "x" * 100_000},
        {"n": "ü"},
        {"": "x"},
    ],
)
def test_what_fits_no_header_is_left_out(drive: Any, scripted: Any, extra: dict[str, str]) -> None:
    assert sent(drive, scripted, good="yes", **extra) == {"X-Payload-good": "yes"}
