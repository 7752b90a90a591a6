"""Every field that our dialects write or read is one of the installed SDKs': a rename breaks this, and not users."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import anthropic.types as at
import botocore.session
import pytest
from anthropic.types.message_create_params import MessageCreateParamsBase
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionContentPartTextParam
from openai.types.chat.completion_create_params import CompletionCreateParamsBase, PromptCacheOptions
from openai.types.completion_usage import CompletionTokensDetails, PromptTokensDetails
from openai.types.responses import ResponseInputTextParam, ResponseUsage
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from xai_sdk.proto import chat_pb2, usage_pb2

CONVERSE = botocore.session.get_session().get_service_model("bedrock-runtime").operation_model("Converse")


def fields(kind: Any) -> set[str]:
    """The fields of a TypedDict or of a pydantic model."""
    return set(getattr(kind, "model_fields", None) or get_type_hints(kind))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (CompletionCreateParamsBase, {"prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"}),
        (ResponseCreateParamsBase, {"prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"}),
        (PromptCacheOptions, {"mode", "ttl"}),
        (ChatCompletionContentPartTextParam, {"type", "text", "prompt_cache_breakpoint"}),
        (ResponseInputTextParam, {"type", "text", "prompt_cache_breakpoint"}),
        (
            CompletionUsage,
            {"prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"},
        ),
        (PromptTokensDetails, {"cached_tokens", "cache_write_tokens"}),
        (CompletionTokensDetails, {"reasoning_tokens"}),
        (ResponseUsage, {"input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details"}),
        (InputTokensDetails, {"cached_tokens", "cache_write_tokens"}),
        (OutputTokensDetails, {"reasoning_tokens"}),
        (MessageCreateParamsBase, {"cache_control", "system", "tools", "messages"}),
        (at.CacheControlEphemeralParam, {"type", "ttl"}),
        (at.TextBlockParam, {"cache_control"}),
        (at.ToolParam, {"cache_control"}),
        (at.ToolResultBlockParam, {"cache_control"}),
        (at.ToolUseBlockParam, {"cache_control"}),
        (
            at.Usage,
            {
                "input_tokens",
                "output_tokens",
                "cache_read_input_tokens",
                "cache_creation_input_tokens",
                "cache_creation",
                "output_tokens_details",
            },
        ),
        (at.CacheCreation, {"ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"}),
        (at.OutputTokensDetails, {"thinking_tokens"}),
        (at.MessageDeltaUsage, {"output_tokens"}),
    ],
)
def test_a_type_has_the_fields(kind: Any, names: set[str]) -> None:
    assert names <= fields(kind)


@pytest.mark.parametrize("kind", [at.ThinkingBlockParam, at.RedactedThinkingBlockParam])
def test_thinking_has_no_place_for_a_mark(kind: Any) -> None:
    assert "cache_control" not in fields(kind)


def test_the_lifetimes_are_those_that_we_send() -> None:
    ttl = get_type_hints(at.CacheControlEphemeralParam)["ttl"]
    assert set(get_args(ttl)) == {"5m", "1h"}
    assert set(get_args(get_type_hints(PromptCacheOptions)["ttl"])) == {"30m"}
    retention = get_type_hints(CompletionCreateParamsBase)["prompt_cache_retention"]
    assert "24h" in {value for one in get_args(retention) for value in get_args(one)}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (("system",), {"text", "cachePoint"}),
        (("messages", "content"), {"text", "toolUse", "toolResult", "cachePoint"}),
        (("toolConfig", "tools"), {"toolSpec", "cachePoint"}),
        (("messages", "content", "cachePoint"), {"type", "ttl"}),
    ],
)
def test_bedrock_takes_marks_there(path: tuple[str, ...], names: set[str]) -> None:
    shape = CONVERSE.input_shape
    for name in path:
        shape = shape.members[name]
        shape = getattr(shape, "member", shape)
    assert names <= set(shape.members)


def test_bedrock_says_what_it_used() -> None:
    usage = CONVERSE.output_shape.members["usage"]
    assert {"inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens", "cacheDetails"} <= set(
        usage.members
    )
    assert {"ttl", "inputTokens"} <= set(usage.members["cacheDetails"].member.members)
    ttl = CONVERSE.input_shape.members["system"].member.members["cachePoint"].members["ttl"]
    assert {"5m", "1h"} <= set(ttl.enum)


def test_xai_says_what_an_answer_costs() -> None:
    assert {"cost_in_usd_ticks", "cached_prompt_text_tokens", "reasoning_tokens"} <= {
        one.name for one in usage_pb2.SamplingUsage.DESCRIPTOR.fields
    }
    # Its SDK has no field for the conversation: that is a header (metadata) alone.
    assert "conversation_id" not in {one.name for one in chat_pb2.GetCompletionsRequest.DESCRIPTOR.fields}
