"""A way in for boto3's `bedrock-runtime` clients: marks for the prompt cache, a record and a cost of each call.

boto3 makes its own requests, signs and repeats them; so of our layers there are only those that say and read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import partial
from time import perf_counter, time
from typing import Any

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.dialects.bedrock import Bedrock
from nat_dynamo_plugin.dialects.said import Said
from nat_dynamo_plugin.http.answer_fields import take_usage
from nat_dynamo_plugin.http.call import LEFT, origin_of
from nat_dynamo_plugin.layers.cost import settle
from nat_dynamo_plugin.plan.planner import Planner, Turn
from nat_dynamo_plugin.question.org import current_org, org_digest
from nat_dynamo_plugin.secrets import redacted
from nat_dynamo_plugin.service import make_service
from nat_dynamo_plugin.telemetry.exporters import Emit
from nat_dynamo_plugin.telemetry.exporters import emit as emit_to_all
from nat_dynamo_plugin.telemetry.kinds import kind_of
from nat_dynamo_plugin.telemetry.record import CallRecord

OPERATIONS = ("Converse", "ConverseStream")
_OURS = "nat_dynamo_plugin"


def hook(client: Any, config: DynamoModelConfig, emit: Emit = emit_to_all) -> None:
    """Have the `converse` and `converse_stream` calls of a client marked, recorded and priced.

        client = boto3.client("bedrock-runtime")
        hook(client, DynamoModelConfig(model_name="anthropic.claude-sonnet-4-5-20250929-v1:0", cost={}))

    The client is one that LangChain's `ChatBedrockConverse(client=client)` takes too. A parameter that we can not read
    is left alone, and nothing here makes a call fail.

    Args:
        client: of `boto3.client("bedrock-runtime")`.
        config: prefix, hints, `provider_cache` and `cost`; what makes requests (`retry`, `connection`) is boto3's own.
        emit: where records go; the default hands them to every exporter of `telemetry.exporters`.
    """
    calls = _Calls(config, origin_of(client.meta.endpoint_url), emit)
    for operation in OPERATIONS:
        name = f"bedrock-runtime.{operation}"
        client.meta.events.register(f"provide-client-params.{name}", calls.begin)
        client.meta.events.register(f"after-call.{name}", calls.answered)
        client.meta.events.register(f"after-call-error.{name}", calls.broken)


class _UnderWay:
    """One call, from its parameters to the end of its answer."""

    def __init__(self, record: CallRecord, emit: Emit) -> None:
        self.record = record
        self._emit = emit
        self._began = perf_counter()
        self._is_over = False

    @property
    def now_ms(self) -> float:
        """Milliseconds since the call began."""
        return (perf_counter() - self._began) * 1000.0

    def end(self, pricing: Any) -> None:
        """The call is over; only the first time counts."""
        if self._is_over:
            return
        self._is_over = True
        record = self.record
        record.client_total_ms = self.now_ms
        if record.error is not None:
            record.error = redacted(record.error)
        if record.failed:
            record.kind = kind_of(record)
        if pricing is not None and record.status == 200:
            settle(pricing, record)
        self._emit(record)


class _Calls:
    """What boto3 tells of its calls, made into records."""

    def __init__(self, config: DynamoModelConfig, origin: str, emit: Emit) -> None:
        self._origin = origin
        self._emit = emit
        self._dialect = Bedrock(config.provider_cache.options(config.model_name))
        self._pricing = None if config.cost is None else config.cost.pricing()
        self._planner: Planner[Said] | None = make_service(config, base_url=origin).planner

    def begin(self, params: dict[str, Any], context: dict[str, Any], **_: Any) -> dict[str, Any]:
        """A call is about to be made: its parameters, with marks. The caller's own are left as they are."""
        record = CallRecord(
            api="converse",
            provider="aws.bedrock",
            origin=self._origin,
            request_model=str(params.get("modelId")),
            wire=(self._dialect.name,),
            started_at=time(),
        )
        org = current_org()
        record.org = None if org is None else org_digest(org)
        if self._planner is not None:
            _note(record, self._planner.next_turn())
        context[_OURS] = _UnderWay(record, self._emit)
        if self._dialect.cache.marks == "off":
            return params
        marked = deepcopy(params)
        try:
            self._dialect.edit(marked)
        except (AttributeError, KeyError, TypeError):  # parameters of no form that Bedrock takes, as boto3 will say
            return params
        return marked

    def answered(self, http_response: Any, parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        """An answer has come; a streamed one is read while it passes."""
        call: _UnderWay | None = context.get(_OURS)
        if call is None:
            return
        record = call.record
        record.status = http_response.status_code
        record.attempts = 1 + parsed.get("ResponseMetadata", {}).get("RetryAttempts", 0)
        if record.status >= 300:
            error = parsed.get("Error", {})
            record.error = f"{error.get('Code')}: {error.get('Message')}"
            record.error_type = str(error.get("Code"))
        elif "stream" in parsed:
            record.streamed = True
            parsed["stream"] = _Stream(parsed["stream"], partial(self._event, call), partial(self._over, call))
            return
        else:
            record.finish_reason = parsed.get("stopReason")
            self._count(record, parsed.get("usage"))
        call.end(self._pricing)

    def broken(self, exception: Exception, context: dict[str, Any], **_: Any) -> None:
        """No answer has come."""
        call: _UnderWay | None = context.get(_OURS)
        if call is not None:
            self._over(call, exception)

    def _event(self, call: _UnderWay, event: Mapping[str, Any]) -> None:
        record = call.record
        if "contentBlockDelta" in event and record.client_ttft_ms is None:
            record.client_ttft_ms = call.now_ms
        elif "messageStop" in event:
            record.finish_reason = event["messageStop"].get("stopReason")
        elif "metadata" in event:
            self._count(record, event["metadata"].get("usage"))

    def _over(self, call: _UnderWay, error: BaseException | None) -> None:
        record = call.record
        if error is not None:
            record.error, record.error_type = f"{type(error).__name__}: {error}", type(error).__name__
        elif record.streamed and record.finish_reason is None:
            record.error, record.error_type = LEFT, "left"
        call.end(self._pricing)

    def _count(self, record: CallRecord, usage: Any) -> None:
        found = self._dialect.read_usage(usage) if isinstance(usage, Mapping) else None
        if found is not None:
            take_usage(record, found)


class _Stream:
    """A streamed answer that is looked at while its caller reads it."""

    def __init__(self, stream: Any, event: Any, over: Any) -> None:
        self._stream = stream
        self._event = event
        self._over = over

    def __iter__(self) -> Iterator[Any]:
        try:
            for event in self._stream:
                self._event(event)
                yield event
        except Exception as error:
            self._over(error)
            raise
        except GeneratorExit:
            self._over(None)
            raise
        else:
            self._over(None)

    def close(self) -> None:
        """Close the answer; one that is not at its end was left."""
        self._stream.close()
        self._over(None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _note(record: CallRecord, turn: Turn[Said]) -> None:
    identity = turn.identity
    record.prefix_id = identity.prefix_id
    record.session_id = turn.plan.session_id
    record.parent_session_id = turn.plan.parent_session_id
    record.call_index = turn.index
    record.function_path = identity.function_path
    record.calls_to_come = turn.plan.calls_to_come
