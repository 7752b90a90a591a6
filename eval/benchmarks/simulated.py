"""A discrete-event simulation of clients, a gate, a KV router and workers with prefix caches: to rank policies, fast.

Engine times are the mocker's own formulas (`dynamo.mocker`, polynomial model): a step takes `4.21e-7 n² + 0.0152 n +
16.5` ms for n prompt tokens computed in it, and `-25.74 u² + 54.01 u + 5.74` ms for decoding, where u is the share of
KV blocks in use. What it leaves out: HTTP, the client's own time, and the router's tie-breaking and event delays.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from workloads.questions import Cluster, Question, Workload

BLOCK = 16
BATCHED_TOKENS = 2048
_MOST_STEPS = 4
"""Decoding steps taken at once while nothing else can happen; arrivals wait for their end."""


class Clock:
    """Time and what is to happen."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Do this at that time (s)."""
        heapq.heappush(self._events, (max(when, self.now), next(self._count), act))

    def run(self) -> None:
        """Until nothing more is to happen."""
        while self._events:
            self.now, _, act = heapq.heappop(self._events)
            act()


@dataclass(slots=True, eq=False)
class Request:
    """One call on its way; times in s, of the simulation.

    Attributes:
        blocks: keys of its prompt's full blocks.
        answered: called when it is done.
    """

    prompt_tokens: int
    output_tokens: int
    blocks: list[int]
    answered: Callable[[Request], None]
    priority: float = 0.0
    sent_at: float = 0.0
    first_at: float = 0.0
    worker: int = -1
    cached: int = 0
    to_prefill: int = 0
    to_decode: int = 0
    anonymous: int = 0
    sequence: int = 0


class Worker:
    """An engine with continuous batching, chunked prefill, a prefix cache with LRU eviction, and preemption."""

    def __init__(self, clock: Clock, cluster: Cluster, number: int, speedup: float) -> None:
        self.clock, self.number, self.speedup = clock, number, speedup
        self.blocks, self.max_seqs = cluster.blocks, cluster.max_num_seqs
        self.active: dict[int, int] = {}
        self.cached: OrderedDict[int, None] = OrderedDict()
        self.asked: Counter[int] = Counter()
        self.anonymous = 0
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.busy = False
        self.prefilled = 0
        self.busy_s = 0.0

    def overlap(self, blocks: list[int]) -> int:
        """How many blocks from the start it has."""
        for count, block in enumerate(blocks):
            if block not in self.active and block not in self.cached:
                return count
        return len(blocks)

    def pending(self) -> int:
        """Prompt tokens still to compute."""
        return sum(r.to_prefill for r in self.running) + sum(r.prompt_tokens - r.cached for r in self.waiting)

    def potential(self, blocks: list[int]) -> int:
        """Blocks in use or asked for if these were asked for too, shared ones counted once."""
        return len(self.asked) + sum(block not in self.asked for block in blocks)

    def take(self, request: Request) -> None:
        """A request has come."""
        request.worker = self.number
        request.cached = BLOCK * self.overlap(request.blocks)
        self.waiting.append(request)
        self.asked.update(request.blocks)
        if not self.busy:
            self.busy = True
            self.clock.at(self.clock.now, self._step)

    def _room(self, count: int) -> bool:
        free = self.blocks - len(self.active) - self.anonymous - len(self.cached)
        if count > free + len(self.cached):
            return False
        for _ in range(count - free):
            self.cached.popitem(last=False)
        return True

    def _start(self, request: Request) -> bool:
        held = self.overlap(request.blocks)
        for block in request.blocks[:held]:  # so that making room does not evict them
            self.cached.pop(block, None)
            self.active[block] = self.active.get(block, 0) + 1
        need = len(request.blocks) - held + 1
        if len(self.active) + self.anonymous + need > self.blocks - self.blocks // 100 or not self._room(need):
            self._release(request.blocks[:held])
            return False
        for block in request.blocks[held:]:
            self.active[block] = self.active.get(block, 0) + 1
        request.anonymous = 1
        self.anonymous += 1
        request.cached = min(BLOCK * held, request.prompt_tokens - 1)
        request.to_prefill = request.prompt_tokens - request.cached
        request.to_decode = request.output_tokens
        return True

    def _release(self, blocks: list[int]) -> None:
        for block in reversed(blocks):  # the tail of a prompt is evicted first
            users = self.active[block] - 1
            if users:
                self.active[block] = users
            else:
                del self.active[block]
                self.cached[block] = None

    def _finish(self, request: Request) -> None:
        self._release(request.blocks)
        self.anonymous -= request.anonymous
        request.anonymous = 0

    def _grow(self) -> None:
        """A block for each answer that needs one; the last come gives way."""
        for request in list(self.running):
            if request.to_prefill or request not in self.running:
                continue
            if BLOCK * request.anonymous < request.output_tokens - request.to_decode + request.prompt_tokens % BLOCK:
                while not self._room(1):
                    last = self.running.pop()
                    self._finish(last)
                    self.waiting.appendleft(last)
                    if last is request:
                        break
                else:
                    request.anonymous += 1
                    self.anonymous += 1

    def _step(self) -> None:
        self._grow()
        decoding = [r for r in self.running if not r.to_prefill]
        budget, computed = BATCHED_TOKENS - len(decoding), 0
        for request in self.running:
            if request.to_prefill and budget > 0:
                chunk = min(budget, request.to_prefill)
                request.to_prefill -= chunk
                budget, computed = budget - chunk, computed + chunk
        while self.waiting and budget > 0 and len(self.running) < self.max_seqs:
            request = self.waiting[0]
            if not self._start(request):
                break
            self.waiting.popleft()
            self.running.append(request)
            chunk = min(budget, request.to_prefill)
            request.to_prefill -= chunk
            budget, computed = budget - chunk, computed + chunk
        if not self.running:
            self.busy = False
            return
        self.prefilled += computed
        used = (len(self.active) + self.anonymous) / self.blocks
        steps, ms = 1, 0.0
        if computed:
            ms += 4.209989e-07 * computed**2 + 1.518344e-02 * computed + 16.50142
        elif not self.waiting and decoding:
            steps = max(1, min(_MOST_STEPS, *(r.to_decode for r in decoding)))
        if decoding:
            ms += steps * max(1.0, -25.74 * used**2 + 54.01 * used + 5.74)
        seconds = ms / 1000.0 / self.speedup
        self.busy_s += seconds
        self.clock.at(self.clock.now + seconds, lambda: self._stepped(decoding, steps))

    def _stepped(self, decoding: list[Request], steps: int) -> None:
        done = []
        for request in self.running:
            if request.to_prefill:
                continue
            if request.to_decode == request.output_tokens:
                request.first_at = request.first_at or self.clock.now
                request.to_decode -= 1
            elif request in decoding:
                request.to_decode -= steps
            if request.to_decode <= 0:
                done.append(request)
        for request in done:
            self.running.remove(request)
            self._finish(request)
            for block in request.blocks:
                if self.asked[block] > 1:
                    self.asked[block] -= 1
                else:
                    del self.asked[block]
            request.answered(request)
        if self.running or self.waiting:
            self.clock.at(self.clock.now, self._step)
        else:
            self.busy = False


class Router:
    """Dynamo's KV router: the worker with the least prompt to compute and the fewest blocks in use.

    Args:
        queue: requests wait here, those of the fewest uncached tokens first (`wspt`), while every worker has something
            to compute.
    """

    def __init__(self, clock: Clock, cluster: Cluster, speedup: float) -> None:
        self.clock = clock
        self.workers = [Worker(clock, cluster, number, speedup) for number in range(cluster.workers)]

    def send(self, request: Request) -> None:
        """Send a request to its worker."""
        request.sent_at = self.clock.now

        def cost(worker: Worker) -> tuple[float, int]:
            missing = request.prompt_tokens - BLOCK * worker.overlap(request.blocks)
            return (worker.pending() + missing) / BLOCK + worker.potential(request.blocks), worker.number

        min(self.workers, key=cost).take(request)


@dataclass(slots=True)
class Asked:
    """One call as a policy sees it."""

    id: str
    number: int
    question: Question
    index: int
    at: float
    asked_at: float = 0.0
    place: object = None
    request: Request | None = field(default=None, repr=False)


class Policy(Protocol):
    """Who goes when."""

    def start(self, call: Asked, go: Callable[[], None]) -> None:
        """A call wants to go; `go` when it may."""

    def finish(self, call: Asked, request: Request) -> None:
        """It was answered."""

    def end(self, id: str) -> None:
        """A question is over."""


class Plain:
    """Everybody goes at once."""

    def start(self, call: Asked, go: Callable[[], None]) -> None:
        """Go."""
        go()

    def finish(self, call: Asked, request: Request) -> None:
        """Nothing to note."""

    def end(self, id: str) -> None:
        """Nothing to note."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A simulated run.

    Attributes:
        latencies: of each question, arrival to last answer, s.
        all_done: when the last one was, s.
        cached: share of prompt tokens.
        recomputed: share of the workers' time, roughly, that went into prompts computed before.
    """

    latencies: list[float]
    all_done: float
    cached: float
    prefill_share: float

    @property
    def mean(self) -> float:
        """Mean latency, s."""
        return sum(self.latencies) / len(self.latencies)

    def quantile(self, share: float) -> float:
        """A quantile of the latencies, s."""
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def simulate(workload: Workload, make: Callable[[Clock, Cluster], Policy], speedup: float = 4.0) -> Outcome:
    """Run a workload under a policy."""
    clock = Clock()
    router = Router(clock, workload.cluster, speedup)
    policy = make(clock, workload.cluster)
    streams: dict[tuple[str, ...], int] = {}
    latencies: list[float] = [0.0] * len(workload.questions)
    tokens = [0, 0]

    def blocks_of(number: int, question: Question, prompt_tokens: int) -> list[int]:
        keys, start = [], 0
        names: tuple[str, ...] = ()
        for name, size in (*question.head, (f"\0{number}", 10**9)):
            names = (*names, name)
            stream = streams.setdefault(names, len(streams)) << 24
            end = min(prompt_tokens, start + size)
            keys += [stream | block for block in range(-(-start // BLOCK), end // BLOCK)]
            start = end
        return keys[: prompt_tokens // BLOCK]

    def begin(number: int, index: int) -> None:
        question = workload.questions[number]
        call = question.calls[index]
        asked = Asked(str(number), number, question, index, clock.now, clock.now)

        def answered(request: Request) -> None:
            tokens[0] += request.prompt_tokens
            tokens[1] += request.cached
            policy.finish(asked, request)
            if index + 1 < len(question.calls):
                clock.at(clock.now + call.gap_s, lambda: begin(number, index + 1))
            else:
                latencies[number] = clock.now - question.arrival_s
                policy.end(asked.id)

        def go() -> None:
            request = Request(
                call.prompt_tokens, call.output_tokens, blocks_of(number, question, call.prompt_tokens), answered
            )
            asked.request = request
            router.send(request)

        policy.start(asked, go)

    for number, question in enumerate(workload.questions):
        clock.at(question.arrival_s, lambda number=number: begin(number, 0))  # type: ignore[misc]
    clock.run()
    busy = sum(worker.busy_s for worker in router.workers)
    prefill = sum(worker.prefilled for worker in router.workers) * 0.024 / 1000.0 / speedup
    done = max(question.arrival_s + latency for question, latency in zip(workload.questions, latencies, strict=True))
    return Outcome(latencies, done, tokens[1] / max(1, tokens[0]), prefill / busy if busy else 0.0)
