"""Speaker: several dialects as one voice, which never makes a call fail."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nat_dynamo_plugin.dialects.dialect import Dialect
from nat_dynamo_plugin.dialects.said import Said, combined
from nat_dynamo_plugin.dialects.usage import Usage
from nat_dynamo_plugin.plan.serving import NO_PLAN, ServingPlan
from nat_dynamo_plugin.question.once import warn_once

logger = logging.getLogger(__name__)

MAX_KEPT = 1024
"""Plans whose words are kept; then all are forgotten, which costs less than to know which was not used for long."""

_OUR_ROOM = __name__.rpartition(".")[0] + "."
_HEADERS = re.compile(rb"(?:[a-z0-9!#$%&'*+.^_`|~-]+:[!-~](?:[ -~]*[!-~])?\n)*")


class Speaker:
    """Says plans in all of some dialects at once. Safe across threads.

    A dialect that raises, or says what can not be sent, is left out of the call and warned about once. What was said of
    a plan is kept, for most calls of a chain have the plan of the call before.

    Args:
        dialects: in the order in which they speak; of those of one name the first.
    """

    def __init__(self, dialects: Iterable[Dialect]) -> None:
        by_name: dict[str, Dialect] = {}
        for dialect in dialects:
            by_name.setdefault(dialect.name, dialect)
        self.dialects = tuple(by_name.values())
        self._steady = tuple(d for d in self.dialects if d.is_steady)
        self._varying = tuple(d for d in self.dialects if not d.is_steady)
        self._kept: dict[tuple[Any, ...], Said] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The dialects' names."""
        return tuple(dialect.name for dialect in self.dialects)

    @property
    def provider(self) -> str | None:
        """Whose server is spoken to, in the words of `CallRecord.provider`; `None` for a Dynamo."""
        return next((d.provider for d in self.dialects if d.provider is not None), None)

    def without_plan(self) -> Speaker | None:
        """The voice where prefixes are turned off: the dialects that need no plan, if there are any."""
        dialects = [dialect for dialect in self.dialects if not dialect.needs_plan]
        return Speaker(dialects) if dialects else None

    def say(self, plan: ServingPlan = NO_PLAN) -> Said:
        """The plan in these dialects, of those that say the same thing twice the first.

        Raises:
            Exception: what a dialect raises that does not fail open.
        """
        key = plan[:-1]  # all but the number of calls to come, which is in no dialect and different for each call
        said = self._kept.get(key)
        if said is None:
            said = self._together(self._steady, plan)
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = said
        return combined((said, self._together(self._varying, plan))) if self._varying else said

    @property
    def usage_readers(self) -> tuple[Callable[[Mapping[str, Any]], Usage | None], ...]:
        """What reads the usage of servers that have names of their own for it."""
        return tuple(d.read_usage for d in self.dialects if type(d).read_usage is not Dialect.read_usage)

    @staticmethod
    def _together(dialects: tuple[Dialect, ...], plan: ServingPlan) -> Said:
        sayings = []
        for dialect in dialects:
            try:
                sayings.append((dialect, dialect.say(plan)))
            except Exception as error:
                if not dialect.fails_open:
                    raise
                _warn(dialect, error)
        try:
            return _checked([said for _, said in sayings], all(map(_is_ours, dialects)))
        except Exception:
            # Somebody said what can not be sent. Who it was is asked only now, for it takes as long as the rest.
            sendable = []
            for dialect, said in sayings:
                try:
                    _checked([said])
                    sendable.append(said)
                except Exception as error:
                    _warn(dialect, error)
            return combined(sendable)


def _warn(dialect: Dialect, error: Exception) -> None:
    name = dialect.name
    warn_once(logger, ("dialect", name), "The dialect %s failed; calls go on without it", name, error=error)


def _is_ours(dialect: Dialect) -> bool:
    return type(dialect).__module__.startswith(_OUR_ROOM) and not isinstance(dialect, _Foreign)


def _checked(sayings: list[Said], ours: bool = False) -> Said:
    """Some sayings as one; those of our own dialects, whose tests say that they can be sent, as they are.

    Raises:
        ValueError: for a header that no HTTP client takes.
        Exception: for what is no `Said`, and for members that have no JSON.
    """
    together = combined(sayings)
    if ours:
        return together
    if not _HEADERS.fullmatch(b"".join([b"%b:%b\n" % header for header in together.headers])):
        raise ValueError(f"{together.headers!r} are no headers")
    for name in together.members:
        name.encode()
    return together


class _Foreign(Dialect):
    """A dialect of others that is no subclass of ours: something with a `say`, or a function."""

    def __init__(self, name: str, thing: Any) -> None:
        self.name = name
        self._say: Callable[[ServingPlan], Said] = getattr(thing, "say", thing)
        self._read_usage = getattr(thing, "read_usage", super().read_usage)
        self.needs_plan = bool(getattr(thing, "needs_plan", True))
        self.is_steady = bool(getattr(thing, "is_steady", True))
        self.provider = getattr(thing, "provider", None)

    def say(self, plan: ServingPlan) -> Said:
        return self._say(plan)

    def read_usage(self, usage: Mapping[str, Any]) -> Usage | None:
        found: Usage | None = self._read_usage(usage)
        return found


def as_dialect(name: str, thing: Any) -> Dialect:
    """What an entry point names, as a dialect: a class, an object, or a function of the plan.

    Raises:
        TypeError: if it is none of these.
    """
    made = thing() if isinstance(thing, type) else thing
    if isinstance(made, Dialect):
        return made
    if not callable(getattr(made, "say", made)):
        raise TypeError(f"{made!r} is no dialect")
    return _Foreign(name, made)
