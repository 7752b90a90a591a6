"""Entries in the memory of this process: the least recently used make room. `OrderedDict` is all it takes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from time import monotonic

from nat_dynamo_plugin.cache.store import Claim, Kept
from nat_dynamo_plugin.locks import after_fork

ENTRY_BYTES = 400
"""What an entry takes besides its bytes and its key, about."""


class MemoryStore:
    """At most so many entries of at most so many bytes.

    Args:
        max_entries: entries.
        max_bytes: bytes of all, `ENTRY_BYTES` for each included.
        evicted: told of each entry that made room.
        clock: seconds, never going back.
    """

    is_local = True
    name = "memory"

    def __init__(
        self,
        max_entries: int,
        max_bytes: int,
        evicted: Callable[[], None] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._evicted = evicted
        self._clock = clock
        # By key: when it is over, its bytes, org and model.
        self._kept: OrderedDict[str, tuple[float, bytes, str, str]] = OrderedDict()
        self.bytes = 0
        self._unlock()
        after_fork(self, MemoryStore._unlock)

    def _unlock(self) -> None:
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def claim(self, key: str, org: str, model: str, token: str | None) -> Claim:
        """Get the entry; in one process nobody else's claim has to be kept here (see `flights`)."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return Claim()
            if found[0] <= self._clock():
                self._drop(key)
                return Claim()
            self._kept.move_to_end(key)
            return Claim(found[1], leads=False)

    def hold(self, key: str, token: str) -> None:
        """Nothing to be done."""

    def release(self, key: str, org: str, model: str, token: str, *, kept: bool) -> None:
        """Nothing to be done."""

    def put(self, key: str, org: str, model: str, value: bytes, ttl_s: float) -> None:
        """Keep the bytes; what is larger than all room is not kept."""
        size = _size(key, value)
        if size > self._max_bytes:
            return
        evictions = 0
        with self._lock:
            self._drop(key)
            while self._kept and (len(self._kept) >= self._max_entries or self.bytes + size > self._max_bytes):
                self._drop(next(iter(self._kept)))
                evictions += 1
            self._kept[key] = (self._clock() + ttl_s, value, org, model)
            self.bytes += size
        if self._evicted is not None:
            for _ in range(evictions):
                self._evicted()

    def _drop(self, key: str) -> None:
        gone = self._kept.pop(key, None)
        if gone is not None:
            self.bytes -= _size(key, gone[1])

    def remove(self, place: str) -> None:
        """Forget an entry."""
        with self._lock:
            self._drop(place)

    def entries(self, org: str | None = None, model: str | None = None) -> Iterator[Kept]:
        """What is there and not over."""
        with self._lock:
            now, kept = self._clock(), list(self._kept.items())
        for key, (until, value, its_org, its_model) in kept:
            if until > now and org in (None, its_org) and model in (None, its_model):
                yield Kept(key, value)

    def close(self) -> None:
        """Nothing to be done."""


def _size(key: str, value: bytes) -> int:
    return len(value) + len(key) + ENTRY_BYTES
