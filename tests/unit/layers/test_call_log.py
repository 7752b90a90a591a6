"""One line a call, with what is known of it and nothing that is to be kept."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from nat_dynamo_plugin.config.log import LogConfig
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.http.call import Reply
from nat_dynamo_plugin.http.flow import Failure
from nat_dynamo_plugin.layers.answer import AnswerLayer
from nat_dynamo_plugin.layers.call_log import CallLogLayer
from nat_dynamo_plugin.secrets import remember

SECRET = "sk-the-log-must-not-have-it"
BODY = json.dumps({"messages": [{"role": "user", "content": f"Call 555-0199 \n with {SECRET}"}]}).encode()
ANSWER = {"model": "m-1", "choices": [{"message": {"content": "555-0199, {}"}, "finish_reason": "stop"}]}
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}}


class Inside:
    """A log above what answers."""

    def __init__(self, layer: CallLogLayer) -> None:
        self._layer = layer

    def flow(self, call: Any, send: Any) -> Any:
        return self._layer.flow(call, lambda call: AnswerLayer().flow(call, send))


def lines(
    caplog: Any, drive: Any, scripted: Any, layer: CallLogLayer, *, answer: Any = None, **known: Any
) -> list[str]:
    """What is logged of one call of which this is known."""
    caplog.clear()
    call = drive.call({"authorization": f"Bearer {SECRET}"}, BODY)
    for name, value in known.items():
        setattr(call.record, name, value)
    with caplog.at_level(logging.INFO, "nat_dynamo_plugin.calls"):
        try:
            drive(
                Inside(layer), scripted(answer or Reply.made(200, json.dumps(ANSWER | {"usage": USAGE}).encode())), call
            )
        except Failure as failure:
            call.fail(failure)
        call.exhausted()
        call.finish()
        call.finish()
    return [record.getMessage() for record in caplog.records if record.name == "nat_dynamo_plugin.calls"]


@pytest.fixture(autouse=True)
def _known() -> None:
    remember(SECRET)


def test_a_line(caplog: Any, drive: Any, scripted: Any) -> None:
    [line] = lines(
        *(caplog, drive, scripted, CallLogLayer()),
        prefix_id="q 1",
        function_path=("workflow", "tool"),
        worker_id=7,
        gate_wait_ms=1.26,
        request_ids=("a", "a-2"),
        request_model="asked",
    )
    total = line.partition(" total_ms=")[2].partition(" ")[0]
    assert line == (
        'call prefix="q 1" function=workflow/tool model=m-1 api=chat_completions streamed=False status=200 attempts=1 '
        f"total_ms={total} gate_wait_ms=1.3 prompt_tokens=9 cached_tokens=0 completion_tokens=2 worker=7 finish=stop "
        "request=a-2"
    )
    assert float(total) >= 0


def test_as_json(caplog: Any, drive: Any, scripted: Any) -> None:
    [line] = lines(
        caplog, drive, scripted, CallLogLayer(as_json=True), prefix_id="q", started_at=0.25, retry_wait_ms=2.0
    )
    told = json.loads(line)
    assert told.pop("total_ms") >= 0
    assert told == {
        "event": "llm_call",
        "started_at": "1970-01-01T00:00:00.250+00:00",
        "prefix": "q",
        "model": "m-1",
        "api": "chat_completions",
        "streamed": False,
        "status": 200,
        "attempts": 1,
        "retry_wait_ms": 2.0,
        "prompt_tokens": 9,
        "cached_tokens": 0,
        "completion_tokens": 2,
        "finish": "stop",
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_of_a_call_that_failed(caplog: Any, drive: Any, scripted: Any, as_json: bool) -> None:
    failure = Failure("read", OSError(f"told {SECRET}\nforged line"))
    [line] = lines(*(caplog, drive, scripted, CallLogLayer(as_json=as_json)), answer=failure, request_model="asked")
    assert "asked" in line and "told ***" in line and SECRET not in line and "\n" not in line


@pytest.mark.parametrize("as_json", [False, True])
def test_content_is_there_only_if_asked_for_and_then_redacted(
    caplog: Any, drive: Any, scripted: Any, as_json: bool
) -> None:
    [line] = lines(caplog, drive, scripted, CallLogLayer(as_json=as_json))
    assert "555" not in line and "Call" not in line
    layer = LogConfig(content=True, format="json" if as_json else "text", redact=[r"\d{3}-\d{4}"]).layer()
    assert layer is not None
    [line] = lines(caplog, drive, scripted, layer)
    assert (
        "Call [redacted]" in line and "***" in line and SECRET not in line and "0199" not in line and "\n" not in line
    )
    assert ("answer" in json.loads(line)) if as_json else (" answer=" in line)


def test_a_call_that_failed_has_its_prompt(caplog: Any, drive: Any, scripted: Any) -> None:
    failure = Failure("read", OSError("gone"))
    [line] = lines(caplog, drive, scripted, CallLogLayer(content=True, as_json=True), answer=failure)
    assert "Call 555" in json.loads(line)["prompt"] and "answer" not in json.loads(line)


def test_what_nobody_reads_is_not_written(caplog: Any, drive: Any, scripted: Any) -> None:
    layer = CallLogLayer()
    call = drive.call(None, BODY)
    with caplog.at_level(logging.WARNING, "nat_dynamo_plugin.calls"):
        drive(layer, scripted(Reply.made(200, b"{}")), call)
        call.finish()
    assert caplog.records == []


def test_the_config_takes_the_short_form() -> None:
    def log(value: Any) -> LogConfig | None:
        return DynamoModelConfig(model_name="m", log=value).log

    assert log("calls") == log({}) == LogConfig() and log(None) is None
    off = log({"calls": False})
    assert off is not None and off.layer() is None
    for wrong in ("cals", {"jsn": 1}, {"redact": ["("]}, {"format": "xml"}, True):
        with pytest.raises(ValueError, match="log"):
            log(wrong)
