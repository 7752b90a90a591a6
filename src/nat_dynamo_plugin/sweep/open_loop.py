"""`dynamo_open_loop`: questions arrive at a rate of their own, whether or not earlier ones are done.

`nat eval` is a closed loop: at most `max_concurrency` questions at once, the next starts when one ends, so a slow
server is asked less. Users do not wait for each other. This middleware lets the questions of a run arrive as a seeded
Poisson process, and leaves a trace of each arrival, from which `dynamo_question_latency` counts: a question that had
to wait for its turn has been waiting. Set `eval.general.max_concurrency` to the number of questions, or it closes the
loop again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from time import monotonic, time
from typing import Any

from nat.builder.builder import Builder
from nat.builder.context import Context
from nat.cli.register_workflow import register_middleware
from nat.data_models.intermediate_step import IntermediateStepPayload, IntermediateStepType, TraceMetadata
from nat.data_models.middleware import FunctionMiddlewareBaseConfig
from nat.middleware.function_middleware import FunctionMiddleware
from nat.middleware.middleware import CallNext, CallNextStream, FunctionMiddlewareContext
from nat.utils.providers import generate_id
from pydantic import Field

from nat_dynamo_plugin.telemetry.record import ARRIVAL_STEP_NAME


class OpenLoopConfig(FunctionMiddlewareBaseConfig, name="dynamo_open_loop"):  # type: ignore[call-arg]
    """Lets the calls of the workflow it wraps arrive at random times, as those of independent users do."""

    rate: float = Field(gt=0, description="Questions a second, on average, above 0.")
    seed: int = Field(default=0, description="Seed of the arrival times: every run with it has the same ones.")


class OpenLoop(FunctionMiddleware):
    """Holds each call back until its arrival: the n-th call arrives at the n-th moment of a Poisson process."""

    def __init__(self, config: OpenLoopConfig) -> None:
        super().__init__()
        self._rate = config.rate
        self._random = random.Random(config.seed)
        self._next_s: float | None = None

    async def _arrive(self) -> None:
        now = monotonic()
        # The first question arrives at once, and starts the clock.
        due = now if self._next_s is None else self._next_s
        self._next_s = due + self._random.expovariate(self._rate)
        arrived_at = time() + (due - now)
        if due > now:
            await asyncio.sleep(due - now)
        if Context.get().workflow_run_id is not None:
            _leave_trace(arrived_at)

    async def function_middleware_invoke(
        self, *args: Any, call_next: CallNext, context: FunctionMiddlewareContext, **kwargs: Any
    ) -> Any:
        """Call the function when its question arrives."""
        await self._arrive()
        return await call_next(*args, **kwargs)

    async def function_middleware_stream(
        self, *args: Any, call_next: CallNextStream, context: FunctionMiddlewareContext, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Stream the function when its question arrives."""
        await self._arrive()
        async for chunk in call_next(*args, **kwargs):
            yield chunk


def _leave_trace(arrived_at: float) -> None:
    """A CUSTOM_START/CUSTOM_END pair at the moment of arrival, in seconds since the epoch."""
    steps = Context.get().intermediate_step_manager
    step_id = generate_id()
    for event in (IntermediateStepType.CUSTOM_START, IntermediateStepType.CUSTOM_END):
        steps.push_intermediate_step(
            IntermediateStepPayload(
                UUID=step_id,
                event_type=event,
                event_timestamp=arrived_at,
                name=ARRIVAL_STEP_NAME,
                metadata=TraceMetadata(provided_metadata={"arrived_at": arrived_at}),
            )
        )


@register_middleware(config_type=OpenLoopConfig)
async def dynamo_open_loop(config: OpenLoopConfig, _builder: Builder) -> AsyncIterator[OpenLoop]:
    """Register the middleware."""
    yield OpenLoop(config)
