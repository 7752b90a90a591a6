"""Cut server-sent events out of bytes, however these are cut. No I/O in here.

Format: WHATWG HTML, "Server-sent events": lines end with LF, CR or CRLF, an event with an empty line; its `data` lines
are joined by LF. What Dynamo 1.6.0 says of an error that ends a stream is the comment of an `error` event without data.
"""

from __future__ import annotations

MAX_EVENT_BYTES = 2**20
"""An event above this size (bytes, line ends not counted) passes unread, so that memory stays bounded."""

_BOM = b"\xef\xbb\xbf"


class EventCutter:
    """Takes bytes, gives events: (name, data) pairs, where a name is mostly empty."""

    __slots__ = ("_after_cr", "_comments", "_data", "_first", "_name", "_partial", "_size", "idle", "lost")

    def __init__(self) -> None:
        self._partial = bytearray()
        self._data: list[bytes] = []
        self._comments: list[bytes] = []
        self._name = b""
        self._size = 0
        self._after_cr = False
        self._first = True
        self.idle = False
        """Whether the next bytes begin an event, so that whoever sees a whole one in them may take it out himself."""
        self.lost = False
        """Whether an event was too large to be read."""

    def feed(self, chunk: bytes) -> list[tuple[bytes, bytes]]:
        """Take the next bytes; the events that end in them."""
        if not chunk:
            return []
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        lines = chunk.splitlines()
        rest = lines.pop() if lines and not chunk.endswith((b"\n", b"\r")) else b""
        if lines:
            if self._partial:
                lines[0] = bytes(self._partial) + lines[0]
                self._partial.clear()
            if self._first:
                self._first = False
                lines[0] = lines[0].removeprefix(_BOM)
        events = []
        for line in lines:
            if line:
                self._size += len(line)
                if line.startswith(b"data:"):
                    self._data.append(line[6 if line.startswith(b" ", 5) else 5 :])
                elif line.startswith(b"event:"):
                    self._name = line[6:].strip()
                elif line.startswith(b":"):
                    self._comments.append(line[1:].strip())
            elif self._size:
                if self._size > MAX_EVENT_BYTES:
                    self.lost = True
                elif self._data or self._name == b"error":
                    events.append((self._name, b"\n".join(self._data or self._comments)))
                self._data.clear()
                self._comments.clear()
                self._name = b""
                self._size = 0
        self._partial += rest
        if self._size + len(self._partial) > MAX_EVENT_BYTES:
            # The event is not read, so nothing of it is kept; what is left of the line becomes a comment.
            self._size += len(self._partial)
            self._data.clear()
            self._comments.clear()
            if self._partial:
                self._partial[:] = b":"
        self.idle = not (self._size or self._partial or self._after_cr or self._first)
        return events

    def end(self) -> list[tuple[bytes, bytes]]:
        """The event that nothing ended."""
        return self.feed(b"\n\n")


def events_in(stream: bytes) -> list[bytes]:
    """The data of the events of a stream."""
    cutter = EventCutter()
    return [data for _, data in (*cutter.feed(stream), *cutter.end())]
