"""A server of a benchmark's own, in a process of its own: reads requests, and leaves the answers to a subclass."""

from __future__ import annotations

import asyncio
from typing import Any


class Requests(asyncio.Protocol):
    """One connection, which tells of each request when it is whole."""

    def __init__(self) -> None:
        self._got = b""

    def connection_made(self, transport: Any) -> None:
        """Keep the connection."""
        self.to = transport

    def data_received(self, data: bytes) -> None:
        """Take the next bytes."""
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            head = self._got[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._got) < end + 4 + length:
                return
            body, self._got = self._got[end + 4 : end + 4 + length], self._got[end + 4 + length :]
            self.asked(head, b'"stream":true' in body.replace(b" ", b""))

    def asked(self, head: bytes, streamed: bool) -> None:
        """Answer a request.

        Args:
            head: request line and headers, in lower case.
            streamed: whether a stream is wanted.
        """
        raise NotImplementedError


def serve(requests: type[Requests], port: Any) -> None:
    """Serve on a free port of 127.0.0.1 until the process is ended; the port goes into a pipe."""

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(requests, "127.0.0.1", 0, backlog=4096)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())
