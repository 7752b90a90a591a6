"""What is taken of NAT's predictions: zeros without samples are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nat.profiler.prediction_trie.data_models import LLMCallPrediction, PredictionMetrics

from nat_dynamo_plugin.plan.predictions import _as_lookup, load_predictions
from nat_dynamo_plugin.question.hints import CallPrediction

NOTHING = PredictionMetrics(sample_count=0, mean=0, p50=0, p90=0, p95=0)


def metrics(**values: float) -> PredictionMetrics:
    return PredictionMetrics(**({"sample_count": 3, "mean": 1, "p50": 2, "p90": 3, "p95": 4} | values))  # type: ignore[arg-type]


def looked_up(**fields: Any) -> CallPrediction | None:
    known = {"remaining_calls": NOTHING, "output_tokens": NOTHING, "interarrival_ms": NOTHING}
    prediction = LLMCallPrediction(**(known | fields))
    return _as_lookup(lambda path, call_index: prediction)(["agent"], 1)


def test_every_figure_is_taken_from_its_place() -> None:
    found = looked_up(
        remaining_calls=metrics(mean=2.5),
        output_tokens=metrics(p90=40.4),
        interarrival_ms=metrics(mean=120.4),
        latency_sensitivity=3,
    )
    assert found == CallPrediction(remaining_calls=2.5, output_tokens=40, interarrival_ms=120, latency_sensitivity=3.0)


def test_metrics_without_samples_predict_nothing() -> None:
    assert looked_up() == CallPrediction(
        remaining_calls=None, output_tokens=None, interarrival_ms=None, latency_sensitivity=None
    )


def test_no_calls_to_come_is_a_prediction() -> None:
    found = looked_up(remaining_calls=metrics(mean=0))
    assert found is not None and found.remaining_calls == 0


def test_what_is_no_prediction_is_none() -> None:
    assert _as_lookup(lambda path, call_index: None)(["agent"], 1) is None


def test_a_file_that_is_no_trie_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match=f"prefix_predictions='{path}' is no prediction trie: "):
        load_predictions(path)
