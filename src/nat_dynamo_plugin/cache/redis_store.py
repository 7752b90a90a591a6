"""Entries in Redis or Valkey, shared by all processes that ask there. Never makes a call fail.

Names: `nat-dynamo:1:e:ORG:MODEL:{KEY}` for entries and `nat-dynamo:1:l:{KEY}` for leases, with the key in braces so
that both are on one node of a cluster.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from nat_dynamo_plugin.cache.asking import Ask
from nat_dynamo_plugin.cache.leases import Leases
from nat_dynamo_plugin.cache.reach import Reach
from nat_dynamo_plugin.cache.store import Claim, Kept, StoreError
from nat_dynamo_plugin.locks import after_fork
from nat_dynamo_plugin.secrets import redacted

logger = logging.getLogger(__name__)

PREFIX = "nat-dynamo:1:"
LEASE_S = 5.0
"""A lease that nobody renews is over after so long, for whoever had it is gone."""
THREADS = 8
MAX_WAITING = 1024
"""Entries that wait to be written; more are not kept."""
PATIENCE_S = 3.0
"""Time-out of what no call waits for (s)."""
_LEASE, _LEADS, _ALONE = 0, 1, 2

_CLAIM = f"""
local entry = redis.call('GET', KEYS[1])
if entry then return {{entry, {_LEASE}}} end
if ARGV[1] == '' then return {{false, {_LEASE}}} end
local lease = redis.call('GET', KEYS[2])
if lease == '-' then return {{false, {_ALONE}}} end
if lease then return {{false, {_LEASE}}} end
local made = redis.pcall('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
if made.err then return {{false, {_ALONE}}} end
return {{false, {_LEADS}}}
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '1' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], '-', 'PX', ARGV[3])
return 1
"""


class RedisStore:
    """Reads at the call's own time, bounded; writes in a thread, so that no call waits for it.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        timeout_s: longest that a call waits for an answer.
        failed: told of each write that did not happen.

    Raises:
        StoreError: the URL is none, or `redis` is not installed.
    """

    is_local = False
    name = "redis"

    def __init__(self, url: str, timeout_s: float = 0.05, failed: Callable[[], None] | None = None) -> None:
        self.timeout_s = timeout_s
        self._failed = failed or (lambda: None)
        self._client = _client(url, timeout_s)
        self._patient = _client(url, PATIENCE_S)
        self._claim = self._client.register_script(_CLAIM)
        self._release = self._client.register_script(_RELEASE)
        self.where = _where(self._client)
        self.reach = Reach(self.where, self.ping)
        self._is_full = False
        self._leases = Leases(self._client, LEASE_S)
        self._reset()
        after_fork(self, RedisStore._reset)

    def _reset(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "nat-dynamo-cache")
        self._writer = ThreadPoolExecutor(1, "nat-dynamo-cache-write")
        self._waiting: dict[str, bytes] = {}
        self.reach.forked()

    def ping(self) -> None:
        """Ask whether it is there. Raises what the library does."""
        self._client.ping()

    def check(self) -> None:
        """See that entries can be read and written, at leisure.

        Raises:
            StoreError: with the reason.
        """
        name = f"{PREFIX}check"
        try:
            self._patient.set(name, b"1", px=1000)
            if self._patient.get(name) != b"1":
                raise StoreError(f"Redis at {self.where} does not keep what is written")
        except self._errors as error:
            raise StoreError(f"Redis at {self.where} can not be used: {_why(error)}") from None

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        import redis

        return (redis.RedisError, OSError)

    @property
    def is_down(self) -> bool:
        """Whether it is known not to answer."""
        return self.reach.is_down

    def asking(self, key: str, org: str, model: str, token: str | None) -> Ask[Claim]:
        """What a flow yields to claim a key."""
        return Ask(self._pool, partial(self.claim, key, org, model, token), self.timeout_s, self._late)

    def _late(self) -> Claim:
        self.reach.failed(f"no answer within {self.timeout_s * 1000.0:.0f} ms")
        return Claim(leads=False, alone=True)

    def claim(self, key: str, org: str, model: str, token: str | None) -> Claim:
        """Get the entry, or the right to make it; nobody waits for anybody if the server can not be asked."""
        if (waiting := self._waiting.get(key)) is not None:
            return Claim(waiting, leads=False)
        if self.reach.is_down:
            return Claim(leads=False, alone=True)
        lease = _lease(key)
        try:
            entry, state = self._claim([_entry(key, org, model), lease], [token or "", int(LEASE_S * 1000)])
        except self._errors as error:
            self.reach.failed(_why(error))
            return Claim(leads=False, alone=True)
        self.reach.worked()
        return Claim(entry, leads=state == _LEADS, alone=state == _ALONE)

    def hold(self, key: str, token: str) -> None:
        """Keep a right that was given; one that is not held ends by itself."""
        self._leases.hold(_lease(key), token)

    def release(self, key: str, org: str, model: str, token: str, *, kept: bool) -> None:
        """Let others make the entry, or know that it is not to be waited for; behind what is to be written before."""
        self._leases.drop(_lease(key))
        self._later(partial(self._release, [_lease(key)], [token, "1" if kept else "0", 2000]))

    def put(self, key: str, org: str, model: str, value: bytes, ttl_s: float) -> None:
        """Keep the bytes, soon; this process sees them at once."""
        if self.reach.is_down or len(self._waiting) >= MAX_WAITING:
            self._failed()
            return
        self._waiting[key] = value
        if not self._later(partial(self._write, key, _entry(key, org, model), value, int(ttl_s * 1000))):
            self._waiting.pop(key, None)

    def _later(self, do: Callable[[], object]) -> bool:
        try:
            self._writer.submit(self._do, do)
        except RuntimeError:  # the interpreter is about to end
            return False
        return True

    def _do(self, do: Callable[[], object]) -> None:
        if self.reach.is_down:
            return
        try:
            do()
        except self._errors as error:
            self.reach.failed(_why(error))

    def _write(self, key: str, name: str, value: bytes, ttl_ms: int) -> None:
        import redis

        try:
            self._client.set(name, value, px=max(1, ttl_ms))
        except redis.ResponseError as error:
            # It answers, so it can be read; full (`maxmemory` with `noeviction`), or a replica.
            self._failed()
            if not self._is_full:
                logger.warning("The response cache at %s keeps nothing new: %s", self.where, _why(error))
            self._is_full = True
        except self._errors:
            self._failed()
            raise
        else:
            if self._is_full:
                logger.warning("The response cache at %s keeps answers again", self.where)
            self._is_full = False
        finally:
            if self._waiting.get(key) is value:
                del self._waiting[key]

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Wait until what was to be written is written, at most so long; whether it is."""
        done = threading.Event()
        return not self._later(done.set) or done.wait(timeout_s)

    def remove(self, place: str) -> None:
        """Forget an entry."""
        try:
            self._patient.unlink(place)
        except self._errors as error:
            raise StoreError(f"Redis at {self.where}: {_why(error)}") from None

    def entries(self, org: str | None = None, model: str | None = None) -> Iterator[Kept]:
        """What is there, some hundred entries at a time."""
        pattern = f"{PREFIX}e:{'*' if org is None else org or '-'}:{'*' if model is None else _short(model)}:*"
        batch: list[bytes] = []
        try:
            for place in self._patient.scan_iter(match=pattern, count=1000):
                batch.append(place)
                if len(batch) == 500:
                    yield from self._read(batch)
                    batch = []
            yield from self._read(batch)
        except self._errors as error:
            raise StoreError(f"Redis at {self.where}: {_why(error)}") from None

    def _read(self, places: list[bytes]) -> Iterator[Kept]:
        values = self._patient.mget(places) if places else []
        for place, value in zip(places, values, strict=True):
            if value is not None:
                yield Kept(place.decode(), value)

    def close(self) -> None:
        """Write what is still to be written, within two seconds."""
        self.flush()


def _client(url: str, timeout_s: float) -> Any:
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise StoreError("redis is not installed: pip install 'nat-dynamo-plugin[cache]'") from None
    try:
        # One attempt, or the time-out would hold several times over; RESP 2, which every server speaks.
        return redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            decode_responses=False,
        )
    except ValueError as error:
        raise StoreError(f"redis_url: {redacted(str(error))}") from None


def _where(client: Any) -> str:
    options = client.connection_pool.connection_kwargs
    place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return f"{place}/{options.get('db', 0) or 0}"


def _why(error: Exception) -> str:
    return redacted(f"{type(error).__name__}: {error}")


def _short(model: str) -> str:
    return hashlib.sha256(model.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _entry(key: str, org: str, model: str) -> str:
    return f"{PREFIX}e:{org or '-'}:{_short(model)}:{{{key}}}"


def _lease(key: str) -> str:
    return f"{PREFIX}l:{{{key}}}"
