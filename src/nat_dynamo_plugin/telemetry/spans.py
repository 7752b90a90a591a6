"""A span of OpenTelemetry for each call, where there is an SDK to record it; the API alone records none."""

from __future__ import annotations

from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple

from nat_dynamo_plugin.telemetry import names
from nat_dynamo_plugin.telemetry.otel import server_attributes
from nat_dynamo_plugin.telemetry.record import CallRecord
from nat_dynamo_plugin.telemetry.trace_context import TraceParent

_wanted: ContextVar[int | None] = ContextVar("dynamo_wanted_trace_id", default=None)


class _Ids:
    """Makes the ids of our spans as the SDK would, but for a trace that is known to have no span yet."""

    def __init__(self, ids: Any) -> None:
        self._ids = ids

    def generate_trace_id(self) -> int:
        wanted = _wanted.get()
        made: int = self._ids.generate_trace_id() if wanted is None else wanted
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ids, name)


class Started(NamedTuple):
    """A span that has begun.

    Attributes:
        span: OpenTelemetry's, recording or not.
        place: where it is in its trace.
    """

    span: Any
    place: TraceParent


class Spans:
    """Begins and ends spans.

    Args:
        provider: the SDK's tracer provider; `None` for the one that the application has set when a call is made.
    """

    def __init__(self, provider: Any = None) -> None:
        from opentelemetry import trace

        self._api = trace
        self._given = provider
        self._known: Any = None
        self._tracer: Any = None

    def start(self, name: str, parent: TraceParent | None) -> Started | None:
        """A span that has begun; `None` where no SDK is there.

        Args:
            name: what is called.
            parent: the span that this one is a child of, or with no span in it the trace that it is the first of.
        """
        provider = self._given or self._api.get_tracer_provider()
        if not hasattr(provider, "add_span_processor"):
            return None
        if provider is not self._known:
            self._tracer = self._own_tracer(provider)
            self._known = provider
        around = self._around(parent)
        token = _wanted.set(None if parent is None else parent.trace_id)
        try:
            span = self._tracer.start_span(name, around, kind=self._api.SpanKind.CLIENT)
        finally:
            _wanted.reset(token)
        context = span.get_span_context()
        if not context.is_valid:
            return None
        state = context.trace_state.to_header() if context.trace_state else ""
        return Started(span, TraceParent(context.trace_id, context.span_id, bool(context.trace_flags & 1), state))

    def end(self, span: Any, record: CallRecord, content: dict[str, str] | None = None) -> None:
        """End a span with what became known of its call."""
        if span.is_recording():
            span.set_attributes({**attributes(record), **(content or {})})
            if record.api and record.request_model:
                span.update_name(f"{names.OPERATIONS.get(record.api, 'chat')} {record.request_model}")
            if record.failed:
                span.set_status(self._api.StatusCode.ERROR, record.error)
        span.end()

    @staticmethod
    def _own_tracer(provider: Any) -> Any:
        tracer = provider.get_tracer("nat_dynamo_plugin")
        ids = getattr(tracer, "id_generator", None)
        if ids is not None and not isinstance(ids, _Ids):
            tracer.id_generator = _Ids(ids)
        return tracer

    def _around(self, parent: TraceParent | None) -> Any:
        api = self._api
        if parent is None or not parent.span_id:
            return api.set_span_in_context(api.INVALID_SPAN)
        current = api.get_current_span()
        if current.get_span_context().span_id == parent.span_id:
            return None  # the SDK looks for itself
        state = api.TraceState.from_header([parent.state]) if parent.state else None
        flags = api.TraceFlags(1 if parent.sampled else 0)
        context = api.SpanContext(parent.trace_id, parent.span_id, True, flags, state)
        return api.set_span_in_context(api.NonRecordingSpan(context))


def attributes(record: CallRecord) -> dict[str, Any]:
    """A span's attributes; nothing of what is not known."""
    found: dict[str, Any] = {
        names.OPERATION: names.OPERATIONS.get(record.api, "chat"),
        names.PROVIDER: record.provider or names.DEFAULT_PROVIDER,
    }
    for field, name, unit in names.SPAN:
        value = getattr(record, field)
        if value is None or value == () or (unit == "s, unless 0" and not value):
            continue
        found[name] = value / 1000.0 if unit[:1] == "s" else str(value) if unit == "text" else value
    if record.finish_reason is not None:
        found[names.FINISH_REASONS] = (record.finish_reason,)
    if record.failure is not None:
        found[names.ERROR_TYPE] = record.failure
    if record.origin is not None:
        found.update(server_attributes(record.origin))
    return found


@cache
def provider_of(endpoint: str) -> Any:
    """An SDK of our own that sends spans to an OTLP endpoint over HTTP; one for each, ended with the process.

    Args:
        endpoint: URL of the collector, as `http://127.0.0.1:4318`; `/v1/traces` is added unless it is there.

    Raises:
        ImportError: without OpenTelemetry's SDK and its exporter.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    url = endpoint.rstrip("/")
    resource = Resource.create()  # of OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "nat-dynamo-plugin"}))
    provider = TracerProvider(resource=resource)
    exporter = OTLPSpanExporter(endpoint=url if url.endswith("/v1/traces") else f"{url}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
