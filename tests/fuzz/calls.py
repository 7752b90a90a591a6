"""Calls of OpenAI's library through all our layers to a server that answers what it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import openai

from nat_dynamo_plugin import CallRecord, DynamoModelConfig, DynamoTransport, make_service

URL = "http://127.0.0.1:1/v1"
MESSAGES: Any = [{"role": "user", "content": "Is the valve shut?"}]


class Body(httpx.SyncByteStream):
    """A body in pieces, which may break off."""

    def __init__(self, pieces: list[bytes], error: Exception | None = None) -> None:
        self.pieces, self.error = pieces, error

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.error is not None:
            raise self.error


class Seen(NamedTuple):
    """What came of a call.

    Attributes:
        error: what the caller got for an exception.
        answer: what it got else; of a stream the events.
        record: the call's record.
    """

    error: BaseException | None
    answer: Any
    record: CallRecord


class Caller:
    """Makes calls with one client, that of a config with the defaults and no retries.

    Attributes:
        reply: what the server answers next.
    """

    def __init__(self) -> None:
        self.reply = httpx.Response(200)
        self._records: list[CallRecord] = []
        config = DynamoModelConfig(base_url=URL, model_name="m", api_key="unused", max_retries=0, on_outage="ignore")
        service = make_service(config, emit_record=self._records.append)
        self.http = httpx.Client(transport=DynamoTransport(httpx.MockTransport(lambda _: self.reply), service))
        self._llm = openai.OpenAI(base_url=URL, api_key="unused", http_client=self.http, max_retries=0)

    def call(self, reply: httpx.Response, *, streamed: bool) -> Seen:
        """Ask through OpenAI's library."""
        self.reply = reply
        self._records.clear()
        error, answer = None, None
        try:
            answer = self._llm.chat.completions.create(model="m", messages=MESSAGES, stream=streamed)
            answer = list(answer) if streamed else answer
        except Exception as caught:
            error = caught
        (record,) = self._records
        return Seen(error, answer, record)

    def bytes_of(self, reply: httpx.Response) -> tuple[bytes, CallRecord]:
        """What of a stream is passed on to the caller, and the call's record."""
        self.reply = reply
        self._records.clear()
        body = {"model": "m", "messages": MESSAGES, "stream": True}
        with self.http.stream("POST", f"{URL}/chat/completions", json=body) as response:
            passed = b"".join(response.iter_raw())
        (record,) = self._records
        return passed, record
