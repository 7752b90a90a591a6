"""The journal that an evaluation writes as it goes, as counts. What was read is not read again."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from nat_dynamo_plugin.cli.top.counts import Counts, Worker
from nat_dynamo_plugin.nat.journal import JOURNAL

TTFT_BOUNDS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, float("inf"))


class JournalSource:
    """An evaluation's journal.

    Args:
        path: the journal, or the folder that it is in.
    """

    def __init__(self, path: Path) -> None:
        self._file = path / JOURNAL if path.is_dir() else path
        self._begin()

    def _begin(self) -> None:
        self._inode = self._read = 0
        self._counts = Counts(what="questions", ttft_buckets=dict.fromkeys(TTFT_BOUNDS_S, 0.0))
        self._asked: set[str] = set()
        self._ended: dict[str, str] = {}
        self._finished = False

    def counts(self) -> Counts:
        """What it says now.

        Raises:
            OSError: it can not be read.
        """
        with self._file.open("rb") as file:
            found = file.seek(0, 2)
            inode = self._file.stat().st_ino
            if inode != self._inode or found < self._read:  # another one has its place: it was made shorter at the end
                self._begin()
                self._inode = inode
            file.seek(self._read)
            data = file.read()
        whole, end, _ = data.rpartition(b"\n")
        self._read += len(whole) + len(end)
        for line in whole.split(b"\n"):
            try:
                row = json.loads(line)
            except ValueError:
                continue  # torn by a kill
            if isinstance(row, dict):
                self._take(row)
        counts = self._counts
        counts.done = len(self._ended)
        counts.under_way = 0 if self._finished else len(self._asked - set(self._ended.values()))
        return copy.deepcopy(counts)

    def _take(self, row: dict[str, Any]) -> None:
        match row:
            case {"journal": int()}:
                self._counts.total = row.get("questions")
                self._asked = set(self._ended.values())  # what was under way at a kill is asked anew
                self._finished = False
            case {"call": dict(call), "asked": str(asked)}:
                self._asked.add(asked)
                self._call(call)
            case {"question": str(key), "asked": str(asked)}:
                self._ended[key] = asked
            case {"finished": True}:
                self._finished = True

    def _call(self, call: dict[str, Any]) -> None:
        counts = self._counts
        counts.calls += 1
        if call.get("error") is not None or (call.get("status") or 0) >= 400:
            counts.failed[str(call.get("kind") or call.get("error_type") or call.get("status") or "error")] += 1
            return
        prompt, cached = call.get("prompt_tokens") or 0, call.get("cached_tokens") or 0
        counts.prompt_tokens += prompt
        counts.cached_tokens += cached
        ttft_s = None if call.get("server_ttft_ms") is None else call["server_ttft_ms"] / 1000.0
        if ttft_s is not None:
            counts.ttft_s += ttft_s
            counts.ttft_count += 1
            for bound in counts.ttft_buckets:
                counts.ttft_buckets[bound] += ttft_s <= bound
        if call.get("worker_id") is not None:
            worker = counts.workers.setdefault(str(call["worker_id"]), Worker(calls=0))
            worker.calls = (worker.calls or 0) + 1
            worker.prompt_tokens += prompt
            worker.cached_tokens += cached
            worker.last_ttft_s = ttft_s
