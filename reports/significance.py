"""Significance: paired tests between all methods on the same test samples, with the spread over seeds in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmark.records import State
from benchmark.report import Artifact, Comparison, Report, render
from benchmark.tables.table import FAILED, MISSING, Cell, Column, Table

from ._bootstrap import Resamples, holm, interval, mcnemar, resamples_for, sum_seeds, two_sided
from ._marks import paired

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
            yield from render(significance(comparison), f"significance-{comparison.stem}")

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        return [significance(comparison) for comparison in comparisons]


def significance(comparison: Comparison) -> Table:
    """Return a row for each pair of methods; differences and intervals in points of fused test accuracy."""
    found = comparison.once(paired)
    correct = found.right
    failed = {run.method for run in comparison.runs if run.status.state is State.FAILED}
    pairs = list(combinations(sorted(comparison.methods), 2))
    common = {(a, b): sorted(correct.get(a, {}).keys() & correct.get(b, {}).keys()) for a, b in pairs}
    joint = [pair for pair in pairs if common[pair]]
    resamples = resamples_for(len(joint))
    hits = resample_all(correct, resamples)
    means = {method: {seed: float(right.mean()) for seed, right in runs.items()} for method, runs in correct.items()}
    # counts are whole numbers, so the difference of two sums over seeds is exact, and each sum serves many pairs
    sums = {
        (method, *common[pair]): sum_seeds(np.stack([hits[method][seed] for seed in common[pair]])).astype(np.int32)
        for pair, method in {(method, *common[pair]): (pair, method) for pair in joint for method in pair}.values()
    }
    bootstrap, bounds = {}, {}
    for a, b in joint:
        seeds = common[a, b]
        draws = sums[a, *seeds] - sums[b, *seeds]
        bootstrap[a, b], bounds[a, b] = two_sided(draws), interval(draws, len(seeds))
    corrected = dict(zip(joint, holm([bootstrap[pair] for pair in joint]), strict=True))
    rows = []
    for a, b in pairs:
        cells = [Cell(symbol=FAILED if {a, b} & failed else MISSING)] * len(COLUMNS)
        if seeds := common[a, b]:
            points = [100 * (means[a][seed] - means[b][seed]) for seed in seeds]
            count = len(correct[a][seeds[0]])
            low, high = (100 * bound / count for bound in bounds[a, b])
            ps = mcnemar(*(np.stack([correct[method][seed] for seed in seeds]) for method in (a, b))).tolist()
            cells = [Cell(tuple(points))]
            cells += [Cell((value,)) for value in (low, high, bootstrap[a, b], corrected[a, b], median(ps))]
            cells.append(Cell(symbol=f"{sum(p < 0.05 for p in ps)} of {len(ps)}"))
        rows.append((f"{a} − {b}", cells))
    counts = sorted({len(common[pair]) for pair in joint})
    notes = [*about(comparison.selection, counts, len(joint), resamples), *comparison.left_out(), *found.notes]
    return Table(
        f"{comparison.title}: paired differences of fused test accuracy (points)", COLUMNS, rows, notes, "pair"
    )


def resample_all(
    right: Mapping[str, Mapping[int, NDArray[np.bool_]]], resamples: int
) -> dict[str, dict[int, NDArray[np.float32]]]:
    """Return how many of N samples drawn with replacement each run gets right, {method: {seed: (resamples,)}}."""
    keys = sorted((method, seed) for method, runs in right.items() for seed in runs)
    hits: dict[str, dict[int, NDArray[np.float32]]] = {method: {} for method in right}
    if keys:
        matrix = np.stack([right[method][seed] for method, seed in keys])
        rows = Resamples(matrix.shape[1], resamples).sums(matrix)
        for (method, seed), row in zip(keys, rows, strict=True):
            hits[method][seed] = row
    return hits


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
