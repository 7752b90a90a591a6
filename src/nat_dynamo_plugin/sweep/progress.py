"""The progress bar of a sweep: runs done, best so far, time left; and a line for every trial that ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nat_dynamo_plugin.sweep.results import RUN
from nat_dynamo_plugin.sweep.space import Values
from nat_dynamo_plugin.sweep.study import Queue
from nat_dynamo_plugin.sweep.verdict import Objective

if TYPE_CHECKING:
    from nat_dynamo_plugin.sweep.sweep import _Job


def shown(value: float, objective: Objective) -> str:
    """A value of an objective with its unit."""
    if objective.unit == "share":
        return f"{value:.1%}"
    return f"{value:.4g} {objective.unit}".rstrip()


class SweepProgress:
    """Shows a sweep on standard error. What other processes do on the same study is counted when a trial ends."""

    def __init__(self, job: _Job, queue: Queue) -> None:
        self._job = job
        self._queue = queue
        self._best = ""
        self._best_gain = 0.0
        self._in_finals = False
        # The stream itself: sys.stderr is turned away from NAT's bars meanwhile.
        console = Console(file=sys.__stderr__, soft_wrap=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("runs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("[green]{task.fields[best]}"),
            console=console,
            # The mean over many runs: a single one says little.
            speed_estimate_period=3600,
        )
        finals = (job.config.finalists + 1) * job.config.final_rounds
        self._task = self._progress.add_task("search", total=self._search_runs() + finals, best="")

    def _search_runs(self) -> int:
        return len(self._queue.trials()) * int(self._job.reps)

    def __enter__(self) -> Self:
        self._progress.start()
        if before := self._runs_done():
            finished = sum(trial.state.is_finished() for trial in self._queue.trials().values())
            self._line(f"study {self._queue.name}: goes on after {finished} finished trials")
            self._progress.update(self._task, completed=before)
        return self

    def _runs_done(self) -> int:
        """Runs of all processes; those that a finished trial did not need are counted."""
        return sum(
            self._job.reps if trial.state.is_finished() else sum(name.startswith(RUN) for name in trial.user_attrs)
            for trial in self._queue.trials().values()
        )

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None and not self._in_finals:
            self._progress.update(self._task, completed=self._runs_done())
        self._progress.update(self._task, description="sweep")
        self._progress.stop()

    def _line(self, text: str) -> None:
        self._progress.console.print(escape(text))

    def begin(self, index: int, rep: int, *, final: bool = False) -> None:
        """A run begins."""
        what = f"finals, round {rep}" if final else f"repetition {rep}" if self._job.reps > 1 else "search"
        self._progress.update(self._task, description=f"trial {index}, {what}")

    def end_run(self) -> None:
        """A run is done."""
        self._progress.advance(self._task)

    def end_trial(
        self,
        index: int,
        config: Values,
        outcome: str | Sequence[float],
        *,
        gain: float | None = None,
    ) -> None:
        """A trial ended with its values, or with what happened instead."""
        said = " ".join(f"{self._job.names[path]}={value}" for path, value in config.items())
        self._progress.update(self._task, completed=self._runs_done())
        if isinstance(outcome, str):
            self._line(f"trial {index}: {outcome}  [{said}]")
            return
        values = ", ".join(f"{o.name} {shown(v, o)}" for o, v in zip(self._job.objectives, outcome, strict=True))
        against = " (current config)" if index == 0 else ""
        if index and gain is not None:
            against = f" ({gain:+.1%} against the current config)"
        self._line(f"trial {index}: {values}{against}  [{said}]")
        if index and gain is not None and gain > self._best_gain:
            self._best_gain = gain
            self._best = f"best: trial {index}, {gain:+.1%}"
        self._progress.update(self._task, best=self._best)

    def begin_finals(self, queue: Queue) -> None:
        """The search is over."""
        self._in_finals = True
        trials = queue.trials().values()
        done = sum(t.state.is_finished() for t in trials)
        self._progress.update(self._task, total=self._search_runs() + len(trials), completed=self._search_runs() + done)
