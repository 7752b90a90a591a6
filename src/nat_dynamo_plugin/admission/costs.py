"""What calls cost a server, learned from answers: no I/O, no lock."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import inf, sqrt

from nat_dynamo_plugin.telemetry.record import CallRecord

DECAY = 1.0 - 1.0 / 32.0
"""What a call still counts when the next one has ended."""
DRIFT = 1.002
"""How much the least costs seen rise with each call, so that a server that got slower is noticed."""
LEAST_PREFILL = 256
"""Prompt tokens that were not cached for a time to first token to tell what one takes."""
LEAST_DECODE = 5
"""Tokens of an answer for its time to tell what one takes."""
_BLOCK_TOKENS = 64
_MAX_CHAINS = 16_384


@dataclass(slots=True)
class _Sums:
    """Decaying sums over calls; times in s."""

    calls: float = 0.0
    prompt: float = 0.0
    computed: float = 0.0
    held: float = 0.0
    lost: float = 0.0
    output: float = 0.0
    took: float = 0.0
    passed: float = 0.0
    gaps: float = 0.0
    gap: float = 0.0


class CallCosts:
    """Means of the last few dozen calls, and the least that a token was seen to take.

    The least time to first token for each token computed is what computing one takes, and the least time between
    tokens is what decoding one takes in a sequence that is alone. What calls took beyond that they waited for others:
    the more of them run, the longer. So a call that computes u tokens and decodes v takes

        α + β n,  α = u p + v d,  β = (u p + v e) / W

    with n calls running on W workers, p and d those least times, and e such that it comes to what calls did take.
    """

    def __init__(self) -> None:
        self._sums = _Sums()
        self._chains: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._prefill_s = self._decode_s = inf
        self._last: float | None = None

    @property
    def known(self) -> bool:
        """Whether there is enough to go by."""
        return self._prefill_s < inf and self._decode_s < inf and self._sums.passed > 0.0

    @property
    def prompt(self) -> float:
        """Prompt tokens of a call."""
        return self._sums.prompt / self._sums.calls

    @property
    def held(self) -> float:
        """Prompt tokens of a call that an earlier call of its chain has computed."""
        return self._sums.held / self._sums.calls

    @property
    def lost(self) -> float:
        """Those of them that were computed again."""
        return self._sums.lost / self._sums.calls

    @property
    def lost_share(self) -> float:
        """The share that was computed again, 0 to 1."""
        return self._sums.lost / self._sums.held if self._sums.held else 0.0

    def add(self, record: CallRecord, now: float) -> bool:
        """Learn from a call that has just ended; whether it told what is needed.

        Args:
            record: what the server said of it.
            now: seconds, never going back.
        """
        prompt, cached, output = record.prompt_tokens, record.cached_tokens, record.completion_tokens
        ttft_ms, total_ms = record.server_ttft_ms, record.server_total_ms
        if prompt is None or cached is None or output is None or ttft_ms is None or total_ms is None:
            return False
        computed = max(0, prompt - cached)
        if computed >= LEAST_PREFILL and ttft_ms > 0.0:
            self._prefill_s = min(DRIFT * self._prefill_s, ttft_ms / 1000.0 / computed)
        if output >= LEAST_DECODE and total_ms > ttft_ms:
            self._decode_s = min(DRIFT * self._decode_s, (total_ms - ttft_ms) / 1000.0 / (output - 1))
        sums = self._sums
        for name in _Sums.__slots__:
            setattr(sums, name, DECAY * getattr(sums, name))
        sums.calls += 1.0
        sums.prompt += prompt
        sums.computed += computed
        sums.output += output
        sums.took += total_ms / 1000.0
        sums.passed += 0.0 if self._last is None else max(0.0, now - self._last)
        self._last = now
        self._add_to_chain(record, prompt, cached)
        return True

    def _add_to_chain(self, record: CallRecord, prompt: int, cached: int) -> None:
        chain = record.session_id or record.prefix_id
        if chain is None:
            return
        sums = self._sums
        before = self._chains.get(chain)
        ended = record.started_at + (record.client_total_ms or 0.0) / 1000.0
        self._chains[chain] = (prompt, ended)
        self._chains.move_to_end(chain)
        if len(self._chains) > _MAX_CHAINS:
            self._chains.popitem(last=False)
        if before is not None:
            # The prompt may have been cut meanwhile, and engines keep whole blocks only: neither is a loss.
            held = min(before[0], prompt)
            sums.held += held
            sums.lost += max(0, held - cached - _BLOCK_TOKENS)
            sums.gaps += max(0.0, record.started_at - before[1])
            sums.gap += 1.0

    def prefill_share(self, tokens: float, workers: int) -> float:
        """Share of the workers' time that computing so many prompt tokens a call takes."""
        return tokens * self._prefill(workers) * self._sums.calls / self._sums.passed / workers

    def throughput(self, questions: float, lost: float, workers: int) -> float:
        """Calls a second to expect.

        Args:
            questions: that are under way at once.
            lost: prompt tokens that a call computes again.
            workers: of the cluster.
        """
        sums = self._sums
        calls = sums.calls
        computed, output, took = sums.computed / calls, sums.output / calls, sums.took / calls
        prefill, decode = self._prefill(workers), self._decode_s
        running = max(0.1, sums.took / sums.passed)
        waited = took - computed * prefill - output * decode
        decode_each = max(0.0, (waited * workers / running - computed * prefill) / max(1.0, output))
        needed = (max(0.0, computed - self.lost) + lost) * prefill
        alone = needed + output * decode
        each = (needed + output * decode_each) / workers
        tools = sums.gaps / sums.gap if sums.gap > 0.5 else 0.0
        expected = _running(questions, tools, alone, each)
        return expected / (alone + each * expected)

    def _prefill(self, workers: int) -> float:
        """Seconds that computing a prompt token takes: no more than if workers had done nothing else."""
        return min(self._prefill_s, workers * self._sums.passed / max(1.0, self._sums.computed))


def _running(questions: float, tools_s: float, alone_s: float, each_s: float) -> float:
    """Calls that run at once if so many questions N are under way: n (1 + Z / (α + β n)) = N, solved for n."""
    free = alone_s + tools_s - questions * each_s
    if each_s <= 0.0:
        return questions * alone_s / (alone_s + tools_s)
    return (-free + sqrt(free * free + 4.0 * each_s * questions * alone_s)) / (2.0 * each_s)
