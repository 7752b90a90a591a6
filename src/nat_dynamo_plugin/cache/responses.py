"""The response cache: looks answers up, keeps them, and clears them. No HTTP in here."""

from __future__ import annotations

import logging
import secrets
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from time import time
from typing import Any

import msgspec

from nat_dynamo_plugin.cache.entry import Entry, NotReadable, Seal, created_of, decode_answer, pack, unpack
from nat_dynamo_plugin.cache.figures import Figures, level
from nat_dynamo_plugin.cache.flights import Flights
from nat_dynamo_plugin.cache.key import Asked
from nat_dynamo_plugin.cache.near import same_answer
from nat_dynamo_plugin.cache.policy import why_not_kept
from nat_dynamo_plugin.cache.replay import assemble, normal, whole
from nat_dynamo_plugin.cache.store import Store
from nat_dynamo_plugin.cache.trust import Trust
from nat_dynamo_plugin.question.once import warn_once
from nat_dynamo_plugin.telemetry.gauges import Gauge, add_gauges
from nat_dynamo_plugin.telemetry.record import CallRecord

logger = logging.getLogger(__name__)

MIN_WAIT_S = 1.0
"""A call waits at least so long for an equal one that is under way, if that takes so long."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a cache is for; see `config.cache` for what each means."""

    ttl_s: float = 3600.0
    max_entry_bytes: int = 2**20
    max_wait_s: float = 60.0
    streams: bool = True
    single_flight: bool = True
    deterministic_only: bool = True
    ignore: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    near_ttl_s: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Asking:
    """One call as the cache sees it.

    Attributes:
        asked: what is asked for.
        key: see `cache.key`.
        org: HMAC of the org, or empty.
        looks: whether it may be answered from the cache.
        token: tells this call's lease from others'.
        near: the key of all calls that ask almost the same; empty if there are none.
    """

    asked: Asked
    key: str
    org: str = ""
    looks: bool = True
    token: str = ""
    near: str = ""


class ResponseCache:
    """What was answered before, in a store.

    Args:
        store: keeps the bytes.
        settings: what it is for.
        seal: encrypts them.
        figures: what is counted.
        trust: whether almost equal questions may be answered; `None` if they are not looked for.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings | None = None,
        seal: Seal | None = None,
        figures: Figures | None = None,
        trust: Trust | None = None,
    ) -> None:
        self.store = store
        self.settings = settings or Settings()
        self.figures = figures or Figures()
        self.flights = Flights()
        self.trust = trust
        self._seal = seal
        self._took_s: deque[float] = deque(maxlen=256)
        _in_use.add(self)
        add_gauges(_gauges)

    def read(self, asking: Asking, value: bytes, *, near: bool = False) -> Entry | None:
        """The entry in these bytes; `None` if there is none in them that answers this call, or one that is near."""
        try:
            entry = unpack(value, self._seal, asking.near if near else asking.key)
        except NotReadable as error:
            self.figures.count("store_errors", "unreadable")
            warn_once(logger, ("cache", str(error)), "An entry of the response cache is not used: %s", error)
            return None
        return self.usable(asking, entry)

    @staticmethod
    def usable(asking: Asking, entry: Entry) -> Entry | None:
        """The entry, unless this call wants to know the usage, and the one that made it did not."""
        return entry if entry.has_usage or not asking.asked.wants_usage else None

    def look(self, asking: Asking) -> Entry | None:
        """The entry of a store that is local."""
        value = self.store.claim(asking.key, asking.org, asking.asked.model, None).value
        return None if value is None else self.read(asking, value)

    def keep_stream(self, asking: Asking, events: list[bytes], record: CallRecord) -> Entry | None:
        """Keep an answer that was streamed to its end."""
        answer = assemble(events)
        if answer is None:
            self.figures.count("not_kept", "unreadable")
            return None
        return self._keep(asking, answer, record)

    def keep_whole(self, asking: Asking, content: bytes, record: CallRecord) -> Entry | None:
        """Keep an answer that came in one piece."""
        try:
            answer = decode_answer(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.figures.count("not_kept", "unreadable")
            return None
        return self._keep(asking, answer, record)

    def _keep(self, asking: Asking, answer: dict[str, Any], record: CallRecord) -> Entry | None:
        why = why_not_kept(answer, asking.asked.model, self.settings.aliases)
        if why is None:
            body = whole(normal(answer))
            why = "too_long" if len(body) > self.settings.max_entry_bytes else None
        if why is not None:
            self.figures.count("not_kept", why)
            return None
        entry = Entry(
            key=asking.key,
            created=time(),
            answer=body,
            model=asking.asked.model,
            org=asking.org,
            has_usage=asking.asked.wants_usage or answer.get("usage") is not None,
            answered_by=record.model,
            finish_reason=record.finish_reason,
            prompt_tokens=record.prompt_tokens,
            cached_tokens=record.cached_tokens,
            completion_tokens=record.completion_tokens,
        )
        self.store.put(asking.key, asking.org, entry.model, pack(entry, self._seal), self.settings.ttl_s)
        self.figures.count("stores")
        return entry

    def keep_near(self, asking: Asking, entry: Entry, before: Entry | None) -> None:
        """Keep an answer for almost equal questions too; compare it with the one that was there."""
        near = msgspec.structs.replace(entry, key=asking.near, asked=asking.key)
        self.store.put(asking.near, asking.org, entry.model, pack(near, self._seal), self.settings.near_ttl_s)
        if before is None or self.trust is None:
            return
        right = same_answer(decode_answer(entry.answer), decode_answer(before.answer))
        self.figures.count("near_compared", "right" if right else "wrong")
        self.trust.compared(right=right)

    def took(self, seconds: float) -> None:
        """A call was sent and answered in this time."""
        self._took_s.append(seconds)

    @property
    def longest_wait_s(self) -> float:
        """How long a call waits for an equal one: twice the 95th percentile of what calls take, within bounds."""
        took = sorted(self._took_s)
        if len(took) < 20:
            return self.settings.max_wait_s
        return min(self.settings.max_wait_s, max(MIN_WAIT_S, 2.0 * took[len(took) * 95 // 100]))

    # What follows is for people: the command line and Python.

    def entries(self, model: str | None = None, org: str | None = None) -> Iterator[tuple[str, Entry | str]]:
        """All entries by their place in the store; of one that can not be read, why.

        Args:
            model: those of this model, as it was asked for.
            org: those of this org's HMAC (`org_digest`).

        Raises:
            StoreError: the store can not be asked.
        """
        for place, value in self.store.entries(org, model):
            try:
                yield place, unpack(value, self._seal)
            except NotReadable as error:
                yield place, str(error)

    def clear(self, model: str | None = None, org: str | None = None, older_than_s: float | None = None) -> int:
        """Forget entries; how many.

        Args:
            model: those of this model only, as it was asked for.
            org: those of this org's HMAC only (`org_digest`).
            older_than_s: those that are older, in seconds; what is no entry of ours is not old.

        Raises:
            StoreError: the store can not be asked.
        """
        gone, now = 0, time()
        for place, value in self.store.entries(org, model):
            created = created_of(value[:16])
            if older_than_s is None or (created is not None and now - created > older_than_s):
                self.store.remove(place)
                gone += 1
        return gone

    def close(self) -> None:
        """Write what is still to be written."""
        self.store.close()


def new_token() -> str:
    """What tells a lease from all others."""
    return secrets.token_hex(8)


_in_use: weakref.WeakSet[ResponseCache] = weakref.WeakSet()


def in_use() -> list[ResponseCache]:
    """The caches of this process that an LLM uses."""
    return list(_in_use)


def _gauges() -> Iterator[Gauge]:
    for cache in list(_in_use):
        yield from cache.figures.gauges(cache.store.name)
        if cache.trust is not None:
            yield level("near_error_bound", cache.store.name, cache.trust.standing.bound)
        held = getattr(cache.store, "bytes", None)
        if held is not None:
            yield level("bytes", cache.store.name, float(held))
            yield level("entries", cache.store.name, float(len(cache.store)))  # type: ignore[arg-type]
