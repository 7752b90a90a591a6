"""Writes calls to a recording as they end."""

from __future__ import annotations

from pathlib import Path

import msgspec

from nat_dynamo_plugin.recording.recorder import Recorder
from nat_dynamo_plugin.recording.rows import RecordedCall, ToolCall, head, read
from nat_dynamo_plugin.telemetry.record import CallRecord

ROW = RecordedCall("q-1", 5.0, 2.0, [{"role": "user", "content": "x"}], "y", [ToolCall("stock", "{}")])


def test_what_comes_after_a_line_that_was_cut_is_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    line = msgspec.json.encode(ROW)
    file.write_bytes(head([]) + line + b"\n" + line[:-9])
    recorder = Recorder(file)
    recorder.keep(b'{"messages": [{"role": "user", "content": "later"}]}', ("z", []), CallRecord())
    rows, _ = read(file)
    assert [row.content for row in rows] == ["y", "z"]


def test_tools_are_told_apart_without_a_word_of_their_definitions(tmp_path: Path) -> None:
    def asked(*texts: str) -> bytes:
        tools = [{"type": "function", "function": {"name": "t", "description": text}} for text in texts]
        return msgspec.json.encode({"messages": [], "tools": tools})

    file = tmp_path / "calls.jsonl"
    recorder = Recorder(file)
    for texts in (("one", "other"), ("other",)):
        recorder.keep(asked(*texts), ("x", []), CallRecord())
    (first, second), _ = read(file)
    assert first.tools == ["t", "t"] and second.tools == ["t"]
    assert first.tool_shapes[1] == second.tool_shapes[0] != first.tool_shapes[0]
    size = len('{"type":"function","function":{"name":"t","description":"one"}}')
    assert [chars for chars, _ in first.tool_shapes] == [size, size + 2]
    assert b"other" not in file.read_bytes()
