"""Imbalance: how unequal the modalities of a trained network are, by five measures, from records alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator
from numpy.typing import NDArray

from benchmark.metrics import HEADLINE
from benchmark.records import MissingScores, RunView
from benchmark.report import Artifact, Comparison, Report, render, render_figure
from benchmark.tables.table import MISSING, UNSUPPORTED, Cell, Column, Table

from ._figures import PALETTE, add_legend, few_ticks, open_figure, width_of
from ._histories import History, histories
from ._runs import cell, methods_of, not_evaluated

FILL = "zero"
"""What stands in for absent modalities in the worth of a subset, as in the literature's Shapley values."""
MARKERS = "osD^v"

Group = frozenset[str]
Values = dict[str, float]
"""{modality: value}"""


@dataclass(frozen=True)
class Measures:
    """How unequal the modalities of one run are; empty or None where it cannot be told."""

    own: Values
    """Test accuracy (%) of the method's own logits."""
    probe: Values
    """Test accuracy (%) of a linear classifier on the frozen encoder."""
    shapley: Values
    """Points of fused test accuracy."""
    distance: float | None
    """Between the centres of the modalities' features."""
    norms: Values
    """Mean norm of the encoder's gradients over training."""
    encodes: frozenset[str]
    """The modalities that the network has encoders for."""

    @property
    def gap(self) -> float | None:
        return spread(self.own)

    @property
    def probe_gap(self) -> float | None:
        return spread(self.probe)

    @property
    def ratio(self) -> float | None:
        """Return the largest mean gradient norm over the smallest; None unless every encoder has one."""
        whole = len(self.norms) > 1 and set(self.norms) == self.encodes
        return max(self.norms.values()) / min(self.norms.values()) if whole else None


class ImbalanceReport(Report):
    about = "how unequal the modalities are: own and probe accuracy, Shapley values, distance, gradient norms"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        for comparison in comparisons:
            stem, found = f"imbalance-{comparison.stem}", comparison.once(measure_all)
            yield from render(contributions(comparison, found), stem)
            yield from render(signals(comparison, found), f"imbalance-signals-{comparison.stem}")
            if found:
                yield from render_figure(draw(comparison, found), stem)

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        for comparison in comparisons:
            found = comparison.once(measure_all)
            yield contributions(comparison, found)
            yield signals(comparison, found)


Found = Mapping[Path, Measures]
"""{folder of a finished run: its measures}"""


# --- measures ------------------------------------------------------------------------------------------------------


def measure_all(comparison: Comparison) -> Found:
    """Return the measures of every finished run."""
    logs = comparison.once(histories)
    return {run.folder.path: measure(run, logs.get(run.folder.path)) for run in comparison.runs if run.record}


def measures_of(comparison: Comparison, found: Found) -> dict[str, list[Measures]]:
    """Return {method: measures of its finished runs, by seed}."""
    folders = {method: [run.folder.path for run in comparison.of(method)] for method in methods_of(comparison)}
    return {method: [found[path] for path in paths if path in found] for method, paths in folders.items()}


def measure(run: RunView, history: History | None) -> Measures:
    """Return the measures of a finished run, of the model that is kept; the gradients' over all epochs."""
    assert run.record is not None
    modalities, scale = run.record.modalities, HEADLINE.scale
    own = {m: scale * found for m in modalities if (found := run.score(run.record.kept.name, m)) is not None}
    probe = {m: scale * found for m in modalities if (found := run.probe(m)) is not None}
    encodes = frozenset(probe)
    norms = mean_norms(history, [m for m in modalities if m in encodes]) if history else {}
    return Measures(own, probe, contribution(run, modalities), distance_of(run, modalities), norms, encodes)


def spread(values: Mapping[str, float]) -> float | None:
    """Return the largest minus the smallest; None for fewer than two."""
    return max(values.values()) - min(values.values()) if len(values) > 1 else None


def contribution(run: RunView, modalities: Sequence[str]) -> Values:
    """Return each modality's Shapley value from the run's missing.json; nothing where a subset is not there."""
    found = run.evaluation(MissingScores)
    rows = found.subsets if found else ()
    worth = {Group(row.present): HEADLINE.scale * row.accuracy for row in rows if row.fill == FILL}
    groups = (Group(group) for size in range(len(modalities) + 1) for group in combinations(modalities, size))
    return shapley(worth, modalities) if all(group in worth for group in groups) else {}


def shapley(worth: Mapping[Group, float], modalities: Sequence[str]) -> Values:
    """Return each modality's mean gain over all orders of joining; they sum to the worth of all less that of none.

    Args:
        worth: of every group of modalities, none and all included.
        modalities: the players.
    """
    orders = list(permutations(modalities))

    def gain(order: Sequence[str], modality: str) -> float:
        before = Group(order[: order.index(modality)])
        return worth[before | {modality}] - worth[before]

    return {modality: fmean(gain(order, modality) for order in orders) for modality in modalities}


def distance_of(run: RunView, modalities: Sequence[str]) -> float | None:
    """Return the modality gap of the run's test embeddings; None where it is not defined or they cannot be read."""
    try:
        features = run.embeddings().features
        return modality_gap([features[m].astype(np.float64) for m in modalities if m in features])
    except (OSError, ValueError):
        return None


def modality_gap(features: Sequence[NDArray[np.float64]]) -> float | None:
    """Return the Euclidean distance between the centres of L2-normalised features, in [0, 2].

    Of more than two modalities, the mean over pairs. None for fewer than two, for features of different widths, which
    share no space, and for features that are not finite.

    Args:
        features: of each modality, (N, D).
    """
    if len(features) < 2 or len({one.shape[1] for one in features}) > 1:
        return None
    lengths = [np.linalg.norm(one, axis=1, keepdims=True) for one in features]
    centres = [(one / np.maximum(length, 1e-12)).mean(0) for one, length in zip(features, lengths, strict=True)]
    gap = fmean(float(np.linalg.norm(one - other)) for one, other in combinations(centres, 2))
    return gap if math.isfinite(gap) else None


def mean_norms(history: History, encodes: Sequence[str]) -> Values:
    """Return the mean gradient norm of each encoder over the epochs that have one."""
    found = {m: history.column(f"gradients/{m}") for m in encodes}
    known = {m: norms[np.isfinite(norms)] for m, norms in found.items()}
    return {modality: float(norms.mean()) for modality, norms in known.items() if len(norms)}


# --- tables --------------------------------------------------------------------------------------------------------


def contributions(comparison: Comparison, found: Found) -> Table:
    """Return accuracy of each modality, own and by probe, the gaps, and Shapley values."""
    modalities = comparison.modalities
    columns = [Column(name, group) for group in ("own (%)", "probe (%)") for name in modalities]
    columns.insert(len(modalities), Column("gap", "own (%)", rank=False))
    columns.append(Column("gap", "probe (%)", rank=False))
    columns += [Column(modality, "Shapley value (points)", rank=False) for modality in modalities]
    rows = []
    for method, measures in measures_of(comparison, found).items():
        cells = [_cell(comparison, method, measures, _of("own", m), UNSUPPORTED) for m in modalities]
        cells.append(_cell(comparison, method, measures, lambda one: one.gap, UNSUPPORTED))
        cells += [_cell(comparison, method, measures, _of("probe", m), UNSUPPORTED) for m in modalities]
        cells.append(_cell(comparison, method, measures, lambda one: one.probe_gap, UNSUPPORTED))
        cells += [_cell(comparison, method, measures, _of("shapley", m), MISSING) for m in modalities]
        rows.append((method, cells))
    done = {path for path, one in found.items() if one.shapley}
    notes = [
        f"n = {comparison.num_seeds} seeds, {comparison.kept.label} epoch, test samples. own: the method's own logits; "
        "probe: a linear classifier on the frozen encoder; gap: the best modality less the worst, in points.",
        "Shapley value: mean gain in fused accuracy when the modality joins, over all orders; absent modalities are "
        "zeros. They sum to the accuracy with all less that with none.",
        *not_evaluated(comparison, done),
        *comparison.left_out(),
        "— not run or not evaluated, ✗ failed, n/a the method has no such logits or encoder.",
    ]
    caption = f"{comparison.title}: imbalance between modalities, mean ± std over seeds"
    return Table(caption, columns, rows, notes).ranked()


def signals(comparison: Comparison, found: Found) -> Table:
    """Return the distance between the modalities' features, and the norms of their encoders' gradients."""
    modalities = comparison.modalities
    columns = [Column("distance", "features", 3, rank=False)]
    columns += [Column(name, "gradient norm", 3, rank=False) for name in (*modalities, "ratio")]
    rows = []
    for method, measures in measures_of(comparison, found).items():
        # runs from before norms were recorded are holes; where some were, the method leaves none for the others
        unknown = UNSUPPORTED if any(one.norms for one in measures) else MISSING
        cells = [_cell(comparison, method, measures, lambda one: one.distance, UNSUPPORTED)]
        cells += [_cell(comparison, method, measures, _of("norms", m), unknown) for m in modalities]
        cells.append(_cell(comparison, method, measures, lambda one: one.ratio, unknown))
        rows.append((method, cells))
    notes = [
        f"n = {comparison.num_seeds} seeds.",
        "distance: between the centres of the modalities' L2-normalised test features at the "
        f"{comparison.kept.label} epoch (Liang "
        "et al., NeurIPS 2022), in [0, 2]; over three modalities the mean of pairs; n/a where widths differ.",
        "gradient norm: of all of an encoder's parameters as its optimizer used them, mean over a few steps of each "
        "epoch; ratio: the largest over the smallest. n/a where a method leaves an encoder no gradient when a step "
        "ends, as alternating ones do.",
        *comparison.left_out(),
        "— not run or not recorded, ✗ failed, n/a not defined.",
    ]
    return Table(
        f"{comparison.title}: imbalance in features and gradients, mean ± std over seeds", columns, rows, notes
    )


def _of(name: str, modality: str) -> Callable[[Measures], float | None]:
    return lambda one: getattr(one, name).get(modality)


def _cell(
    comparison: Comparison,
    method: str,
    measures: Sequence[Measures],
    value_of: Callable[[Measures], float | None],
    symbol: str,
) -> Cell:
    """Return a cell; the symbol is for finished runs that have no such value."""
    return cell(comparison, method, [value_of(one) for one in measures], symbol if measures else MISSING)


# --- figure --------------------------------------------------------------------------------------------------------

PANELS: Mapping[str, tuple[str, str]] = {
    "own": ("own logits", "test accuracy (%)"),
    "probe": ("linear probe", "test accuracy (%)"),
    "shapley": ("Shapley value", "points of fused accuracy"),
    "norms": ("gradient norm", "mean over training"),
}
"""{measure: title, label of its axis}"""


def draw(comparison: Comparison, found: Found) -> Figure:
    """Draw a line of dots for each method, a dot for each modality: the longer the line, the more unequal they are."""
    of_method = {method: measures for method, measures in measures_of(comparison, found).items() if measures}
    methods = list(of_method)
    shown = [name for name in PANELS if any(getattr(one, name) for one in found.values())]
    height = 0.26 * len(methods) + 0.9
    title = f"{comparison.title}: imbalance between modalities"
    figure = open_figure(2.9 * len(shown) + width_of(methods) + 0.3, height, title, comparison.modalities)
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, shown, strict=True):
        for place, method in enumerate(methods):
            _dots(panel, place, [getattr(one, name) for one in of_method[method]], comparison.modalities)
        panel.set_title(PANELS[name][0], fontsize=10)
        panel.set_xlabel(PANELS[name][1], fontsize=9)
        panel.grid(alpha=0.3)
        if name == "norms":
            few_ticks(panel, "x")
    panels[0].yaxis.set_major_locator(FixedLocator(range(len(methods))))
    panels[0].yaxis.set_major_formatter(FixedFormatter(methods))
    panels[0].tick_params(axis="y", labelsize=8)
    panels[0].set_ylim(len(methods) - 0.4, -0.6)
    looks = zip(comparison.modalities, PALETTE, MARKERS, strict=False)
    add_legend(figure, {m: Line2D([], [], color=c, marker=mark, linestyle="") for m, c, mark in looks})
    return figure


def _dots(panel: Axes, place: int, seeds: Sequence[Values], modalities: Sequence[str]) -> None:
    """Draw the mean of each modality, small dots for single seeds, and a line from the least to the most."""
    means = {m: fmean(known) for m in modalities if (known := [one[m] for one in seeds if m in one])}
    if not means:
        return
    panel.plot([min(means.values()), max(means.values())], [place, place], color="0.7", linewidth=1.2, zorder=1)
    for modality, colour, marker in zip(modalities, PALETTE, MARKERS, strict=False):
        if modality in means:
            points = [one[modality] for one in seeds if modality in one]
            panel.plot(points, [place] * len(points), ".", color=colour, markersize=3, alpha=0.5, zorder=2)
            panel.plot(means[modality], place, marker, color=colour, markersize=5.5, zorder=3)
