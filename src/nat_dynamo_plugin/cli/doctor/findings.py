"""What follows from what was seen of a server: a finding a question, each with what to change. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from nat_dynamo_plugin.nearest import nearest_or_all

State = Literal["ok", "unknown", "warning", "bad"]

AFFINITY = "--router-session-affinity-ttl-secs 600 --router-session-affinity-mode soft"
KV_ROUTER = "--router-mode kv"
QUEUE = "--router-queue-threshold 0"
OUTPUT_BLOCKS = "--router-track-output-blocks"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: what, in a word or two.
        state: `ok`, `unknown` (it can not be seen from here), `warning` (something is not as good as it could be) or
            `bad` (hints do not act, or no call is answered).
        seen: what was seen.
        costs: what that costs; empty where nothing.
        change: the exact flag or line to change; empty where nothing.
        unreachable: whether no call can be answered because of this.
    """

    topic: str
    state: State
    seen: str
    costs: str = ""
    change: str = ""
    unreachable: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back of one small call.

    Attributes:
        status: HTTP status.
        text: the beginning of an error's body; empty for an answer.
        worker: who decoded it, if the server says.
        prompt_tokens: of the usage.
        cached_tokens: of the usage; `None` if the server does not say.
        timing: Dynamo's `nvext.timing`; `None` without.
        ended_ms: when it was over, in milliseconds from the beginning of all.
    """

    status: int
    text: str = ""
    worker: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    timing: dict[str, Any] | None = None
    ended_ms: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it is an answer."""
        return self.status < 300


@dataclass(slots=True)
class Seen:
    """What was seen of a server that can be reached.

    Attributes:
        models: names that it serves.
        model: the one that was asked.
        is_dynamo: whether it serves Dynamo's `/health`.
        workers: how many of them it says there are; `None` if it does not say.
        plain: a call without anything of ours.
        again: the same call once more, asking for Dynamo's telemetry.
        hinted: the same with agent hints.
        session: calls of one session with unrelated prompts, one after the other.
        free: the same without a session.
        repeated: one prompt again and again, without a session.
        burst: unrelated calls at once.
        session_burst: the same in one session.
        late_urgent: with `--load`: of a crowd, the calls that came last with the highest priority.
        early: with `--load`: the crowd before them, without priority.
        late_s: seconds after which no more was asked; `None` if all was.
    """

    models: list[str]
    model: str
    is_dynamo: bool = False
    workers: int | None = None
    plain: Answered | None = None
    again: Answered | None = None
    hinted: Answered | None = None
    session: list[Answered] = field(default_factory=list)
    free: list[Answered] = field(default_factory=list)
    repeated: list[Answered] = field(default_factory=list)
    burst: list[Answered] = field(default_factory=list)
    session_burst: list[Answered] = field(default_factory=list)
    late_urgent: list[Answered] = field(default_factory=list)
    early: list[Answered] = field(default_factory=list)
    late_s: float | None = None


def findings(seen: Seen) -> Iterator[Finding]:
    """All that can be said of what was seen, in the order in which one wants to know it."""
    problem = refused(seen)
    if problem is not None:
        yield problem
        return
    yield Finding("model", "ok", f"{seen.model} answers")
    yield _kind(seen)
    yield _cached(seen)
    yield from _hints(seen)
    if seen.late_s is not None:
        what = f"calls are slow: not all could be asked within {seen.late_s:g} s, and what is not named is not known"
        yield Finding("time", "unknown", what, change="ask again when the server is less busy")
    if seen.is_dynamo:
        yield from _routing(seen)
        if seen.early:
            yield _priority(seen)
        yield Finding(
            "output blocks",
            "unknown",
            "no answer tells whether the router counts expected output (prefix_osl acts only if it does)",
            change=f"start the frontend with {OUTPUT_BLOCKS}, or leave prefix_osl out of what is tuned",
        )


def _routing(seen: Seen) -> Iterator[Finding]:
    """What the router does, as far as it was asked."""
    if seen.late_s is None or seen.repeated:
        yield _router(seen)
    if seen.late_s is not None and not seen.burst:  # of a session's calls some are missing
        return
    sessions = _sessions(seen)
    yield sessions
    if seen.late_s is not None and not seen.session_burst:
        return
    if sessions.state == "ok":
        yield _affinity_mode(seen)
    yield _queue(seen)


def refused(seen: Seen) -> Finding | None:
    """Why not even a call without anything of ours is answered; `None` if it is."""
    plain = seen.plain
    if plain is not None and plain.ok:
        return None
    status, text = (0, "") if plain is None else (plain.status, plain.text)
    if seen.models and seen.model not in seen.models:
        return Finding(
            "model",
            "bad",
            f"{seen.model!r} is not served; served: {', '.join(seen.models)}",
            "every call fails",
            f"model_name: {nearest_or_all(seen.model, seen.models)}",
            unreachable=True,
        )
    if status in (401, 403):
        what = f"{status} {text}".strip()
        return Finding("key", "bad", what, "every call fails", "api_key: env:NAME (--api-key here)", unreachable=True)
    what = "no answer to a call" if plain is None else f"a plain call is answered {status}: {text}"
    return Finding("call", "bad", what, "every call fails", unreachable=True)


def _kind(seen: Seen) -> Finding:
    if seen.is_dynamo:
        count = "an unknown number of" if seen.workers is None else str(seen.workers)
        return Finding("server", "ok", f"Dynamo, {count} worker{'' if seen.workers == 1 else 's'}")
    return Finding(
        "server",
        "warning",
        "not a Dynamo frontend: it serves no /health of Dynamo's",
        "calls work; who served them and how long they waited is not known",
        "base_url: a Dynamo frontend's, if there is one behind this",
    )


def _cached(seen: Seen) -> Finding:
    calls = [call for call in (seen.again, *seen.repeated) if call is not None and call.cached_tokens is not None]
    if not calls:
        change = "engine: turn on reporting of cached tokens (vLLM: --enable-prompt-tokens-details)"
        return Finding("cached tokens", "warning", "usage names no cached tokens", "reuse can not be measured", change)
    best = max(calls, key=lambda call: call.cached_tokens or 0)
    if not best.cached_tokens:
        return Finding(
            "cached tokens",
            "bad",
            f"0 of {best.prompt_tokens} tokens of a prompt that had just been sent, {len(calls)} times",
            "prefixes are computed again on every call",
            "engine: turn on prefix caching",
        )
    return Finding("cached tokens", "ok", f"{best.cached_tokens} of {best.prompt_tokens} tokens of a repeated prompt")


def _hints(seen: Seen) -> Iterator[Finding]:
    again, hinted = seen.again, seen.hinted
    if again is not None and not again.ok:
        yield Finding(
            "hints",
            "bad",
            f"refuses fields that it does not know: {again.status} {again.text}",
            "calls are sent twice until that is learned, every ten minutes; no hint acts",
            "prefix_wire: [prefix_headers], which leaves bodies as they are",
        )
        return
    told = again is not None and again.timing is not None
    if told:
        yield Finding("timing", "ok", "answers say worker and timing")
    if hinted is not None and not hinted.ok:
        yield Finding(
            "hints",
            "bad",
            f"refuses agent hints: {hinted.status} {hinted.text}",
            "priorities and expected output are not sent on",
            "Dynamo 1.6 or later; until then prefix_wire: [telemetry, prefix_headers]",
        )
    elif told:
        yield Finding("hints", "ok", "takes priority, osl and speculative_prefill")
    else:
        yield Finding(
            "hints",
            "bad",
            "takes our fields, and answers without worker and timing: it ignores them",
            "no hint acts, though none is refused",
            "base_url: the Dynamo frontend's own, past any gateway that drops nvext",
        )


def _workers(calls: list[Answered]) -> set[int]:
    return {call.worker for call in calls if call.worker is not None}


def _router(seen: Seen) -> Finding:
    timed = [call for call in seen.repeated if call.timing is not None]
    if not timed:
        return Finding("router", "unknown", "answers carry no timing")
    if all((call.timing or {}).get("kv_hit_rate") is None for call in timed):
        return Finding(
            "router",
            "bad",
            f"not cache-aware: one prompt went to {len(_workers(timed))} workers, and no hit rate is reported",
            "a prompt is computed once on every worker",
            KV_ROUTER,
        )
    return Finding("router", "ok", f"cache-aware: one prompt sent {len(timed)} times, {len(_workers(timed))} worker")


def _sessions(seen: Seen) -> Finding:
    calls, used, free = len(seen.session), len(_workers(seen.session)), len(_workers(seen.free))
    if not used:
        return Finding("sessions", "unknown", "answers do not say who served them")
    if seen.workers == 1 or (used == 1 and free == 1):
        what = "one worker serves all, so nothing can be seen of sessions"
        return Finding("sessions", "unknown", what, change=f"with more workers: {AFFINITY}")
    if used == 1:
        return Finding("sessions", "ok", f"{calls} unrelated calls of one session: 1 worker; without: {free}")
    return Finding(
        "sessions",
        "bad",
        f"{calls} unrelated calls of one session went to {used} workers",
        "a question's calls are computed on several workers; prefix ids do not act",
        AFFINITY,
    )


def _depth(calls: list[Answered]) -> int:
    return max((int((call.timing or {}).get("router_queue_depth") or 0) for call in calls), default=0)


def _affinity_mode(seen: Seen) -> Finding:
    if _depth(seen.session_burst):
        return Finding(
            "affinity mode",
            "warning",
            f"hard: calls of one session waited for its worker ({_depth(seen.session_burst)} deep), others being free",
            "when that worker dies, migration can not help and streams break",
            "--router-session-affinity-mode soft",
        )
    if _depth(seen.burst):
        return Finding("affinity mode", "ok", "soft: a session's calls do not queue for its worker")
    return Finding(
        "affinity mode",
        "unknown",
        "soft and hard look alike while the router has no queue",
        "hard would defeat migration when a worker dies",
        "--router-session-affinity-mode soft",
    )


def _queue(seen: Seen) -> Finding:
    depth = max(_depth(seen.burst), _depth(seen.session_burst))
    if depth:
        return Finding("queue", "ok", f"{len(seen.burst)} calls at once: {depth} deep, so priorities can act")
    return Finding(
        "queue",
        "warning",
        f"{len(seen.burst)} calls at once: none waited in the router",
        "priorities do not act",
        f"{QUEUE}, if priorities are to act; it has a price of its own (docs/busy-cluster.md)",
    )


def _priority(seen: Seen) -> Finding:
    early = sorted(call.ended_ms for call in seen.early)
    late = sorted(call.ended_ms for call in seen.late_urgent)
    middle = early[len(early) // 2]
    overtook = sum(ended < early[-1] for ended in late)
    first_half = sum(ended <= middle for ended in late)
    what = f"{first_half} of {len(late)} urgent calls that came last were done before half of the {len(early)} others"
    if first_half * 2 >= len(late):
        return Finding("priority", "ok", what)
    return Finding("priority", "warning", f"{what} ({overtook} before the last)", "priorities do not act", QUEUE)


def exit_code(found: list[Finding]) -> int:
    """0: all well; 1: hints will not act; 2: no call is answered."""
    if any(finding.unreachable for finding in found):
        return 2
    return int(any(finding.state == "bad" for finding in found))
