"""Which methods share the best and the second-best mark of a score, by paired tests on the test samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmark.metrics import FUSED, HEADLINE, METRICS
from benchmark.report import Comparison
from benchmark.tables.table import Mark

from ._answers import Answers, Score, read_all
from ._bootstrap import Resamples, holm, resamples_for, sum_seeds, two_sided

LEVEL = 0.05
"""Methods whose corrected p is below it are told apart."""

Runs = Mapping[tuple[str, int], Answers]
Sums = dict[str, dict[int, NDArray[np.float32]]]
"""{method: {seed: what its shares add up to in each resample}}"""
Totals = dict[tuple[str, tuple[int, ...]], NDArray[np.float64]]
"""{(method, seeds): the sums over these seeds, drawn with replacement, (resamples,)}"""
PValues = Callable[[str, Sequence[str]], dict[str, float]]
"""Leader and others to {other: p}, without those that cannot be tested against the leader."""


@dataclass(frozen=True)
class Paired:
    """What the predictions of a comparison's runs say, on the samples that all of them have."""

    marks: Mapping[Score, Mapping[str, Mark]]
    """{score: {method: mark}}; only scores whose predictions are kept."""
    right: Mapping[str, Mapping[int, NDArray[np.bool_]]]
    """{method: {seed: (N,)}}: which samples the fused prediction gets right by the comparison's rule."""
    readable: Mapping[str, frozenset[int]]
    """{method: seeds whose predictions can be read}."""
    notes: Sequence[str]
    """What could not be used, in words."""


def paired(comparison: Comparison) -> Paired:
    """Test a comparison; ask for it by `comparison.once(paired)`, as it reads the predictions of every run."""
    runs, notes = read_all(comparison)
    right: dict[str, dict[int, NDArray[np.bool_]]] = {}
    for method, seed in sorted(runs):
        share = runs[method, seed].shares[comparison.selection, FUSED, HEADLINE.name]
        right.setdefault(method, {})[seed] = share.astype(bool, copy=False)
    readable = {method: frozenset(seeds) for method, seeds in right.items()}
    return Paired(marks_of(comparison, runs), right, readable, notes)


def marks_of(comparison: Comparison, runs: Runs) -> dict[Score, dict[str, Mark]]:
    """Return the marks of every score, all from the same resamples."""
    methods = sorted({method for method, _ in runs})
    if len(methods) < 2:
        return {}
    count = len(next(iter(runs.values())).ids)
    resamples = Resamples(count, resamples_for(len(methods) - 1))
    marks = {}
    for score in sorted({score for answers in runs.values() for score in answers.shares}):
        keys = sorted(key for key, answers in runs.items() if score in answers.shares)
        sums: Sums = {method: {} for method, _ in keys}
        rows = resamples.sums(np.stack([runs[key].shares[score] for key in keys]))
        for (method, seed), row in zip(keys, rows, strict=True):
            sums[method][seed] = row
        sign = 1 if METRICS[score[2]].higher_is_better else -1
        means = {method: sign * mean for method, mean in mean_scores(comparison, score).items()}
        marks[score] = place(means, partial(p_values, sums, {}))
    return marks


def mean_scores(comparison: Comparison, score: Score) -> dict[str, float]:
    """Return {method: mean over seeds} as the records have it, without methods that have none or one not finite."""
    rule, head, metric = score
    values: dict[str, list[float]] = {}
    for run in comparison.runs:
        found = run.score(rule, head, metric)
        if found is not None:
            values.setdefault(run.method, []).append(found)
    means = {method: math.fsum(found) / len(found) for method, found in values.items()}
    return {method: mean for method, mean in means.items() if math.isfinite(mean)}


def place(means: Mapping[str, float], p_values: PValues) -> dict[str, Mark]:
    """Return who is best and who second: the highest mean and whoever cannot be told apart from it share a mark.

    Holm's correction is over the tests against one leader. A method that cannot be tested against the best gets no
    mark; where none can, nobody does.
    """
    marks: dict[str, Mark] = {}
    rest = sorted(means, key=lambda method: (-means[method], method))
    for mark in (Mark.BEST, Mark.SECOND):
        if not rest:
            break
        leader, *others = rest
        found = p_values(leader, others)
        if mark is Mark.BEST and not found:
            break
        corrected = dict(zip(found, holm(list(found.values())), strict=True))
        alike = [leader, *(method for method, p in corrected.items() if p >= LEVEL)]
        marks |= dict.fromkeys(alike, mark)
        rest = [method for method in others if method in found and method not in alike]
    return marks


def p_values(sums: Sums, totals: Totals, leader: str, others: Sequence[str]) -> dict[str, float]:
    """Return the p of the hierarchical bootstrap of each method against the leader, over their common seeds.

    `totals` keeps what has been worked out for the next call with the same sums.
    """
    found = {}
    for other in others:
        seeds = tuple(sorted(sums.get(leader, {}).keys() & sums.get(other, {}).keys()))
        if seeds:
            for method in (leader, other):
                if (method, seeds) not in totals:
                    # hundredths again, so that equal totals are equal
                    totals[method, seeds] = sum_seeds(np.stack([sums[method][seed] for seed in seeds])).round(2)
            found[other] = two_sided(totals[leader, seeds] - totals[other, seeds])
    return found
