"""When does warming the next turn's prefix pay? The evidence behind `plan.WARM_MIN_IAT_MS`.

Conversations of six turns run against an embedded Dynamo whose engines have real speed, with and without
`agent_hints.speculative_prefill`, for several times between an answer and the next call. Both arms of a think time run
one after the other in turn, each conversation with prompts of its own. Printed are the cached share and the server's
time to first token of the calls after the first.

    python eval/benchmarks/warming.py [--repetitions N]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import random
import statistics
import sys

import httpx

from nat_dynamo_plugin import CallRecord, DynamoModelConfig, DynamoPrefixContext, DynamoTransport, make_service
from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig

THINK_MS = (0, 20, 50, 100, 250, 750)
CONVERSATIONS = 8
TURNS = 6
_names = itertools.count()


def words(seed: str, count: int) -> str:
    """Text that no other conversation shares."""
    rng = random.Random(seed)
    nouns = ("cache", "worker", "token", "block", "queue", "agent", "prefix")
    return " ".join(f"{rng.choice(nouns)}{rng.randrange(10_000)}" for _ in range(count))


async def conversation(client: httpx.AsyncClient, url: str, model: str, think_ms: float, warm: bool) -> None:
    """Six calls over one growing prompt."""
    name = f"c{next(_names)}"
    messages = [{"role": "system", "content": words(name, 120)}]
    with DynamoPrefixContext.scope(name):
        for turn in range(TURNS):
            messages.append({"role": "user", "content": words(f"{name}.{turn}", 60)})
            body = {
                "model": model,
                "messages": messages,
                "max_tokens": 96,
                # The caller's own word beats the plan's.
                "nvext": {"agent_hints": {"speculative_prefill": warm}},
            }
            response = await client.post(url, json=body)
            response.raise_for_status()
            messages.append({"role": "assistant", "content": response.json()["choices"][0]["message"]["content"]})
            await asyncio.sleep(think_ms / 1000.0)


async def run(repetitions: int) -> None:
    """Measure and print."""
    records: list[CallRecord] = []
    config = DynamoModelConfig(model_name="m", base_url="http://127.0.0.1:1/v1")
    async with LocalDynamo(LocalDynamoConfig(workers=2, speedup=1.0)) as dynamo:
        url = f"{dynamo.base_url}/chat/completions"
        service = make_service(config, emit_record=records.append)
        transport = DynamoTransport(httpx.AsyncHTTPTransport(), service)
        async with httpx.AsyncClient(transport=transport, timeout=120) as client:
            print("think ms | cached share: plain, warmed | server TTFT ms, mean: plain, warmed")
            for think_ms in THINK_MS:
                found: dict[bool, list[CallRecord]] = {False: [], True: []}
                for _, warm in itertools.product(range(repetitions), (False, True)):
                    records.clear()
                    await asyncio.gather(
                        *(conversation(client, url, dynamo.model_name, think_ms, warm) for _ in range(CONVERSATIONS))
                    )
                    found[warm] += [r for r in records if r.call_index > 0]
                shares = [
                    sum(r.cached_tokens or 0 for r in f) / sum(r.prompt_tokens or 0 for r in f) for f in found.values()
                ]
                ttfts = [statistics.mean(r.server_ttft_ms or 0.0 for r in f) for f in found.values()]
                print(
                    f"{think_ms:8d} | {shares[0]:.3f}, {shares[1]:.3f} | {ttfts[0]:.1f}, {ttfts[1]:.1f}"
                    f" ({len(found[True])} calls each)",
                    flush=True,
                )


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=3)
    logging.disable(logging.WARNING)
    asyncio.run(run(parser.parse_args().repetitions))
    return 0


if __name__ == "__main__":
    sys.exit(main())
