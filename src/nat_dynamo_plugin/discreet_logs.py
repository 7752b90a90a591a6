"""Log records without secrets.

A logger's filters see what is logged at that logger alone, and a handler's filters are its owner's. What every record
of a logger's children passes on its way up to the application's handlers is a handler of the logger between them.
"""

from __future__ import annotations

import logging
import traceback

from nat_dynamo_plugin.secrets import redacted

LOGGERS = ("nat_dynamo_plugin", "hpack")
"""Ours, and the one of HTTP/2, which logs headers at DEBUG."""


class DiscreetHandler(logging.Handler):
    """Takes secrets out of a record before other handlers see it. Writes nothing itself."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Change the record, if need be; without the lock of those that write."""
        try:
            self._clean(record)
        except Exception:
            # Whoever writes it will fail as this did; what it would have been is not known to be free of secrets.
            record.msg, record.args, record.exc_info = "A log line could not be made: %s", (record.name,), None
        last = logging.lastResort
        # Python's own way out for a program that has not set up logging; a handler of ours must not close it.
        if last is not None and record.levelno >= last.level and not _has_others(record.name):
            last.handle(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Nothing."""

    @staticmethod
    def _clean(record: logging.LogRecord) -> None:
        said = record.getMessage()
        if (text := redacted(said)) != said:
            record.msg, record.args = text, None
        if record.exc_info and record.exc_info[1] is not None:
            trace = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
            if (text := redacted(trace)) != trace:
                record.exc_text, record.exc_info = text, None
        elif record.exc_text:
            record.exc_text = redacted(record.exc_text)
        if record.stack_info:
            record.stack_info = redacted(record.stack_info)


def _has_others(name: str) -> bool:
    """Whether any other handler gets the records of a logger."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        if any(not isinstance(handler, DiscreetHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def guard_logs() -> None:
    """Let nothing of ours log a secret that this process knows. Does nothing the second time."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(handler, DiscreetHandler) for handler in logger.handlers):
            logger.handlers.insert(0, DiscreetHandler())  # before any that the application has put there
