"""Warnings about what can go wrong with every call, said once."""

from __future__ import annotations

import logging

MAX_SAID = 1024
"""Warnings remembered; after so many different ones, further ones are not said."""

_said: set[tuple[str, ...]] = set()


def warn_once(logger: logging.Logger, key: tuple[str, ...], message: str, *args: object, error: object = None) -> None:
    """Log a warning the first time that its key comes up in this process.

    Args:
        logger: whose warning it is.
        key: what is wrong, and where.
        message: as for `logging`, with `args`.
        error: the exception to show the trace of, if there is one.
    """
    if key in _said or len(_said) >= MAX_SAID:
        return
    _said.add(key)
    logger.warning(message, *args, exc_info=error)  # type: ignore[arg-type]
