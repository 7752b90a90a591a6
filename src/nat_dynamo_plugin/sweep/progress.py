"""The progress bar of a sweep: runs done, best so far, time left; and a line for every trial that ends."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nat_dynamo_plugin.sweep.results import RUN
from nat_dynamo_plugin.sweep.space import Values
from nat_dynamo_plugin.sweep.study import Queue
from nat_dynamo_plugin.sweep.verdict import Objective


class SweepProgress:
    """Shows a sweep on standard error. What other processes do on the same study is counted when a trial ends.

    Args:
        queue: of the search.
        names: a short name for each tuned path.
        objectives: what is measured.
        reps: runs of each trial.
        final_runs: runs of the finals, as far as is known before they begin.
    """

    def __init__(
        self, queue: Queue, names: Mapping[str, str], objectives: Sequence[Objective], reps: int, final_runs: int
    ) -> None:
        self._queue = queue
        self._names = names
        self._objectives = objectives
        self._reps = reps
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
        self._task = self._progress.add_task("search", total=self._search_runs() + final_runs, best="")

    def _search_runs(self) -> int:
        return len(self._queue.trials()) * self._reps

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
            self._reps if trial.state.is_finished() else sum(name.startswith(RUN) for name in trial.user_attrs)
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

    def begin(self, index: int, what: str) -> None:
        """A run begins."""
        self._progress.update(self._task, description=f"trial {index}, {what}")

    def end_run(self) -> None:
        """A run is done."""
        self._progress.advance(self._task)

    def end_trial(self, index: int, config: Values, outcome: str | Sequence[float], gain: float | None = None) -> None:
        """A trial ended with its values, or with what happened instead."""
        self._progress.update(self._task, completed=self._runs_done())
        if not isinstance(outcome, str):
            against = " (current config)" if index == 0 else ""
            if index and gain is not None:
                against = f" ({gain:+.1%} against the current config)"
                if gain > self._best_gain:
                    self._best_gain = gain
                    self._progress.update(self._task, best=f"best: trial {index}, {gain:+.1%}")
            values = zip(self._objectives, outcome, strict=True)
            outcome = ", ".join(f"{o.name} {o.shown(v)}" for o, v in values) + against
        said = " ".join(f"{self._names[path]}={value}" for path, value in config.items())
        self._line(f"trial {index}: {outcome}  [{said}]")

    def begin_finals(self, queue: Queue) -> None:
        """The search is over, and what is in this queue is to come."""
        self._in_finals = True
        trials = queue.trials().values()
        done = sum(t.state.is_finished() for t in trials)
        self._progress.update(self._task, total=self._search_runs() + len(trials), completed=self._search_runs() + done)
