"""The key that a call carries: the one of its session, another one when the server refuses it.

The clients of frameworks have a placeholder; the key is put in here and is in nobody else's hands.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from urllib.parse import urlsplit

from nat_dynamo_plugin.http.call import Call, Reply, origin_of
from nat_dynamo_plugin.http.flow import Close, Flow, Send
from nat_dynamo_plugin.layers.key_sources import ClearKey, Source, source_of
from nat_dynamo_plugin.question.once import warn_once
from nat_dynamo_plugin.secrets import is_secret_text

logger = logging.getLogger(__name__)

REFUSED = (401, 403)
"""Statuses of a server that does not take a key. 429 is none: many providers limit by organisation, not by key."""
OUT_S = 60.0
"""How long a key that was refused is not tried (s), unless its source has another one."""
MAX_SESSIONS = 10_000
"""Sessions remembered that are not on the first key; of more the oldest go back to it."""
PLACEHOLDER = "unused"
"""What clients are given for a key."""
OTHER_KEYS = frozenset({b"x-api-key", b"api-key"})
"""Headers in which clients of Anthropic and of Azure have their own key; a second one would be somebody else's."""
_FILLED_IN = f"Bearer {PLACEHOLDER}".encode()
"""The header of a request that has no key of its own, unless it has none."""
_PORTS = {"http": 80, "https": 443}
_MAX_URLS = 64


@dataclass(frozen=True, slots=True)
class Key:
    """A key at one moment.

    Attributes:
        index: which source it is of, from 0.
        header: what `Authorization` says.
    """

    index: int
    header: bytes


class KeyRing:
    """One key or several, of which the first that is healthy is taken; shared by all clients of an LLM.

    A session stays with its key while that is healthy: prompt caches belong to an organisation or a key, and a session
    that changes loses them.

    Args:
        sources: where the keys are, the preferred one first.
        clock: seconds, never going back.
    """

    def __init__(self, sources: Sequence[Source], clock: Callable[[], float] = monotonic) -> None:
        self.sources = tuple(sources)
        self._clock = clock
        self._keys = [Key(k, b"") for k in range(len(self.sources))]
        self._values = [""] * len(self.sources)
        # Until when a key is out, and which it was.
        self._out: dict[int, tuple[float, Key]] = {}
        self._of: OrderedDict[str, int] = OrderedDict()

    @property
    def never_changes(self) -> bool:
        """Whether there is one key, in clear."""
        return len(self.sources) == 1 and isinstance(self.sources[0], ClearKey)

    def key(self, index: int) -> Key:
        """The key of a source as it is now."""
        value = self.sources[index].value()
        if value is not self._values[index]:
            self._keys[index] = Key(index, b"Bearer " + value.encode("ascii"))
            self._values[index] = value
        return self._keys[index]

    def is_out(self, index: int) -> bool:
        """Whether a source's key was refused lately and is still the same."""
        found = self._out.get(index)
        if found is None:
            return False
        until, key = found
        if self._clock() < until and self.key(index) == key:
            return True
        self._out.pop(index, None)
        return False

    def of(self, session: str | None) -> Key:
        """The key for the next call of a session."""
        if not self._of and not self._out:
            return self.key(0)
        index = None if session is None else self._of.get(session)
        if index is None or self.is_out(index):
            healthy = (k for k in range(len(self.sources)) if not self.is_out(k))
            index = next(healthy, index or 0)
            self.stay(session, index)
        return self.key(index)

    def stay(self, session: str | None, index: int) -> None:
        """Have a session's next calls on this key."""
        if session is None:
            return
        if index == 0:
            self._of.pop(session, None)
            return
        self._of[session] = index
        while len(self._of) > MAX_SESSIONS:
            try:
                self._of.popitem(last=False)
            except KeyError:
                break  # another thread was faster

    def after(self, refused: Key, tried: set[Key], *, reread: bool) -> Key | None:
        """What to send with after a refusal: the same source's new key, or the next healthy one; `None` if all are out.

        Args:
            refused: what was sent.
            tried: all that was sent for this call.
            reread: whether the sources are still to be read again.
        """
        if reread:
            for source in self.sources:
                source.reread()
        # Its own source first: all others may be another organisation's.
        for index in (refused.index, *range(len(self.sources))):
            key = self.key(index)
            if key not in tried and not self.is_out(index):
                return key
        return None

    def put_out(self, key: Key) -> None:
        """This key is not good for now."""
        self._out[key.index] = (self._clock() + OUT_S, key)


class KeyLayer:
    """Puts the key in, and another one when the server answers 401 or 403; then all sources are read again first.

    A caller's own `Authorization` stays. No other origin than the LLM's own gets a key.

    Args:
        ring: the keys.
        origin: scheme, host and port of the LLM's server.
    """

    def __init__(self, ring: KeyRing, origin: str) -> None:
        self._ring = ring
        self._server = _server(origin)
        self._ours: dict[str, bool] = {}
        self._fixed = ring.key(0).header if ring.never_changes else None

    def flow(self, call: Call, send: Send) -> Flow:
        """Send with a key."""
        headers = call.headers
        names = headers.names
        if b"authorization" in names and headers.raw[names.index(b"authorization")][1] != _FILLED_IN:
            return send(call)
        if not self._is_ours(call.url) or not OTHER_KEYS.isdisjoint(names):
            return send(call)
        if self._fixed is not None:
            headers.put(b"authorization", self._fixed)
            return send(call)
        return self._sent(call, send)

    def header_for(self, url: str, given: str | None) -> bytes | None:
        """What `Authorization` is to say in a request that is no call (`GET /models`), or `None` to leave it alone."""
        if (given is not None and given.encode() != _FILLED_IN) or not self._is_ours(url):
            return None
        return self._ring.of(None).header

    def tenant(self) -> bytes:
        """The preferred key's header, which tells whose calls these are."""
        return self._ring.key(0).header

    def _is_ours(self, url: str) -> bool:
        """Whether this is the LLM's server, however its name is spelt."""
        found = self._ours.get(url)
        if found is None:
            found = _server(origin_of(url)) == self._server
            if len(self._ours) < _MAX_URLS:
                self._ours[url] = found
        return found

    def _sent(self, call: Call, send: Send) -> Flow:
        ring = self._ring
        session = None if call.turn is None else call.turn.identity.session_id
        key = ring.of(session)
        tried: set[Key] | None = None
        while True:
            call.headers.put(b"authorization", key.header)
            reply: Reply = yield from send(call)
            if reply.status not in REFUSED or not self._is_ours(call.url):
                if tried:
                    self._switched(session, key, tried)
                return reply
            following = ring.after(key, (tried or set()) | {key}, reread=tried is None)
            tried = (tried or set()) | {key}
            if reply.status == 401:
                ring.put_out(key)
            if following is None:
                return reply
            logger.warning(
                "%s answers %d to the key of %s; the call goes on with %s",
                call.origin,
                reply.status,
                ring.sources[key.index].name,
                "its new one" if following.index == key.index else f"that of {ring.sources[following.index].name}",
            )
            yield Close(reply)
            key = following

    def _switched(self, session: str | None, key: Key, refused: set[Key]) -> None:
        """A key did where others were refused, so it was for the keys and not for the call."""
        for other in refused:
            if self._ring.key(other.index) == other:
                self._ring.put_out(other)
        self._ring.stay(session, key.index)


def key_layer(sources: Sequence[str], origin: str) -> KeyLayer | None:
    """The layer for the keys of a config; `None` if there are none.

    Args:
        sources: see `key_sources.source_of`; the preferred one first.
        origin: scheme, host and port of the LLM's server.

    Raises:
        ValueError: there is no key at one of them.
    """
    if not sources or list(sources) == [PLACEHOLDER]:
        return None
    if any(map(is_secret_text, sources)):
        warn_once(
            logger,
            ("api_key",),
            "api_key: a key stands in clear in the config; let it name an environment variable or a file instead, as "
            "env:OPENAI_API_KEY or file:/run/secrets/key",
        )
    try:
        return KeyLayer(KeyRing([source_of(source) for source in sources]), origin)
    except ValueError as error:
        raise ValueError(f"api_key={error}") from None


def _server(origin: str) -> tuple[str, str, int | None]:
    """Scheme, host and port, as HTTP libraries write them or not."""
    parts = urlsplit(origin)
    host = parts.hostname or ""
    with suppress(UnicodeError):  # else it is no name, so none that another one could be taken for
        host = host.encode("idna").decode()
    return parts.scheme, host, parts.port or _PORTS.get(parts.scheme)
