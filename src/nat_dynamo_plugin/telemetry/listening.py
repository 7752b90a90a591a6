"""Prometheus' metrics over HTTP, for applications that expose none themselves, where the environment asks for it."""

from __future__ import annotations

import errno
import logging
import os
import threading

logger = logging.getLogger(__name__)

METRICS_ADDRESS = "NAT_DYNAMO_METRICS"
"""Where to serve Prometheus' metrics: `port` or `host:port`; the host is `127.0.0.1` if not given. Each process has
metrics of its own: the first takes the port, the others the next free one of sixteen."""
PORTS = 16

_lock = threading.Lock()
_served_by: int | None = None


def expose_metrics() -> None:
    """Serve the default registry's metrics, once a process, if `NAT_DYNAMO_METRICS` says where. Never raises."""
    global _served_by
    address = os.environ.get(METRICS_ADDRESS, "").strip()
    if not address:
        return
    with _lock:
        if _served_by == os.getpid():
            return
        _served_by = os.getpid()
        try:
            logger.info("Metrics are at http://%s:%d/metrics", *_serve(*_parsed(address)))
        except Exception as error:
            logger.warning("%s=%r: no metrics are served: %s", METRICS_ADDRESS, address, error)


def _parsed(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
        raise ValueError("give a port from 1 to 65535, or host:port")
    return host.strip("[]") or "127.0.0.1", int(port)


def _serve(host: str, first: int) -> tuple[str, int]:
    """Host and port that are served on."""
    from prometheus_client import start_http_server

    for port in range(first, min(first + PORTS, 65536)):
        try:
            start_http_server(port, host)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return host, port
    raise OSError(errno.EADDRINUSE, f"ports {first} to {first + PORTS - 1} are all taken")
