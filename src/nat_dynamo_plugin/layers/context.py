"""Keeps long conversations within a window, and the beginning of what is sent the same from one cut to the next.

It stands below the user's own layers and the recording, which see the conversation as its caller has it: so a recorded
run is found again however it is cut. It stands above the response cache and the question, for an answer belongs to what
the model saw, and what is learned of a question's prompts is to be of those that are sent.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from nat_dynamo_plugin.context.cuts import Cut, Cuts, Window
from nat_dynamo_plugin.context.history import Asked, read
from nat_dynamo_plugin.http.answer_fields import CHAT
from nat_dynamo_plugin.http.call import Call
from nat_dynamo_plugin.http.flow import IO, AsyncIO, Flow, Send
from nat_dynamo_plugin.plan.prompt_size import PromptSize
from nat_dynamo_plugin.question.org import current_org
from nat_dynamo_plugin.telemetry.record import CallRecord

logger = logging.getLogger(__name__)

Summary = Callable[[list[dict[str, Any]]], str | Awaitable[str]]
"""Gives a text that stands for messages (of chat completions); a plain function is called in a thread of its own where
the caller's is an event loop's, an `async def` is awaited."""

_summarising: ContextVar[bool] = ContextVar("dynamo_summarising", default=False)


class Summarise:
    """Has messages summarised: what a flow yields for it. Gives the text, or `None`, logged, if there is none."""

    __slots__ = ("_messages", "_summary")

    def __init__(self, summary: Summary, messages: list[bytes]) -> None:
        self._summary = summary
        self._messages = messages

    def run(self, io: IO) -> str | None:
        """Ask, blocking."""
        return self._told(self._asked)

    async def run_async(self, io: AsyncIO) -> str | None:
        """Ask, awaiting, or in a thread."""
        if not inspect.iscoroutinefunction(self._summary):
            return await anyio.to_thread.run_sync(self._told, self._asked)
        token = _summarising.set(True)
        try:
            text = await self._summary(self._decoded())
        except Exception as error:  # whatever a foreign function raises
            self._failed(error)
            return None
        finally:
            _summarising.reset(token)
        return self._told(lambda: text)

    def _asked(self) -> Any:
        # The summary's own calls may come through here: they are not to be summarised in turn.
        token = _summarising.set(True)
        try:
            if inspect.iscoroutinefunction(self._summary):
                return anyio.run(self._summary, self._decoded())
            return self._summary(self._decoded())
        finally:
            _summarising.reset(token)

    def _told(self, ask: Callable[[], Any]) -> str | None:
        try:
            text = ask()
            if not isinstance(text, str) or not text.strip():
                raise TypeError(f"a text is wanted, not {type(text).__name__}, nor an empty one")
        except Exception as error:  # whatever a foreign function raises
            self._failed(error)
            return None
        return text

    def _failed(self, error: Exception) -> None:
        # Not the error's text, which may hold the conversation.
        logger.warning("context: %r failed (%s); the conversation is not cut", self._summary, type(error).__name__)

    def _decoded(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(one) for one in self._messages]


class ContextLayer:
    """Leaves out the oldest turns of chat completions that are too long.

    Args:
        window: what prompts are kept within.
        summary: gives what stands in the place of what is left out; `None` for nothing.
    """

    def __init__(self, window: Window, summary: Summary | None = None) -> None:
        self._cuts = Cuts(window)
        self._size = PromptSize()
        self._summary = summary

    def flow(self, call: Call, send: Send) -> Flow:
        """Shorten, and send."""
        body = call.body.raw
        if body is None or call.api != CHAT or _summarising.get():
            return send(call)
        if self._cuts.is_needed(body, self._size.tokens) and (asked := read(body)) is not None:
            return self._shortened(call, send, asked)
        return self._sent(call, send, body)

    def _shortened(self, call: Call, send: Send, asked: Asked) -> Flow:
        history, owner = asked.history, current_org() or ""
        cut = self._cuts.find(history, owner)
        end = self._cuts.new_end(asked, cut, self._size.tokens)
        if end is not None:
            text: str | None = None
            if self._summary is not None:
                text = yield Summarise(self._summary, Cut(end).replaced(history, cut))
            if self._summary is None or text is not None:
                cut = self._cuts.remember(history, owner, Cut(end, text))
        body = call.body.raw or b""
        if cut is not None:
            call.body.raw = body = asked.saying(cut.shorten(history))
            call.record.messages_left_out = len(history.left_out(cut.end))
        return (yield from self._sent(call, send, body))

    def _sent(self, call: Call, send: Send, body: bytes) -> Flow:
        if b";base64," not in body:  # of which no byte is a part of a token
            call.on_end(partial(self._learn, len(body)))
        return send(call)

    def _learn(self, size: int, record: CallRecord) -> None:
        if record.prompt_tokens and record.cache is None:
            self._size.learn(size, record.prompt_tokens)
