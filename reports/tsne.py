"""t-SNE: maps of each modality's test features, with how well the features themselves separate the classes."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from benchmark.records import Embeddings, RunView, State
from benchmark.report import Artifact, Comparison, Report, render, render_figure
from benchmark.tables.table import FAILED, MISSING, Cell, Column, Table

from ._figures import LONGEST, PALETTE

SAMPLES = 1000
"""Most test samples of a map."""
METHODS = 12
"""Most methods of a figure."""
PERPLEXITY = 30.0
COMPONENTS = 50
"""Principal components that t-SNE starts from, as van der Maaten and Hinton 2008 do at 30."""
FOLDS = NEIGHBOURS = 5
MARKERS = "o^sDvP"
TEN = (*PALETTE, "#8C510A", "#5E3C99", "#999999")
"""The same colours and three more, brown, purple and grey, for ten classes."""
LEGEND_CLASSES, LEGEND_COLUMNS = len(PALETTE) * len(MARKERS), 13
"""Most classes that a legend can tell apart, and how many stand in a line of it."""

one_thread = threadpool_limits.wrap(limits=1)
"""The order in which several threads add up their parts changes the last bits, and with them the map and the bytes."""

Array = NDArray[np.float64]
Looks = list[tuple[Any, str]]
"""Colour and marker of each class."""


@dataclass(frozen=True)
class Features:
    """Test features of one run, of the model that is kept, on the samples that all runs share, in order of id."""

    labels: NDArray[np.int64]
    """(N,)"""
    of: Mapping[str, Array]
    """{modality: (N, D)}, standardised."""


class TSNEReport(Report):
    about = "t-SNE of each modality's test features, with silhouette and nearest-neighbour accuracy"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        for comparison in comparisons:
            stem = f"tsne-{comparison.stem}"
            features, notes = read(comparison)
            yield from render(separation(comparison, features, notes), stem)
            if features:
                yield from render_figure(draw(comparison, features), stem)

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        return [separation(comparison, *read(comparison)) for comparison in comparisons]


Runs = Mapping[tuple[str, int], Features]
"""{(method, seed): features}"""


def read(comparison: Comparison) -> tuple[Runs, list[str]]:
    """Return the features of every finished run on their common samples, and in words what could not be used."""
    arrays: dict[tuple[str, int], Embeddings] = {}
    notes = comparison.left_out()
    for run in comparison.runs:
        if run.record:
            try:
                arrays[run.method, run.seed] = read_sound(run)
            except (OSError, ValueError) as error:
                cause = str(error).splitlines()[0] if str(error) else type(error).__name__
                notes.append(f"Not counted: {run.method}, seed {run.seed}, embeddings ({cause}).")
    ids = sorted(set.intersection(*(set(found.ids) for found in arrays.values()))) if arrays else []
    if not ids:
        return {}, [*notes, "No test sample is common to all runs."] if arrays else notes
    # evenly along the sorted ids: the first ones could all be of one class or one speaker
    chosen = [ids[at] for at in np.linspace(0, len(ids) - 1, min(len(ids), SAMPLES)).round().astype(int)]
    notes.insert(0, f"{len(chosen)} test samples, the same for all, of {len(ids)} that all runs have.")
    return {key: select(found, chosen) for key, found in arrays.items()}, notes


def read_sound(run: RunView) -> Embeddings:
    """Return the features of a run.

    Raises:
        OSError, ValueError: when they cannot be read or are not finite.
    """
    found = run.embeddings()
    if not all(np.isfinite(values).all() for values in found.features.values()):
        raise ValueError("expected finite features")
    return found


def select(found: Embeddings, ids: Sequence[str]) -> Features:
    """Return the features of these samples in this order, each dimension with mean 0 and variance 1."""
    place = {sample: at for at, sample in enumerate(found.ids)}
    rows = [place[sample] for sample in ids]
    features = {
        name: StandardScaler().fit_transform(values[rows].astype(np.float64)) for name, values in found.features.items()
    }
    return Features(found.labels[rows].astype(np.int64), features)


@one_thread
def silhouette(features: Array, labels: NDArray[np.int64]) -> float | None:
    """Return the mean silhouette, Euclidean, in [-1, 1]; None without two classes or with a class for each sample."""
    if not 2 <= len(np.unique(labels)) < len(labels):
        return None
    return float(silhouette_score(features, labels, metric="euclidean"))


@one_thread
def knn(features: Array, labels: NDArray[np.int64]) -> float | None:
    """Return the accuracy (%) of the 5 nearest neighbours, mean of 5 stratified folds; None for too few samples."""
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2 or counts.max() < FOLDS or len(labels) < 2 * FOLDS:
        return None
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class rarer than folds is wrong in some, as it should be
        scores = cross_val_score(KNeighborsClassifier(NEIGHBOURS), features, labels, cv=folds)
    return 100 * float(scores.mean())


@one_thread
def embed(features: Array) -> Array | None:
    """Return the t-SNE map (N, 2) of standardised features (N, D); None where there is nothing to map."""
    if min(features.shape) < 2 or len(features) < 5 or not features.any():
        return None
    reduced = PCA(min(COMPONENTS, *features.shape), svd_solver="full").fit_transform(features)
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    points: Array = TSNE(init="pca", random_state=0, perplexity=perplexity).fit_transform(reduced)
    return points


def separation(comparison: Comparison, runs: Runs, notes: Sequence[str]) -> Table:
    """Return silhouette and nearest-neighbour accuracy of each modality's features, mean ± std over seeds."""
    columns, rows = [], {method: list[Cell]() for method in comparison.methods}
    for modality in comparison.modalities:
        columns += [Column("silhouette", modality, digits=3), Column("kNN (%)", modality)]
        for method in comparison.methods:
            alike = comparison.of(method)
            symbol = FAILED if any(run.status.state is State.FAILED for run in alike) else MISSING
            found = [runs[method, run.seed] for run in alike if (method, run.seed) in runs]
            for score in (silhouette, knn):
                scores = [score(one.of[modality], one.labels) for one in found if modality in one.of]
                rows[method].append(Cell(tuple(value for value in scores if value is not None), symbol))
    epoch = f"{comparison.kept.label} epoch"
    lines = [f"Test features at the {epoch}, each dimension standardised; not the two dimensions of the map."]
    lines.append(f"silhouette: Euclidean, over classes. kNN: k = {NEIGHBOURS}, mean of {FOLDS} folds of the test set.")
    shown = len(first_seeds(comparison, runs))
    if shown > METHODS:
        lines.append(f"The figure shows the first {METHODS} of {shown} methods.")
    lines += [*notes, "— not run or not defined, ✗ failed."]
    caption = f"{comparison.title}: how the features of each modality separate the classes, mean ± std over seeds"
    return Table(caption, columns, list(rows.items()), lines).ranked()


def first_seeds(comparison: Comparison, runs: Runs) -> dict[str, int]:
    """Return {method: its first seed that has features}."""
    found: dict[str, int] = {}
    for method, seed in sorted(runs):
        found.setdefault(method, seed)
    return {method: found[method] for method in comparison.methods if method in found}


def draw(comparison: Comparison, runs: Runs) -> Figure:
    """Draw a map for each method (rows) and modality (columns), classes in colours."""
    shown = list(first_seeds(comparison, runs).items())[:METHODS]
    names = next(run.record.class_names for run in comparison.runs if run.record)
    styles = looks(len(names))
    wide = len(comparison.modalities)
    legend_rows = math.ceil(len(names) / LEGEND_COLUMNS) if len(names) <= LEGEND_CLASSES else 0
    size = (2.7 * wide + 0.6, 2.75 * len(shown) + 0.6 + 0.22 * legend_rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(shown), wide, squeeze=False)
    for row, (method, seed) in zip(panels, shown, strict=True):
        features = runs[method, seed]
        for panel, modality in zip(row, comparison.modalities, strict=True):
            _panel(panel, features.of.get(modality), features.labels, styles)
            panel.set(xticks=[], yticks=[])
        row[0].set_ylabel(textwrap.fill(f"{method},seed {seed}".replace(",", ", "), 28), fontsize=10)
    for panel, modality in zip(panels[0], comparison.modalities, strict=True):
        panel.set_title(modality, fontsize=11)
    figure.suptitle("\n".join(textwrap.wrap(comparison.title, LONGEST)))
    if legend_rows:
        dots = [Line2D([], [], marker=shape, linestyle="", markersize=5, color=colour) for colour, shape in styles]
        options = {"ncols": min(len(names), LEGEND_COLUMNS), "handletextpad": 0.1, "columnspacing": 0.9}
        figure.legend(dots, names, loc="outside lower center", fontsize=8, **options)
    return figure


def looks(count: int) -> Looks:
    """Return a colour and a marker for each class: seven or ten colours, then other markers, then a rainbow."""
    if count > LEGEND_CLASSES:
        return [(colour, "o") for colour in matplotlib.colormaps["gist_rainbow"](np.linspace(0, 1, count))]
    if len(PALETTE) < count <= len(TEN):  # digits, say: no colour twice
        return [(TEN[k], MARKERS[k // len(PALETTE)]) for k in range(count)]
    return [(PALETTE[k % len(PALETTE)], MARKERS[k // len(PALETTE)]) for k in range(count)]


def _panel(panel: Axes, features: Array | None, labels: NDArray[np.int64], styles: Looks) -> None:
    if features is None:
        panel.set_frame_on(False)
        panel.text(0.5, 0.5, MISSING, transform=panel.transAxes, ha="center", va="center", color="0.5")
        return
    points = embed(features)
    if points is not None:
        # points are an image inside the SVG: some ten thousand shapes make it slow to open
        for label, (colour, shape) in enumerate(styles):
            x, y = points[labels == label].T
            panel.scatter(x, y, s=7, color=[colour], marker=shape, linewidths=0, rasterized=True)
    scores = [("silhouette {:.3f}", silhouette(features, labels)), ("kNN {:.1f} %", knn(features, labels))]
    caption = ", ".join(text.format(score) for text, score in scores if score is not None)
    panel.set_xlabel(caption if points is not None else f"constant features, {caption}", fontsize=9)
