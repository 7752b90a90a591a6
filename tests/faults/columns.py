"""The frameworks that the faults are tried on, each sync and async; another one is one more line in `FRAMEWORKS`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import openai

from nat_dynamo_plugin import DynamoModelConfig
from nat_dynamo_plugin.running import service_of

from ..conformance.frameworks.drivers import Driver, LangChain, make_client

MODEL = "kettle-7b"
"""`model_name` of every call."""


class PlainOpenAI(Driver):
    """The OpenAI library's own clients on our HTTP clients, as most frameworks use them."""

    @staticmethod
    def _messages(question: str) -> Any:
        return [{"role": "user", "content": question}]

    async def ask(self, llm: Any, question: str) -> str:
        answer = await llm.asynchronous.chat.completions.create(model=MODEL, messages=self._messages(question))
        return str(answer.choices[0].message.content)

    def ask_sync(self, llm: Any, question: str) -> str:
        answer = llm.sync.chat.completions.create(model=MODEL, messages=self._messages(question))
        return str(answer.choices[0].message.content)

    async def stream(self, llm: Any, question: str) -> list[str]:
        chunks = await llm.asynchronous.chat.completions.create(
            model=MODEL, messages=self._messages(question), stream=True
        )
        return [choice.delta.content or "" async for chunk in chunks for choice in chunk.choices or ()]


@dataclass
class _Pair:
    sync: openai.OpenAI
    asynchronous: openai.AsyncOpenAI


@asynccontextmanager
async def _plain_clients(_driver: Driver, config: DynamoModelConfig) -> AsyncIterator[_Pair]:
    async with service_of(config).http_clients() as http:
        yield _Pair(http.openai(), http.async_openai())


def _stream_plain(llm: _Pair, question: str) -> list[str]:
    chunks = llm.sync.chat.completions.create(model=MODEL, messages=PlainOpenAI._messages(question), stream=True)
    return [choice.delta.content or "" for chunk in chunks for choice in chunk.choices or ()]


def _stream_langchain(llm: Any, question: str) -> list[str]:
    return [str(chunk.text) for chunk in llm.stream(question) if chunk.text]


@dataclass(frozen=True)
class Framework:
    """A framework under faults.

    Attributes:
        name: heads its columns.
        driver: how it is asked.
        client: makes its client; `make_client` for what NAT's builder would give.
        stream_sync: how it streams without a loop; `None` if it can not.
        raises: its exceptions for those of the OpenAI library, where they are others.
    """

    name: str
    driver: type[Driver]
    client: Callable[[Driver, DynamoModelConfig], AbstractAsyncContextManager[Any]] = make_client
    stream_sync: Callable[[Any, str], list[str]] | None = None
    raises: Callable[[str], type[Exception]] = lambda name: getattr(openai, name)


FRAMEWORKS = (
    Framework("LangChain", LangChain, stream_sync=_stream_langchain),
    Framework("OpenAI", PlainOpenAI, _plain_clients, stream_sync=_stream_plain),
)


@dataclass(frozen=True)
class Column:
    """A framework asked in one of four ways."""

    framework: Framework
    sync: bool
    streamed: bool

    def __str__(self) -> str:
        return f"{self.framework.name} {'sync' if self.sync else 'async'}{' stream' if self.streamed else ''}"

    @property
    def exists(self) -> bool:
        """Whether the framework can be asked so."""
        driver = self.framework.driver
        if not self.sync:
            return driver.has_async
        return self.framework.stream_sync is not None if self.streamed else driver.has_sync

    async def call(self, llm: Any, question: str) -> str:
        """Ask and give the whole text of the answer."""
        driver = self.framework.driver()
        if self.sync and self.streamed:
            assert self.framework.stream_sync is not None
            return "".join(self.framework.stream_sync(llm, question))
        if self.sync:
            return driver.ask_sync(llm, question)
        if self.streamed:
            return "".join(await driver.stream(llm, question))
        return await driver.ask(llm, question)


COLUMNS = tuple(
    column
    for framework in FRAMEWORKS
    for streamed in (False, True)
    for sync in (False, True)
    if (column := Column(framework, sync, streamed)).exists
)
