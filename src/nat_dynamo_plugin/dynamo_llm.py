"""The documented names of NAT 1.4's `nat.llm.dynamo_llm`, as a thin facade over this package."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.dialects.prefix_headers import PrefixHeaders
from nat_dynamo_plugin.nat.takeover import dynamo_llm
from nat_dynamo_plugin.plan.serving import make_plan
from nat_dynamo_plugin.question.hints import (
    DynamoHints,
    PrefixHints,
    PrefixLevel,
    parse_level_or_number,
    resolve_hints,
)
from nat_dynamo_plugin.question.identity import CallIdentity
from nat_dynamo_plugin.question.ids import PrefixTemplate
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext

DEFAULT_TEMPLATE = "nat-dynamo-{uuid}"


def _create_dynamo_request_hook(
    prefix_template: str | None, total_requests: int, osl: str, iat: str
) -> Callable[[httpx.Request], Awaitable[None]]:
    """An async httpx request hook that sets the four `x-prefix-*` headers.

    A `DynamoPrefixContext` and a `DynamoHints.scope` around a call are stronger than what is given here.

    Args:
        prefix_template: template of the id used outside any `DynamoPrefixContext`, made once for this hook.
        total_requests: LLM calls expected of one chain of reasoning in all, 1 or more.
        osl: output tokens expected of one call: LOW, MEDIUM or HIGH, in any case, or a number.
        iat: time from the end of one answer to the start of the chain's next call: LOW, MEDIUM or HIGH, in any case,
            or ms.

    Raises:
        ValueError: for an unknown placeholder or level.
    """
    dialect = PrefixHeaders()
    template = PrefixTemplate(prefix_template or DEFAULT_TEMPLATE)
    config = PrefixHints(
        total_requests=total_requests,
        osl=parse_level_or_number("osl", osl),
        iat=parse_level_or_number("iat", iat),
    )

    async def set_prefix_headers(request: httpx.Request) -> None:
        prefix_id = DynamoPrefixContext.get() or template.render(run=None, conversation=None, function=None)
        identity = CallIdentity(prefix_id, prefix_id, None, ())
        hints = resolve_hints(config=config, call_index=0, scope=DynamoHints.current())
        for name, value in dialect.say(make_plan(identity, hints, 0)).headers:
            request.headers[name.decode("ascii")] = value.decode("ascii")

    return set_prefix_headers


def create_httpx_client_with_dynamo_hooks(
    prefix_template: str | None, total_requests: int, osl: str, iat: str, timeout: float = 600.0
) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` whose one request hook sets the `x-prefix-*` headers.

    Args:
        prefix_template: see `_create_dynamo_request_hook`, like the next three.
        total_requests: as there.
        osl: as there.
        iat: as there.
        timeout: seconds.
    """
    hook = _create_dynamo_request_hook(prefix_template, total_requests, osl, iat)
    return httpx.AsyncClient(event_hooks={"request": [hook]}, timeout=httpx.Timeout(timeout))


__all__ = [
    "DynamoModelConfig",
    "DynamoPrefixContext",
    "PrefixLevel",
    "_create_dynamo_request_hook",
    "create_httpx_client_with_dynamo_hooks",
    "dynamo_llm",
]
