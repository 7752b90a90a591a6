"""Values as they stand when somebody looks: who has some adds a source, and what exports metrics reads them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

logger = logging.getLogger(__name__)


class Gauge(NamedTuple):
    """One value.

    Attributes:
        name: what it is called after `nat_dynamo_`, in Prometheus' alphabet.
        help: what it says, in a sentence.
        labels: whose value it is; few in number over the life of a process.
        value: the value.
        counts: whether it only ever grows, as Prometheus' counters do.
    """

    name: str
    help: str
    labels: Mapping[str, str]
    value: float
    counts: bool = False


GaugeSource = Callable[[], Iterable[Gauge]]

_sources: dict[GaugeSource, None] = {}


def add_gauges(source: GaugeSource) -> None:
    """Have `source` asked at each scrape; the same source counts once. Values of one name and labels are added up."""
    _sources.setdefault(source)


def read_gauges() -> Iterator[Gauge]:
    """What all sources say now; a source that raises is logged and left out."""
    for source in list(_sources):
        try:
            yield from list(source())
        except Exception:
            logger.warning("The gauges of %r can not be read", source, exc_info=True)
