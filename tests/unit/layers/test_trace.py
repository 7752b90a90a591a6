"""Which trace a call becomes part of, and what it says of that to server, record, spans and caller."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from nat.builder.context import ContextState
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import Failure
from nat_dynamo_plugin.layers.answer import AnswerLayer
from nat_dynamo_plugin.layers.retry import RetryLayer, RetryPolicy
from nat_dynamo_plugin.layers.trace import RequestIdLayer, TraceLayer
from nat_dynamo_plugin.secrets import remember
from nat_dynamo_plugin.telemetry.spans import Spans

TRACE, SPAN = int("ab" * 16, 16), int("cd" * 8, 16)
OWN = f"00-{TRACE:032x}-{SPAN:016x}-01"
ANSWER = {
    "model": "m-1",
    "choices": [{"message": {"content": "Shut. sk-told-in-prompt"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
}


class Stack:
    """Several layers as one, the first outermost."""

    def __init__(self, *layers: Any) -> None:
        self._layers = layers

    def flow(self, call: Call, send: Any) -> Any:
        for layer in reversed(self._layers):
            send = partial(layer.flow, send=send)
        return send(call)


class Sdk:
    """A tracer provider and what it exports."""

    def __init__(self, **kwargs: Any) -> None:
        self.memory = InMemorySpanExporter()
        self.provider = TracerProvider(**kwargs)
        self.provider.add_span_processor(SimpleSpanProcessor(self.memory))

    @property
    def spans(self) -> tuple[Any, ...]:
        return self.memory.get_finished_spans()


@pytest.fixture
def run() -> Iterator[Callable[..., None]]:
    """Puts what follows into a workflow run, as NAT does."""
    state = ContextState.get()
    tokens: list[tuple[Any, Any]] = []

    def enter(trace_id: int, headers: dict[str, str] | None = None) -> None:
        tokens.append((state.workflow_trace_id, state.workflow_trace_id.set(trace_id)))
        tokens.append((state.metadata, state.metadata.set(SimpleNamespace(headers=headers))))

    yield enter
    for variable, token in reversed(tokens):
        variable.reset(token)


def ended(drive: Any, scripted: Any, layer: Any, headers: dict[str, str] | None = None, *answers: Any) -> Any:
    """A call that is over, and the requests that it came to."""
    server = scripted(*(answers or (Reply.made(200, json.dumps(ANSWER).encode()),)))
    call: Call = drive.call(headers, b'{"messages":[{"role":"user","content":"Is it? sk-told-in-prompt"}]}')
    layers = [layer, RetryLayer(RetryPolicy(2, frozenset({503}), (), 60.0)), RequestIdLayer(), AnswerLayer()]
    reply = None
    try:
        reply = drive(Stack(*layers), server, call)
    except Failure as failure:
        call.fail(failure)
    call.exhausted()
    call.record.worker_id = 2**64 - 1
    call.finish()
    return SimpleNamespace(call=call, record=call.record, sent=[one["headers"] for one in server.sent], reply=reply)


def test_in_a_workflow_run_without_an_sdk(drive: Any, scripted: Any, run: Any) -> None:
    run(TRACE)
    done = ended(drive, scripted, TraceLayer(Spans()))
    assert done.record.trace_id == "ab" * 16
    assert done.sent[0]["traceparent"] == f"00-{'ab' * 16}-{done.record.span_id}-01"
    assert int(done.record.span_id, 16) and "tracestate" not in done.sent[0]


def test_without_any_trace_nothing_is_said(drive: Any, scripted: Any) -> None:
    done = ended(drive, scripted, TraceLayer(None))
    assert done.record.trace_id is None and done.record.span_id is None and "traceparent" not in done.sent[0]


@pytest.mark.parametrize("sdk", [None, Sdk()], ids=["api", "sdk"])
def test_the_callers_own_wins(drive: Any, scripted: Any, run: Any, sdk: Sdk | None) -> None:
    run(TRACE + 1)
    done = ended(drive, scripted, TraceLayer(sdk and Spans(sdk.provider)), {"Traceparent": OWN, "tracestate": "a=b"})
    assert done.sent[0]["Traceparent"] == OWN and done.sent[0]["tracestate"] == "a=b" and len(done.sent[0]) == 3
    assert done.record.trace_id == "ab" * 16
    if sdk is not None:
        [span] = [span for span in sdk.spans if f"{span.context.span_id:016x}" == done.record.span_id]
        assert (span.parent.trace_id, span.parent.span_id) == (TRACE, SPAN)


@pytest.mark.parametrize("own", ["", "00-0-0-01", OWN.replace("ab" * 16, "0" * 32), f"{OWN}-more", f"ff{OWN[2:]}"])
def test_a_callers_own_that_is_none_stays_but_is_not_believed(drive: Any, scripted: Any, own: str) -> None:
    sdk = Sdk()
    done = ended(drive, scripted, TraceLayer(Spans(sdk.provider)), {"traceparent": own})
    assert done.sent[0]["traceparent"] == own and done.record.trace_id != "ab" * 16 and sdk.spans[0].parent is None


def test_a_run_whose_client_sent_its_span(drive: Any, scripted: Any, run: Any) -> None:
    sdk = Sdk()
    run(TRACE, {"traceparent": OWN[:-2] + "00", "tracestate": "a=b"})
    done = ended(drive, scripted, TraceLayer(Spans(sdk.provider)))
    assert done.sent[0]["traceparent"] == f"00-{'ab' * 16}-{done.record.span_id}-00" and sdk.spans == ()
    run(TRACE, {"traceparent": OWN, "tracestate": "a=b"})
    done = ended(drive, scripted, TraceLayer(Spans(sdk.provider)))
    assert done.sent[0]["tracestate"] == "a=b" and done.sent[0]["traceparent"].endswith("-01")
    assert sdk.spans[0].parent.span_id == SPAN and sdk.spans[0].context.trace_id == TRACE
    run(TRACE + 1, {"traceparent": OWN})  # of another trace
    ended(drive, scripted, TraceLayer(Spans(sdk.provider)))
    assert sdk.spans[1].parent is None and sdk.spans[1].context.trace_id == TRACE + 1


def test_a_span_in_a_run_begins_its_trace_and_the_current_span_comes_first(drive: Any, scripted: Any, run: Any) -> None:
    sdk = Sdk()
    run(TRACE)
    layer = TraceLayer(Spans(sdk.provider))
    done = ended(drive, scripted, layer)
    assert sdk.spans[0].context.trace_id == TRACE and sdk.spans[0].parent is None
    assert done.sent[0]["traceparent"] == f"00-{'ab' * 16}-{sdk.spans[0].context.span_id:016x}-01"
    with sdk.provider.get_tracer("application").start_as_current_span("around") as around:
        ended(drive, scripted, layer)
    inner = sdk.spans[1]
    assert inner.parent.span_id == around.get_span_context().span_id and inner.context.trace_id != TRACE
    # Others' spans have ids of their own, also from a tracer of our name.
    sdk.provider.get_tracer("nat_dynamo_plugin").start_span("other").end()
    assert sdk.spans[-1].context.trace_id not in (TRACE, inner.context.trace_id)


def test_what_nobody_records_is_not_said_to_be_sampled(drive: Any, scripted: Any, run: Any) -> None:
    sdk = Sdk(sampler=ParentBased(ALWAYS_OFF))
    done = ended(drive, scripted, TraceLayer(Spans(sdk.provider)))
    assert done.sent[0]["traceparent"] == f"00-{done.record.trace_id}-{done.record.span_id}-00" and sdk.spans == ()


def test_a_span_says_what_became_of_its_call(drive: Any, scripted: Any) -> None:
    sdk = Sdk()
    call = ended(
        drive,
        scripted,
        TraceLayer(Spans(sdk.provider)),
        None,
        Reply.made(503, b""),
        Reply.made(200, json.dumps(ANSWER).encode()),
    )
    [span] = sdk.spans
    told = dict(span.attributes)
    assert span.kind is trace.SpanKind.CLIENT and span.status.is_ok
    assert told["gen_ai.operation.name"] == "chat" and told["gen_ai.response.model"] == "m-1"
    assert told["gen_ai.usage.input_tokens"] == 9 and told["gen_ai.usage.cache_read.input_tokens"] == 4
    assert told["gen_ai.usage.output_tokens"] == 2 and told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told["nat_dynamo.attempts"] == 2 and told["nat_dynamo.request_ids"] == call.record.request_ids
    assert told["nat_dynamo.retry_wait"] == call.record.retry_wait_ms / 1000.0
    assert "gen_ai.input.messages" not in told and told["nat_dynamo.worker_id"] == str(2**64 - 1)
    broken = ended(drive, scripted, TraceLayer(Spans(sdk.provider)), None, Failure("read timeout", OSError("gone")))
    assert not sdk.spans[1].status.is_ok and sdk.spans[1].attributes["error.type"] == broken.record.failure


def test_content_is_told_if_asked_for_and_without_secrets(drive: Any, scripted: Any) -> None:
    remember("sk-told-in-prompt")
    sdk = Sdk()
    ended(drive, scripted, TraceLayer(Spans(sdk.provider), content=True))
    told = sdk.spans[0].attributes
    assert json.loads(told["gen_ai.input.messages"]) == [{"role": "user", "content": "Is it? ***"}]
    assert json.loads(told["gen_ai.output.messages"]) == [{"role": "assistant", "content": "Shut. ***"}]


def test_each_attempt_has_a_request_id(drive: Any, scripted: Any) -> None:
    answers = [Reply.made(503, b""), Reply.made(503, b""), Reply.made(200, json.dumps(ANSWER).encode())]
    done = ended(drive, scripted, TraceLayer(None), None, *answers)
    first, *later = ids = [sent["x-request-id"] for sent in done.sent]
    assert done.record.request_ids == tuple(ids) and later == [f"{first}-2", f"{first}-3"]
    assert uuid.UUID(first).version == 7 and uuid.UUID(first).variant == uuid.RFC_4122
    assert ended(drive, scripted, TraceLayer(None)).record.request_ids[0] != first
    done = ended(
        drive, scripted, TraceLayer(None), {"X-Request-Id": "mine"}, Reply.made(503, b""), Reply.made(200, b"{}")
    )
    assert [sent["X-Request-Id"] for sent in done.sent][:2] == ["mine", "mine-2"]


@pytest.mark.parametrize("status", [200, 400])
def test_the_caller_gets_the_last_request_id_if_asked_for(drive: Any, scripted: Any, status: int) -> None:
    answer = Reply.made(status, json.dumps(ANSWER).encode(), {"x-request-id": "servers"})
    done = ended(drive, scripted, TraceLayer(None, return_request_id=True), None, answer)
    assert done.reply.headers.get("x-request-id") == done.record.request_ids[-1]
    answer = Reply.made(status, json.dumps(ANSWER).encode(), {"x-request-id": "servers"})
    assert ended(drive, scripted, TraceLayer(None), None, answer).reply.headers.get("x-request-id") == "servers"


def test_an_id_that_a_layer_has_added_stays(drive: Any, scripted: Any) -> None:
    class Adds:
        def flow(self, call: Any, send: Any) -> Any:
            call.headers.put(b"x-request-id", b"mine")
            return RequestIdLayer().flow(call, lambda call: RequestIdLayer().flow(call, send))

    server, call = scripted(Reply.made(200, b"{}")), drive.call()
    call.record.attempts = 1
    drive(Adds(), server, call)
    assert call.record.request_ids == ("mine", "mine-2")
    assert server.sent[0]["headers"]["x-request-id"] == "mine-2"
