"""The file of a recording."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nat_dynamo_plugin.recording.rows import RecordedCall, RecordingError, ToolCall, head, read, redactor

ROW = RecordedCall("q-1", 5.0, 2.0, [{"role": "user", "content": "x"}], "y", [ToolCall("stock", "{}")], ["stock"], 9, 3)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    file.write_bytes(head([r"\d+"]) + msgspec.json.encode(ROW) + b"\n")
    assert read(file) == ([ROW], [r"\d+"]) and ROW.ended_s == 7.0


def test_a_last_line_that_was_cut_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    line = msgspec.json.encode(ROW)
    file.write_bytes(head([]) + line + b"\n" + head([]) + line[:-9])
    assert read(file)[0] == [ROW]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "first line does not name the format"),
        (b'{"key": "a", "content": "b"}\n', "first line does not name the format"),
        (head([]), "holds no call"),
        (head([]) + b'{"question": 3}\n', "line 2: Expected `str`"),
        (head([]) + b"nonsense\n", "line 2"),
    ],
)
def test_what_is_no_recording_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "calls.jsonl"
    file.write_bytes(content)
    with pytest.raises(RecordingError, match=says) as caught:
        read(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="can not be read: No such file"):
        read(tmp_path / "none.jsonl")


def test_all_texts_are_redacted_and_nothing_else() -> None:
    data = {"a": ["card 1234", {"b": "1234 and 1"}], "n": 1234, "none": None}
    assert redactor([r"\d{4}"])(data) == {
        "a": ["card [redacted]", {"b": "[redacted] and 1"}],
        "n": 1234,
        "none": None,
    }
    with pytest.raises(ValueError, match=r"'\(' is no regular expression"):
        redactor(["("])
