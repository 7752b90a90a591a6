"""Prometheus' text of what this process has counted, or of what several processes have that serve one port.

Several share a folder as in `prometheus-client`'s multiprocess mode: each keeps its numbers in files of its own there,
and whoever is scraped adds them up. Counters and histograms of a process that has ended stay, for they must not go
down; its gauges go. Our metrics are made when somebody looks, not as calls come, so each process writes them each
second: those of the others are at most so old.
"""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from nat_dynamo_plugin.processes import start_of

OURS = "nat_dynamo_"
WRITE_S = 1.0
"""Seconds between writes of a process' numbers."""


class Exposition:
    """The metrics of the default registry, as text.

    Args:
        folder: that several processes share; `None` for this process alone.
        registry: where they are registered.
    """

    def __init__(self, folder: Path | None = None, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._folder = folder
        self._share: Share | None = None

    def start(self) -> None:
        """Begin to share, in the process that counts: after it was forked. Does nothing without a folder."""
        if self._folder is not None:
            self._share = Share(self._folder, self._registry)
            self._share.start()
            atexit.register(self.stop)

    def stop(self) -> None:
        """Write once more, and no longer."""
        if self._share is not None:
            self._share.stop()
            self._share = None

    def text(self, accept: str) -> tuple[bytes, str]:
        """The metrics and their content type.

        Args:
            accept: what the scraper accepts, of its request's header.
        """
        registry = self._registry
        if self._folder is not None:
            if self._share is not None:
                self._share.write()
            forget_dead(self._folder)
            registry = CollectorRegistry()
            MultiProcessCollector(registry, path=str(self._folder))  # type: ignore[no-untyped-call]
        encode, kind = choose_encoder(accept)
        return encode(registry), kind


class Share:
    """This process' numbers in a folder.

    Args:
        folder: it is there.
        registry: of these those whose names begin with `nat_dynamo_`; others' are written by `prometheus-client`.
    """

    def __init__(self, folder: Path, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._folder = folder
        # Process ids are used again, and numbers must not go down.
        self._process = f"{os.getpid()}-{start_of(os.getpid())}"
        self._files: dict[str, Any] = {}
        self._gauges: set[str] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nat-dynamo-metrics", daemon=True)

    def start(self) -> None:
        """Write from now on."""
        self.write()
        self._thread.start()

    def stop(self) -> None:
        """Write once more, and no longer."""
        self._ended.set()
        self._thread.join()
        self.write()
        for file in self._files.values():
            file.close()

    def _run(self) -> None:
        while not self._ended.wait(WRITE_S):
            self.write()

    def write(self) -> None:
        """Write all numbers as they stand."""
        with self._lock:
            gauges: set[str] = set()
            for metric in self._registry.collect():
                if not metric.name.startswith(OURS):
                    continue
                if metric.type == "gauge":
                    gauges |= self._write(metric, "gauge_livesum")
                else:
                    self._write(metric, metric.type)
            for key in self._gauges - gauges:  # of what is no longer there
                self._file("gauge_livesum").write_value(key, 0.0, 0.0)
            self._gauges |= gauges

    def _write(self, metric: Metric, kind: str) -> set[str]:
        below: dict[tuple[tuple[str, str], ...], float] = {}
        keys = set()
        for sample in metric.samples:
            value = sample.value
            if sample.name.endswith("_bucket"):
                # In files a bucket has what is above the one below it; they come in order.
                series = tuple(sorted((name, text) for name, text in sample.labels.items() if name != "le"))
                value -= below.get(series, 0.0)
                below[series] = sample.value
            elif kind == "histogram" and sample.name.endswith("_count"):
                continue  # whoever adds them up makes it of the buckets
            key = mmap_key(
                metric.name, sample.name, list(sample.labels), list(sample.labels.values()), metric.documentation
            )
            self._file(kind).write_value(key, value, 0.0)
            keys.add(key)
        return keys

    def _file(self, kind: str) -> Any:
        if kind not in self._files:
            path = self._folder / f"{kind}_{self._process}.db"
            new = path.with_suffix(".new")  # who scrapes meanwhile would find it empty, and can not read that
            self._files[kind] = MmapedDict(str(new))  # type: ignore[no-untyped-call]
            new.rename(path)
        return self._files[kind]


def forget_dead(folder: Path) -> None:
    """Remove the gauges of processes that have ended."""
    for file in folder.glob("gauge_live*_*-*.db"):
        pid, _, started = file.stem.rpartition("_")[2].partition("-")
        if pid.isdigit() and start_of(int(pid)) != started:
            file.unlink(missing_ok=True)
