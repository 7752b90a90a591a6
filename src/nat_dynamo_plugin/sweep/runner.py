"""Runs of configurations for a task: one at a time or several, tried again or given up while the server is down."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from uuid import uuid4

from nat_dynamo_plugin.secrets import redacted
from nat_dynamo_plugin.sweep.holdout import Part
from nat_dynamo_plugin.sweep.outcome import OUTAGES, RunFailed, RunResult
from nat_dynamo_plugin.sweep.run import Partial, Stopped
from nat_dynamo_plugin.sweep.space import Values
from nat_dynamo_plugin.sweep.task import Task
from nat_dynamo_plugin.telemetry.kinds import classify

logger = logging.getLogger(__name__)

RunOne = Callable[..., Awaitable[RunResult]]
"""`sweep.run.run_once`, or what stands for it in tests."""

PAUSE_S = 10.0
"""Seconds before a run that failed by the server's state is tried again."""
MOST_FAILED = 3
"""Configurations that may fail in a row before the current config is asked whether it is they or the server."""
_SALT_CHARS = 90


class SweepError(RuntimeError):
    """A sweep that can not go on; the message says why."""


class ServerDown(SweepError):
    """The current config does not answer any more. What was to be run next is left for another start."""


class Runner:
    """Answers a task's questions with one configuration after another, and knows how long that takes."""

    def __init__(self, task: Task, run_one: RunOne) -> None:
        self._task = task
        self._run_one = run_one
        self._started = monotonic()
        self._runs = 0
        self._run_s = 0.0
        self._failed: list[Values] = []
        """Configurations that failed since the last run that did not."""
        self._asking = asyncio.Lock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the sweep began in this process."""
        return monotonic() - self._started

    @property
    def mean_s(self) -> float | None:
        """Mean seconds of a run, those divided that ran at the same time; `None` before the first one."""
        return self._run_s / self._runs / self._task.config.parallel if self._runs else None

    async def __call__(
        self, values: Values, label: str, partial: Partial | None = None, *, final_round: int | None = None
    ) -> RunResult:
        """Answer all questions once with these values, and once more if the server was the cause of a failure.

        Args:
            values: by path.
            label: begins the salt that keeps this run's KV cache entries apart on a shared cluster.
            partial: is asked after each question whether to stop.
            final_round: number of the round of the finals, whose questions and arrivals the search has not seen.

        Raises:
            RunFailed: for whatever went wrong; no secret is in the message.
            ServerDown: if the current config fails, too.
            Stopped: if `partial` said so.
        """
        try:
            return await self._run(values, label, partial, final_round)
        except RunFailed as error:
            if not error.transient:
                await self._blame(values, error)
                raise
            logger.info("A run failed and is tried again: %s", error)
        await asyncio.sleep(PAUSE_S)
        try:
            return await self._run(values, label, partial, final_round)
        except RunFailed as error:
            await self._blame(values, error)
            raise

    async def _blame(self, values: Values, error: RunFailed) -> None:
        """Find out whether a configuration or the server is the cause, where it may be the server.

        Raises:
            ServerDown: if it is the server.
        """
        current = self._task.space.current
        if values not in self._failed:
            self._failed.append(values)
        async with self._asking:
            if not error.transient and len(self._failed) < MOST_FAILED:
                return
            if not self._failed:
                return  # it has answered meanwhile
            if values != current:
                try:
                    await self._run(current, "probe", None, None)
                    return
                except RunFailed as again:
                    error = again
            raise ServerDown(f"The current config can not be measured: {error}. Start again to do what is left")

    async def _run(self, values: Values, label: str, partial: Partial | None, final_round: int | None) -> RunResult:
        # Never one that was used before: its cache may be warm.
        salt = f"{re.sub(r'[^!-~]', '-', label)[-_SALT_CHARS:]}-{uuid4().hex[:12]}"
        try:
            result = await self._run_one(
                self._task.snapshot.candidate(values),
                self._task.objectives,
                options=self._task.options,
                salt=salt,
                max_failed_share=self._task.config.max_failed_share,
                partial=partial,
                part=Part(self._task.config.holdout, final_round),
            )
        except Stopped:
            self._failed.clear()
            raise
        except RunFailed as error:
            raise RunFailed(redacted(str(error)), transient=error.transient) from None
        except Exception as error:
            logger.debug("A run failed", exc_info=True)
            transient = classify(None, type(error).__name__, str(error)) in OUTAGES
            raise RunFailed(redacted(f"{type(error).__name__}: {error}"), transient=transient) from None
        self._runs += 1
        self._run_s += result.seconds
        self._failed.clear()
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
