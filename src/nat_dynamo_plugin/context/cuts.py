"""Decides how a conversation is shortened, and remembers it. No I/O in here.

A server's cache holds a prompt from its beginning, so each change near there costs the whole rest. A history is
therefore cut rarely and far, and what was cut stays cut at the same place in all that go on from it. The client sends
the whole history each time; a cut is found again by a hash of all that stands before its end.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from threading import Lock

from nat_dynamo_plugin.context.history import SYSTEM, Asked, History

MAX_CUTS = 10_000
"""Cuts that are remembered; of more, those that were not asked for the longest are forgotten."""
NOTICE = "[Earlier messages of this conversation were left out.]"
"""Stands between two messages of the user, for many chat templates refuse two in a row."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a history is shortened.

    Attributes:
        end: the first message behind the cut that is sent.
        summary: what stands in the place of what is left out; `None` for nothing.
    """

    end: int
    summary: str | None = None

    def shorten(self, history: History) -> list[bytes]:
        """The messages that are sent. The same to `end` for all histories that go on from there."""
        before = history.kept(self.end)
        next_is_user = history.roles[self.end] == "user"
        if self.summary is not None:
            before.append(_said("assistant" if next_is_user else "user", self.summary))
        elif next_is_user:
            before.append(_said("assistant", NOTICE))
        return [*before, *history.messages[self.end :]]

    def replaced(self, history: History, before: Cut | None) -> list[bytes]:
        """What this cut takes out of what was sent until now: the earlier cut's summary, and what came after it."""
        if before is None or before.summary is None:
            return history.left_out(self.end)
        later = len(history.left_out(before.end))
        return [_said("user", before.summary), *history.left_out(self.end)[later:]]


def _said(role: str, text: str) -> bytes:
    return json.dumps({"role": role, "content": text}, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Window:
    """How long a prompt may be.

    Attributes:
        max_tokens: most tokens; a longer one is cut.
        keep: so many turns at the end are never cut, 1 or more.
        compact_to: so much (0 to 1) of the room for turns a cut leaves filled at most, where `keep` allows it. The room
            is what `max_tokens` leaves beside what is always sent: tools, the system's and the first message.
    """

    max_tokens: int
    keep: int
    compact_to: float

    def cut(self, asked: Asked, tokens: Callable[[bytes], float]) -> int | None:
        """Where a history is to be cut anew; `None` if there is nothing to cut. `tokens` estimates a text's.

        Where an exchange (all from one message of the user to the next) ends not far behind, it ends there.
        """
        history = asked.history
        sizes = [tokens(one) for one in history.messages]
        stay = (size if at < history.head or history.roles[at] in SYSTEM else 0.0 for at, size in enumerate(sizes))
        kept, before = list(accumulate(stay, initial=0.0)), list(accumulate(sizes, initial=0.0))
        ends = [end for end in history.cuttable(self.keep) if kept[end] < before[end]]
        if not ends:
            return None
        always = asked.other_tokens(tokens) + kept[-1] + tokens(_said("assistant", NOTICE))
        room = (self.max_tokens - always) * self.compact_to
        # What a cut leaves of the turns; of what stands behind it, the system's messages stay in any case.
        left = {end: before[-1] - before[end] - (kept[-1] - kept[end]) for end in ends}
        end = next((end for end in ends if left[end] <= room), ends[-1])
        exchange = next((later for later in ends if later >= end and history.roles[later] == "user"), end)
        return exchange if left[exchange] >= room / 2 else end


class Cuts:
    """The cuts that were made, shared by threads.

    Args:
        window: what histories are kept within.
        most: how many are remembered.
    """

    def __init__(self, window: Window, most: int = MAX_CUTS) -> None:
        self._window = window
        self._most = most
        self._cuts: OrderedDict[bytes, Cut] = OrderedDict()
        self._lock = Lock()

    def is_needed(self, body: bytes, tokens: Callable[[bytes], float]) -> bool:
        """Whether a request has to be looked at: it is too long, or there are cuts that may be of its beginning."""
        return bool(self._cuts) or tokens(body) > self._window.max_tokens

    def new_end(self, asked: Asked, known: Cut | None, tokens: Callable[[bytes], float]) -> int | None:
        """Where to cut further than the cut that is known; `None` if what that leaves fits, or nothing can be done."""
        history = asked.history
        sent = history.messages if known is None else known.shorten(history)
        if asked.other_tokens(tokens) + sum(map(tokens, sent)) <= self._window.max_tokens:
            return None
        end = self._window.cut(asked, tokens)
        return None if end is None or (known is not None and end <= known.end) else end

    def find(self, history: History, owner: str) -> Cut | None:
        """The furthest cut that was made in the beginning of this history, for this owner."""
        ends = history.cuttable(self._window.keep)
        names = list(_names(history, owner, ends))
        with self._lock:
            for name in reversed(names):
                if name in self._cuts:
                    self._cuts.move_to_end(name)
                    return self._cuts[name]
        return None

    def remember(self, history: History, owner: str, cut: Cut) -> Cut:
        """Keep a cut; gives it, or the one that another call has made at the same place meanwhile."""
        [name] = _names(history, owner, (cut.end,))
        with self._lock:
            kept = self._cuts.setdefault(name, cut)
            self._cuts.move_to_end(name)
            while len(self._cuts) > self._most:
                self._cuts.popitem(last=False)
        return kept


def _names(history: History, owner: str, ends: Iterable[int]) -> Iterator[bytes]:
    """What stands for the history's beginning before each of the ends, ascending; another one for each owner."""
    whole, at = blake2b(owner.encode("utf-8", "surrogatepass") + b"\0", digest_size=16), 0
    for end in ends:
        for message in history.messages[at:end]:
            whole.update(b"%d:" % len(message))
            whole.update(message)
        at = end
        yield whole.digest()
