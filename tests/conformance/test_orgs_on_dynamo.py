"""What the real Dynamo makes of an org: its router's index of cached blocks is another one for each.

The simulated engines themselves take no notice of a salt (Dynamo 1.6.0: `cached_tokens` is the same with and without),
so what an engine keeps apart can not be shown on them.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from nat_dynamo_plugin import CallRecord, DynamoModelConfig, DynamoPrefixContext, org_scope
from nat_dynamo_plugin.question.org import org_digest
from nat_dynamo_plugin.running import running_service
from nat_dynamo_plugin.telemetry import exporters as telemetry

PATIENCE_S = 60.0
CALLS = 8
"""Calls of an org after those without one have been found again."""


async def test_the_router_finds_for_an_org_nothing_of_anybody_else() -> None:
    records: list[CallRecord] = []
    telemetry.set_exporters([records.append])
    config = DynamoModelConfig(local={"workers": 1, "speedup": 50}, org={}, max_tokens=8)
    messages = [{"role": "user", "content": "a word and another " * 200}]
    try:
        async with running_service(config) as service, service.http_clients() as clients:
            openai = clients.async_openai()

            async def found(org: str | None) -> float:
                """Share of the prompt that the router believes cached."""
                with ExitStack() as scopes:
                    if org is not None:
                        scopes.enter_context(org_scope(org))
                    # Each a question of its own, so that no call is sent where the last one went.
                    scopes.enter_context(DynamoPrefixContext.scope(f"question-{len(records)}"))
                    await openai.chat.completions.create(
                        model=clients.model_name,
                        messages=messages,  # type: ignore[arg-type]
                        max_tokens=8,
                    )
                assert records[-1].status == 200 and records[-1].kv_hit_rate is not None
                assert records[-1].org == (None if org is None else org_digest(org))
                return records[-1].kv_hit_rate

            async with asyncio.timeout(PATIENCE_S):
                while await found(None) < 0.9:  # noqa: ASYNC110 - workers tell the router behind the answers
                    await asyncio.sleep(0.05)
            assert [await found(org) for org in ("a", "b") * (CALLS // 2)] == [0.0] * CALLS
            assert await found(None) >= 0.9
    finally:
        telemetry.set_exporters(None)
