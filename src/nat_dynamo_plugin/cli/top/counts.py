"""What a source has counted so far, and what it did between two looks. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Worker:
    """One worker, as far as the source knows it.

    Attributes:
        calls: it has answered; `None` if that is not counted.
        decode_blocks: KV blocks of the calls it decodes now.
        prefill_tokens: tokens that it has still to prefill.
        last_ttft_s: time to first token of its last call.
        prompt_tokens: of its calls.
        cached_tokens: of these.
    """

    calls: int | None = None
    decode_blocks: float | None = None
    prefill_tokens: float | None = None
    last_ttft_s: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0


@dataclass(slots=True)
class Counts:
    """What a source says at one moment; what is counted, since its beginning.

    Attributes:
        what: `calls` of a server, or `questions` of an evaluation or an application: what the next two are.
        under_way: now; `None` if the source does not know.
        waiting: now; `None` if the source does not know.
        done: questions that have ended, of an evaluation.
        total: questions there are, of an evaluation.
        calls: that have ended.
        failed: that failed, by kind.
        prompt_tokens: cached ones included.
        cached_tokens: of these.
        ttft_s: sum of the times to first token.
        ttft_count: how many these are.
        ttft_buckets: how many were at most so long, by that length in s.
        kv_blocks: of each worker.
        workers: by id.
    """

    what: str = "calls"
    under_way: float | None = None
    waiting: float | None = None
    done: int | None = None
    total: int | None = None
    calls: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)
    prompt_tokens: float = 0.0
    cached_tokens: float = 0.0
    ttft_s: float = 0.0
    ttft_count: float = 0.0
    ttft_buckets: dict[float, float] = field(default_factory=dict)
    kv_blocks: float | None = None
    workers: dict[str, Worker] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """What is shown of a source. What is of a time is of that between two looks, or of all of it at the first.

    Attributes:
        source: what was looked at.
        what: what `under_way` and `waiting` count.
        under_way: now.
        waiting: now.
        done: questions that have ended, of an evaluation.
        total: questions there are, of an evaluation.
        calls: that have ended, in all.
        calls_per_s: between the looks; `None` at the first.
        failed: calls that failed, by kind, in all.
        failed_now: how many between the looks.
        reuse: cached share of the prompt tokens, 0 to 1; `None` without calls.
        ttft_s: mean time to first token.
        ttft_p95_s: its 95th percentile, interpolated in the source's buckets.
        workers: by id, with `kv_use` (0 to 1) where it is known.
    """

    source: str
    what: str
    under_way: float | None
    waiting: float | None
    done: int | None
    total: int | None
    calls: float
    calls_per_s: float | None
    failed: Mapping[str, int]
    failed_now: int
    reuse: float | None
    ttft_s: float | None
    ttft_p95_s: float | None
    workers: Mapping[str, Mapping[str, float | None]]


def view(source: str, now: Counts, before: Counts | None, elapsed_s: float | None) -> View:
    """What a source does.

    Args:
        source: its name.
        now: what it says.
        before: what it said at the last look; `None` at the first, and what is shown is of all its time.
        elapsed_s: seconds between the looks.
    """
    if before is not None and now.calls < before.calls:
        before = None  # it has begun anew
    then = before or Counts()
    calls = now.calls - then.calls
    ttfts = now.ttft_count - then.ttft_count
    buckets = {bound: count - then.ttft_buckets.get(bound, 0.0) for bound, count in now.ttft_buckets.items()}
    return View(
        source=source,
        what=now.what,
        under_way=now.under_way,
        waiting=now.waiting,
        done=now.done,
        total=now.total,
        calls=now.calls,
        calls_per_s=calls / elapsed_s if before is not None and elapsed_s else None,
        failed=dict(now.failed),
        failed_now=sum((now.failed - then.failed).values()),
        reuse=_share(now.cached_tokens - then.cached_tokens, now.prompt_tokens - then.prompt_tokens),
        ttft_s=_share(now.ttft_s - then.ttft_s, ttfts),
        ttft_p95_s=percentile(buckets, 0.95),
        workers={key: _worker(worker, now.kv_blocks) for key, worker in sorted(now.workers.items())},
    )


def _worker(worker: Worker, kv_blocks: float | None) -> dict[str, float | None]:
    use = None if worker.decode_blocks is None or not kv_blocks else worker.decode_blocks / kv_blocks
    return {
        "calls": worker.calls,
        "kv_use": use,
        "prefill_tokens": worker.prefill_tokens,
        "last_ttft_s": worker.last_ttft_s,
        "reuse": _share(worker.cached_tokens, worker.prompt_tokens),
    }


def _share(part: float, of: float) -> float | None:
    return part / of if of > 0 else None


def percentile(buckets: Mapping[float, float], share: float) -> float | None:
    """A percentile of what cumulative buckets count, as Prometheus' `histogram_quantile` has it.

    Args:
        buckets: how many were at most so much.
        share: 0 to 1.
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    place = share * buckets[bounds[-1]]
    low, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= place:
            if bound == float("inf") or buckets[bound] == below:
                return low
            return low + (bound - low) * (place - below) / (buckets[bound] - below)
        low, below = bound, buckets[bound]
    return low
