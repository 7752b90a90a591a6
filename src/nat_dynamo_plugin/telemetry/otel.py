"""Records as OpenTelemetry metrics, of the meter provider that the application has set; none set, none kept.

`names` says which metrics, and how `OTEL_SEMCONV_STABILITY_OPT_IN` chooses between two releases of the conventions.
Durations are what the caller sees, the wait at the gate and all attempts included.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from urllib.parse import urlsplit

from opentelemetry import metrics

from nat_dynamo_plugin.telemetry import names
from nat_dynamo_plugin.telemetry.record import CallRecord

Attributes = dict[str, str | int]


class OpenTelemetryExporter:
    """Records durations in seconds and token counts, with the model, the server and the kind of error as attributes.

    Args:
        provider: where to record; the default is the one that is set when a call ends.
    """

    def __init__(self, provider: metrics.MeterProvider | None = None) -> None:
        self._has_reader = provider is not None
        self._metrics = names.metrics()
        meter = metrics.get_meter("nat_dynamo_plugin", meter_provider=provider)
        self._record = {metric.name: _instrument(meter, metric) for metric in self._metrics}

    def __call__(self, record: CallRecord) -> None:
        """Take one record; costs next to nothing until the application has set a meter provider of the SDK."""
        if not self._has_reader:
            # The API's own stand-ins keep nothing and have nothing to flush.
            self._has_reader = hasattr(metrics.get_meter_provider(), "force_flush")
            if not self._has_reader:
                return
        if record.cache is not None:
            return  # these are metrics of inference, and there was none
        attributes = _attributes(record)
        for metric in self._metrics:
            value = getattr(record, metric.field)
            if value is not None:
                value = value / 1000.0 if metric.unit == "s" else value
                more = attributes if metric.token_type is None else attributes | {names.TOKEN_TYPE: metric.token_type}
                self._record[metric.name](value, more)


def _instrument(meter: metrics.Meter, metric: names.Metric) -> Callable[[float, Attributes], None]:
    if not metric.boundaries:
        return meter.create_counter(metric.name, unit=metric.unit).add
    try:
        histogram = meter.create_histogram(
            metric.name, unit=metric.unit, explicit_bucket_boundaries_advisory=metric.boundaries
        )
    except TypeError:  # the API's releases before 1.30 take no advice
        histogram = meter.create_histogram(metric.name, unit=metric.unit)
    return histogram.record


def _attributes(record: CallRecord) -> Attributes:
    attributes: Attributes = {
        names.OPERATION: names.OPERATIONS.get(record.api, "chat"),
        names.PROVIDER: record.provider or names.DEFAULT_PROVIDER,
    }
    if record.request_model is not None:
        attributes[names.REQUEST_MODEL] = record.request_model
    if record.model is not None:
        attributes[names.RESPONSE_MODEL] = record.model
    if record.failure is not None:
        attributes[names.ERROR_TYPE] = record.failure
    if record.origin is not None:
        attributes.update(server_attributes(record.origin))
    return attributes


@lru_cache(maxsize=256)
def server_attributes(origin: str) -> tuple[tuple[str, str | int], ...]:
    """Address and port of an origin; nothing of what is none."""
    try:
        url = urlsplit(origin)
        address, port = url.hostname, url.port or {"http": 80, "https": 443}.get(url.scheme)
    except ValueError:
        return ()
    if not address or port is None:
        return ()
    return (names.SERVER_ADDRESS, address), (names.SERVER_PORT, port)


def exporter() -> OpenTelemetryExporter:
    """The exporter to whatever provider the application sets."""
    return OpenTelemetryExporter()
