"""Significance: paired tests between all methods on the same test samples, with the spread over seeds in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import binomtest

from benchmark.records import RunView, State
from benchmark.report import Artifact, Comparison, Report, render, slug
from benchmark.table import FAILED, MISSING, Cell, Column, Table

RESAMPLES = 2000
"""Least number of bootstrap resamples."""
PER_PAIR = 200
"""Least number of resamples for each pair: Holm multiplies the smallest p, 2 / resamples, by the number of pairs, so
2000 could never tell 51 pairs apart at 0.05. With this the smallest Holm p is at most 0.01."""
CHUNK = 250
"""Resamples that are in memory at a time, (CHUNK, samples)."""
SEED = 0

Correct = dict[str, dict[int, NDArray[np.bool_]]]
"""Which test samples a run gets right, {method: {seed: (N,)}}, the same samples in the same order for all."""

COLUMNS = (
    Column("difference", digits=2, rank=False),
    Column("low", "95 % interval", digits=2, rank=False),
    Column("high", "95 % interval", digits=2, rank=False),
    Column("p", "bootstrap", digits=4, rank=False),
    Column("Holm p", "bootstrap", digits=4, rank=False),
    Column("median p", "McNemar", digits=4, rank=False),
    Column("seeds < .05", "McNemar", rank=False),
)


class SignificanceReport(Report):
    about = "paired tests between methods: difference, bootstrap interval, Holm, McNemar"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        for comparison in comparisons:
            yield from render(significance(comparison), f"significance-{slug(comparison.title)}")

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        return [significance(comparison) for comparison in comparisons]


def significance(comparison: Comparison) -> Table:
    """Return a row for each pair of methods; differences and intervals in points of fused test accuracy."""
    correct, notes = read(comparison)
    failed = {run.method for run in comparison.runs if run.status.state is State.FAILED}
    pairs = list(combinations(sorted(comparison.methods), 2))
    common = {(a, b): sorted(correct.get(a, {}).keys() & correct.get(b, {}).keys()) for a, b in pairs}
    tested = [pair for pair in pairs if common[pair]]
    resamples = max(RESAMPLES, PER_PAIR * len(tested))
    hits = resample(correct, resamples)
    draws = {pair: differences(*(stack(hits[method], common[pair]) for method in pair)) for pair in tested}
    bootstrap = {pair: two_sided(draws[pair]) for pair in tested}
    corrected = dict(zip(tested, holm([bootstrap[pair] for pair in tested]), strict=True))
    rows = []
    for a, b in pairs:
        cells = [Cell(symbol=FAILED if {a, b} & failed else MISSING)] * len(COLUMNS)
        if seeds := common[a, b]:
            points = [100 * float(correct[a][seed].mean() - correct[b][seed].mean()) for seed in seeds]
            count = len(correct[a][seeds[0]])
            low, high = (100 * float(bound) / count for bound in np.quantile(draws[a, b], (0.025, 0.975)))
            ps = [mcnemar(correct[a][seed], correct[b][seed]) for seed in seeds]
            cells = [Cell(tuple(points))]
            cells += [Cell((value,)) for value in (low, high, bootstrap[a, b], corrected[a, b], median(ps))]
            cells.append(Cell(symbol=f"{sum(p < 0.05 for p in ps)} of {len(ps)}"))
        rows.append((f"{a} − {b}", cells))
    counts = sorted({len(common[pair]) for pair in tested})
    notes = [*about(comparison.selection, counts, len(tested), resamples), *notes]
    return Table(
        f"{comparison.title}: paired differences of fused test accuracy (points)", COLUMNS, rows, notes, "pair"
    )


def read(comparison: Comparison) -> tuple[Correct, list[str]]:
    """Return what each finished run gets right by the comparison's rule, and in words what could not be used."""
    answers: dict[tuple[str, int], dict[str, bool]] = {}
    notes = comparison.left_out()
    for run in comparison.runs:
        if run.record:
            try:
                answers[run.method, run.seed] = read_answers(run, comparison.selection)
            except (OSError, ValueError, KeyError, pa.ArrowException) as error:
                notes.append(f"Not counted: {run.method}, seed {run.seed}, predictions ({str(error).splitlines()[0]}).")
    ids = sorted(set.intersection(*(set(found) for found in answers.values()))) if answers else []
    dropped = len(set().union(*answers.values())) - len(ids)
    if dropped:
        notes.append(f"{dropped} test samples that not every run has are left out.")
    correct: Correct = {}
    for (method, seed), found in answers.items():
        if ids:
            correct.setdefault(method, {})[seed] = np.array([found[sample] for sample in ids])
    return correct, notes


def read_answers(run: RunView, rule: str) -> dict[str, bool]:
    """Return {id of a test sample: whether the fused prediction of the rule's epoch is right}."""
    table = pq.read_table(run.folder.predictions, columns=["id", "label", "fused"], filters=[("rule", "==", rule)])
    if not table.num_rows:
        raise ValueError(f"expected rows of rule {rule}, got none")
    logits = np.stack(table["fused"].to_numpy())
    right = logits.argmax(1) == table["label"].to_numpy()
    answers = dict(zip(table["id"].to_pylist(), right.tolist(), strict=True))
    if len(answers) != table.num_rows:
        raise ValueError("expected each id once")
    return answers


def resample(correct: Correct, resamples: int) -> dict[str, dict[int, NDArray[np.int64]]]:
    """Return how many of N samples drawn with replacement each run gets right, {method: {seed: (resamples,)}}.

    Every run sees the same draws, as all answer the same test set; that is what makes the tests paired.
    """
    keys = sorted((method, seed) for method, runs in correct.items() for seed in runs)
    if not keys:
        return {}
    matrix = np.stack([correct[method][seed] for method, seed in keys]).astype(np.float32)
    count, generator, parts = matrix.shape[1], np.random.default_rng(SEED), []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        drawn = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        parts.append(matrix @ weights.T.astype(np.float32))  # sums of whole numbers below 2^24: exact
    hits = np.concatenate(parts, axis=1).astype(np.int64)
    result: dict[str, dict[int, NDArray[np.int64]]] = {}
    for (method, seed), row in zip(keys, hits, strict=True):
        result.setdefault(method, {})[seed] = row
    return result


def stack(hits: Mapping[int, NDArray[np.int64]], seeds: Sequence[int]) -> NDArray[np.int64]:
    """Return the hits of these seeds, (S, resamples)."""
    return np.stack([hits[seed] for seed in seeds])


def differences(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the bootstrap distribution (resamples,) of how many samples more the first method gets right.

    Hierarchical: `first` and `second` (S, resamples) are hits on resampled test samples; here the S seeds are drawn
    with replacement too, a seed of one method always with the same seed of the other. One seed leaves samples alone.
    """
    seeds, resamples = first.shape
    drawn = np.random.default_rng([SEED, seeds]).integers(seeds, size=(seeds, resamples))
    gaps: NDArray[np.int64] = np.take_along_axis(first - second, drawn, axis=0).sum(0)
    shares: NDArray[np.float64] = gaps / seeds
    return shares


def two_sided(draws: NDArray[np.float64]) -> float:
    """Return twice the share of draws on the rarer side of zero, at most 1; draws at zero count for both sides.

    One is added above and below (Davison and Hinkley 1997, section 4.2.3), so that p is never 0.
    """
    tail = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(draws) + 1))


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the exact two-sided McNemar p of two methods' right answers (N,); 1 where they never differ."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's step-down method (Holm 1979), in the given order."""
    corrected, floor = [0.0] * len(ps), 0.0
    for rank, position in enumerate(sorted(range(len(ps)), key=lambda position: ps[position])):
        floor = max(floor, min(1.0, (len(ps) - rank) * ps[position]))
        corrected[position] = floor
    return corrected


def about(selection: str, counts: Sequence[int], pairs: int, resamples: int) -> list[str]:
    """Return what a reader must know of the tests, from the numbers of common seeds that occur."""
    lines = [f"difference: mean ± std over common seeds, selection {selection}; positive: the first is better."]
    lines.append(
        f"bootstrap: {resamples} resamples of seeds and test samples, the same for both methods. Holm: {pairs} pairs."
    )
    if counts and counts[0] == 1:
        lines.append("With one common seed only samples are resampled: nothing is said about other seeds.")
    if counts and counts[-1] > 1:
        lines.append("Resampling n seeds understates their variance by (n − 1)/n: with few seeds read p as too small.")
    lines.append("McNemar: exact, for each seed. 0.0000 is below 0.00005. — no common finished seed, ✗ failed.")
    return lines
