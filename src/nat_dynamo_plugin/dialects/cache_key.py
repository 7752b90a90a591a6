"""The key that other providers' prompt caches are asked by: one for all turns of a question, and no two orgs' the same.

Servers with a key go by it, and by the beginning of the prompt, to the machine that has the prompt cached.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import lru_cache
from time import monotonic

from nat_dynamo_plugin.plan.serving import ServingPlan
from nat_dynamo_plugin.question.org import ORG_KEY, current_org

MAX_CHARS = 64
"""Longest key that OpenAI takes."""
CALLS_A_MINUTE = 15
"""Above this rate OpenAI sends calls of one key and prefix to other machines too, where nothing is cached
(its guide on prompt caching)."""
WINDOW_S = 60.0
MAX_KEYS = 4096
MAX_SESSIONS = 4096
MAX_SHARDS = 64

_DIGEST_CHARS = 40


def cache_key(prefix_id: str, org: str | None) -> str:
    """What stands for a question's prefix id and its org at a provider: `nat-` and 40 hexadecimal digits.

    An HMAC-SHA256, keyed by `question.org.ORG_KEY`; so neither name leaves the process.
    """
    return _key(prefix_id, org, os.environ.get(ORG_KEY, ""))


@lru_cache(maxsize=4096)
def _key(prefix_id: str, org: str | None, secret: str) -> str:
    # With the length in front, no two pairs have one text.
    said = f"nat-dynamo-plugin prompt cache\0{'-' if org is None else len(org)}\0{org or ''}{prefix_id}"
    digest = hmac.new(secret.encode(), said.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
    return f"nat-{digest[:_DIGEST_CHARS]}"


class _Hot:
    """What is known of one key: when the last calls of each shard were, and which shard a session is on."""

    __slots__ = ("calls", "sessions")

    def __init__(self) -> None:
        self.calls: list[deque[float]] = []
        self.sessions: OrderedDict[str, int] = OrderedDict()


class Shards:
    """Spreads the sessions of a key that is asked for too often over several. Safe across threads.

    A session stays on its shard, for elsewhere nothing of it is cached; only new ones go to a shard with room. So one
    chain of calls has one key all the time, however fast it is.

    Args:
        calls_a_minute: how many calls a minute a shard takes before new sessions go to another.
        clock: seconds, never going back.
    """

    def __init__(self, calls_a_minute: int = CALLS_A_MINUTE, clock: Callable[[], float] = monotonic) -> None:
        self._most = calls_a_minute
        self._clock = clock
        self._keys: OrderedDict[str, _Hot] = OrderedDict()
        self._lock = threading.Lock()

    def shard(self, key: str, session: str) -> int:
        """The shard for one more call of a session, from 0; counts the call."""
        now = self._clock()
        with self._lock:
            hot = self._keys.setdefault(key, _Hot())
            self._keys.move_to_end(key)
            if len(self._keys) > MAX_KEYS:
                self._keys.popitem(last=False)
            number = hot.sessions.get(session)
            if number is None:
                number = self._with_room(hot, now)
                hot.sessions[session] = number
                if len(hot.sessions) > MAX_SESSIONS:
                    hot.sessions.popitem(last=False)
            hot.sessions.move_to_end(session)
            hot.calls[number].append(now)
            return number

    def _with_room(self, hot: _Hot, now: float) -> int:
        for number, calls in enumerate(hot.calls):
            if len(calls) < self._most or now - calls[0] >= WINDOW_S:
                return number
        if len(hot.calls) < MAX_SHARDS:
            hot.calls.append(deque(maxlen=self._most))
            return len(hot.calls) - 1
        return min(range(MAX_SHARDS), key=lambda number: hot.calls[number][0])


_shards = Shards()


def key_of(plan: ServingPlan, shards: Shards = _shards) -> str:
    """The key of a call made now, from this context: at most 64 characters.

    Args:
        plan: whose call it is.
        shards: what counts the calls; by default one for the process, for a key is hot whoever asks.
    """
    identity = plan.identity
    key = cache_key(identity.prefix_id, current_org())
    shard = shards.shard(key, identity.session_id)
    return f"{key}-{shard}" if shard else key
