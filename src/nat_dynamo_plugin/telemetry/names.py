"""The names of OpenTelemetry's generative AI conventions that we use: the only place that has any.

They come as two sets. Default is v1.41 of the general conventions, the last that had them; since then they live in
`open-telemetry/semantic-conventions-genai`, where all is in development and metrics were renamed (v0.1.0). By the
conventions' transition rule an instrumentation goes on with the names it had, until whoever runs it sets
`OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental` (a comma-separated list may hold it): then it gives the
latest names *instead*. Attributes are the same in both. Bucket boundaries are the conventions' own.
"""

from __future__ import annotations

import os
from typing import NamedTuple

OPT_IN_VARIABLE = "OTEL_SEMCONV_STABILITY_OPT_IN"
"""OpenTelemetry's: a list separated by commas; with `gen_ai_latest_experimental` in it, the newest names are used."""
OPT_IN = "gen_ai_latest_experimental"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
TOKEN_TYPE = "gen_ai.token.type"
ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"

SPAN = (
    ("request_model", REQUEST_MODEL, ""),
    ("model", RESPONSE_MODEL, ""),
    ("session_id", "gen_ai.conversation.id", ""),
    ("streamed", "gen_ai.request.stream", ""),
    ("client_ttft_ms", "gen_ai.response.time_to_first_chunk", "s"),
    ("prompt_tokens", "gen_ai.usage.input_tokens", ""),
    ("completion_tokens", "gen_ai.usage.output_tokens", ""),
    ("cached_tokens", "gen_ai.usage.cache_read.input_tokens", ""),
    ("status", "http.response.status_code", ""),
    ("prefix_id", "nat_dynamo.prefix_id", ""),
    ("call_index", "nat_dynamo.call_index", ""),
    ("function_path", "nat_dynamo.function_path", ""),
    ("worker_id", "nat_dynamo.worker_id", "text"),
    ("kv_hit_rate", "nat_dynamo.kv_hit_rate", ""),
    ("queue_depth", "nat_dynamo.queue_depth", ""),
    ("attempts", "nat_dynamo.attempts", ""),
    ("gate_wait_ms", "nat_dynamo.gate_wait", "s"),
    ("retry_wait_ms", "nat_dynamo.retry_wait", "s, unless 0"),
    ("slot_wait_ms", "nat_dynamo.slot_wait", "s, unless 0"),
    ("outage_wait_ms", "nat_dynamo.outage_wait", "s, unless 0"),
    ("limit_wait_ms", "nat_dynamo.limit_wait", "s, unless 0"),
    ("cache", "nat_dynamo.cache", ""),
    ("cost_usd", "nat_dynamo.cost_usd", ""),
    ("server_ttft_ms", "nat_dynamo.server_ttft", "s"),
    ("request_ids", "nat_dynamo.request_ids", ""),
    ("org", "nat_dynamo.org", ""),
    ("prompt_version", "nat_dynamo.prompt_version", ""),
)
"""A span's attributes: the field of `CallRecord`, the name, and `s` for what the field has in ms or
`text` for a number of 64 bits, of which OpenTelemetry takes 63. Names that are not
the conventions' have our own prefix, as they ask."""

OPERATIONS = {"chat_completions": "chat", "responses": "chat", "completions": "text_completion"}
"""The operation of each API of ours; `chat` for any other."""
DEFAULT_PROVIDER = "nvidia.dynamo"
"""The provider where a record names none. The conventions list none for Dynamo, and allow values of one's own."""

_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TOKENS = tuple(float(4**power) for power in range(14))


class Metric(NamedTuple):
    """One metric.

    Attributes:
        field: the field of `CallRecord` that is its value, in ms, tokens or USD; not recorded where that is `None`.
        name: its name.
        unit: `s`, `{token}` or `{USD}`.
        boundaries: upper bounds of a histogram's buckets, in `unit`; empty for a counter.
        token_type: the value of `TOKEN_TYPE`, where one metric counts several kinds of tokens.
    """

    field: str
    name: str
    unit: str
    boundaries: tuple[float, ...] = ()
    token_type: str | None = None


_ALWAYS = (
    Metric("server_ttft_ms", "gen_ai.server.time_to_first_token", "s", _TTFT),
    # The conventions have no metric of cost.
    Metric("cost_usd", "nat_dynamo.cost", "{USD}"),
)
V1_41 = (
    Metric("client_total_ms", "gen_ai.client.operation.duration", "s", _SECONDS),
    Metric("client_ttft_ms", "gen_ai.client.operation.time_to_first_chunk", "s", _SECONDS),
    Metric("prompt_tokens", "gen_ai.client.token.usage", "{token}", _TOKENS, "input"),
    Metric("completion_tokens", "gen_ai.client.token.usage", "{token}", _TOKENS, "output"),
    Metric("cached_tokens", "nat_dynamo.cached_tokens", "{token}"),
    *_ALWAYS,
)
LATEST = (
    Metric("client_total_ms", "gen_ai.client.inference.duration", "s", _SECONDS),
    Metric("client_ttft_ms", "gen_ai.client.inference.time_to_first_chunk", "s", _SECONDS),
    Metric("prompt_tokens", "gen_ai.client.inference.operation.input_tokens", "{token}", _TOKENS),
    Metric("completion_tokens", "gen_ai.client.inference.operation.output_tokens", "{token}", _TOKENS),
    Metric("prompt_tokens", "gen_ai.client.inference.usage.input_tokens", "{token}"),
    Metric("completion_tokens", "gen_ai.client.inference.usage.output_tokens", "{token}"),
    Metric("cached_tokens", "gen_ai.client.inference.usage.cache_read.input_tokens", "{token}"),
    Metric("cache_write_tokens", "gen_ai.client.inference.usage.cache_write.input_tokens", "{token}"),
    Metric("reasoning_tokens", "gen_ai.client.inference.usage.reasoning.output_tokens", "{token}"),
    *_ALWAYS,
)


def metrics() -> tuple[Metric, ...]:
    """The metrics to record, by the environment."""
    chosen = {value.strip() for value in os.environ.get(OPT_IN_VARIABLE, "").split(",")}
    return LATEST if OPT_IN in chosen else V1_41
