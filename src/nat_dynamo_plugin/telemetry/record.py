"""CallRecord: what one LLM call sent and what was answered. A leaf: it imports nothing of this package, nor NAT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

STEP_NAME = "dynamo_llm_call"
"""Name of the NAT intermediate step (CUSTOM_START/CUSTOM_END) that carries a call's record in its metadata."""

RECORD_KEY = "dynamo_call"
"""Key under the step's `metadata.provided_metadata` that holds the record as a plain dict."""

ARRIVAL_STEP_NAME = "dynamo_arrival"
"""Name of the step that marks when a question arrived, if that is before its workflow started (`sweep.open_loop`)."""


class Usage(NamedTuple):
    """The tokens of one call as its server counted them; `None` where it did not say.

    Attributes:
        prompt_tokens: tokens of the whole prompt, cached ones included.
        cached_tokens: those of them that came out of a cache.
        completion_tokens: tokens of the answer, those of its reasoning included.
        cache_write_tokens: tokens of the prompt that were written to a cache, whatever their lifetime; no cached ones.
        cache_writes: the same by lifetime, `5m`, `30m`, `1h` or `12h`, where the server tells them apart.
        reasoning_tokens: those tokens of the answer that were reasoning.
        reported_usd: what the server says that the call costs, in USD.
    """

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_writes: Mapping[str, int] | None = None
    reasoning_tokens: int | None = None
    reported_usd: float | None = None


@dataclass(slots=True, kw_only=True)
class CallRecord:
    """One LLM call as its caller sees it, retries included. `None` means: not known, because nobody said.

    Who the call is of (we say it, by NAT's context and the user's scopes):

    Attributes:
        prefix_id: the question; all its calls have the same.
        session_id: the agent's chain of reasoning within the question: what is sent as the session.
        parent_session_id: the session of the agent that called this one.
        call_index: how many calls of this session came before, from 0.
        function_path: names of NAT's functions around the call, outermost first.
        calls_to_come: calls of this session that were expected after this one when it was made.
        hints: the body's `nvext.agent_hints` as they were sent; empty if none were.
        wire: names of the dialects that said it.
        org: what stands for the org that the call is for, if `org` is configured; never its name.
        prompt_version: hash of the prompt's stable part, or its name by scope, if `prompt_versions` is on.
        trace_id: the trace that the call is part of, 32 hexadecimal digits, if `trace` is on.
        span_id: the call's own span in it, 16 hexadecimal digits.
        request_ids: `x-request-id` of each attempt, in order, if `trace` is on.

    What was asked, and of whom (we say it):
        api: `chat_completions`, `completions`, `responses`, `messages` (Anthropic's) or `converse` (Bedrock's).
        streamed: whether the answer came as server-sent events.
        request_model: the model asked for.
        messages_left_out: messages of the caller's that were not sent, for the conversation is too long (`context:`).
        provider: whose server it is, in the words of OpenTelemetry's `gen_ai.provider.name`.
        origin: the server's scheme, host and port, without user name and password.
        attempts: HTTP requests sent for the call; 1 if it was never retried, 0 if it ended before one was sent.

    What was answered (the server says it):
        status: the HTTP status of the last attempt; `None` if there was no answer.
        model: the model that answered.
        worker_id: Dynamo's worker that decoded.
        prompt_tokens: tokens of the whole prompt, cached ones included.
        cached_tokens: prompt tokens that the engine reused from its KV cache.
        completion_tokens: tokens of the answer, those of its reasoning included.
        cache_write_tokens: prompt tokens that were written to a provider's cache, where it says so.
        cache_writes: the same by lifetime (`5m`, `30m`, `1h`, `12h`), where the provider tells them apart.
        reasoning_tokens: those tokens of the answer that were reasoning.
        reported_usd: what the provider says that the answer costs, in USD.
        kv_hit_rate: share of the prompt (0 to 1) that Dynamo's router believed cached; `cached_tokens` is what was.
        queue_depth: requests in Dynamo's router queue.
        finish_reason: `finish_reason` of the choice that ended last; the status of a response of the responses API.
        cache: `exact` or `semantic` if the answer came out of the response cache (`cache:`): then no server was asked,
            and the tokens are those of the call that made the answer.

    How it ended (we say it, in the server's words where it has some):
        error: why this is no whole answer; `None` for a whole one.
        error_type: the kind of error in one word, of which there are few: the exception's class, the HTTP status,
            `error_in_answer` (a 200 that carries an error), `cut_short` (a stream that ended early), `left` (by its
            reader, before its end), `unreadable`, `deadline`, `too_long`.
        kind: what went wrong, for every server and HTTP library the same; see `telemetry.kinds.Kind`.

    What it cost (`cost:` in the config; see `cost.pricing`):
        cost_usd: in USD, attempts included whose answers broke and whose usage is known; `None` if nobody knows.
        cost_source: `provider`, `prices`, `genai-prices` with its version, `gpu_hour_usd`, or `cache`: the answer was
            none of a server's.
        saved_usd: what an answer out of the response cache would have cost.
        unpriced_attempts: attempts whose answers broke before they said their usage. They may be on the bill and are
            not in `cost_usd`.

    Times of the server, in ms, of the last attempt only:
        server_ttft_ms: request received to first token.
        server_total_ms: request received to last token.
        server_prefill_wait_ms: wait for a prefill worker.

    Times of this client, in ms unless said otherwise:
        started_at: when the caller made the call, in seconds since the epoch.
        client_total_ms: from there to the last byte of the answer. **Includes the wait at the gate, all attempts and
            the waits between them.**
        client_ttft_ms: from there to the first event of a stream with a token (content, reasoning or a tool call; a
            role alone is none). Includes the same waits.
        client_itl_ms: mean time between tokens, first to last, by the server's count of them if it says one. Includes
            no wait of ours.
        gate_wait_ms: wait at the gate; `None` where there is no gate.
        retry_wait_ms: waits between attempts, the failed attempts themselves not included.
        slot_wait_ms: waits for a slot (`max_concurrency`), of all attempts.
        limit_wait_ms: waits for room by the rules of `limits:` and by the provider's own limits, of all attempts.
        outage_wait_ms: waits for a server that was down (`on_outage: wait`), of all attempts.
    """

    prefix_id: str | None = None
    session_id: str | None = None
    parent_session_id: str | None = None
    call_index: int = 0
    function_path: tuple[str, ...] = ()
    calls_to_come: float | None = None
    hints: dict[str, Any] = field(default_factory=dict)
    wire: tuple[str, ...] = ()
    org: str | None = None
    prompt_version: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    request_ids: tuple[str, ...] = ()
    api: str = ""
    streamed: bool = False
    request_model: str | None = None
    messages_left_out: int = 0
    provider: str | None = None
    origin: str | None = None
    attempts: int = 1
    status: int | None = None
    model: str | None = None
    worker_id: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_writes: dict[str, int] = field(default_factory=dict)
    reasoning_tokens: int | None = None
    reported_usd: float | None = None
    kv_hit_rate: float | None = None
    queue_depth: int | None = None
    finish_reason: str | None = None
    cache: str | None = None
    error: str | None = None
    error_type: str | None = None
    kind: str | None = None
    cost_usd: float | None = None
    cost_source: str | None = None
    saved_usd: float | None = None
    unpriced_attempts: int = 0
    server_ttft_ms: float | None = None
    server_total_ms: float | None = None
    server_prefill_wait_ms: float | None = None
    started_at: float = 0.0
    client_total_ms: float | None = None
    client_ttft_ms: float | None = None
    client_itl_ms: float | None = None
    gate_wait_ms: float | None = None
    retry_wait_ms: float = 0.0
    slot_wait_ms: float = 0.0
    limit_wait_ms: float = 0.0
    outage_wait_ms: float = 0.0

    @property
    def has_dynamo_data(self) -> bool:
        """Whether the answer carried anything that only Dynamo says (worker or server timing)."""
        return self.worker_id is not None or self.server_ttft_ms is not None

    @property
    def failed(self) -> bool:
        """Whether the call ended in an error or an HTTP status of 400 and above."""
        return self.error is not None or (self.status is not None and self.status >= 400)

    @property
    def failure(self) -> str | None:
        """The kind of failure in one word (see `error_type`), `_OTHER` if nobody named it; `None` if there is none."""
        if not self.failed:
            return None
        if self.error_type is not None:
            return self.error_type
        return str(self.status) if self.status is not None and self.status >= 400 else "_OTHER"

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready data."""
        return {name: getattr(self, name) for name in _NAMES} | {
            "hints": dict(self.hints),
            "cache_writes": dict(self.cache_writes),
        }


_NAMES = tuple(spec.name for spec in fields(CallRecord))
