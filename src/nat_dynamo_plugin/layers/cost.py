"""What calls cost: one layer around the whole call, and one around each attempt."""

from __future__ import annotations

from functools import partial

from nat_dynamo_plugin.cost.gpu import BusyTime
from nat_dynamo_plugin.cost.pricing import CACHE, GPU, Pricing
from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import Flow, Send
from nat_dynamo_plugin.question.org import current_org, org_digest
from nat_dynamo_plugin.telemetry.record import CallRecord, Usage


class CostLayer:
    """Says whom a call is for, and what an answer out of the response cache has saved. Above that cache.

    Args:
        pricing: what tokens cost.
    """

    def __init__(self, pricing: Pricing) -> None:
        self._pricing = pricing

    def flow(self, call: Call, send: Send) -> Flow:
        """Send."""
        org = current_org()
        if org is not None:
            call.record.org = org_digest(org)
        call.on_end(self._ended)
        return send(call)

    def _ended(self, record: CallRecord) -> None:
        if getattr(record, "cache", None):
            cost = self._pricing.of(record)
            record.saved_usd = None if cost is None else cost[0]
            record.cost_usd, record.cost_source = 0.0, CACHE


class AttemptCostLayer:
    """Adds up what a call's attempts cost; below all that sends again or waits, for that time is not the server's.

    A server that has answered 200 sends a bill, also for an answer that broke off or was none. Where its usage came
    with it, that is priced; where not, the attempt is counted (`unpriced_attempts`).

    Args:
        pricing: what tokens cost.
        busy: shares the time of one's own GPUs among calls that have no other price; `None` where that has no price.
    """

    def __init__(self, pricing: Pricing, busy: BusyTime | None = None) -> None:
        self._pricing = pricing
        self._busy = busy

    def flow(self, call: Call, send: Send) -> Flow:
        """Send, and see what the attempt has used."""
        record, reader = call.record, call.reader
        forget_usage(record)
        began = None if self._busy is None else self._busy.begin()
        try:
            reply: Reply = yield from send(call)
        except BaseException:
            self._ended(began, call.reader is not reader, record)
            raise
        if reply.status >= 400:
            self._ended(began, is_billed(record), record)  # billed: it was the answer that was none
        else:
            call.on_end(partial(self._answered, began))
        return reply

    def _answered(self, began: float | None, record: CallRecord) -> None:
        """The call is over with the answer of this attempt."""
        share = None if self._busy is None or began is None else self._busy.end(began)
        settle(self._pricing, record, share)

    def _ended(self, began: float | None, has_answer: bool, record: CallRecord) -> None:
        """The attempt has failed."""
        share = None if self._busy is None or began is None else self._busy.end(began)
        if share is not None:
            _add(record, share, GPU)
        elif has_answer and is_billed(record):
            cost = self._pricing.of(record) if _is_known(record) else None
            if cost is None:
                record.unpriced_attempts += 1
            else:
                _add(record, *cost)


def settle(pricing: Pricing, record: CallRecord, share_usd: float | None = None) -> None:
    """Put what a finished call costs into its record, which may hold the cost of attempts before.

    Args:
        pricing: what tokens cost.
        record: the call.
        share_usd: its share of the GPUs' time, for one whose tokens have no price.
    """
    cost = pricing.of(record, quiet=share_usd is not None)
    if cost is None and share_usd is not None:
        cost = share_usd, GPU
    if cost is None:
        record.cost_usd = record.cost_source = None  # a sum without its greatest part is no cost
    else:
        _add(record, *cost)


def is_billed(record: CallRecord) -> bool:
    """Whether a server has answered, be it in part."""
    return record.status is not None and record.status < 300


def forget_usage(record: CallRecord) -> None:
    """Make nothing known of what an attempt before has used; the next one's answer may not say it."""
    for name in Usage._fields:
        setattr(record, name, None)
    record.cache_writes = {}


def _is_known(record: CallRecord) -> bool:
    return record.completion_tokens is not None or record.reported_usd is not None


def _add(record: CallRecord, usd: float, source: str) -> None:
    record.cost_usd = (record.cost_usd or 0.0) + usd
    record.cost_source = source
