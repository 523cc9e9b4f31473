"""Curves: validation accuracy over epochs, fused and for each modality, one figure for each data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.report import Artifact, Comparison, Report, render_figure, slug


class CurvesReport(Report):
    about = "validation accuracy over epochs, mean and range over seeds"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        for comparison in comparisons:
            yield from render_figure(draw(comparison), f"curves-{slug(comparison.title)}")


def draw(comparison: Comparison) -> Figure:
    """Draw one panel for the fused prediction and one for each modality's own."""
    heads = ["fused", *comparison.modalities]
    figure = Figure(figsize=(4.2 * len(heads), 3.6), layout="constrained")
    panels = figure.subplots(1, len(heads), sharey=True, squeeze=False)[0]
    for panel, head in zip(panels, heads, strict=True):
        for position, method in enumerate(comparison.methods):
            _line(panel, comparison, method, head, f"C{position % 10}")
        panel.set(title=head if head == "fused" else f"{head}, own logits", xlabel="epoch")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("validation accuracy (%)")
    handles: dict[str, Artist] = {}
    for panel in panels:
        lines, labels = panel.get_legend_handles_labels()
        handles.update(zip(labels, lines, strict=True))
    figure.suptitle(comparison.title)
    if handles:
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=min(len(handles), 6))
    return figure


def _line(panel: Axes, comparison: Comparison, method: str, head: str, colour: str) -> None:
    histories = [run.folder.read_history() for run in comparison.of(method)]
    curves = [
        [100 * line["valid"][head]["accuracy"] for line in history if head in line["valid"]] for history in histories
    ]
    length = min((len(curve) for curve in curves if curve), default=0)
    if not length:
        return
    values = np.array([curve[:length] for curve in curves if curve])
    epochs = np.arange(1, length + 1)
    panel.plot(epochs, values.mean(0), colour, label=method, linewidth=1.4)
    panel.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
