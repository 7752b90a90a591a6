"""How much may be under way at once: found from what the server says and answers."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from nat_dynamo_plugin.telemetry.record import CallRecord

FIRST_LIMIT = 16
"""Questions let in while nobody says how much the KV caches hold."""
FILL = 0.8
"""Share of the KV caches that is filled with the prompts of questions under way to begin with."""
TOLERATED_LOSS = 0.08
"""Share of cached prompt tokens lost between two calls of a chain that is no sign of crowding."""
TOLERATED_DELAY = 4.0
"""How many times the least time to first token a call may take and be no sign of crowding."""
LATE_SHARE = 0.25
"""Least share of a call's time that its first token takes on a crowded server."""
UNCROWDED_LOSS = 0.02
"""Share of cached prompt tokens lost above which room grows no more than it must."""
UNCROWDED_DELAY = 1.75
"""How many times the usual time to first token of windows without congestion a window's may be for room to grow more
than it must."""
CUBIC_C = 0.1
"""How fast room grows, in questions a window cubed. RFC 9438 has 0.4 a second cubed; what growth does is seen late
here, after several windows."""
MOST_GROWTH = 1.15
"""Largest factor on the room after one window; RFC 9438, section 4.2, has 1.5."""
ADDITIVE = 0.5
"""What a window without congestion adds at least, in questions."""
BEYOND = 0.002
"""Largest share that a window adds to room that is more than `FILL` of what the KV caches are said to hold: what was
evicted may still be cached in a lower tier, which Dynamo does not count."""
GAIN = 0.25
"""Weight of the newest window in the mean congestion."""
MIN_WINDOW_CALLS = 16
"""Calls that a window has at least."""
DRIFT = 0.01
"""What a window moves the least delay remembered towards its own, so that a changed server is noticed."""
_MAX_CHAINS = 16_384
_BLOCK_TOKENS = 64
_TOLERATED_LATE = 0.25


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What is under way at a moment.

    Attributes:
        questions: how many.
        tokens: of their prompts, what they share counted once.
        waiting: whether any question waits.
    """

    questions: int
    tokens: float
    waiting: bool


class Limiter(Protocol):
    """An adaptive limit. Told of every call by the gate, one at a time."""

    @property
    def limit(self) -> int | None:
        """Questions that may be under way now, 1 or more; `None` for any number."""

    @property
    def room(self) -> float | None:
        """Tokens that the prompts of questions under way may have; `None` for any number."""

    def on_capacity(self, tokens: int) -> None:
        """The cluster's KV caches hold this many tokens."""

    def on_call(self, record: CallRecord, under_way: UnderWay, now: float) -> None:
        """Learn from a finished call.

        Args:
            record: what the server said of it.
            under_way: what was when it finished, the call's question included.
            now: seconds, never going back.
        """


class LimitWindow(NamedTuple):
    """What an adaptive limit has seen in one window of calls, and what it did.

    Attributes:
        at: its end, s.
        questions: under way then.
        tokens: of their prompts.
        room: tokens that may be under way from then on.
        loss: share of cached tokens that was lost.
        ttft_ms: mean time to first token.
    """

    at: float
    questions: int
    tokens: float
    room: float | None
    loss: float
    ttft_ms: float


class AdaptiveLimit:
    """Data Center TCP (Alizadeh et al., SIGCOMM 2010; RFC 8257), with tokens under way for bytes in flight.

    It begins as Quick-Start (RFC 4782) does, with what the path says it can take: `FILL` of the tokens that the KV
    caches hold. A frontend that does not say so lets `FIRST_LIMIT` questions in, and their tokens are what it begins
    with.

    What ECN marks are to DCTCP are two things that Dynamo reports of the second and later calls of a chain:

    - lost tokens: the prompt of the chain's previous call was in an engine's cache; what `cached_tokens` is short of it
      was evicted meanwhile. A call that another worker answered tells nothing of that and is left out. The share of
      lost tokens is congestion.
    - late first tokens: a TTFT over `TOLERATED_DELAY` times the least mean seen that is also over `LATE_SHARE` of the
      call's time, for a full batch takes longer to start on a call without being crowded. The share of such calls is
      congestion.

    A window is as many calls as questions are under way, so about one of each, all sent after the last window. After
    a congested one the room is cut by half of the congestion, `room * (1 - alpha / 2)`, as there, where alpha is the
    mean congestion or the newest, whichever is more; no more windows count until no more is under way than there is
    room for. Otherwise it grows as CUBIC does (RFC 9438), with windows for seconds: back to where it was cut,
    slowly around there, then faster the longer there is no congestion, so that a cluster that has grown is soon used.
    The least growth of `ADDITIVE` a window, as in CUBIC's Reno-friendly region, and CUBIC's fast convergence let
    clients that share a cluster come to equal room (Chiu and Jain 1989).

    Questions grow after they were let in, so what more room does is seen only later. Between growing and cutting
    there is therefore a region, as in TCP Vegas (Brakmo and Peterson 1995), of the least growth only: a few tokens are
    lost, or first tokens come later than usual. As in RFC 7661, room that is not used does not grow.
    """

    def __init__(self) -> None:
        self._room: float | None = None
        self._peak = self._low = 0.0
        self._said = math.inf
        self._draining = False
        self._clean = 0
        self._alpha = 0.0
        self._prompts: OrderedDict[str, tuple[int, int | None]] = OrderedDict()
        self._least_delay: float | None = None
        self._usual_delay: float | None = None
        self._calls = 0
        self._held = self._lost = 0
        self._delays: list[tuple[float, float]] = []
        self._full = False
        self._since = 0.0
        self.history: deque[LimitWindow] = deque(maxlen=4096)
        """The last windows."""

    @property
    def limit(self) -> int | None:
        """`FIRST_LIMIT` until there is something better to go by."""
        return FIRST_LIMIT if self._room is None else None

    @property
    def room(self) -> float | None:
        """Tokens that may be under way now."""
        return self._room

    def on_capacity(self, tokens: int) -> None:
        """The cluster's KV caches hold this many tokens."""
        said = FILL * tokens
        if self._room is None or math.isinf(self._said):
            self._set_room(said)
        elif said != self._said:
            # As much on each worker as before. Less takes effect at once; new workers are cold, so room grows to it.
            change = said / self._said
            self._peak *= change
            self._low = self._room = min(self._room, change * self._room)
            self._clean = 0
        self._said = said

    def _set_room(self, tokens: float) -> None:
        self._room = self._peak = self._low = tokens
        self._clean = 0

    def on_call(self, record: CallRecord, under_way: UnderWay, now: float) -> None:
        """Learn from a finished call; see `Limiter`."""
        sent = record.started_at + (record.gate_wait_ms or 0.0) / 1000.0
        ended = record.started_at + (record.client_total_ms or 0.0) / 1000.0
        before = self._note_prompt(record)
        if self._draining and self._room is not None and under_way.tokens > self._room:
            # A cut has left some over. Until they are done, calls tell of the old room, not of the new one.
            self._begin_window(ended)
            return
        self._draining = False
        if sent < self._since:
            return
        self._full = self._full or under_way.waiting
        self._calls += 1
        self._note(record, before)
        if self._calls >= max(MIN_WINDOW_CALLS, under_way.questions) and (self._held or self._delays):
            self._end_window(under_way, now)
            self._begin_window(ended)

    def _note_prompt(self, record: CallRecord) -> int | None:
        """Remember the prompt's length; that of the chain's call before, if it was answered by the same worker."""
        chain = record.session_id or record.prefix_id
        if chain is None or record.prompt_tokens is None:
            return None
        before = self._prompts.get(chain)
        self._prompts[chain] = (record.prompt_tokens, record.worker_id)
        self._prompts.move_to_end(chain)
        if len(self._prompts) > _MAX_CHAINS:
            self._prompts.popitem(last=False)
        return None if before is None or before[1] != record.worker_id else before[0]

    def _note(self, record: CallRecord, before: int | None) -> None:
        prompt = record.prompt_tokens
        if before is None or prompt is None:
            return
        if record.cached_tokens is not None:
            # The prompt may have been cut meanwhile, and engines keep whole blocks only: neither is a loss.
            held = min(before, prompt)
            self._held += held
            self._lost += max(0, held - record.cached_tokens - _BLOCK_TOKENS)
        if record.server_ttft_ms is not None:
            self._delays.append((record.server_ttft_ms, record.server_total_ms or record.server_ttft_ms))

    def _end_window(self, under_way: UnderWay, now: float) -> None:
        loss = self._lost / self._held if self._held else 0.0
        delay = sum(ttft for ttft, _ in self._delays) / len(self._delays) if self._delays else 0.0
        congestion = max(loss if loss > TOLERATED_LOSS else 0.0, self._late_share(delay))
        self._alpha += GAIN * (congestion - self._alpha)
        if self._room is None and self._full:
            self._set_room(under_way.tokens)
        if self._room is not None:
            if congestion > 0.0:
                self._room = self._cut(self._room, congestion)
            elif self._full:
                uncrowded = loss <= UNCROWDED_LOSS and delay <= UNCROWDED_DELAY * (self._usual_delay or delay)
                self._room = self._grown(self._room, under_way.tokens / max(1, under_way.questions), uncrowded)
        if congestion == 0.0 and self._delays:
            usual = delay if self._usual_delay is None else self._usual_delay
            self._usual_delay = usual + GAIN * (delay - usual)
        self.history.append(LimitWindow(now, under_way.questions, under_way.tokens, self._room, loss, delay))

    def _cut(self, room: float, congestion: float) -> float:
        self._clean = 0
        self._draining = True
        # Windows without congestion make the mean forget, and a cut takes long to act, so at least the newest.
        self._low = room * (1.0 - max(self._alpha, congestion) / 2.0)
        # Fast convergence: whoever was cut below its last peak leaves room to the others.
        self._peak = room if room >= self._peak else (room + self._low) / 2.0
        return self._low

    def _grown(self, room: float, question: float, uncrowded: bool) -> float:
        """More room; `question`: tokens of one."""
        most = max(self._said, (1.0 + BEYOND) * room)
        least = min(most, room + ADDITIVE * question)
        if not uncrowded:
            return least
        self._clean += 1
        growth = CUBIC_C * question
        back = float(max(0.0, (self._peak - self._low) / growth) ** (1 / 3))
        return max(least, min(most, self._peak + growth * (self._clean - back) ** 3, MOST_GROWTH * room))

    def _late_share(self, delay: float) -> float:
        if not self._delays:
            return 0.0
        least = delay if self._least_delay is None else min(delay, self._least_delay)
        self._least_delay = least + DRIFT * (delay - least)
        bound = TOLERATED_DELAY * least
        late = sum(ttft > bound and ttft > LATE_SHARE * total for ttft, total in self._delays) / len(self._delays)
        return late if late > _TOLERATED_LATE else 0.0

    def _begin_window(self, since: float) -> None:
        self._since = since
        self._calls = 0
        self._held = self._lost = 0
        self._delays = []
        self._full = False
