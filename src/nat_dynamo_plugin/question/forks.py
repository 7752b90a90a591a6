"""What a process must make anew after a fork: locks that another thread held, and ids that were this process's own."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """Has something that a forked child must not share with its parent."""

    def renew(self) -> None:
        """Make it anew; called in the child, before anything else runs there. Must not raise."""


_renewable: WeakSet[Renewable] = WeakSet()


def renew_in_child(thing: Renewable) -> None:
    """Call `thing.renew()` in every process forked from this one, as long as the thing lives."""
    _renewable.add(thing)


def _renew() -> None:
    for thing in list(_renewable):
        thing.renew()


if hasattr(os, "register_at_fork"):  # not on Windows, which can not fork
    os.register_at_fork(after_in_child=_renew)
