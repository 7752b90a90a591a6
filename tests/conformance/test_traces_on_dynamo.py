"""One trace: from NAT's workflow through our calls to the spans of Dynamo's frontend and worker, by their ids."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from nat.builder.builder import Builder
from nat.builder.framework_enum import LLMFrameworkEnum
from nat.builder.function_info import FunctionInfo
from nat.builder.workflow_builder import WorkflowBuilder
from nat.cli.register_workflow import register_function
from nat.data_models.component_ref import LLMRef
from nat.data_models.function import FunctionBaseConfig
from nat.plugins.opentelemetry.register import OtelCollectorTelemetryExporter
from nat.runtime.loader import PluginTypes, discover_and_register_plugins

from nat_dynamo_plugin import CallRecord, DynamoModelConfig
from nat_dynamo_plugin.telemetry import exporters as telemetry
from nat_dynamo_plugin.telemetry.spans import provider_of

from .otlp_sink import Sink, SpanSeen


class CallerConfig(FunctionBaseConfig, name="test_traced_caller"):
    """An agent that calls in each way: async, as a stream, and blocking."""

    llm_name: LLMRef


async def caller(config: CallerConfig, builder: Builder) -> AsyncIterator[FunctionInfo]:
    llm = await builder.get_llm(config.llm_name, wrapper_type=LLMFrameworkEnum.LANGCHAIN)

    async def ask(topic: str) -> str:
        """Ask."""
        await llm.ainvoke(f"A: {topic}")
        assert [chunk async for chunk in llm.astream(f"B: {topic}")]
        return str(llm.invoke(f"C: {topic}").content)

    yield FunctionInfo.from_fn(ask, description="Asks.")


@pytest.fixture(scope="module", autouse=True)
def _components() -> None:
    discover_and_register_plugins(PluginTypes.COMPONENT)
    register_function(config_type=CallerConfig, framework_wrappers=[LLMFrameworkEnum.LANGCHAIN])(caller)


def ancestors(span: SpanSeen, spans: dict[str, SpanSeen]) -> list[str]:
    """Ids from a span's parent up."""
    found = [span.parent_id]
    while found[-1] in spans:
        found.append(spans[found[-1]].parent_id)
    return found


async def test_one_trace_from_workflow_to_worker() -> None:
    records: list[CallRecord] = []
    telemetry.add_exporter(records.append)
    with Sink() as sink:
        environment = {
            "OTEL_EXPORT_ENABLED": "true",
            "DYN_LOGGING_JSONL": "true",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": sink.grpc_url,
        }
        llm = DynamoModelConfig(local={"workers": 2, "env": environment}, max_tokens=8, trace=sink.http_url)
        try:
            async with WorkflowBuilder() as builder:
                exporter = OtelCollectorTelemetryExporter(endpoint=f"{sink.http_url}/v1/traces", project="nat")
                await builder.add_telemetry_exporter("sink", exporter)
                await builder.add_llm("llm", llm)
                await builder.set_workflow(CallerConfig(llm_name="llm"))
                workflow = await builder.build()
                for topic in ("bolts", "valves"):
                    async with workflow.run(topic) as runner:
                        await runner.result(to_type=str)
                provider_of(sink.http_url).force_flush()
                ids = {record.span_id for record in records}

                def all_there(spans: list[SpanSeen]) -> bool:
                    requests = [s for s in spans if s.name == "http-request" and s.parent_id in ids]
                    workers = [s for s in spans if s.name == "handle_payload" and "x_request_id" in s.attributes]
                    return len(requests) == len(workers) == 6 and any(s.service == "nat" for s in spans)

                assert await sink.has(all_there), sink.spans
        finally:
            telemetry.set_exporters(None)
    assert len(records) == len(ids) == 6 and len({record.trace_id for record in records}) == 2
    spans = {span.span_id: span for span in sink.spans}
    for record in records:
        ours = spans[record.span_id]
        assert ours.trace_id == record.trace_id and ours.name == f"chat {record.request_model}"
        assert ours.service == "nat-dynamo-plugin"
        assert ours.attributes["nat_dynamo.prefix_id"] == record.prefix_id
        assert ours.attributes["nat_dynamo.worker_id"] == str(record.worker_id)
        assert ours.attributes["gen_ai.usage.input_tokens"] == record.prompt_tokens
        assert "gen_ai.input.messages" not in ours.attributes
        of_trace = [span for span in sink.spans if span.trace_id == record.trace_id]
        [request] = [span for span in of_trace if span.name == "http-request" and span.parent_id == record.span_id]
        assert request.attributes["x_request_id"] == record.request_ids[-1]
        workers = [span for span in of_trace if span.name == "handle_payload"]
        [worker] = [span for span in workers if span.attributes["x_request_id"] == record.request_ids[-1]]
        assert ancestors(worker, spans)[-2:] == [record.span_id, ours.parent_id]
        assert request.span_id in ancestors(worker, spans)
        # NAT's own spans are of the trace too, and the one of our step names our span.
        nats = [span for span in of_trace if span.service == "nat"]
        assert "<workflow>" in {span.name for span in nats}
        assert [span for span in nats if record.span_id in json.dumps(span.attributes, default=str)]
