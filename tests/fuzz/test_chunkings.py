"""However the bytes of a stream are cut, within UTF-8 or a line's end: the record is the same, and what passes too."""

from __future__ import annotations

from typing import Any

import httpx

from nat_dynamo_plugin.telemetry.record import CallRecord

from .answers import broken_stream, cut, events, stream
from .calls import Body, Caller
from .examples import examples

SAID = (
    "status",
    "error_type",
    "kind",
    "streamed",
    "finish_reason",
    "model",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "worker_id",
    "server_ttft_ms",
    "kv_hit_rate",
)


def reply(pieces: list[bytes]) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Body(pieces))


def said(record: CallRecord) -> dict[str, Any]:
    """What the record says of the answer, but for times."""
    return {name: getattr(record, name) for name in SAID}


def test_a_whole_stream_passes_as_it_is() -> None:
    caller = Caller()
    for name, dice in examples():
        sent = stream(dice, events(dice))
        pieces = cut(dice, sent)
        expected = caller.bytes_of(reply([sent]))
        passed, record = caller.bytes_of(reply(pieces))
        assert passed == expected[0] == sent, f"example {name}: of {pieces} there passed {passed!r}"
        assert said(record) == said(expected[1]), f"example {name}: {pieces}: {record}"
        assert not record.failed, f"example {name}: {pieces}: {record}"


def test_a_broken_stream_is_broken_however_it_is_cut() -> None:
    caller = Caller()
    for name, dice in examples():
        sent = broken_stream(dice)
        pieces = cut(dice, sent)
        passed, record = caller.bytes_of(reply(pieces))
        _, expected = caller.bytes_of(reply([sent]))
        found = f"example {name}: {pieces}\n{record}\n{expected}\n{passed!r}"
        assert record.failed == expected.failed, found
        if record.failed:
            # No more than what was sent, and behind it the error.
            before, mark, error = passed.rpartition(b'\n\ndata: {"error": ')
            assert mark and sent.startswith(before), found
            assert error.endswith(b"\n\n"), found
        else:
            assert said(record) == said(expected), found
            assert passed.rstrip() == sent.rstrip(), found
