"""Which questions and arrivals a run gets: the finals get such as the search has not seen.

A config that was chosen on some questions is better on these than on others, however often they are asked again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from nat.data_models.config import Config

from nat_dynamo_plugin.sweep.limits import MIN_TO_SPLIT
from nat_dynamo_plugin.sweep.open_loop import OpenLoopConfig

_MIN_PART = 2


@dataclass(frozen=True, slots=True)
class Part:
    """The part of the workload that a run is of.

    Attributes:
        holdout: share of the questions kept for the finals, 0 to below 1.
        final_round: number of the round of the finals; `None` in the search.
    """

    holdout: float = 0.0
    final_round: int | None = None

    def chosen(self, ids: Iterable[str]) -> set[str]:
        """The questions to ask out of a dataset's, by a hash of their ids: the same however the dataset is sorted."""
        ranked = sorted(set(ids), key=lambda one: hashlib.sha256(one.encode()).digest())
        if not self.holdout or len(ranked) < MIN_TO_SPLIT:
            return set(ranked)
        kept = min(max(round(self.holdout * len(ranked)), _MIN_PART), len(ranked) - _MIN_PART)
        return set(ranked[kept:] if self.final_round is None else ranked[:kept])

    def set_arrivals(self, config: Config) -> None:
        """Let the questions of a round of the finals arrive at other times than in the search and in other rounds."""
        if self.final_round is None:
            return
        for middleware in config.middleware.values():
            if isinstance(middleware, OpenLoopConfig):
                middleware.seed += 1 + self.final_round


WHOLE = Part()
"""All questions of the dataset, at the arrivals' own times."""
