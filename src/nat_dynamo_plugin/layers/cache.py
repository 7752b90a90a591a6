"""Answers a call that was answered before without the server. Stands above everything but the record.

A hit takes no place at the gate, no limit, no key and no retry.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from time import monotonic
from typing import Any

from nat_dynamo_plugin.cache.entry import Entry, decode_answer
from nat_dynamo_plugin.cache.flights import Flight, Landed
from nat_dynamo_plugin.cache.key import PROMPT_HEADERS, key_of, read
from nat_dynamo_plugin.cache.near import near_form
from nat_dynamo_plugin.cache.policy import why_not_asked
from nat_dynamo_plugin.cache.replay import fresh, replay, whole
from nat_dynamo_plugin.cache.responses import Asking, ResponseCache, new_token
from nat_dynamo_plugin.cache.store import Claim, RemoteStore
from nat_dynamo_plugin.http.answer_fields import CHAT
from nat_dynamo_plugin.http.call import Call, Reader, Reply
from nat_dynamo_plugin.http.encodings import decoder
from nat_dynamo_plugin.http.flow import Flow, Operation, Send, Sleep
from nat_dynamo_plugin.http.sse import events_in
from nat_dynamo_plugin.layers.cache_scope import CallerScope
from nat_dynamo_plugin.telemetry.record import CallRecord

HEADER = "x-nat-dynamo-cache"
FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.1
"""How often another process' answer is looked for: first, and at last (s)."""

_ALONE = Claim(leads=False, alone=True)


class CacheLayer:
    """Looks up, sends what is not there, and keeps the answer.

    Args:
        cache: shared by all that may share answers.
        scope: whose calls these are.
        note: told of each call that is answered here, to say whose it is.
        headers: names of further headers that count, in lower case.
    """

    def __init__(
        self,
        cache: ResponseCache,
        scope: CallerScope,
        note: Callable[[Call], None] | None = None,
        headers: tuple[str, ...] = (),
    ) -> None:
        self.cache = cache
        self._scope = scope
        self._note = note
        self._headers = frozenset(name.lower().encode() for name in headers)

    def flow(self, call: Call, send: Send) -> Flow:
        """Answer, or send."""
        asking = self._asking(call)
        if isinstance(asking, str):
            self.cache.figures.count("bypassed", asking)
            return send(call)
        return self._answered(call, send, asking)

    def _asking(self, call: Call) -> Asking | str:
        """The call as the cache sees it, or why it is not for the cache."""
        body, settings = call.body.raw, self.cache.settings
        if call.api != CHAT or body is None:
            return "other_api" if call.api != CHAT else "no_body"
        asked = read(body, settings.ignore)
        if asked is None:
            return "no_json"
        why = why_not_asked(asked.body, deterministic_only=settings.deterministic_only, ignored=settings.ignore)
        if why is not None:
            return why
        if asked.streamed and not settings.streams:
            return "streamed"
        control = call.headers.get("cache-control") or ""
        if "no-store" in control:
            return "no_store"
        counting = [
            (name, value)
            for name, (_, value) in zip(call.headers.names, call.headers.raw, strict=True)
            if name.startswith(PROMPT_HEADERS) or name in self._headers
        ]
        scope, org = self._scope.of(call)
        key = key_of(asked.canonical, call.method, call.url, scope, counting)
        near = ""
        if self.cache.trust is not None and (form := near_form(asked)) is not None:
            near = key_of(form, call.method, call.url, f"near {scope}", counting)
        return Asking(asked, key, org, looks="no-cache" not in control, token=new_token(), near=near)

    def _answered(self, call: Call, send: Send, asking: Asking) -> Flow:
        cache = self.cache
        local = cache.store.is_local
        if not asking.looks:
            return (yield from self._sent(call, send, asking, None, leased=False))
        if local and (entry := cache.look(asking)) is not None:
            return self._hit(call, asking, entry)
        until = monotonic() + min(cache.longest_wait_s, max(0.0, call.left_s))
        while cache.settings.single_flight:
            flight, leads = cache.flights.join(asking.key)
            if leads:
                return (yield from self._led(call, send, asking, flight, until))
            if flight.is_ours:
                break
            cache.figures.count("shared")
            landed: Landed | None = yield flight.wait(until - monotonic())
            if landed is None or (landed.entry is None and not landed.left):
                break
            if landed.entry is not None and cache.usable(asking, landed.entry):
                kind = "exact" if landed.entry.key == asking.key else "semantic"
                return self._hit(call, asking, landed.entry, kind)
        else:
            claim = yield from self._claim(asking, until, None)
            if claim.value is not None and (entry := cache.read(asking, claim.value)) is not None:
                return self._hit(call, asking, entry)
        return (yield from self._sent(call, send, asking, None, leased=False))

    def _led(self, call: Call, send: Send, asking: Asking, flight: Flight, until: float) -> Flow:
        """Make the flight: others wait for it."""
        cache = self.cache
        try:
            claim = yield from self._claim(asking, until, asking.token)
            entry = None if claim.value is None else cache.read(asking, claim.value)
        except BaseException:
            cache.flights.land(flight, Landed(None, left=True))
            raise
        if entry is not None:
            cache.flights.land(flight, Landed(entry))
            return self._hit(call, asking, entry)
        if claim.leads:
            cache.store.hold(asking.key, asking.token)
        return (yield from self._sent(call, send, asking, flight, leased=claim.leads))

    def _claim(self, asking: Asking, until: float, token: str | None) -> Generator[Operation, Any, Claim]:
        """Ask the store, and wait for another process that makes the entry."""
        store, asked = self.cache.store, asking.asked
        if not isinstance(store, RemoteStore):
            return store.claim(asking.key, asking.org, asked.model, token)
        pause = FIRST_PAUSE_S
        while True:
            if store.is_down:
                return _ALONE
            claim: Claim = yield store.asking(asking.key, asking.org, asked.model, token)
            if claim.value is not None or claim.leads or claim.alone or token is None:
                return claim
            if monotonic() + pause > until:
                return claim
            yield Sleep(pause)
            pause = min(LONGEST_PAUSE_S, pause * 1.5)

    def _near(self, asking: Asking) -> Generator[Operation, Any, Entry | None]:
        """The answer to an almost equal question, if there is one."""
        store, model = self.cache.store, asking.asked.model
        if not asking.near:
            return None
        if not isinstance(store, RemoteStore):
            value = store.claim(asking.near, asking.org, model, None).value
        elif store.is_down:
            return None
        else:
            claim: Claim = yield store.asking(asking.near, asking.org, model, None)
            value = claim.value
        entry = None if value is None else self.cache.read(asking, value, near=True)
        # The same question in the same words is not almost equal: its time is over.
        return None if entry is None or entry.asked == asking.key else entry

    def _hit(self, call: Call, asking: Asking, entry: Entry, kind: str = "exact") -> Reply:
        """The entry as the caller wants it."""
        record, asked = call.record, asking.asked
        self._scope.answered()
        if self._note is not None:
            self._note(call)
        record.cache, record.status, record.streamed = kind, 200, asked.streamed
        record.request_model = asked.model or record.request_model
        record.model, record.finish_reason = entry.answered_by, entry.finish_reason
        record.prompt_tokens, record.cached_tokens = entry.prompt_tokens, entry.cached_tokens
        record.completion_tokens = entry.completion_tokens
        self.cache.figures.hit(kind, entry)
        answer = fresh(decode_answer(entry.answer))
        said = "hit" if kind == "exact" else f"hit; kind={kind}"
        headers = {HEADER: f"{said}; age={entry.age_s:.0f}"}
        if not asked.streamed:
            return Reply.made(200, whole(answer), headers)
        headers["content-type"] = "text/event-stream; charset=utf-8"
        return Reply.made(200, replay(answer, usage=asked.wants_usage), headers)

    def _sent(self, call: Call, send: Send, asking: Asking, flight: Flight | None, *, leased: bool) -> Flow:
        """Send, and keep the answer; a call that others wait for tells them how it ended."""
        cache = self.cache
        before: Entry | None = None

        def landed(entry: Entry | None, *, left: bool = False) -> None:
            if entry is not None and asking.near and entry.key == asking.key:
                cache.keep_near(asking, entry, before)
            if leased:
                kept = entry is not None or left
                cache.store.release(asking.key, asking.org, asking.asked.model, asking.token, kept=kept)
            if flight is not None:
                cache.flights.land(flight, Landed(entry, left))

        try:
            before = yield from self._near(asking)
            if before is not None and asking.looks and cache.trust is not None and cache.trust.may_give():
                landed(before)
                return self._hit(call, asking, before, "semantic")
            cache.figures.count("misses")
            reply: Reply = yield from send(call)
            unread = reply.content is None or reply.rest is not None
            if reply.status == 200 and call.record.streamed and unread and call.reader is not None:
                self._keep_at_end(call, call.reader, asking, landed)
                return reply
            content = _plain(reply) if reply.status == 200 and call.record.error is None else None
            cache.took(call.now_ms / 1000.0)
            landed(None if content is None else cache.keep_whole(asking, content, call.record))
        except BaseException as error:
            landed(None, left=not isinstance(error, Exception))
            raise
        return reply

    def _keep_at_end(self, call: Call, reader: Reader, asking: Asking, landed: Callable[..., None]) -> None:
        """Keep a stream when it has ended, if it was whole."""
        tee = call.reader = _Tee(reader, self.cache.settings.max_entry_bytes)

        def ended(record: CallRecord) -> None:
            entry = None
            try:
                pieces = tee.pieces
                # A stream whose length nobody says may be cut behind its last choice: then it has no usage.
                if not record.failed and tee.complete and pieces is not None:
                    entry = self.cache.keep_stream(asking, events_in(b"".join(pieces)), record)
                if not record.failed:
                    self.cache.took((record.client_total_ms or 0.0) / 1000.0)
            finally:
                landed(entry, left=record.error_type == "left")

        call.on_end(ended)


class _Tee:
    """Reads an answer as another reader does, and keeps its bytes, up to a bound.

    Attributes:
        pieces: what came; `None` if it was too much.
    """

    __slots__ = ("_most", "_reader", "complete", "pieces", "problem")

    def __init__(self, reader: Reader, max_entry_bytes: int) -> None:
        self._reader = reader
        # Each token has an event around it, of some hundred bytes.
        self._most = max_entry_bytes * 32
        self.pieces: list[bytes] | None = []
        self.complete = reader.complete
        self.problem = reader.problem

    def feed(self, chunk: bytes, now_ms: float) -> None:
        """Take the next bytes."""
        if self.pieces is not None:
            self.pieces.append(chunk)
            self._most -= len(chunk)
            if self._most < 0:
                self.pieces = None
        self._reader.feed(chunk, now_ms)
        self.complete = self._reader.complete

    def finish(self, now_ms: float) -> None:
        """Take the end."""
        self._reader.finish(now_ms)
        self.problem = self._reader.problem


def _plain(reply: Reply) -> bytes | None:
    """The body without its encoding; `None` if it is not there or nobody knows the encoding."""
    if reply.content is None:
        return None
    encodings = [value.decode("latin-1") for name, value in reply.raw_headers if name.lower() == b"content-encoding"]
    if not encodings:
        return reply.content
    pieces: list[bytes] = []
    undo = decoder(",".join(encodings), pieces.append)
    if undo is None:
        return None
    try:
        undo(reply.content)
    except Exception:  # each library has its own
        return None
    return b"".join(pieces)
