"""Runs of configurations for a task: one at a time or several, with errors that hold no secret."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic

from nat_dynamo_plugin.secrets import redacted
from nat_dynamo_plugin.sweep.holdout import Part
from nat_dynamo_plugin.sweep.outcome import RunFailed, RunResult
from nat_dynamo_plugin.sweep.run import Partial, Stopped
from nat_dynamo_plugin.sweep.space import Values
from nat_dynamo_plugin.sweep.task import Task

logger = logging.getLogger(__name__)

RunOne = Callable[..., Awaitable[RunResult]]
"""`sweep.run.run_once`, or what stands for it in tests."""


class Runner:
    """Answers a task's questions with one configuration after another, and knows how long that takes."""

    def __init__(self, task: Task, run_one: RunOne) -> None:
        self._task = task
        self._run_one = run_one
        self._started = monotonic()
        self._runs = 0
        self._run_s = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the sweep began in this process."""
        return monotonic() - self._started

    @property
    def mean_s(self) -> float | None:
        """Mean seconds of a run, those divided that ran at the same time; `None` before the first one."""
        return self._run_s / self._runs / self._task.config.parallel if self._runs else None

    async def __call__(
        self, values: Values, salt: str, partial: Partial | None = None, *, final_round: int | None = None
    ) -> RunResult:
        """Answer all questions once with these values.

        Args:
            values: by path.
            salt: keeps this run's KV cache entries apart on a shared cluster.
            partial: is asked after each question whether to stop.
            final_round: number of the round of the finals, whose questions and arrivals the search has not seen.

        Raises:
            RunFailed: for whatever went wrong; no secret is in the message.
            Stopped: if `partial` said so.
        """
        try:
            result = await self._run_one(
                self._task.candidate(values),
                self._task.objectives,
                options=self._task.options,
                salt=salt,
                max_failed_share=self._task.config.max_failed_share,
                partial=partial,
                part=Part(self._task.config.holdout, final_round),
            )
        except Stopped:
            raise
        except RunFailed as error:
            raise RunFailed(redacted(str(error))) from None
        except Exception as error:
            logger.debug("A run failed", exc_info=True)
            raise RunFailed(redacted(f"{type(error).__name__}: {error}")) from None
        self._runs += 1
        self._run_s += result.seconds
        return result


async def at_once(number: int, work: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Do work in its order, `number` pieces at a time; the first error, or the caller's end, ends the rest."""
    pieces = iter(work)

    async def worker() -> None:
        for piece in pieces:
            await piece()

    workers = [asyncio.ensure_future(worker()) for _ in range(number)]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()
        # What a run has started must be down before anything else happens.
        await asyncio.gather(*workers, return_exceptions=True)
