"""A server for the engines that does what a test tells it, and engines as the clients have them."""

from __future__ import annotations

import datetime
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from types import ModuleType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nat_dynamo_plugin.http.flow import chained
from nat_dynamo_plugin.http.httpx2_shell import Httpx2Shell
from nat_dynamo_plugin.http.httpx_shell import HttpxShell

SHELLS = {"httpx": HttpxShell, "httpx2": Httpx2Shell}
Serve = Callable[[socket.socket], None]
OK = b"HTTP/1.1 200 OK\r\n"


def request_of(connection: socket.socket) -> bytes:
    """The head of a request, and its body by its content length or in its chunks."""
    data = b""

    def more() -> bytes:
        if piece := connection.recv(1_048_576):
            return piece
        raise ConnectionError

    while b"\r\n\r\n" not in data:
        data += more()
    head, _, body = data.partition(b"\r\n\r\n")
    names = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(names.get(b"content-length", 0)):
        body += more()
    while names.get(b"transfer-encoding") == b"chunked" and not body.endswith(b"0\r\n\r\n"):
        body += more()
    return head + b"\r\n\r\n" + body


def reset(connection: socket.socket) -> None:
    """Close with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def says(*pieces: bytes, then: Serve = lambda connection: connection.close()) -> Serve:
    """Reads a request and says something."""

    def serve(connection: socket.socket) -> None:
        request_of(connection)
        for piece in pieces:
            connection.sendall(piece)
        then(connection)

    return serve


def hangs(connection: socket.socket) -> None:
    """Wait until the client gives up."""
    connection.recv(1)


def shell(library: ModuleType, engine: Any) -> Any:
    """The engine as the clients have it, without layers."""
    return SHELLS[library.__name__](engine, chained([]))


class Server:
    """Serves each connection in a thread, with one function.

    Attributes:
        serve: what it does with a connection.
        heads: the requests, with their bodies.
        connections: how many there were.
        over: how many of them have ended.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.serve: Serve = says()
        self.heads: list[bytes] = []
        self.connections = 0
        self.over = 0
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._socket.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/v1/chat/completions?a=%2F"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        try:
            with connection:
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                with connection:
                    self.serve(connection)
        except OSError:
            pass
        finally:
            self.over += 1

    def answers(self, connection: socket.socket) -> None:
        """Answer as long as the client asks, with what it said."""
        while True:
            request = request_of(connection)
            self.heads.append(request)
            body = request.partition(b"\r\n\r\n")[2]
            connection.sendall(OK + b"content-length: %d\r\nX-Twice: a\r\nX-Twice: b\r\n\r\n%s" % (len(body), body))

    def close(self) -> None:
        """Take no more connections."""
        self._socket.close()


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that signs itself, and the context of a server that has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of the tests")])
    day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context
