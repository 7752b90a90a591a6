"""The httpx clients that every framework's client is built on: transport, one retry layer, timeouts, limits."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_retries import Retry, RetryTransport
from nat.builder.context import ContextState
from nat.llm.utils.constants import LLMHeaderPrefix

from ..config import DynamoModelConfig
from ..provider import Service, service_of
from ..transport import DynamoTransport

logger = logging.getLogger(__name__)

RETRY_STATUSES = (408, 409, 529)
"""Retried besides `retry_on_status_codes`: what the OpenAI library retries, and Dynamo's word for overload."""


@dataclass(frozen=True)
class HttpClients:
    """A pair of httpx clients for one LLM, and what the framework's client needs to know besides."""

    sync: httpx.Client
    asynchronous: httpx.AsyncClient
    timeout: httpx.Timeout
    service: Service


def timeouts(config: DynamoModelConfig) -> httpx.Timeout:
    """The four timeouts in seconds: an LLM may think for minutes while a connect must fail in seconds."""
    return httpx.Timeout(
        connect=config.connect_timeout,
        read=config.request_timeout,
        write=config.request_timeout,
        pool=config.pool_timeout,
    )


def retry_policy(config: DynamoModelConfig) -> Retry:
    """The one retry layer, below our transport: `max_retries` retries, or NAT's `num_retries` attempts where set.

    Waits 0.25 s, doubling, with full jitter, at most 8 s; a `Retry-After` is respected. A read timeout is not retried:
    the server is still working on the first request.
    """
    retries = config.max_retries
    if "num_retries" in config.model_fields_set:
        retries = config.num_retries - 1
    if not config.do_auto_retry:
        retries = 0
    statuses = {*RETRY_STATUSES, *expand_statuses(config.retry_on_status_codes)}
    return Retry(
        total=max(0, retries),
        allowed_methods=["POST", "GET"],
        status_forcelist=statuses,
        retry_on_exceptions=(
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.WriteError,
            httpx.ReadError,
            httpx.RemoteProtocolError,
        ),
        backoff_factor=0.25,
        max_backoff_wait=8.0,
    )


def expand_statuses(codes: list[int | str]) -> set[int]:
    """HTTP statuses of NAT's patterns: a number, or text in which `x` or `*` stands for any digit (`5xx`)."""
    statuses: set[int] = set()
    for code in codes:
        pattern = str(code).replace("*", "x").lower()
        statuses.update(
            status
            for status in range(100, 600)
            if len(pattern) == 3 and all(p in ("x", d) for p, d in zip(pattern, str(status), strict=True))
        )
    return statuses


def _payload_headers(request: httpx.Request) -> None:
    """NAT's custom payload fields as `X-Payload-*` headers, as its own OpenAI client sends them."""
    message = ContextState.get().input_message.get()
    extra = getattr(message, "model_extra", None)
    for key, value in (extra or {}).items():
        if value is not None:
            try:
                request.headers[f"{LLMHeaderPrefix.PAYLOAD}-{key.replace('_', '-')}"] = str(value)
            except (UnicodeEncodeError, ValueError):
                logger.debug("The payload field %s can not travel in a header", key)


async def _payload_headers_async(request: httpx.Request) -> None:
    _payload_headers(request)


@asynccontextmanager
async def http_clients(config: DynamoModelConfig) -> AsyncIterator[HttpClients]:
    """The clients of a config, closed at the end of the block."""
    service = service_of(config)
    common: dict[str, Any] = {
        "verify": config.verify_ssl,
        "http2": config.http2,
        "limits": httpx.Limits(
            max_connections=config.max_connections, max_keepalive_connections=config.max_connections
        ),
    }
    retry = retry_policy(config)

    def wrapped(transport: httpx.BaseTransport | httpx.AsyncBaseTransport) -> DynamoTransport:
        return DynamoTransport(
            RetryTransport(transport, retry) if retry.total else transport,
            service.planner,
            answer_key=service.answer_key,
            memory=service.memory,
        )

    timeout = timeouts(config)
    with httpx.Client(
        transport=wrapped(httpx.HTTPTransport(**common)),
        timeout=timeout,
        event_hooks={"request": [_payload_headers]},
    ) as sync:
        async with httpx.AsyncClient(
            transport=wrapped(httpx.AsyncHTTPTransport(**common)),
            timeout=timeout,
            event_hooks={"request": [_payload_headers_async]},
        ) as asynchronous:
            yield HttpClients(sync, asynchronous, timeout, service)
