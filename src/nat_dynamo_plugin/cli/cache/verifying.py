"""Whether each entry of a cache can be used."""

from __future__ import annotations

import msgspec

from nat_dynamo_plugin.cache.entry import Entry, decode_answer
from nat_dynamo_plugin.cache.policy import why_not_kept
from nat_dynamo_plugin.cache.replay import assemble, replay
from nat_dynamo_plugin.cache.responses import ResponseCache
from nat_dynamo_plugin.http.sse import events_in


def verified(cache: ResponseCache, *, delete: bool = False) -> tuple[int, dict[str, str]]:
    """How many entries are good, and why each other one is not, by its place.

    Args:
        cache: whose.
        delete: whether to forget those.

    Raises:
        StoreError: the store can not be asked.
    """
    good, bad = 0, {}
    for place, entry in cache.entries():
        why = entry if isinstance(entry, str) else _wrong(entry, place)
        if why is None:
            good += 1
        else:
            bad[place] = why
    if delete:
        for place in bad:
            cache.store.remove(place)
    return good, bad


def _wrong(entry: Entry, place: str) -> str | None:
    """Why an entry can not be used."""
    if entry.key not in place:
        return "it is another call's"
    try:
        answer = decode_answer(entry.answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "its answer is no JSON"
    why = why_not_kept(answer, "")
    if why is None and assemble(events_in(replay(answer))) != answer:
        why = "it can not be given as a stream"
    return why
