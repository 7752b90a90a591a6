"""CallRecord: what one LLM call sent to Dynamo and what Dynamo answered, and where such records are kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

STEP_NAME = "dynamo_llm_call"
"""Name of the NAT intermediate step (CUSTOM_START/CUSTOM_END) that carries a call's record in its metadata."""

RECORD_KEY = "dynamo_call"
"""Key under the step's `metadata.provided_metadata` that holds the record as a plain dict."""


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

    @property
    def has_dynamo_data(self) -> bool:
        """Whether the answer carried anything that only Dynamo says (worker or server timing)."""
        return self.worker_id is not None or self.server_ttft_ms is not None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready data."""
        return asdict(self)
