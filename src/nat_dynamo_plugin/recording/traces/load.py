"""Any file that tells of calls, as calls to ask: a recording, a trace of Mooncake's, a profiler trace of NAT's."""

from __future__ import annotations

from pathlib import Path

from nat_dynamo_plugin.recording.rows import RecordedCall, RecordingError, json_of
from nat_dynamo_plugin.recording.traces.mooncake import mooncake
from nat_dynamo_plugin.recording.traces.profiler import profiler
from nat_dynamo_plugin.recording.traces.shape import Fit, rows_of


def is_recording(file: Path) -> bool:
    """Whether a file is to be read as a recording: it is no trace.

    Raises:
        RecordingError: it can not be read.
    """
    return _kind(_start(file)) is None


def read_trace(file: Path, fit: Fit) -> list[RecordedCall]:
    """The calls of a trace, without its content.

    Args:
        file: of Mooncake's format, or NAT's profiler's.
        fit: to the server that is to be asked.

    Raises:
        RecordingError: it can not be read, or is of neither format; the message names the file.
    """
    kind = _kind(_start(file))
    if kind is None:
        raise RecordingError(
            f"{file}: is no trace: neither lines with `hash_ids` (Mooncake's) nor a list of requests with "
            "`intermediate_steps` (all_requests_profiler_traces.json of NAT's profiler)"
        )
    data = file.read_bytes()
    place = str(file)
    shapes = mooncake(data.split(b"\n"), place) if kind == "mooncake" else profiler(json_of(data), place)
    try:
        return rows_of(shapes, fit)
    except RecordingError as error:
        raise RecordingError(f"{file}: {error}") from None


def _start(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.readline(1 << 20)
    except OSError as error:
        raise RecordingError(f"{str(file)!r}: can not be read: {error.strerror}") from error


def _kind(start: bytes) -> str | None:
    if start.lstrip().startswith(b"["):
        return "profiler"
    first = json_of(start)
    return "mooncake" if isinstance(first, dict) and "hash_ids" in first else None
