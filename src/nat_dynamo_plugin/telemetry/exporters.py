"""Where records go. A backend a file; each is used by itself where its library is installed.

Nothing here makes a call fail: a backend that can not be made is left out, and one that fails at a record is passed
over. Both are logged with their traceback, once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module

from nat_dynamo_plugin.telemetry.record import CallRecord

logger = logging.getLogger(__name__)

Emit = Callable[[CallRecord], None]
"""Where a finished record goes. Should not raise, and must not block."""

BACKENDS = {"nat_steps": "nat", "prometheus": "prometheus_client", "otel": "opentelemetry"}
"""The modules beside this one that have an `exporter()`, and the package that each needs."""


class _Exporters:
    """The exporters of this process. A snapshot is iterated, so that changing them is safe at any time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.chosen: tuple[Emit, ...] | None = None
        self.defaults: tuple[Emit, ...] | None = None
        self.failed: list[Emit] = []

    def current(self) -> tuple[Emit, ...]:
        chosen = self.chosen
        if chosen is None:
            chosen = self.defaults
        if chosen is None:
            with self.lock:
                if self.defaults is None:
                    self.defaults = default_exporters()
                chosen = self.defaults
        return chosen


_exporters = _Exporters()


def default_exporters() -> tuple[Emit, ...]:
    """NAT's intermediate steps, and Prometheus and OpenTelemetry metrics where their libraries are installed."""
    exporters: list[Emit] = []
    for name, needs in BACKENDS.items():
        try:
            exporters.append(import_module(f"nat_dynamo_plugin.telemetry.{name}").exporter())
        except Exception as error:
            if not isinstance(error, ModuleNotFoundError) or (error.name or "").partition(".")[0] != needs:
                logger.warning("No records go to %s, which can not be set up", name, exc_info=True)
    return tuple(exporters)


def prepare() -> None:
    """Make the exporters now, not at the first record, so that their metrics are there from the beginning."""
    _exporters.current()


def set_exporters(exporters: Sequence[Emit] | None) -> None:
    """Choose where records go; `None` goes back to the default (`default_exporters`)."""
    with _exporters.lock:
        _exporters.chosen = None if exporters is None else tuple(exporters)
        _exporters.failed = []


def add_exporter(exporter: Emit) -> None:
    """Send records to one more place, besides those that have them already."""
    defaults = _exporters.current()
    with _exporters.lock:
        _exporters.chosen = (*(defaults if _exporters.chosen is None else _exporters.chosen), exporter)


def emit(record: CallRecord) -> None:
    """Hand a finished record to every exporter. Never raises: an exporter that fails is logged, the others go on."""
    for exporter in _exporters.current():
        try:
            exporter(record)
        except Exception as error:
            with suppress(Exception):
                _log(exporter, error)


def _log(exporter: Emit, error: Exception) -> None:
    with _exporters.lock:
        again = any(exporter is other for other in _exporters.failed)
        if not again:
            _exporters.failed.append(exporter)
    level = logging.DEBUG if again else logging.WARNING
    logger.log(level, "The telemetry exporter %r failed (said once; later failures as DEBUG)", exporter, exc_info=error)
