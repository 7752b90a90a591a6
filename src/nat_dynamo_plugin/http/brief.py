"""A failed call in NAT's log, in a line.

NAT logs what a workflow raises with its traceback: 140 lines of HTTP libraries for a server that is not there. The
error's text already says whom was asked for what, how often, for how long, and what to do (see `words.about`).
"""

from __future__ import annotations

import logging

from nat_dynamo_plugin.http.words import says_about

NAT = "nat"


class BriefHandler(logging.Handler):
    """Takes the traceback of a failed call of ours out of a record before other handlers see it. Writes nothing.

    With NAT at DEBUG all tracebacks stay.
    """

    def handle(self, record: logging.LogRecord) -> bool:
        """Change the record, if need be; without the lock of those that write."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None or logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
            return True
        told = str(error)
        if says_about(told):
            said = record.getMessage()
            record.msg = said if told in said else f"{said}: {type(error).__name__}: {told}"
            record.args, record.exc_info, record.exc_text = None, None, None
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Nothing."""


def brief_logs() -> None:
    """Let NAT log our failed calls in a line each. Does nothing the second time."""
    logger = logging.getLogger(NAT)
    if not any(isinstance(handler, BriefHandler) for handler in logger.handlers):
        logger.handlers.insert(0, BriefHandler())
