"""Noise: accuracy of finished models on noisy test inputs, from the files of `bench evaluate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.metrics import HEADLINE
from benchmark.records import ALL, NoiseScores, RunView
from benchmark.report import Artifact, Comparison, Report, render, render_figure
from benchmark.tables.table import Column, Table

from ._figures import Style, add_legend, draw_seeds, handles_of, open_figure, styles
from ._runs import cell, chosen_how, methods_of, not_evaluated, seeds_of

STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""What the table shows where every modality is noisy."""
SINGLE = 1.0
"""What it shows for single modalities: noise as strong as the signal."""

Scores = dict[tuple[str, float], float]
"""{(modality, strength): fused accuracy in per cent}"""
Found = Mapping[Path, Scores]
"""{folder of a run: its scores}, without the runs that have none"""


class NoiseReport(Report):
    about = "accuracy on noisy test inputs, as a table and over the strength of the noise"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        looks = styles(comparisons)
        for comparison in comparisons:
            stem, found = f"noise-{comparison.stem}", comparison.once(read_all)
            yield from render(summary(comparison, found), stem)
            if found:
                yield from render_figure(draw(comparison, found, looks), stem)

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        for comparison in comparisons:
            if found := comparison.once(read_all):
                yield summary(comparison, found)


def read(run: RunView) -> Scores:
    """Return the scores of a run's noise.json; none where it is absent, damaged or of another run."""
    found = run.evaluation(NoiseScores)
    return {(row.modality, row.strength): HEADLINE.scale * row.accuracy for row in (found.rows if found else ())}


def read_all(comparison: Comparison) -> Found:
    """Return the scores of every evaluated run."""
    return {run.folder.path: scores for run in comparison.runs if (scores := read(run))}


def summary(comparison: Comparison, found: Found) -> Table:
    """Return the fused accuracy by strength with noise on all modalities, and with noise on each alone."""
    wanted = [(ALL, strength, "noise on all", f"{strength:g}") for strength in STRENGTHS]
    wanted += [(modality, SINGLE, f"noise of {SINGLE:g} on", modality) for modality in comparison.modalities]
    columns = [Column(name, group) for _, _, group, name in wanted]
    rows = []
    for method in methods_of(comparison):
        scores = [found.get(run.folder.path, {}) for run in comparison.of(method)]
        rows.append((method, [cell(comparison, method, [one.get(key[:2]) for one in scores]) for key in wanted]))
    caption = f"{comparison.title}: fused test accuracy (%) with noisy inputs, mean ± std over seeds"
    return Table(caption, columns, rows, notes(comparison, found)).ranked()


def notes(comparison: Comparison, found: Found) -> list[str]:
    """Return what a reader must know: what was done, and for which runs it was not."""
    return [
        f"n = {seeds_of(comparison, found)} seeds. Trained on clean inputs; {chosen_how(comparison)}. Gaussian "
        "noise is added to what the encoders read; its strength is its standard deviation over the spread of the "
        "modality's training inputs, so that 1 is 0 dB, 2 is -6 dB and 4 is -12 dB.",
        "Tokens are replaced instead, with probability s²/(1 + s²) at strength s, by those of random training samples "
        "at the same place. Every method meets the same noise.",
        *not_evaluated(comparison, found),
        *comparison.left_out(),
        "— not evaluated, ✗ failed, n/a unsupported.",
    ]


def draw(comparison: Comparison, found: Found, looks: Mapping[str, Style]) -> Figure:
    """Draw accuracy over the strength: a panel for noise on all modalities, and one for each."""
    titles = {
        ALL: "noise on all modalities",
        **{modality: f"noise on {modality}" for modality in comparison.modalities},
    }
    methods = [
        method for method in comparison.methods if any(run.folder.path in found for run in comparison.of(method))
    ]
    title = f"{comparison.title}: noisy test inputs, mean and range over seeds"
    figure = open_figure(3.6 * len(titles) + 0.4, 3.2, title, [*methods, "chance"])
    panels = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    classes = next(len(run.record.class_names) for run in comparison.runs if run.record)
    strengths = sorted({strength for scores in found.values() for _, strength in scores})
    for panel, (modality, name) in zip(panels, titles.items(), strict=True):
        for method in methods:
            scores = [found.get(run.folder.path, {}) for run in comparison.of(method)]
            _line(panel, scores, modality, strengths, method, looks[method])
        panel.axhline(100 / classes, color="0.5", linewidth=0.8, linestyle=(0, (1, 2)), label="chance")
        panel.set_title(name, fontsize=10)
        # strengths stand evenly, as they double: a linear axis would crowd those that matter
        panel.set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
        panel.set_xlabel("strength of noise (spread of train = 1)")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("fused test accuracy (%)")
    add_legend(figure, handles_of(panels))
    return figure


def _line(
    panel: Axes, scores: Sequence[Scores], modality: str, strengths: Sequence[float], label: str, style: Style
) -> None:
    """Draw a method where all its evaluated runs have a value."""
    curves = [{s: one[modality, s] for s in strengths if (modality, s) in one} for one in scores]
    curves = [curve for curve in curves if curve]
    shown = [s for s in strengths if curves and all(s in curve for curve in curves)]
    if shown:
        values = np.array([[curve[s] for s in shown] for curve in curves])
        draw_seeds(panel, [strengths.index(s) for s in shown], values, label, style)
