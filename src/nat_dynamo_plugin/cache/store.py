"""What keeps entries: the interface of all stores, and what a look into one gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from nat_dynamo_plugin.cache.asking import Ask


class Claim(NamedTuple):
    """What a store says of a key.

    Attributes:
        value: the entry's bytes; `None` if there is none.
        leads: whether the one who asks is to make it, and nobody else is about to.
        alone: whether nobody waits for anybody, for the last answer was none to keep, or the store can not be asked.
    """

    value: bytes | None = None
    leads: bool = True
    alone: bool = False


class Kept(NamedTuple):
    """An entry as a store lists it.

    Attributes:
        place: its name in the store.
        value: its bytes.
    """

    place: str
    value: bytes


class Store(Protocol):
    """Keeps bytes by key, for a time. Nothing here raises but what says so."""

    is_local: bool
    """Whether asking costs no more than a look into memory."""
    name: str
    """`memory` or `redis`."""

    def claim(self, key: str, org: str, model: str, token: str | None) -> Claim:
        """Get the entry, or the right to make it.

        Args:
            key: see `cache.key`.
            org: HMAC of the org, or empty.
            model: the model asked for.
            token: tells who asks; `None` not to claim anything.
        """

    def hold(self, key: str, token: str) -> None:
        """Keep the right to make the entry until it is released."""

    def release(self, key: str, org: str, model: str, token: str, *, kept: bool) -> None:
        """Let others make the entry; `kept`: it is there, or nobody knows why it is not."""

    def put(self, key: str, org: str, model: str, value: bytes, ttl_s: float) -> None:
        """Keep the bytes."""

    def remove(self, place: str) -> None:
        """Forget an entry. Raises `StoreError`."""

    def entries(self, org: str | None = None, model: str | None = None) -> Iterator[Kept]:
        """What is there. Raises `StoreError`."""

    def close(self) -> None:
        """Write what is still to be written, and end."""


@runtime_checkable
class RemoteStore(Store, Protocol):
    """A store that is asked over a network."""

    @property
    def is_down(self) -> bool:
        """Whether it is known not to answer."""

    def asking(self, key: str, org: str, model: str, token: str | None) -> Ask[Claim]:
        """What a flow yields to `claim` in bounded time."""


class StoreError(Exception):
    """The store can not be asked; says why, without a password."""
