"""From hints and a call's place in its chain to a ServingPlan: what we ask of the server for this call. Pure."""

from __future__ import annotations

from typing import NamedTuple

from nat_dynamo_plugin.question.hints import I32_MAX, I32_MIN, PrefixHints, iat_ms, osl_tokens
from nat_dynamo_plugin.question.identity import CallIdentity

WARM_MIN_IAT_MS = 100
"""Shortest time between calls, in ms, for which warming the next turn is asked for; see `pays_to_warm`."""

MAX_OVERTAKING_S = 300
"""Priority of a call after which nothing is to come, in seconds of waiting; see `work_priority`."""

HALF_PRIORITY_TOKENS = 512
"""Output tokens still to come at which the priority is half of `MAX_OVERTAKING_S`: one MEDIUM answer."""


class ServingPlan(NamedTuple):
    """What we ask of the server for one call.

    Attributes:
        identity: whose call it is.
        hints: the hints the plan was made of, for dialects that say them as they are.
        session_id: the session to stick to, or `None` to let the router choose freely.
        parent_session_id: the chain that called this one.
        last_call: whether this is known to be the chain's last call.
        expected_output_tokens: output tokens expected of this call.
        speculative_prefill: whether to warm the next turn's prefix after this call.
        priority: i32, higher first, or `None` where nothing is known that differs between calls.
        latency_sensitivity: NAT's latency sensitivity, if a caller or a prediction gave one.
        work_tokens: output tokens of the calls still to come after this one, where they are known, else `None`.
        calls_to_come: calls of the chain expected after this one, 0 or more, or `None` where nothing is expected. For
            the record: what follows of it for the server is in the fields above, so a dialect leaves it alone.
    """

    identity: CallIdentity
    hints: PrefixHints
    session_id: str | None
    parent_session_id: str | None
    last_call: bool
    expected_output_tokens: int | None
    speculative_prefill: bool
    priority: int | None
    latency_sensitivity: float | None
    work_tokens: float | None = None
    calls_to_come: float | None = None


NO_PLAN = ServingPlan(
    identity=CallIdentity("", "", None, ()),
    hints=PrefixHints(),
    session_id=None,
    parent_session_id=None,
    last_call=False,
    expected_output_tokens=None,
    speculative_prefill=False,
    priority=None,
    latency_sensitivity=None,
)
"""The plan of a call that nothing is known of, for dialects that need none."""


def work_to_come(hints: PrefixHints, to_come: float | None) -> float | None:
    """Decode cost still to come after a call: calls to come times output tokens of a call (`osl`).

    `None` unless the calls to come are knowledge about this chain: a scope's total, a prediction, or what was learned
    of questions like it. The same constant for every question would make of remaining work the progress made so far,
    and serving by progress makes mean latency worse.
    """
    if to_come is None or not hints.total_is_known:
        return None
    return to_come * (HALF_PRIORITY_TOKENS if hints.osl is None else osl_tokens(hints.osl))


def work_priority(work_tokens: float) -> int:
    """Priority of a call by the work still to come after it: `round(300 * 512 / (512 + tokens))`.

    Shortest remaining work first (Schrage 1968), with ageing. Dynamo's router queue (`fcfs`, the default) serves the
    highest `max(0, priority) - arrival time in s` first, so one unit of priority is worth one second of waiting. The
    range of 0 to `MAX_OVERTAKING_S` therefore bounds starvation: a call is never overtaken by one that arrives
    `MAX_OVERTAKING_S` seconds after it, however short. Only the frontend's soft priority ages; `strict_priority` does
    not.

    Args:
        work_tokens: output tokens still to come, 0 or more.
    """
    return round(MAX_OVERTAKING_S * HALF_PRIORITY_TOKENS / (HALF_PRIORITY_TOKENS + max(0.0, work_tokens)))


def _sent_priority(hints: PrefixHints, work_tokens: float | None) -> int | None:
    if hints.priority is not None:
        return min(max(hints.priority, I32_MIN), I32_MAX)
    return None if work_tokens is None else work_priority(work_tokens)


def calls_to_come(hints: PrefixHints, call_index: int) -> float | None:
    """Calls of the chain expected after this one, 0 or more; `None` if no total is given.

    A source that predicts the remaining calls is believed; otherwise it is the total less the calls made. A chain that
    has outrun its total has shown the total to be wrong, so nothing is claimed about it any more.
    """
    if hints.remaining_calls is not None:
        return max(0.0, hints.remaining_calls)
    if hints.total_requests is None or call_index >= hints.total_requests:
        return None
    return float(hints.total_requests - call_index - 1)


def pays_to_warm(hints: PrefixHints, to_come: float | None) -> bool:
    """Whether the server should prefill the next turn's prefix as soon as this answer is out.

    Warming needs a next call to exist, and time before it comes. Measured on an embedded Dynamo with engines at real
    speed (`eval/benchmarks/warming.py`; 8 conversations at once on 2 workers): the cached share of later turns rises
    from .80 to .85 whatever the time between calls, but their mean time to first token falls only if the warm-up ends
    before the next call comes: by 0 % at 0 ms, 5 % at 20 ms, 12 % at 50 ms and 10 to 15 % at 100, 250 and 750 ms. In a
    burst both calls prefill the same tokens. The threshold is where the range of LOW (0 to 100 ms) ends.
    """
    if to_come is None or to_come < 0.5:
        return False
    return hints.iat is not None and iat_ms(hints.iat) >= WARM_MIN_IAT_MS


def make_plan(identity: CallIdentity, hints: PrefixHints, call_index: int, *, crowded: bool = False) -> ServingPlan:
    """Decide what to ask of the server for one call.

    - A chain of one request has nothing to come back for: no session, so the router may balance freely.
    - The last call is marked only where the total is knowledge about this chain, not a constant of the config.
    - A priority is sent only if a source knows one, or knows the work to come; see `work_to_come`.
    - A crowded cluster is asked for no work that nobody waits for.

    Args:
        identity: whose call it is.
        hints: the resolved hints.
        call_index: 0 for the chain's first call.
        crowded: whether questions wait for room in the KV caches.
    """
    sticky = hints.total_requests != 1
    to_come = calls_to_come(hints, call_index)
    work = work_to_come(hints, to_come)
    return ServingPlan(
        identity,
        hints,
        identity.session_id if sticky else None,
        identity.parent_session_id if sticky else None,
        hints.total_is_known and to_come == 0,
        None if hints.osl is None else osl_tokens(hints.osl),
        sticky and not crowded and pays_to_warm(hints, to_come),
        _sent_priority(hints, work),
        hints.latency_sensitivity,
        work,
        to_come,
    )
