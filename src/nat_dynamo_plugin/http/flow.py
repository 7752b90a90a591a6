"""Flows, as far as admission and learning need them. Stands in for the real module."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

from nat_dynamo_plugin.http.call import Call, Reply


class BothWays(AbstractContextManager[Any], AbstractAsyncContextManager[Any], Protocol):
    """A context manager for `with` and for `async with`."""


class Enter:
    """Enter a context manager, waiting if it must."""

    def __init__(self, manager: BothWays) -> None:
        self.manager = manager


Flow = Generator[Enter, Any, Reply]
Send = Callable[[Call], Flow]
