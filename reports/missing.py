"""Missing: accuracy of finished models when a modality is missing at test time, from the files of `bench evaluate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.metrics import HEADLINE
from benchmark.records import MIXED, MissingScores, RunView
from benchmark.report import Artifact, Comparison, Report, render, render_figure
from benchmark.tables.table import Column, Table

from ._figures import Style, add_legend, draw_seeds, handles_of, open_figure, styles
from ._runs import cell, chosen_how, methods_of, not_evaluated, seeds_of

FILLS = {
    "zero": "zeros",
    "mean": "the mean training input",
    "noise": "Gaussian noise with the training inputs' mean and spread",
}
"""What stands in for a missing input; the first is the literature's."""
SHORT = {"zero": "zeros", "mean": "the mean", "noise": "noise"}
PAPER = "zero"
RATES = (0.0, 0.2, 0.5, 1.0)
"""Shares of the test samples that are affected: 0, 20 and 50 % stand in the literature's tables."""

Scores = dict[tuple[str, str, float], float]
"""{(modality, fill, rate): fused accuracy in per cent}"""
Found = Mapping[Path, Scores]
"""{folder of a run: its scores}, without the runs that have none"""


class MissingReport(Report):
    about = "accuracy with modalities missing at test time: modality, rate and fill, as tables and over rates"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        looks = styles(comparisons)
        for comparison in comparisons:
            stem, found = comparison.stem, comparison.once(read_all)
            for fill in fills(found):
                yield from render(summary(comparison, found, fill), f"missing-{fill}-{stem}")
            if found:
                yield from render_figure(draw(comparison, found, looks), f"missing-{stem}")

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        for comparison in comparisons:
            if found := comparison.once(read_all):
                yield summary(comparison, found, PAPER, single=(0.5,))


def read(run: RunView) -> Scores:
    """Return the scores of a run's missing.json; none where it is absent, damaged or of another run."""
    found = run.evaluation(MissingScores)
    rows = found.rows if found else ()
    return {(row.modality, row.fill, row.rate): HEADLINE.scale * row.accuracy for row in rows}


def read_all(comparison: Comparison) -> Found:
    """Return the scores of every evaluated run."""
    return {run.folder.path: scores for run in comparison.runs if (scores := read(run))}


def fills(found: Found) -> list[str]:
    """Return the fills that were measured: inputs that are whole numbers have no mean. The paper's always counts."""
    measured = {fill for scores in found.values() for _, fill, _ in scores}
    return [fill for fill in FILLS if fill in measured or fill == PAPER]


def summary(comparison: Comparison, found: Found, fill: str, single: Sequence[float] = RATES[1:]) -> Table:
    """Return the fused accuracy by rate, where any one modality is missing and, at rates `single`, where each is."""
    wanted = [(MIXED, rate, "any one missing") for rate in RATES]
    wanted += [(modality, rate, f"{modality} missing") for modality in comparison.modalities for rate in single]
    columns = [Column(f"{100 * rate:.0f} %", group) for _, rate, group in wanted]
    rows = []
    for method in methods_of(comparison):
        scores = [found.get(run.folder.path, {}) for run in comparison.of(method)]
        keys = [(modality, fill, rate) for modality, rate, _ in wanted]
        rows.append((method, [cell(comparison, method, [one.get(key) for one in scores]) for key in keys]))
    caption = f"{comparison.title}: fused test accuracy (%) with missing modalities, mean ± std over seeds"
    return Table(caption, columns, rows, notes(comparison, found, fill)).ranked()


def notes(comparison: Comparison, found: Found, fill: str) -> list[str]:
    """Return what a reader must know: what was done, and for which runs it was not."""
    return [
        f"n = {seeds_of(comparison, found)} seeds. Trained on complete inputs; {chosen_how(comparison)}; columns "
        f"give the share of test samples with a missing input, which is replaced by {FILLS[fill]}.",
        "any one missing: each affected sample lacks one modality, drawn uniformly. Every method meets the same holes.",
        *not_evaluated(comparison, found),
        *comparison.left_out(),
        "— not evaluated, ✗ failed, n/a unsupported.",
    ]


def draw(comparison: Comparison, found: Found, looks: Mapping[str, Style]) -> Figure:
    """Draw accuracy over the share of affected samples: a row for each fill, a panel for each missing modality."""
    titles = {MIXED: "any one missing", **{modality: f"{modality} missing" for modality in comparison.modalities}}
    shown = [fill for fill in fills(found) if any(fill == key[1] for scores in found.values() for key in scores)]
    methods = [
        method for method in comparison.methods if any(run.folder.path in found for run in comparison.of(method))
    ]
    title = f"{comparison.title}: missing modalities, mean and range over seeds"
    figure = open_figure(3.6 * len(titles) + 0.4, 2.6 * len(shown), title, [*methods, "chance"])
    panels = figure.subplots(len(shown), len(titles), sharex=True, sharey=True, squeeze=False)
    classes = next(len(run.record.class_names) for run in comparison.runs if run.record)
    for row, fill in zip(panels, shown, strict=True):
        for panel, modality in zip(row, titles, strict=True):
            for method in methods:
                _line(panel, [found.get(run.folder.path, {}) for run in comparison.of(method)], (modality, fill),
                      method, looks[method])  # fmt: skip
            panel.axhline(100 / classes, color="0.5", linewidth=0.8, linestyle=(0, (1, 2)), label="chance")
            panel.set(xlim=(0, 100))
            panel.grid(alpha=0.3)
        row[0].set_ylabel(f"filled with {SHORT[fill]}\nfused test accuracy (%)", fontsize=9)
    for panel, name in zip(panels[0], titles.values(), strict=True):
        panel.set_title(name, fontsize=10)
    for panel in panels[-1]:
        panel.set_xlabel("affected test samples (%)")
    add_legend(figure, handles_of(list(panels.flat)))
    return figure


def _line(panel: Axes, scores: Sequence[Scores], key: tuple[str, str], label: str, style: Style) -> None:
    """Draw a method where all its evaluated runs have a value."""
    curves = [{rate: value for (m, fill, rate), value in one.items() if (m, fill) == key} for one in scores]
    curves = [curve for curve in curves if curve]
    rates = sorted(set(curves[0]).intersection(*curves)) if curves else []
    if rates:
        accuracies = np.array([[curve[rate] for rate in rates] for curve in curves])
        draw_seeds(panel, 100 * np.array(rates), accuracies, label, style)
