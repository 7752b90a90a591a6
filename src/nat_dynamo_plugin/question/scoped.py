"""A context variable with scopes that restore what was before, wherever and in whatever order they are left.

A scope in a generator can be left in another context than it was entered in (another task closes the generator), where
a token of `contextvars` is refused, or while a scope that was entered later in the same context is still open. Then the
value stays behind in the context variable; it is remembered as left, and seen by nobody any more.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")


class Entry(Generic[T]):
    """A value that was set, and what was set around it. Never changed."""

    __slots__ = ("__weakref__", "is_scope", "outer", "value")

    def __init__(self, value: T, outer: Entry[T] | None, *, is_scope: bool) -> None:
        self.value = value
        self.outer = outer
        self.is_scope = is_scope

    def is_inside(self, entry: Entry[T]) -> bool:
        """Whether the other entry was set around this one."""
        outer = self.outer
        while outer is not None and outer is not entry:
            outer = outer.outer
        return outer is not None


class Scoped(Generic[T]):
    """A context variable; see the module."""

    def __init__(self, name: str) -> None:
        self._variable: ContextVar[Entry[T] | None] = ContextVar(name, default=None)
        self._left: WeakSet[Entry[T]] = WeakSet()
        self._any_left = False  # asked for each call, where asking the set would cost more than all the rest

    def get(self) -> Entry[T] | None:
        """The innermost entry of this context."""
        entry = self._variable.get()
        if self._any_left:
            while entry is not None and entry in self._left:
                entry = entry.outer
        return entry

    def set(self, value: T) -> None:
        """Set a value for the rest of this context, in place of one that was set in the same way."""
        outer = self.get()
        while outer is not None and not outer.is_scope:
            outer = outer.outer
        self._variable.set(Entry(value, outer, is_scope=False))

    def clear(self) -> None:
        """Have no value for the rest of this context, or until the scope around this is left."""
        self._variable.set(None)

    def enter(self, value: T) -> tuple[Entry[T], Token[Entry[T] | None]]:
        """Set a value for a scope. What comes back is for `leave`, in a `finally` of the same function."""
        entry = Entry(value, self.get(), is_scope=True)
        return entry, self._variable.set(entry)

    def leave(self, entry: Entry[T], token: Token[Entry[T] | None]) -> None:
        """Restore what was set around a scope."""
        top = self._variable.get()
        if top is None or top is entry or not top.is_scope or not top.is_inside(entry):
            try:
                self._variable.reset(token)
            except ValueError:  # a token of another context
                pass
            else:
                return
        self._left.add(entry)
        self._any_left = True
