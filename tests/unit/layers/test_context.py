"""What is sent of a long conversation, sync and async, with and without a summary."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from tests.unit.context.conversations import body, said, step

from nat_dynamo_plugin.context.cuts import NOTICE, Window
from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.layers.context import ContextLayer
from nat_dynamo_plugin.question.org import org_scope

WINDOW = Window(500, 2, 0.5)
OK = Reply.made(200, b"{}")


def history(steps: int) -> list[dict[str, Any]]:
    return [said("system", "s"), said("user", "go"), *[one for number in range(steps) for one in step(number)]]


def asking(drive: Any, server: Any, layer: ContextLayer, messages: list[Any], api: str = "chat_completions") -> Call:
    call: Call = drive.call(body=body(messages))
    call.api = api
    drive(layer, server, call)
    return call


def sent(server: Any) -> list[Any]:
    messages: list[Any] = json.loads(server.sent[-1]["body"])["messages"]
    return messages


def test_a_long_conversation_is_shortened_and_stays_so(drive: Any, scripted: Any) -> None:
    layer, server = ContextLayer(WINDOW), scripted(OK)
    assert asking(drive, server, layer, history(3)).record.messages_left_out == 0
    assert server.sent[-1]["body"] == body(history(3)), "the caller's own bytes"
    call = asking(drive, server, layer, history(30))
    first = sent(server)
    assert first[:2] == history(30)[:2] and first[2:] == history(30)[-len(first) + 2 :]
    assert call.record.messages_left_out == 62 - len(first) > 0
    again = asking(drive, server, layer, history(31))
    assert sent(server) == [*first, *step(30)]
    assert again.record.messages_left_out == call.record.messages_left_out


def test_other_apis_and_bodies_that_are_not_in_memory_pass(drive: Any, scripted: Any) -> None:
    layer, server = ContextLayer(Window(10, 1, 0.5)), scripted(OK)
    asking(drive, server, layer, history(9), api="completions")
    assert sent(server) == history(9)
    drive(layer, server, drive.call(body=b"no JSON, but long enough to be looked at" * 9))
    assert server.sent[-1]["body"].startswith(b"no JSON")
    drive(layer, server, drive.call(body=None))
    assert server.sent[-1]["body"] is None


def test_answers_teach_what_a_token_takes(drive: Any, scripted: Any) -> None:
    layer, server, messages = ContextLayer(WINDOW), scripted(OK), history(7)
    assert 250 < len(body(messages)) / 4 < 500
    call = asking(drive, server, layer, messages)
    assert sent(server) == messages
    call.record.prompt_tokens = 520
    call.record.cache = "exact"
    call.finish()
    asking(drive, server, layer, messages)
    assert sent(server) == messages, "an answer out of the cache teaches nothing"
    call = asking(drive, server, layer, messages)
    call.record.prompt_tokens = 520
    call.finish()
    asking(drive, server, layer, messages)
    assert len(sent(server)) < len(messages)


def test_two_orgs_share_no_cut(drive: Any, scripted: Any) -> None:
    told: list[int] = []

    def summary(messages: list[Any]) -> str:
        told.append(len(messages))
        return f"summary {len(told)}"

    layer, server = ContextLayer(WINDOW, summary), scripted(OK)
    found = []
    for org in ("a", "b", "a"):
        with org_scope(org):
            asking(drive, server, layer, history(30))
        found.append(sent(server)[2]["content"])
    assert found == ["summary 1", "summary 2", "summary 1"]


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_summary_is_asked_for_once_a_cut(drive: Any, scripted: Any, kind: str) -> None:
    told: list[list[Any]] = []

    def plain(messages: list[Any]) -> str:
        told.append(messages)
        # A summary may be written by the same model: its own call is sent as it is.
        asking(drive_within, server, layer, history(40))
        return f"summary {len(told)}"

    async def awaited(messages: list[Any]) -> str:
        told.append(messages)
        return f"summary {len(told)}"

    drive_within = type(drive)(False)
    layer, server = ContextLayer(WINDOW, plain if kind == "plain" else awaited), scripted(OK)
    asking(drive, server, layer, history(30))
    assert sent(server)[2] == said("user", "summary 1") and told[0][0] == history(30)[2]
    if kind == "plain":
        assert json.loads(server.sent[0]["body"])["messages"] == history(40)
    asking(drive, server, layer, history(31))
    assert sent(server)[2] == said("user", "summary 1") and len(told) == 1
    asking(drive, server, layer, history(50))
    assert sent(server)[2] == said("user", "summary 2") and len(told) == 2
    assert told[1][0] == said("user", "summary 1") and told[1][1] == history(31)[2 + len(told[0])]


def raising(messages: list[Any]) -> str:
    raise OSError("the conversation was: secret")


async def raising_later(messages: list[Any]) -> str:
    raise OSError("the conversation was: secret")


@pytest.mark.parametrize("summary", [raising, raising_later, lambda messages: None, lambda messages: " "])
def test_without_its_summary_the_history_is_not_cut(
    drive: Any, scripted: Any, summary: Any, caplog: pytest.LogCaptureFixture
) -> None:
    layer, server = ContextLayer(WINDOW, summary), scripted(OK)
    with caplog.at_level(logging.WARNING):
        call = asking(drive, server, layer, history(30))
    assert sent(server) == history(30) and call.record.messages_left_out == 0
    [line] = [record.getMessage() for record in caplog.records]
    assert "not cut" in line and "secret" not in line


def test_between_two_of_the_users_messages_stands_a_notice(drive: Any, scripted: Any) -> None:
    messages = [said("user", "1")]
    for number in range(40):
        messages += [said("assistant", f"a{number}" * 9), said("user", f"u{number}" * 9)]
    server = scripted(OK)
    asking(drive, server, ContextLayer(WINDOW), messages)
    assert [one["role"] for one in sent(server)[:3]] == ["user", "assistant", "user"]
    assert sent(server)[1]["content"] == NOTICE
