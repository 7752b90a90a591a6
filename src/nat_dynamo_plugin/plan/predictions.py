"""What NAT's profiler predicts for a call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from nat_dynamo_plugin.question.hints import CallPrediction


class PredictionLookup(Protocol):
    """What we use of NAT's prediction trie: a prediction by function path and 1-based call index."""

    def __call__(self, path: list[str], call_index: int) -> CallPrediction | None:
        """The prediction for a call, if there is one."""


def load_predictions(path: Path) -> PredictionLookup:
    """NAT's own reader of a prediction trie, as a lookup.

    Raises:
        ValueError: if the file is missing or no prediction trie.
    """
    from nat.profiler.prediction_trie import load_prediction_trie
    from nat.profiler.prediction_trie.trie_lookup import PredictionTrieLookup

    try:
        find = PredictionTrieLookup(load_prediction_trie(path)).find
    except FileNotFoundError:
        raise ValueError(f"prefix_predictions={str(path)!r}: there is no such file") from None
    except Exception as error:
        raise ValueError(f"prefix_predictions={str(path)!r} is no prediction trie: {error}") from error
    return _as_lookup(find)


def _as_lookup(find: Callable[..., object]) -> PredictionLookup:
    from nat.profiler.prediction_trie.data_models import LLMCallPrediction

    def lookup(path: list[str], call_index: int) -> CallPrediction | None:
        found = find(path, call_index)
        if not isinstance(found, LLMCallPrediction):
            return None
        sensitivity = found.latency_sensitivity
        # A metric without samples is a default of zeros, not a prediction.
        return CallPrediction(
            remaining_calls=found.remaining_calls.mean if found.remaining_calls.sample_count else None,
            output_tokens=round(found.output_tokens.p90) or None,
            interarrival_ms=round(found.interarrival_ms.mean) or None,
            latency_sensitivity=None if sensitivity is None else float(sensitivity),
        )

    return lookup
