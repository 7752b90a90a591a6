"""How many questions may be under way at once: found from what the server answers."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Protocol

from .telemetry import CallRecord

FIRST_LIMIT = 16
"""Questions let in before anything is known."""
TOLERATED_LOSS = 0.08
"""Share of cached prompt tokens lost between two calls of a chain that is no sign of crowding."""
TOLERATED_DELAY = 4.0
"""How many times the least time to first token a call may take and be no sign of crowding."""
LATE_SHARE = 0.25
"""Least share of a call's time that its first token takes on a crowded server."""
UNCROWDED_LOSS = 0.02
"""Share of cached prompt tokens lost above which the limit does not grow."""
UNCROWDED_DELAY = 2.0
"""How many times the least mean time to first token a window's may be for the limit to grow."""
CUBIC_C = 0.1
"""How fast the limit grows, in questions a window cubed. RFC 9438 has 0.4 a second cubed; what growth does is seen late
here, after several windows."""
MOST_GROWTH = 1.12
"""Largest factor on the limit after one window; RFC 9438, section 4.2, has 1.5."""
ADDITIVE = 0.5
"""What a window without congestion adds to the limit at least."""
GAIN = 0.25
"""Weight of the newest window in the mean congestion."""
MIN_WINDOW_CALLS = 16
"""Calls that a window has at least."""
DRIFT = 0.01
"""What a window moves the least delay remembered towards its own, so that a changed server is noticed."""
_MAX_CHAINS = 16_384
_BLOCK_TOKENS = 64
_TOLERATED_LATE = 0.25


class Limiter(Protocol):
    """An adaptive limit. Told of every call by the gate, one at a time."""

    @property
    def limit(self) -> int:
        """Questions that may be under way now, 1 or more."""

    def on_call(self, record: CallRecord, under_way: int, waiting: bool, now: float) -> None:
        """Learn from a finished call.

        Args:
            record: what the server said of it.
            under_way: questions under way, this call's included.
            waiting: whether any question waits.
            now: seconds, never going back.
        """


class AdaptiveLimit:
    """Data Center TCP (Alizadeh et al., SIGCOMM 2010; RFC 8257), with questions under way for packets under way.

    What ECN marks are to DCTCP are two things that Dynamo reports of the second and later calls of a chain:

    - lost tokens: the prompt of the chain's previous call was in an engine's cache; what `cached_tokens` is short of it
      was evicted meanwhile. A call that another worker answered tells nothing of that and is left out. The share of
      lost tokens is congestion.
    - late first tokens: a TTFT over `TOLERATED_DELAY` times the least mean seen that is also over `LATE_SHARE` of the
      call's time, for a full batch takes longer to start on a call without being crowded. The share of such calls is
      congestion.

    A window is as many calls as questions may be under way, so about one of each, all sent after the last window. After
    a congested one the limit is cut by half of the congestion, `limit * (1 - alpha / 2)`, as there, where alpha is the
    mean congestion or the newest, whichever is more; no more windows count until no more questions are under way than
    the limit allows. Otherwise it grows as CUBIC does (RFC 9438), with windows for seconds: back to where it was cut,
    slowly around there, then faster the longer there is no congestion, so that a cluster that has grown is soon used.
    The least growth of `ADDITIVE` a window, as in CUBIC's Reno-friendly region, and CUBIC's fast convergence let
    clients that share a cluster come to equal limits (Chiu and Jain 1989).

    Questions grow after they were let in, so what a larger limit does is seen only later. Between growing and cutting
    there is therefore a region, as in TCP Vegas (Brakmo and Peterson 1995), of the least growth only: a few tokens are
    lost, or first tokens come later than they did at best. As in RFC 7661, a limit that is not reached does not grow.

    Args:
        first: the limit to begin with.
    """

    def __init__(self, first: int = FIRST_LIMIT) -> None:
        self._limit = float(first)
        self._peak = float(first)
        self._low = float(first)
        self._clean = 0
        self._alpha = 0.0
        self._prompts: OrderedDict[str, tuple[int, int | None]] = OrderedDict()
        self._least_delay: float | None = None
        self._calls = 0
        self._held = self._lost = 0
        self._delays: list[tuple[float, float]] = []
        self._full = False
        self._since = 0.0
        self.history: deque[tuple[float, int, float, float]] = deque(maxlen=4096)
        """Time, limit, share of lost tokens and mean TTFT (ms) of the last windows."""

    @property
    def limit(self) -> int:
        """Questions that may be under way now."""
        return max(1, int(self._limit))

    def on_call(self, record: CallRecord, under_way: int, waiting: bool, now: float) -> None:
        """Learn from a finished call; see `Limiter`."""
        sent = record.started_at + (record.gate_wait_ms or 0.0) / 1000.0
        ended = record.started_at + (record.client_total_ms or 0.0) / 1000.0
        before = self._note_prompt(record)
        if under_way > self.limit:
            # A cut has left some over. Until they are done, calls tell of the old limit, not of the new one.
            self._begin_window(ended)
            return
        if sent < self._since:
            return
        self._full = self._full or waiting or under_way >= self.limit
        self._calls += 1
        self._note(record, before)
        if self._calls >= max(MIN_WINDOW_CALLS, self.limit) and (self._held or self._delays):
            self._end_window(now)
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

    def _end_window(self, now: float) -> None:
        loss = self._lost / self._held if self._held else 0.0
        delay = sum(ttft for ttft, _ in self._delays) / len(self._delays) if self._delays else 0.0
        congestion = max(loss if loss > TOLERATED_LOSS else 0.0, self._late_share(delay))
        self._alpha += GAIN * (congestion - self._alpha)
        if congestion > 0.0:
            self._clean = 0
            # Windows without congestion make the mean forget, and a cut takes long to act, so at least the newest.
            self._low = max(1.0, self._limit * (1.0 - max(self._alpha, congestion) / 2.0))
            # Fast convergence: whoever was cut below its last peak leaves room to the others.
            self._peak = self._limit if self._limit >= self._peak else (self._limit + self._low) / 2.0
            self._limit = self._low
        elif self._full:
            grown = self._limit + ADDITIVE
            if loss <= UNCROWDED_LOSS and delay <= UNCROWDED_DELAY * (self._least_delay or delay):
                self._clean += 1
                back = ((self._peak - self._low) / CUBIC_C) ** (1 / 3)
                cubic = self._peak + CUBIC_C * (self._clean - back) ** 3
                grown = max(grown, min(cubic, MOST_GROWTH * self._limit))
            self._limit = grown
        self.history.append((now, self.limit, loss, delay))

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
