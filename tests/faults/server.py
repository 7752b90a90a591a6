"""A scripted HTTP/1.1 server on loopback that plays one fault, with a say over every byte, and counts what it sees.

Faults are in `faults.py`. A server is a listening socket and a thread for each connection, so a test has one of its own
and knows that whatever was counted came from its call.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from .faults import Fault

LIMIT_S = 10.0
"""Longest time a fault that never ends is played (s); a client that is still there by then has no limit."""
LIMIT_BYTES = 64 * 2**20
"""Most bytes that a fault without end sends; a client that has read them all has no limit."""


class Overrun(Exception):
    """A client bore a fault beyond every limit."""


@dataclass(frozen=True)
class Request:
    """One request as it reached the server; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def streamed(self) -> bool:
        """Whether a streamed answer is asked for."""
        return bool(self.data.get("stream"))


Play = Callable[["Peer", Request], None]
"""What is done with a request. Unless it closes the connection, the next request is read from it."""


class Peer:
    """The client's end of one connection, as a fault sees it.

    Every method raises OSError if the client has gone, and `Overrun` if the client bears too much.
    """

    def __init__(self, connection: socket.socket, server: FaultServer) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(LIMIT_S)
        self._connection = connection
        self._unread = b""
        self._sent = 0
        self.server = server
        self.closed = False

    def send(self, data: bytes) -> None:
        """Send all of `data`, in one packet if it fits."""
        self._sent += len(data)
        if self._sent > LIMIT_BYTES:
            raise Overrun(f"the client read {self._sent >> 20} MB")
        try:
            self._connection.sendall(data)
        except TimeoutError:
            raise Overrun("the client neither read nor left") from None

    def send_bytewise(self, data: bytes) -> None:
        """Send each byte in a packet of its own."""
        for i in range(len(data)):
            self.send(data[i : i + 1])

    def pause(self, seconds: float) -> None:
        """Do nothing for a while, but notice if the client leaves."""
        if select.select([self._connection], [], [], seconds)[0] and not self._connection.recv(65536):
            raise ConnectionResetError("the client left")

    def hang(self) -> None:
        """Do nothing until the client leaves."""
        self._for_ever(LIMIT_S)

    def repeat(self, data: bytes, pause_s: float = 0.0) -> None:
        """Send `data` again and again until the client leaves."""
        self._for_ever(pause_s, data)

    def _for_ever(self, pause_s: float, data: bytes = b"") -> None:
        end = monotonic() + LIMIT_S
        while monotonic() < end:
            self.send(data)
            self.pause(pause_s)
        raise Overrun(f"the client stayed for {LIMIT_S:.0f} s")

    def close(self) -> None:
        """End the connection in the orderly way (FIN)."""
        if not self.closed:
            self.closed = True
            self._connection.close()

    def reset(self) -> None:
        """Break the connection (RST)."""
        if not self.closed:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()

    def read(self) -> Request | None:
        """The next request; `None` if the client has ended the connection."""
        if (end := self._read_until(lambda: self._unread.find(b"\r\n\r\n") + 1)) is None:
            return None
        head, self._unread = self._unread[: end - 1].decode("latin-1"), self._unread[end + 3 :]
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if self._read_until(lambda: len(self._unread) >= length) is None:
            return None
        body, self._unread = self._unread[:length], self._unread[length:]
        return Request(method, path, headers, body)

    def _read_until(self, found: Callable[[], int]) -> int | None:
        """What `found` gives as soon as that is not 0; `None` if the client leaves before."""
        self._connection.settimeout(None)  # a client may keep an idle connection for as long as it likes
        while not (value := found()):
            data = self._connection.recv(65536)
            if not data:
                return None
            self._unread += data
        self._connection.settimeout(LIMIT_S)
        return value


class FaultServer:
    """Plays a fault to the first requests (or connections) and answers the others well. Use it as a context manager.

    Attributes:
        address: where it listens.
        origin: the same as scheme, host and port.
        other_origin: another server, which answers well.
        requests: what was asked, in order.
        strangers: what was asked of the other origin, to which some faults redirect.
        connections: how many connections there were.
        open_connections: how many of them are open.
        overrun: what a client bore that should have had a limit; empty if nothing.
    """

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.requests: list[Request] = []
        self.strangers: list[Request] = []
        self.connections = 0
        self.open_connections = 0
        self.overrun = ""
        self._played = 0
        self._lock = threading.Lock()
        self._peers: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._socket = self._bound()
        self._other = self._bound()
        self.address: tuple[str, int] = self._socket.getsockname()
        self.origin = "http://{}:{}".format(*self.address)
        self.other_origin = "http://{}:{}".format(*self._other.getsockname())

    @staticmethod
    def _bound() -> socket.socket:
        made = socket.socket()
        made.bind(("127.0.0.1", 0))
        return made

    @property
    def base_url(self) -> str:
        """What OpenAI clients call base URL."""
        return f"{self.origin}/v1"

    def __enter__(self) -> Self:
        if self.fault.listens:
            self._listen(self._socket, self._serve)
        self._listen(self._other, self._serve_stranger)
        return self

    def __exit__(self, *_: object) -> None:
        for listening in (self._socket, self._other):
            try:
                listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in `accept`
            except OSError:
                assert not self.fault.listens
            listening.close()
        with self._lock:
            peers, threads = list(self._peers), list(self._threads)
        for peer in peers:
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed in the meantime
        for thread in threads:
            thread.join(LIMIT_S)

    def recover(self) -> None:
        """Answer well from now on."""
        self.fault = replace(self.fault, times=0)

    def _listen(self, listening: socket.socket, serve: Callable[[Peer], None]) -> None:
        listening.listen(128)
        self._start(self._accept, listening, serve)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self, listening: socket.socket, serve: Callable[[Peer], None]) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with self._lock:
                self.connections += listening is self._socket
                self.open_connections += 1
                self._peers.add(connection)
            self._start(self._converse, connection, serve)

    def _converse(self, connection: socket.socket, serve: Callable[[Peer], None]) -> None:
        peer = Peer(connection, self)
        try:
            serve(peer)
        except Overrun as overrun:
            self.overrun = str(overrun)
            peer.reset()
        except OSError:
            pass  # the client left, as clients do
        finally:
            peer.close()
            with self._lock:
                self._peers.discard(connection)
                self.open_connections -= 1

    def _is_faulty(self) -> bool:
        """Whether the fault is played once more."""
        with self._lock:
            self._played += 1
            return self.fault.times is None or self._played <= self.fault.times

    def _serve(self, peer: Peer) -> None:
        from .faults import good

        fault = self.fault
        if fault.at_accept and self._is_faulty():
            fault.play(peer, Request("", "", {}, b""))
        while not peer.closed and (request := peer.read()) is not None:
            self.requests.append(request)
            (fault.play if not fault.at_accept and self._is_faulty() else good)(peer, request)

    def _serve_stranger(self, peer: Peer) -> None:
        from .faults import good

        while not peer.closed and (request := peer.read()) is not None:
            self.strangers.append(request)
            good(peer, request)
