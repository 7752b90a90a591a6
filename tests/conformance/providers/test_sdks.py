"""The official SDKs against servers that check bodies by the SDKs' types, in conversations of ten turns with tools.

What we put in is accepted, the key of a prompt cache is one for all turns, and another one for each question and org.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import anthropic
import boto3
import httpx
import httpx2
import openai
import pytest
from anthropic.types.message_create_params import MessageCreateParamsBase
from botocore.config import Config
from botocore.validate import ParamValidator
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from tests.conformance.providers.scripted import Asked, Server, answer_json, serving
from tests.conformance.providers.typed import problems

from nat_dynamo_plugin.bedrock import hook
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.dynamo_llm import DynamoPrefixContext
from nat_dynamo_plugin.httpx2_transport import DynamoTransport as Httpx2Transport
from nat_dynamo_plugin.question.org import org_scope
from nat_dynamo_plugin.service import make_service
from nat_dynamo_plugin.telemetry.record import CallRecord
from nat_dynamo_plugin.transport import DynamoTransport

TURNS = 10
SYSTEM = "You answer with the weather. " * 60
CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}}}


def is_last(asked: Asked) -> bool:
    return sum(message["role"] == "assistant" for message in asked.body.get("messages", [])) == TURNS - 1


def config(server: Server, dialect: str, model: str, **more: Any) -> DynamoModelConfig:
    return DynamoModelConfig(
        model_name=model,
        base_url=f"{server.url}/v1",
        api_key="a-key",
        prefix_wire=dialect,
        retry={"max_retries": 0},
        **more,
    )


# Servers, each of which refuses with 400 what its SDK's types do not know, as the real ones do.


def chat(asked: Asked) -> tuple[int, str, bytes]:
    wrong = problems(asked.body, CompletionCreateParamsBase)
    if wrong:
        return answer_json({"error": {"message": "; ".join(wrong)}}, 400)
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    message = {"role": "assistant", "content": "Rain." if is_last(asked) else None}
    if not is_last(asked):
        message["tool_calls"] = [call]  # type: ignore[assignment]
    choice = {"index": 0, "finish_reason": "stop" if is_last(asked) else "tool_calls", "message": message}
    usage = {"prompt_tokens": 2000, "completion_tokens": 10, "total_tokens": 2010}
    details = {"prompt_tokens_details": {"cached_tokens": 1500, "cache_write_tokens": 0}}
    return answer_json(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": asked.body["model"],
            "choices": [choice],
            "usage": usage | details,
        }
    )


def responses(asked: Asked) -> tuple[int, str, bytes]:
    wrong = problems(asked.body, ResponseCreateParamsBase)
    if wrong:
        return answer_json({"error": {"message": "; ".join(wrong)}}, 400)
    part = {"type": "output_text", "text": "Rain.", "annotations": []}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    usage = {
        "input_tokens": 2000,
        "output_tokens": 10,
        "total_tokens": 2010,
        "input_tokens_details": {"cached_tokens": 1500, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 4},
    }
    answer = {"id": "r", "object": "response", "created_at": 1, "status": "completed", "model": asked.body["model"]}
    rest = {"output": [message], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": usage}
    return answer_json(answer | rest)


def messages(asked: Asked) -> tuple[int, str, bytes]:
    body = dict(asked.body)
    is_streamed = body.pop("stream", False)
    wrong = problems(body, MessageCreateParamsBase)
    if marks_in(body) > 4:
        wrong.append("more than 4 blocks with cache_control")
    if wrong:
        return answer_json({"type": "error", "error": {"type": "invalid_request_error", "message": str(wrong)}}, 400)
    content: Any = {"type": "tool_use", "id": "t", "name": "weather", "input": {}}
    if is_last(asked):
        content = {"type": "text", "text": "Rain."}
    usage = {
        "input_tokens": 50,
        "cache_read_input_tokens": 1500,
        "cache_creation_input_tokens": 450,
        "cache_creation": {"ephemeral_5m_input_tokens": 450, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 10,
    }
    reason = "end_turn" if is_last(asked) else "tool_use"
    message = {"id": "m", "type": "message", "role": "assistant", "model": body["model"], "stop_sequence": None}
    if not is_streamed:
        return answer_json(message | {"content": [content], "stop_reason": reason, "usage": usage})
    start = message | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Rain"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "."}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 10},
        },
        {"type": "message_stop"},
    ]
    text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    return 200, "text/event-stream", text.encode()


def marks_in(body: Any) -> int:
    """The marks of Anthropic's form, and of Bedrock's."""
    if isinstance(body, dict):
        return ("cache_control" in body) + ("cachePoint" in body) + sum(map(marks_in, body.values()))
    return sum(map(marks_in, body)) if isinstance(body, list) else 0


def converse(shape: Any) -> Callable[[Asked], tuple[int, str, bytes]]:
    def answer(asked: Asked) -> tuple[int, str, bytes]:
        report = ParamValidator().validate({**asked.body, "modelId": CLAUDE}, shape)
        if report.has_errors() or marks_in(asked.body) > 4:
            return answer_json({"message": report.generate_report() or "too many cache points"}, 400)
        content: Any = {"toolUse": {"toolUseId": "t", "name": "weather", "input": {}}}
        if is_last(asked):
            content = {"text": "Rain."}
        usage = {"inputTokens": 50, "outputTokens": 10, "totalTokens": 2010, "cacheReadInputTokens": 1500}
        written = {"cacheWriteInputTokens": 450, "cacheDetails": [{"ttl": "1h", "inputTokens": 450}]}
        return answer_json(
            {
                "output": {"message": {"role": "assistant", "content": [content]}},
                "stopReason": "end_turn" if is_last(asked) else "tool_use",
                "usage": usage | written,
                "metrics": {"latencyMs": 3},
            }
        )

    return answer


# Conversations.


def converse_by_chat(client: openai.OpenAI, model: str) -> None:
    said: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "And in Rome?"}]
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
    for turn in range(TURNS):
        answer = client.chat.completions.create(model=model, messages=said, tools=[tool])
        message = answer.choices[0].message
        said.append(message.model_dump(exclude_none=True))
        calls = message.tool_calls or []
        said += [{"role": "tool", "tool_call_id": call.id, "content": f"rain {turn}"} for call in calls]
    assert message.content == "Rain."


def converse_by_messages(client: anthropic.Anthropic) -> None:
    said: list[Any] = [{"role": "user", "content": "And in Rome?"}]
    tool: Any = {"name": "weather", "input_schema": SCHEMA}
    for turn in range(TURNS):
        answer = client.messages.create(
            model="claude-sonnet-5", max_tokens=100, system=SYSTEM, messages=said, tools=[tool]
        )
        said.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in answer.content]})
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": f"rain {turn}"}
            for block in answer.content
            if block.type == "tool_use"
        ]
        if results:
            said.append({"role": "user", "content": results})
    assert answer.stop_reason == "end_turn"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def an_openai_client(
    stack: ExitStack, server: Server, dialect: str, model: str, **more: Any
) -> tuple[openai.OpenAI, list[CallRecord]]:
    records: list[CallRecord] = []
    service = make_service(config(server, dialect, model, **more), emit_record=records.append)
    http = stack.enter_context(httpx.Client(transport=DynamoTransport(httpx.HTTPTransport(), service)))
    return openai.OpenAI(api_key="k", base_url=f"{server.url}/v1", http_client=http, max_retries=0), records


@pytest.mark.parametrize("dialect", ["openai", "azure"])
@pytest.mark.parametrize(
    ("model", "provider_cache"),
    [
        ("gpt-5", {"ttl": "24h"}),
        ("gpt-5.6", {"ttl": "30m", "marks": "explicit"}),
        ("gpt-4o", {"ttl": "24h", "marks": "explicit"}),
        ("o3", {}),
    ],
)
def test_openai_by_chat(stack: ExitStack, dialect: str, model: str, provider_cache: dict[str, str]) -> None:
    server = stack.enter_context(serving(chat))
    client, records = an_openai_client(stack, server, dialect, model, provider_cache=provider_cache)
    keys = []
    for org, question in (("acme", "q1"), ("acme", "q2"), ("other", "q1")):
        server.asked.clear()
        with org_scope(org), DynamoPrefixContext.scope(question):
            converse_by_chat(client, model)
        assert len(server.asked) == TURNS  # none was refused, and none sent again without our fields
        [key] = {asked.body["prompt_cache_key"] for asked in server.asked}
        keys.append(key)
        assert 0 < len(key) <= 64
        assert not any(name in json.dumps(asked.body) for asked in server.asked for name in ("acme", "other", "nvext"))
    assert len(set(keys)) == 3
    assert [record.cached_tokens for record in records] == [1500] * 3 * TURNS
    last = server.asked[-1].body
    assert ("prompt_cache_retention" in last) == (model == "gpt-5")
    assert ("prompt_cache_options" in last) == (model == "gpt-5.6")
    assert ("prompt_cache_breakpoint" in json.dumps(last)) == (model == "gpt-5.6")


def test_openai_by_responses(stack: ExitStack) -> None:
    server = stack.enter_context(serving(responses))
    client, records = an_openai_client(stack, server, "openai", "gpt-5.6", provider_cache={"marks": "explicit"})
    said: list[Any] = [{"role": "user", "content": SYSTEM}]
    with DynamoPrefixContext.scope("q"):
        for _ in range(TURNS):
            answer = client.responses.create(model="gpt-5.6", input=said)
            said += [{"role": "assistant", "content": answer.output_text}, {"role": "user", "content": "And then?"}]
    assert len(server.asked) == TURNS
    assert len({asked.body["prompt_cache_key"] for asked in server.asked}) == 1
    assert server.asked[-1].body["input"][-1]["content"][-1]["prompt_cache_breakpoint"] == {"mode": "explicit"}
    assert {(record.prompt_tokens, record.cached_tokens, record.reasoning_tokens) for record in records} == {
        (2000, 1500, 4)
    }


@pytest.mark.parametrize(("dialect", "header"), [("xai", "x-grok-conv-id"), ("fireworks", "x-session-affinity")])
def test_providers_that_go_by_a_header(stack: ExitStack, dialect: str, header: str) -> None:
    server = stack.enter_context(serving(chat))
    client, records = an_openai_client(stack, server, dialect, "grok-4")
    keys = []
    for org, question in (("acme", "q1"), ("acme", "q2"), ("other", "q1")):
        server.asked.clear()
        with org_scope(org), DynamoPrefixContext.scope(question):
            converse_by_chat(client, "grok-4")
        [key] = {asked.headers[header] for asked in server.asked}
        keys.append(key)
    assert len(set(keys)) == 3 and len(server.asked) == TURNS
    assert {record.provider for record in records} == {"x_ai" if dialect == "xai" else "fireworks"}


@pytest.mark.parametrize("marks", ["automatic", "explicit", "off"])
@pytest.mark.parametrize("ttl", [None, "1h"])
def test_anthropic(stack: ExitStack, marks: str, ttl: str | None) -> None:
    server = stack.enter_context(serving(messages))
    records: list[CallRecord] = []
    cost = {"prices": {"claude*": {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75}}}
    service = make_service(
        DynamoModelConfig(
            model_name="claude-sonnet-5",
            base_url=server.url,
            prefix_wire="anthropic",
            provider_cache={"marks": marks, "ttl": ttl},
            cost=cost,
        ),
        emit_record=records.append,
    )
    http = stack.enter_context(httpx2.Client(transport=Httpx2Transport(httpx2.HTTPTransport(), service)))
    client = anthropic.Anthropic(api_key="k", base_url=server.url, http_client=http, max_retries=0)
    with DynamoPrefixContext.scope("q"):
        converse_by_messages(client)
    assert len(server.asked) == len(records) == TURNS
    for asked in server.asked:
        assert marks_in(asked.body) == {"automatic": 1, "off": 0}.get(marks, min(4, marks_in(asked.body)))
        assert ('"ttl": "1h"' in json.dumps(asked.body)) == (ttl == "1h" and marks != "off")
        assert asked.headers["authorization"] == "Bearer k"  # the client's own
    if marks == "explicit":
        last = server.asked[-1].body
        assert "cache_control" in last["system"][-1] and "cache_control" in last["messages"][-1]["content"][-1]
    assert {record.prefix_id for record in records} == {"q"}
    assert {(r.api, r.prompt_tokens, r.cached_tokens, r.cache_write_tokens) for r in records} == {
        ("messages", 2000, 1500, 450)
    }
    assert records[0].cost_usd == pytest.approx((50 * 3 + 1500 * 0.3 + 450 * 3.75 + 10 * 15) / 1e6)


async def test_anthropic_streamed_and_async() -> None:
    records: list[CallRecord] = []
    with serving(messages) as server:
        service = make_service(
            DynamoModelConfig(model_name="claude-sonnet-5", base_url=server.url, prefix_wire="anthropic"),
            emit_record=records.append,
        )
        transport = Httpx2Transport(httpx2.AsyncHTTPTransport(), service)
        async with httpx2.AsyncClient(transport=transport) as http:
            client = anthropic.AsyncAnthropic(api_key="k", base_url=server.url, http_client=http, max_retries=0)
            ask: Any = {"role": "user", "content": "And in Rome?"}
            async with client.messages.stream(model="claude-sonnet-5", max_tokens=9, messages=[ask]) as stream:
                text = "".join([piece async for piece in stream.text_stream])
    assert text == "Rain."
    [record] = records
    assert (record.error, record.streamed, record.finish_reason) == (None, True, "end_turn")
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (2000, 1500, 10)
    assert record.client_ttft_ms is not None


def test_anthropic_stays_within_four_marks_of_which_some_are_the_callers(stack: ExitStack) -> None:
    server = stack.enter_context(serving(messages))
    mark: Any = {"type": "ephemeral"}
    system: Any = [{"type": "text", "text": f"{n} {SYSTEM}", "cache_control": mark} for n in range(3)]
    for marks in ("automatic", "explicit"):
        made = DynamoModelConfig(
            model_name="claude-sonnet-5",
            base_url=server.url,
            prefix_wire="anthropic",
            provider_cache={"marks": marks, "ttl": "1h"},
        )
        http = stack.enter_context(httpx2.Client(transport=Httpx2Transport(httpx2.HTTPTransport(), made)))
        client = anthropic.Anthropic(api_key="k", base_url=server.url, http_client=http, max_retries=0)
        ask: Any = {"role": "user", "content": "And in Rome?"}
        client.messages.create(model="claude-sonnet-5", max_tokens=9, system=system, messages=[ask])
        body = server.asked.pop().body
        assert body["system"] == system and marks_in(body) == 4
        assert "1h" not in json.dumps(body)  # a long one behind the caller's short ones is a 400


def test_a_server_that_refuses_marks_gets_the_callers_own_body(stack: ExitStack) -> None:
    def refuses(asked: Asked) -> tuple[int, str, bytes]:
        return messages(asked) if not marks_in(asked.body) else answer_json({"error": {"message": "marks?"}}, 400)

    server = stack.enter_context(serving(refuses))
    made = DynamoModelConfig(
        model_name="claude-sonnet-5",
        base_url=server.url,
        prefix_wire="anthropic",
        provider_cache={"marks": "explicit"},
    )
    http = stack.enter_context(httpx2.Client(transport=Httpx2Transport(httpx2.HTTPTransport(), made)))
    client = anthropic.Anthropic(api_key="k", base_url=server.url, http_client=http, max_retries=0)
    ask: Any = {"role": "user", "content": SYSTEM}
    for _ in range(2):
        answer = client.messages.create(model="claude-sonnet-5", max_tokens=9, messages=[ask])
        assert answer.stop_reason == "tool_use"
    assert [marks_in(asked.body) for asked in server.asked] == [1, 0, 0]  # and it is remembered


def test_a_key_of_openais_is_not_sent_along_with_another_ones(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    server = stack.enter_context(serving(messages))
    made = DynamoModelConfig(model_name="claude-sonnet-5", base_url=server.url, prefix_wire="anthropic")
    http = stack.enter_context(httpx2.Client(transport=Httpx2Transport(httpx2.HTTPTransport(), made)))
    body = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        http.post(f"{server.url}{path}", json=body, headers={"x-api-key": "k"})
    assert [asked.headers.get("authorization") for asked in server.asked] == [None, None]


def test_bedrock(stack: ExitStack) -> None:
    secrets = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    client = boto3.client("bedrock-runtime", **secrets)
    shape = client.meta.service_model.operation_model("Converse").input_shape
    server = stack.enter_context(serving(converse(shape)))
    client = boto3.client(
        "bedrock-runtime", endpoint_url=server.url, config=Config(retries={"total_max_attempts": 1}), **secrets
    )
    records: list[CallRecord] = []
    prices = {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75, "cache_writes": {"1h": 6}}
    hook(
        client,
        DynamoModelConfig(model_name=CLAUDE, provider_cache={"ttl": "1h"}, cost={"prices": {"anthropic*": prices}}),
        records.append,
    )
    said: list[Any] = [{"role": "user", "content": [{"text": "And in Rome?"}]}]
    tools = {"tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": SCHEMA}}}]}
    with org_scope("acme"), DynamoPrefixContext.scope("q"):
        for turn in range(TURNS):
            before = json.dumps(said)
            answer = client.converse(modelId=CLAUDE, system=[{"text": SYSTEM}], messages=said, toolConfig=tools)
            assert json.dumps(said) == before  # the caller's lists are the caller's
            message = answer["output"]["message"]
            said.append(message)
            results = [
                {"toolResult": {"toolUseId": block["toolUse"]["toolUseId"], "content": [{"text": f"rain {turn}"}]}}
                for block in message["content"]
                if "toolUse" in block
            ]
            if results:
                said.append({"role": "user", "content": results})
    assert answer["stopReason"] == "end_turn" and len(server.asked) == TURNS
    last = server.asked[-1].body
    assert last["system"][-1] == last["messages"][-1]["content"][-1] == {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert {(r.prefix_id, r.prompt_tokens, r.cached_tokens, r.cost_source) for r in records} == {
        ("q", 2000, 1500, "prices")
    }
    assert [record.call_index for record in records] == list(range(TURNS))
    assert records[0].cost_usd == pytest.approx((50 * 3 + 1500 * 0.3 + 450 * 6 + 10 * 15) / 1e6)


def test_bedrock_leaves_models_alone_that_take_no_marks(stack: ExitStack) -> None:
    server = stack.enter_context(serving(lambda asked: answer_json({"message": "no"}, 400)))
    secrets = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    client = boto3.client("bedrock-runtime", endpoint_url=server.url, **secrets)
    records: list[CallRecord] = []
    hook(client, DynamoModelConfig(model_name="meta.llama4", cost={}), records.append)
    with pytest.raises(client.exceptions.ClientError):
        client.converse(modelId="meta.llama4", messages=[{"role": "user", "content": [{"text": SYSTEM}]}])
    assert marks_in(server.asked[0].body) == 0
    [record] = records
    assert record.status == 400 and record.failed and record.cost_usd is None


@pytest.mark.parametrize("wrong", ["prompt_cache_keys", "nvext"])
def test_the_servers_refuse_what_the_types_do_not_know(wrong: str) -> None:
    good = {"model": "gpt-5", "messages": [{"role": "user", "content": "x"}]}
    assert chat(Asked("/", {}, good))[0] == 200
    assert chat(Asked("/", {}, {**good, wrong: "x"}))[0] == 400
