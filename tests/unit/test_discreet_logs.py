"""What our loggers say is clean before any handler of the application has it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from nat_dynamo_plugin import secrets
from nat_dynamo_plugin.discreet_logs import DiscreetHandler, guard_logs
from nat_dynamo_plugin.secrets import Secrets

KEY = "sk-canary-of-logs"


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "known", Secrets())
    secrets.remember(KEY)
    guard_logs()


@pytest.fixture(params=["nat_dynamo_plugin", "nat_dynamo_plugin.http.of_tomorrow", "hpack.hpack"])
def logger(request: pytest.FixtureRequest) -> Iterator[logging.Logger]:
    made = logging.getLogger(request.param)
    yield made


def test_messages_arguments_and_traces(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logger.debug(f"in the text: {KEY}")
        logger.info("an argument: %r of %d", {"key": KEY}, 7)
        try:
            raise ValueError(f"of {KEY}")
        except ValueError:
            logger.exception("a trace", stack_info=True)
        logger.warning("nothing of %s", "it")
    assert KEY not in caplog.text and "in the text: ***" in caplog.text and "{'key': '***'} of 7" in caplog.text
    assert "ValueError: of ***" in caplog.text and "nothing of it" in caplog.text
    assert not any(KEY in repr(vars(record)) for record in caplog.records)


def test_a_trace_without_a_secret_stays_an_exception(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError("plain")
    logger.error("failed", exc_info=error)
    assert caplog.records[0].exc_info is not None and caplog.records[0].exc_info[1] is error


def test_a_line_that_can_not_be_made(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    logger.warning("%d", KEY)
    assert KEY not in caplog.text and "could not be made" in caplog.text


def test_once_a_logger() -> None:
    for _ in range(3):
        guard_logs()
    handlers = logging.getLogger("nat_dynamo_plugin").handlers
    assert sum(isinstance(handler, DiscreetHandler) for handler in handlers) == 1


def test_a_program_without_logging_still_sees_warnings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logging.getLogger("nat_dynamo_plugin.x").warning("said of %s", KEY)
    logging.getLogger("nat_dynamo_plugin.x").info("not said")
    assert capsys.readouterr().err == "said of ***\n"
