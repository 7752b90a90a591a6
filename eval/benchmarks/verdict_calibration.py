"""How often is the sweep's verdict wrong, and how often does it find what is there?

    python eval/benchmarks/verdict_calibration.py [--sweeps N] [--quick]

Synthetic sweeps with the noise of 18 real runs of `configs/optimize_bfcl.yml`: questions differ in length (sd .52 in
logs), all questions of a run share its luck, a config may suit some questions better than others (question x config),
and the rest (sd .19). A noisy search on other questions picks two finalists out of 14 candidates; their finals go
through `sweep.verdict.compare` with the confidence that `nat optimize` gives it. Nothing is measured on a server.

Printed a cell: false claims (a finalist "beats" the current config though nothing differs, in % of sweeps), coverage
(both intervals hold the truth for questions of the kind, not only for those asked), half of the interval's width, the
power to find a finalist that is 10 % faster, and the gain reported when it is found: as measured, shrunk by its noise
(James-Stein), and what it is at least. `old` is the percentile bootstrap that was used before. Peeking: a verdict after
3 rounds, then after 5, 8 and 12, until one claims a gain; `forgetful` takes each for the first, as after the study was
deleted. Ends with 1 if a cell misses: false claims over the stated level, or coverage below it, by more than .5 points.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nat_dynamo_plugin.evaluators.metric import Sample, Statistic
from nat_dynamo_plugin.sweep.interval import confidence_of_each, confidence_of_look
from nat_dynamo_plugin.sweep.verdict import Comparison, Objective, compare

Array = npt.NDArray[np.float64]

QUESTION_SD, RESIDUAL_SD = 0.52, 0.19
LUCK, SUITS = (0.0, 0.05, 0.10), (0.0, 0.2)
ROUNDS = (3, 5, 8, 12)
N_QUESTIONS, N_CANDIDATES, N_FINALISTS = 40, 14, 2
CONFIDENCE, GAIN = 0.95, 0.10
LOOKS = (3, 5, 8, 12)
SLACK = 0.005


@dataclass(frozen=True)
class Cell:
    """What is varied."""

    rounds: int
    luck: float
    suits: float
    statistic: Statistic = "mean"
    questions: int = N_QUESTIONS
    peeking: bool = False


@dataclass
class Sweep:
    """Finals of one synthetic sweep: arms x rounds x questions, the current config first; true gains of the others."""

    times: Array
    truth: list[float]


def simulate(rng: np.random.Generator, cell: Cell, gain: float) -> Sweep:
    """A sweep whose search picks finalists; the first candidate is `gain` faster, all others are as the current one."""
    factors = np.ones(1 + N_CANDIDATES)
    factors[1] = 1 - gain

    def measured(arms: Array, rounds: int) -> Array:
        shape = (len(arms), rounds, cell.questions)
        length = rng.normal(0, QUESTION_SD, cell.questions)
        suits = rng.normal(0, cell.suits, (len(arms), 1, cell.questions))
        luck = rng.normal(0, cell.luck, (len(arms), rounds, 1))
        times: Array = arms[:, None, None] * np.exp(length + suits + luck + rng.normal(0, RESIDUAL_SD, shape))
        return times

    search = measured(factors, 1).mean(axis=(1, 2))
    chosen = 1 + np.argsort(search[1:])[:N_FINALISTS]
    if gain:
        chosen = np.array([1, *[k for k in chosen if k != 1][: N_FINALISTS - 1]])
    return Sweep(measured(factors[[0, *chosen]], cell.rounds), [1 - factors[k] for k in chosen])


def runs(times: Array) -> list[list[dict[str, list[Sample]]]]:
    """Times of rounds x questions as `compare` takes them."""
    return [[{f"q{k}": [Sample(t)] for k, t in enumerate(one)}] for one in times.tolist()]


def old_rule(candidate: Array, current: Array, confidence: float, rng: np.random.Generator) -> tuple[float, ...]:
    """Estimate and interval of the percentile bootstrap over rounds and questions that was used before, of a mean."""
    r, q = candidate.shape
    rounds = rng.multinomial(r, np.full(r, 1 / r), size=1000)
    questions = rng.multinomial(q, np.full(q, 1 / q), size=1000)
    ours, theirs = (((rounds @ side) * questions).sum(axis=1) for side in (candidate, current))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(1 - ours / theirs, [tail, 100 - tail])
    return 1 - candidate.sum() / current.sum(), float(low), float(high)


def judged(sweep: Sweep, cell: Cell, rounds: int, confidence: float) -> list[Comparison]:
    """The finalists by the rule in use."""
    objective = Objective("latency", "latency", "minimize", statistic=cell.statistic)
    each = confidence_of_each(confidence, N_FINALISTS)
    current = runs(sweep.times[0, :rounds])
    return [compare([objective], runs(arm[:rounds]), current, confidence=each) for arm in sweep.times[1:]]


def measure(work: tuple[Cell, int, int]) -> dict[str, float]:
    """The figures of a cell, shares of 1."""
    cell, sweeps, seed = work
    rng = np.random.default_rng(seed)
    return peeked(rng, cell, sweeps) if cell.peeking else looked_once(rng, cell, sweeps)


def looked_once(rng: np.random.Generator, cell: Cell, sweeps: int) -> dict[str, float]:
    """One verdict after all rounds."""
    stated = confidence_of_look(CONFIDENCE, 1)
    each = confidence_of_each(CONFIDENCE, N_FINALISTS)
    names = ("false", "covered", "old false", "old covered", "half", "old half", "found", "old found")
    tally: dict[str, list[float]] = {name: [] for name in (*names, "gain", "low", "shrunk", "old gain")}
    for gain in (0.0, GAIN):
        for _ in range(sweeps):
            sweep = simulate(rng, cell, gain)
            new = judged(sweep, cell, cell.rounds, stated)
            old = [old_rule(arm, sweep.times[0], each, rng) for arm in sweep.times[1:]] if is_mean(cell) else []
            if gain:
                c = new[0].overall
                tally["found"].append(c.low > 0)
                tally["old found"].extend(o[1] > 0 for o in old[:1])
                tally["old gain"].extend(o[0] for o in old[:1] if o[1] > 0)
                if c.low > 0:
                    tally["gain"].append(c.estimate)
                    tally["low"].append(c.low)
                    tally["shrunk"].append(c.estimate * (1 - (new[0].spread.standard_error / new[0].effect) ** 2))
                continue
            tally["false"].append(any(c.overall.low > 0 for c in new))
            tally["old false"].extend([any(o[1] > 0 for o in old)] if old else [])
            tally["covered"].append(all(c.overall.low <= 0 <= c.overall.high for c in new))
            tally["old covered"].extend([all(o[1] <= 0 <= o[2] for o in old)] if old else [])
            tally["half"].extend((c.overall.high - c.overall.low) / 2 for c in new)
            tally["old half"].extend((o[2] - o[1]) / 2 for o in old)
    return {name: float(np.mean(values)) if values else float("nan") for name, values in tally.items()}


def is_mean(cell: Cell) -> bool:
    """Whether the copy of the old rule can do it."""
    return cell.statistic == "mean"


def peeked(rng: np.random.Generator, cell: Cell, sweeps: int) -> dict[str, float]:
    """Verdicts after more and more rounds, until one claims a gain."""
    claimed = dict.fromkeys(("false", "forgetful", "old false"), 0)
    each = confidence_of_each(CONFIDENCE, N_FINALISTS)
    for _ in range(sweeps):
        sweep = simulate(rng, cell, 0.0)
        remembered = forgetful = old = False
        for look, rounds in enumerate(LOOKS, start=1):
            remembered = remembered or any(
                c.overall.low > 0 for c in judged(sweep, cell, rounds, confidence_of_look(CONFIDENCE, look))
            )
            forgetful = forgetful or any(
                c.overall.low > 0 for c in judged(sweep, cell, rounds, confidence_of_look(CONFIDENCE, 1))
            )
            old = old or any(old_rule(a[:rounds], sweep.times[0, :rounds], each, rng)[1] > 0 for a in sweep.times[1:])
        claimed["false"] += remembered
        claimed["forgetful"] += forgetful
        claimed["old false"] += old
    return {name: count / sweeps for name, count in claimed.items()}


def report(cells: list[Cell], figures: list[dict[str, float]]) -> int:
    """Print the tables, and return how many cells miss the target."""
    stated = confidence_of_look(CONFIDENCE, 1)
    once = (1 - stated) / 2
    print(f"\nOne verdict. Stated: false claims {once:.2%} of sweeps, coverage {stated:.2%} (old: 2.50%, 95.00%).")
    print(f"{'':39}| false claims |    coverage   |  half width |     found     | gain when found")
    print(
        "statistic questions rounds  luck  q x c |   new    old |   new     old |   new   old |   new     old |", end=""
    )
    print(" said shrunk at least old")
    missed = 0
    for cell, shares in zip(cells, figures, strict=True):
        if cell.peeking:
            continue
        f = {name: 100 * share for name, share in shares.items()}
        miss = shares["false"] > once + SLACK or shares["covered"] < stated - SLACK
        missed += miss
        columns = (
            f"{cell.statistic:9} {cell.questions:9} {cell.rounds:6} {cell.luck:5.2f} {cell.suits:6.1f}",
            f"{f['false']:6.2f} {f['old false']:6.2f}",
            f"{f['covered']:6.2f} {f['old covered']:7.2f}",
            f"{f['half']:6.1f} {f['old half']:5.1f}",
            f"{f['found']:6.1f} {f['old found']:7.1f}",
            f"{f['gain']:5.1f} {f['shrunk']:6.1f} {f['low']:8.1f} {f['old gain']:5.1f}{'  misses' if miss else ''}",
        )
        print(" |".join(columns))
    print(f"\nVerdicts after {LOOKS} rounds, until one claims a gain. Stated: false claims {(1 - CONFIDENCE) / 2:.2%}.")
    print("luck  q x c | false  forgetful   old")
    for cell, f in zip(cells, figures, strict=True):
        if cell.peeking:
            miss = f["false"] > (1 - CONFIDENCE) / 2 + SLACK
            missed += miss
            print(
                f"{cell.luck:4.2f} {cell.suits:6.1f} | {100 * f['false']:5.2f} {100 * f['forgetful']:10.2f} "
                f"{100 * f['old false']:5.2f}{'  misses' if miss else ''}"
            )
    return missed


def main() -> int:
    """Run all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=2000, help="synthetic sweeps a cell")
    parser.add_argument("--quick", action="store_true", help="100 sweeps a cell, for a look")
    args = parser.parse_args()
    sweeps = 100 if args.quick else args.sweeps
    cells = [Cell(rounds, luck, suits) for luck, suits, rounds in itertools.product(LUCK, SUITS, ROUNDS)]
    cells += [Cell(5, 0.05, suits, questions=20) for suits in SUITS]
    cells += [Cell(5, 0.05, suits, statistic) for statistic in ("p50", "p95") for suits in SUITS]
    cells += [Cell(LOOKS[-1], luck, suits, peeking=True) for luck, suits in itertools.product(LUCK, SUITS)]
    with multiprocessing.Pool() as pool:
        figures = pool.map(measure, [(cell, sweeps, seed) for seed, cell in enumerate(cells)], chunksize=1)
    print(
        f"numpy {np.__version__}, {sweeps} sweeps a cell: one standard error of a share of 2.5 % is "
        f"{np.sqrt(0.025 * 0.975 / sweeps):.2%}"
    )
    return 1 if report(cells, figures) else 0


if __name__ == "__main__":
    sys.exit(main())
