"""Ranks: the mean rank of each method over data sets, Friedman's test, Nemenyi's, and the critical-difference diagram.

Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006).
"""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scikit_posthocs
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from benchmark.metrics import FUSED, HEADLINE
from benchmark.report import Artifact, Comparison, Report, render, render_figure, slug
from benchmark.tables.table import Cell, Column, Mark, Table

from ._figures import LONGEST
from ._marks import LEVEL, mean_scores

LEAST_DATASETS, LEAST_METHODS = 2, 3
"""What Friedman's test needs."""
NAME_WIDTH = 44
"""Longest name that a diagram shows in full."""


class RanksReport(Report):
    about = "mean ranks over data sets, Friedman and Nemenyi tests, critical-difference diagram"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        for ranking in rankings(comparisons):
            table, stem = table_of(ranking), f"ranks-{slug(ranking.title)}"
            yield from render(table, stem)
            if ranking.p is not None:
                yield from render_figure(draw(ranking), stem, table.caption, table.notes)

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        return [table_of(ranking) for ranking in rankings(comparisons) if ranking.p is not None]


@dataclass(frozen=True)
class Ranking:
    """Methods ranked on every data set of one protocol."""

    title: str
    methods: list[str]
    """Those with a score on every data set, best mean rank first."""
    datasets: list[str]
    ranks: NDArray[np.float64]
    """(data sets, methods); 1 is best, ties share the mean."""
    p: float | None
    """Friedman's; None where there is no test."""
    notes: list[str]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean rank (methods,)."""
        mean: NDArray[np.float64] = self.ranks.mean(0)
        return mean

    @property
    def critical_difference(self) -> float:
        """How far mean ranks must lie apart to differ at 0.05 by Nemenyi's test."""
        datasets, methods = self.ranks.shape
        quantile = studentized_range.ppf(1 - LEVEL, methods, math.inf) / math.sqrt(2)
        return float(quantile * math.sqrt(methods * (methods + 1) / (6 * datasets)))


def rankings(comparisons: Sequence[Comparison]) -> Iterator[Ranking]:
    """Yield a ranking for each protocol and selection rule."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in comparisons:
        if not comparison.superseded:
            groups.setdefault((comparison.protocol, comparison.selection), []).append(comparison)
    for (protocol, selection), group in sorted(groups.items()):
        names = [comparison.dataset for comparison in group]
        ambiguous = sorted({name for name in names if names.count(name) > 1})
        kept = [comparison for comparison in group if comparison.dataset not in ambiguous]
        notes = [f"Ranked on {'; '.join(comparison.title for comparison in kept)}."] if kept else []
        notes += [f"Left out, as run by several recipes of this protocol: {name}." for name in ambiguous]
        yield rank(
            f"{protocol}, {selection}", {comparison.dataset: accuracies(comparison) for comparison in kept}, notes
        )


def accuracies(comparison: Comparison) -> dict[str, float]:
    """Return {method: mean fused test accuracy over seeds}."""
    return mean_scores(comparison, (comparison.selection, FUSED, HEADLINE.name))


def rank(title: str, scores: Mapping[str, Mapping[str, float]], notes: Sequence[str] = ()) -> Ranking:
    """Rank methods by their scores {data set: {method: score}} and test whether ranks differ."""
    datasets = [name for name, found in scores.items() if found]
    known = sorted({method for found in scores.values() for method in found})
    complete = [method for method in known if all(method in scores[name] for name in datasets)]
    lines = [*notes]
    if left_out := sorted(set(known) - set(complete)):
        lines.append(f"Left out, as not finished on every data set: {', '.join(left_out)}.")
    rows = [rankdata([-scores[name][method] for method in complete]) for name in datasets]
    ranks = np.array(rows).reshape(len(datasets), len(complete))
    p, about = friedman(ranks)
    order = sorted(range(len(complete)), key=lambda position: (ranks[:, position].mean(), complete[position]))
    return Ranking(title, [complete[at] for at in order], datasets, ranks[:, order], p, [about, *lines])


def friedman(ranks: NDArray[np.float64]) -> tuple[float | None, str]:
    """Return Friedman's p for ranks (data sets, methods), None where undefined, and a line that says it or why not."""
    datasets, methods = ranks.shape
    if datasets < LEAST_DATASETS:
        return None, f"No test of ranks: {LEAST_DATASETS} data sets with results are needed, got {datasets}."
    if methods < LEAST_METHODS:
        return None, f"No test of ranks: {LEAST_METHODS} methods finished on all are needed, got {methods}."
    if (ranks == ranks[0, 0]).all():
        return None, "No test of ranks: every method ties with every other."
    statistic, p = friedmanchisquare(*ranks.T)
    return float(p), (
        f"Friedman over {datasets} data sets and {methods} methods: chi-squared {statistic:.2f}, p = {p:.4f}"
        f"{'' if p < LEVEL else ', so no method is told from another'}. The approximation is rough for few data sets."
    )


def nemenyi(ranking: Ranking) -> pd.DataFrame:
    """Return Nemenyi's p (methods, methods) by position."""
    table: pd.DataFrame = scikit_posthocs.posthoc_nemenyi_friedman(ranking.ranks)
    return table


def table_of(ranking: Ranking) -> Table:
    """Return mean ranks and the rank on each data set."""
    columns = [Column("mean rank", digits=2), *(Column(name, "rank on") for name in ranking.datasets)]
    alike: set[int] = set()
    lines = [*ranking.notes, "Rank of the mean fused test accuracy, 1 is best; ties share their mean rank."]
    if ranking.p is not None:
        lines.insert(1, f"Nemenyi: mean ranks more than {ranking.critical_difference:.2f} apart differ at {LEVEL}.")
        if ranking.p < LEVEL:
            alike = set(np.flatnonzero(nemenyi(ranking).to_numpy()[0] >= LEVEL).tolist()) | {0}
            lines.insert(2, "Bold: the best mean rank and all that cannot be told from it by Nemenyi's test.")
    rows = []
    for position, method in enumerate(ranking.methods):
        mean = Cell((statistics.fmean(ranking.ranks[:, position]),), mark=Mark.BEST if position in alike else Mark.NONE)
        rows.append((method, [mean, *(Cell((float(value),)) for value in ranking.ranks[:, position])]))
    return Table(f"{ranking.title}: mean ranks over data sets", columns, rows, lines)


def draw(ranking: Ranking) -> Figure:
    """Draw the critical-difference diagram: methods on an axis of mean ranks, bars over those not told apart."""
    count = len(ranking.methods)
    title = f"{ranking.title}: mean rank over {len(ranking.datasets)} data sets (Friedman p = {ranking.p:.4f});"
    title += f" bars: within the critical difference {ranking.critical_difference:.2f}"
    lines = textwrap.wrap(title, LONGEST)  # longer ones would be shortened, and lose their numbers
    figure = Figure(figsize=(9.0, 1.2 + 0.17 * (count + len(lines) - 1)), layout="constrained")
    panel = figure.subplots()
    # positions stand for names: the library goes through sets, whose order for texts changes from process to process
    artists = scikit_posthocs.critical_difference_diagram(
        pd.Series(ranking.mean, index=range(count)),
        nemenyi(ranking),
        ax=panel,
        label_fmt_left="{label}",
        label_fmt_right="{label}",
        label_props={"fontsize": 8, "parse_math": False},
        elbow_props={"color": "0.45", "linewidth": 0.9},
    )
    for text in artists["labels"]:
        position = int(text.get_text())
        name = ranking.methods[position]
        name = name if len(name) <= NAME_WIDTH else f"{name[:NAME_WIDTH]}…"
        text.set_color("black")
        text.set_text(f" {name} ({ranking.mean[position]:.2f}) ")
    panel.set_title("\n".join(lines), fontsize=9, parse_math=False)
    return figure
