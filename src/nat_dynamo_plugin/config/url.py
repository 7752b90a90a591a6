"""URLs of servers, as users write them."""

from __future__ import annotations

from urllib.parse import urlsplit

from nat_dynamo_plugin.nearest import hidden, shown

_PORTS = {"http": 80, "https": 443}


def checked_url(name: str, url: str) -> str:
    """A server's URL.

    Raises:
        ValueError: if it is none, with what was probably meant.
    """
    near = ""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url == url.strip():
            return url
        if parts.scheme not in ("http", "https"):
            rest = url.strip().rpartition("://")[2].lstrip("/")
            near = f"; did you mean {hidden('http://' + rest + ('' if '/' in rest else '/v1'))}?"
    except ValueError:
        pass  # a port that is no number, or half an IPv6 address
    raise ValueError(
        f"{shown(name, url)} is no URL of a server: use http:// or https://, a host, and a port from 1 to 65535{near}"
    )


def server_of(url: str) -> str:
    """A URL without what does not tell servers apart: case, the default port, the user, a slash at the end."""
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{port}{parts.path.rstrip('/')}"
