"""CallRecord: what one LLM call sent to Dynamo and what Dynamo answered, and where such records are kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

logger = logging.getLogger(__name__)

STEP_NAME = "dynamo_llm_call"
"""Name of the NAT intermediate step (CUSTOM_START/CUSTOM_END) that carries a call's record in its metadata."""

RECORD_KEY = "dynamo_call"
"""Key under the step's `metadata.provided_metadata` that holds the record as a plain dict."""

ARRIVAL_STEP_NAME = "dynamo_arrival"
"""Name of the step that marks when a question arrived, if that is before its workflow started (`sweep.open_loop`)."""


@dataclass(slots=True, kw_only=True)
class CallRecord:
    """One LLM call. `None` means: not known, because the server did not say.

    Times are milliseconds, `started_at` is seconds since the epoch, token counts are tokens.
    """

    prefix_id: str | None = None
    session_id: str | None = None
    parent_session_id: str | None = None
    call_index: int = 0
    function_path: tuple[str, ...] = ()
    hints: dict[str, Any] = field(default_factory=dict)
    wire: tuple[str, ...] = ()
    api: str = ""
    streamed: bool = False
    started_at: float = 0.0
    model: str | None = None
    worker_id: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    kv_hit_rate: float | None = None
    server_ttft_ms: float | None = None
    server_total_ms: float | None = None
    server_prefill_wait_ms: float | None = None
    queue_depth: int | None = None
    client_ttft_ms: float | None = None
    client_itl_ms: float | None = None
    client_total_ms: float | None = None
    status: int | None = None
    finish_reason: str | None = None
    error: str | None = None
    calls_to_come: float | None = None
    gate_wait_ms: float | None = None
    attempts: int = 0
    retry_wait_ms: float | None = None

    @property
    def has_dynamo_data(self) -> bool:
        """Whether the answer carried anything that only Dynamo says (worker or server timing)."""
        return self.worker_id is not None or self.server_ttft_ms is not None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready data."""
        return asdict(self)


Emit = Callable[[CallRecord], None]
"""Where a finished record goes. Must not raise and must not block."""


class _Exporters:
    """The exporters of this process. A snapshot is iterated, so that changing them is safe at any time."""

    def __init__(self) -> None:
        self.current: tuple[Emit, ...] | None = None


_exporters = _Exporters()


def set_exporters(exporters: Sequence[Emit] | None) -> None:
    """Choose where records go; `None` goes back to the default (`instrumentation.default_exporters`)."""
    _exporters.current = None if exporters is None else tuple(exporters)


def add_exporter(exporter: Emit) -> None:
    """Send records to one more place, besides those that have them already."""
    _exporters.current = (*_active(), exporter)


def _active() -> tuple[Emit, ...]:
    if _exporters.current is None:
        from nat_dynamo_plugin.telemetry.defaults import default_exporters

        _exporters.current = default_exporters()
    return _exporters.current


def emit(record: CallRecord) -> None:
    """Hand a finished record to every exporter. An exporter that fails is logged; the call goes on."""
    for exporter in _active():
        try:
            exporter(record)
        except Exception:
            logger.warning("The telemetry exporter %r failed", exporter, exc_info=True)
