"""Leases that are held for calls under way, renewed as long as they are."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import Any

logger = logging.getLogger(__name__)

_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""


class Leases:
    """Renews leases three times within their time, in a thread that ends with this object.

    Args:
        client: of redis-py.
        time_s: how long a lease is good.
    """

    def __init__(self, client: Any, time_s: float) -> None:
        self._renew = client.register_script(_RENEW)
        self.time_s = time_s
        self._held: dict[str, str] = {}
        self._thread: threading.Thread | None = None

    def hold(self, name: str, token: str) -> None:
        """Renew this lease from now on."""
        self._held[name] = token
        if self._thread is None or not self._thread.is_alive():  # a child of a fork has none
            self._thread = threading.Thread(
                target=_keep, args=(weakref.ref(self),), name="nat-dynamo-cache-leases", daemon=True
            )
            self._thread.start()

    def drop(self, name: str) -> None:
        """Renew it no more."""
        self._held.pop(name, None)

    def renew(self) -> None:
        """Renew all; one that can not be renewed ends by itself, and others send for themselves then."""
        for name, token in list(self._held.items()):
            try:
                self._renew([name], [token, int(self.time_s * 1000)])
            except Exception:
                logger.debug("A lease could not be renewed", exc_info=True)


def _keep(leases: weakref.ref[Leases]) -> None:
    pause = threading.Event()
    while (one := leases()) is not None:
        time_s = one.time_s
        one.renew()
        del one
        pause.wait(time_s / 3.0)
