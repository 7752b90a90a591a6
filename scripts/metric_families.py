"""Which Prometheus metrics there can be, from the exporter and from the modules that have gauges.

A module under `src` that makes a `Gauge` has a `described()` beside it, which gives each without a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from nat_dynamo_plugin.telemetry.gauges import Gauge
from nat_dynamo_plugin.telemetry.prometheus import PrometheusExporter

SOURCE = Path(__file__).resolve().parents[1] / "src"
_MAKES_GAUGES = re.compile(r"(?<!class )\bGauge\(")


class Family(NamedTuple):
    """One metric.

    Attributes:
        name: as it is queried; a histogram's without `_bucket`, `_sum` and `_count`.
        kind: `counter`, `gauge` or `histogram`.
        labels: their names.
        help: what it is.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names that an expression may use."""
        ends = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return tuple(self.name + end for end in ends)


def gauges() -> Iterator[Gauge]:
    """All gauges that there can be."""
    for path in sorted(SOURCE.rglob("*.py")):
        if _MAKES_GAUGES.search(path.read_text(encoding="utf-8")):
            module = import_module(".".join(path.relative_to(SOURCE).with_suffix("").parts))
            if not hasattr(module, "described"):
                raise ValueError(f"{path.name} has gauges and no described() that says which")
            yield from module.described()


def families() -> list[Family]:
    """All metrics of ours, in the order in which they are exposed."""
    described = list(gauges())
    labels = {f"nat_dynamo_{one.name}": tuple(one.labels) for one in described}
    exporter = PrometheusExporter(CollectorRegistry(), gauges=lambda: described)
    return [
        Family(
            one.name + ("_total" if one.type == "counter" else ""),
            one.type,
            tuple(getattr(one, "_labelnames", ())) or labels.get(one.name, ()),
            one.documentation,
        )
        for one in exporter.collect()
    ]
