"""What can be looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from nat_dynamo_plugin.cli.top.journal import JournalSource
from nat_dynamo_plugin.cli.top.metrics import NoMetrics, counts_of
from nat_dynamo_plugin.cli.top.sources import NoSource, source_of
from nat_dynamo_plugin.nat.journal import Answered, Journal
from nat_dynamo_plugin.telemetry.gauges import Gauge
from nat_dynamo_plugin.telemetry.prometheus import PrometheusExporter
from nat_dynamo_plugin.telemetry.record import CallRecord

DYNAMO = """
# TYPE dynamo_frontend_active_requests gauge
dynamo_frontend_active_requests{model="a"} 3
dynamo_frontend_active_requests{model="b"} 1
# TYPE dynamo_frontend_queued_requests gauge
dynamo_frontend_queued_requests{model="a"} 2
# TYPE dynamo_frontend_requests counter
dynamo_frontend_requests_total{endpoint="chat_completions",error_type="",model="a",status="success"} 9
dynamo_frontend_requests_total{endpoint="chat_completions",error_type="overload",model="a",status="error"} 2
# TYPE dynamo_frontend_input_sequence_tokens histogram
dynamo_frontend_input_sequence_tokens_sum{model="a"} 1000
dynamo_frontend_input_sequence_tokens_count{model="a"} 9
# TYPE dynamo_frontend_cached_tokens histogram
dynamo_frontend_cached_tokens_sum{model="a"} 400
# TYPE dynamo_frontend_time_to_first_token_seconds histogram
dynamo_frontend_time_to_first_token_seconds_bucket{le="0.1",model="a"} 9
dynamo_frontend_time_to_first_token_seconds_bucket{le="+Inf",model="a"} 9
dynamo_frontend_time_to_first_token_seconds_sum{model="a"} 0.9
dynamo_frontend_time_to_first_token_seconds_count{model="a"} 9
# TYPE dynamo_frontend_model_total_kv_blocks gauge
dynamo_frontend_model_total_kv_blocks{model="a"} 100
# TYPE dynamo_frontend_worker_active_decode_blocks gauge
dynamo_frontend_worker_active_decode_blocks{dp_rank="0",worker_id="7",worker_type="decode"} 30
dynamo_frontend_worker_active_decode_blocks{dp_rank="1",worker_id="7",worker_type="decode"} 5
# TYPE dynamo_component_router_worker_registered gauge
dynamo_component_router_worker_registered{router_worker_id="7",worker_id="router"} 1
dynamo_component_router_worker_registered{router_worker_id="8",worker_id="router"} 1
dynamo_component_router_worker_registered{router_worker_id="6",worker_id="router"} 0
"""


def test_dynamos_metrics() -> None:
    found = counts_of(DYNAMO)
    assert (found.what, found.under_way, found.waiting, found.calls) == ("calls", 4, 2, 11)
    assert found.failed == {"overload": 2}
    assert (found.prompt_tokens, found.cached_tokens, found.ttft_s, found.ttft_count) == (1000, 400, 0.9, 9)
    assert found.ttft_buckets == {0.1: 9, float("inf"): 9} and found.kv_blocks == 100
    assert found.workers["7"].decode_blocks == 35 and set(found.workers) == {"7", "8"}


def test_our_own_metrics() -> None:
    registry = CollectorRegistry()
    gauges = [
        Gauge("active_prefixes", "h", {"model": "a"}, 4.0),
        Gauge("active_prefixes", "h", {"model": "b"}, 1.0),
        Gauge("waiting_prefixes", "h", {"model": "a"}, 6.0),
    ]
    exporter = PrometheusExporter(registry, lambda: gauges)
    exporter(CallRecord(request_model="a", status=200, prompt_tokens=100, cached_tokens=60, server_ttft_ms=40.0))
    exporter(CallRecord(request_model="a", status=529, error="busy", kind="overload"))
    found = counts_of(generate_latest(registry).decode())
    assert (found.what, found.under_way, found.waiting, found.calls) == ("questions", 5, 6, 2)
    assert found.failed == {"overload": 1}
    assert (found.prompt_tokens, found.cached_tokens, found.ttft_count) == (100, 60, 1)
    assert found.ttft_s == pytest.approx(0.04) and found.ttft_buckets[0.05] == 1 and found.ttft_buckets[0.025] == 0


def test_one_that_has_counted_nothing_yet() -> None:
    registry = CollectorRegistry()
    PrometheusExporter(registry, lambda: ())
    assert counts_of(generate_latest(registry).decode()).calls == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [("<html>\n", "are no metrics"), ("# TYPE up gauge\nup 1\n", "have nothing of Dynamo's frontend"), ("", "nothing")],
)
def test_other_texts_are_refused(text: str, told: str) -> None:
    with pytest.raises(NoMetrics, match=told):
        counts_of(text)


def journal(folder: Path) -> Journal:
    made = Journal(folder / "journal.jsonl")
    made.begin("f", 3, keep=False)
    return made


def call(**values: object) -> dict[str, object]:
    return CallRecord(**values).to_dict()  # type: ignore[arg-type]


def test_a_journal_is_read_on(tmp_path: Path) -> None:
    written = journal(tmp_path)
    source = source_of(str(tmp_path))
    found = source.look()
    assert (found.done, found.total, found.under_way, found.calls) == (0, 3, 0, 0)
    answered = {"status": 200, "prompt_tokens": 100, "cached_tokens": 50, "worker_id": 1, "server_ttft_ms": 30.0}
    written.call("a", call(**answered))
    written.call("b", call(**answered))
    written.call("b", call(status=529, error="busy", kind="overload"))
    assert source.look().under_way == 2
    written.question(Answered(id="1", asked="a", output="x"))
    found = source.look()
    assert (found.done, found.under_way, found.calls, found.failed) == (1, 1, 3, {"overload": 1})
    assert (found.prompt_tokens, found.cached_tokens, found.ttft_count) == (200, 100, 2)
    assert found.ttft_buckets[0.05] == 2 and found.ttft_buckets[0.02] == 0
    worker = found.workers["1"]
    assert (worker.calls, worker.prompt_tokens, worker.cached_tokens, worker.last_ttft_s) == (2, 200, 100, 0.03)
    written.finish()
    assert source.look().under_way == 0
    written.close()


def test_a_line_that_is_not_whole_yet_is_read_when_it_is(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    line = json.dumps({"call": call(status=200), "asked": "a"}) + "\n"
    file.write_text(line + line[:20])
    source = JournalSource(file)
    assert source.counts().calls == 1
    with file.open("a") as opened:
        opened.write(line[20:])
    assert source.counts().calls == 2
    file.write_text(line)  # another one, shorter
    assert source.counts().calls == 1
    other = tmp_path / "other"
    other.write_text(line * 5)
    other.replace(file)
    assert source.counts().calls == 5


def test_what_was_under_way_at_a_kill_is_not_any_more(tmp_path: Path) -> None:
    written = journal(tmp_path)
    written.call("a", call(status=200))
    written.begin("f", 3, keep=True)
    assert source_of(str(tmp_path)).look().under_way == 0
    written.close()


def test_what_can_not_be_looked_at_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoSource, match="neither a URL nor a folder"):
        source_of(str(tmp_path / "none"))
    with pytest.raises(NoSource, match=r"journal\.jsonl: No such file.*output folder of a `nat eval`"):
        source_of(str(tmp_path)).look()
    with pytest.raises(NoSource, match="a port from 1 to 65535"):
        source_of("http://127.0.0.1:70000/v1")
    with pytest.raises(NoSource, match=r"GET http://127\.0\.0\.1:9/metrics: "):
        source_of("http://user:secret@127.0.0.1:9/v1").look()
    assert source_of("http://h/dynamo/v1/").name == "http://h/dynamo/metrics"
