"""Curves: what happens while training: accuracies, losses, gradient norms and the methods' own signals over epochs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmark.report import Artifact, Comparison, Report, render_figure, slug

from ._figures import Style, add_legend, draw_seeds, few_ticks, handles_of, open_figure, style_at, styles
from ._histories import Array, History, histories

PANELS = 3
"""Panels in a row of a figure of signals."""
WHOLE = "all together"
"""What a legend calls a signal that has no parts."""

Histories = Mapping[str, Sequence[History]]
"""{method: histories of its runs, by seed}"""


class CurvesReport(Report):
    about = "accuracy, losses, gradient norms and the methods' own signals over epochs, mean and range over seeds"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        looks = styles(comparisons)
        for comparison in comparisons:
            stem, logs = comparison.stem, read(comparison)
            for name, figure in figures(comparison, logs, looks).items():
                yield from render_figure(figure, f"{name}-{stem}")
            for method, runs in logs.items():
                if shown := signals(runs):
                    name = f"signals-{slug(f'{method}-{comparison.title}')}"
                    yield from render_figure(draw_signals(comparison, method, runs, shown), name)


def read(comparison: Comparison) -> Histories:
    """Return what every run logged, unfinished ones included."""
    logs = comparison.once(histories)
    return {
        m: [logs[run.folder.path] for run in comparison.of(m) if run.folder.path in logs] for m in comparison.methods
    }


def figures(comparison: Comparison, logs: Histories, looks: Mapping[str, Style]) -> dict[str, Figure]:
    """Return the figures that compare methods, by name; without those that nothing was logged for."""
    modalities = comparison.modalities
    heads = {head: f"{head}, own logits" if head in modalities else head for head in ("fused", *modalities)}
    wanted = {
        "curves": ("validation accuracy (%)", {heads[head]: f"valid/{head}/accuracy" for head in heads}),
        "losses": ("training loss (nats)",
                   {"the method's loss": "train/loss", **{f"{m}, own logits": f"train/loss/{m}" for m in modalities}}),
        "gradients": ("norm of the gradients", {f"{m} encoder": f"gradients/{m}" for m in modalities}),
    }  # fmt: skip
    drawn = {}
    for name, (label, panels) in wanted.items():
        scale = 100 if name == "curves" else 1
        curves = {
            title: {method: found for method, runs in logs.items() if (found := series(runs, path, scale))}
            for title, path in panels.items()
        }
        if any(curves.values()) or name == "curves":
            drawn[name] = draw(f"{comparison.title}: {label}", curves, label, looks)
    return drawn


def series(runs: Sequence[History], path: str, scale: float = 1) -> tuple[Array, Array] | None:
    """Return the epochs (E,) in which every run with such values has a finite one, and these (seeds, E).

    None where no run has any.
    """
    found = []
    for history in runs:
        values = history.column(path)
        finite = np.isfinite(values)
        if finite.any():
            found.append(dict(zip(history.epochs[finite].tolist(), (scale * values[finite]).tolist(), strict=True)))
    epochs = sorted(set.intersection(*map(set, found))) if found else []
    return (np.array(epochs), np.array([[one[epoch] for epoch in epochs] for one in found])) if epochs else None


def draw(
    title: str,
    curves: Mapping[str, Mapping[str, tuple[Array, Array]]],
    label: str,
    looks: Mapping[str, Style],
) -> Figure:
    """Draw a panel for each title of `curves`, in it a line for each method."""
    methods = list(dict.fromkeys(method for found in curves.values() for method in found))
    figure = open_figure(3.8 * len(curves) + 0.4, 3.2, f"{title}, mean and range over seeds", methods)
    # what a method minimises may be a sum of many terms, so that losses have axes of their own
    panels = figure.subplots(1, len(curves), sharey="loss" not in label, squeeze=False)[0]
    for panel, (name, found) in zip(panels, curves.items(), strict=True):
        for method, (epochs, values) in found.items():
            draw_seeds(panel, epochs, values, method, looks[method])
        _finish(panel, name)
        if label.startswith("norm"):
            few_ticks(panel, "y")
    panels[0].set_ylabel(label)
    add_legend(figure, handles_of(panels))
    return figure


def _finish(panel: Axes, name: str) -> None:
    panel.set_title(name, fontsize=10)
    panel.set_xlabel("epoch")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(alpha=0.3)


def signals(runs: Sequence[History]) -> dict[str, list[str]]:
    """Return what a method logs beside losses of modalities, as {signal: its parts, such as modalities}."""
    keys = sorted({key for history in runs for key in history.under("train")})
    found: dict[str, list[str]] = {}
    for key in keys:
        name, _, part = key.partition("/")
        if name != "loss":
            found.setdefault(name, []).append(part)
    return found


def draw_signals(
    comparison: Comparison, method: str, runs: Sequence[History], shown: Mapping[str, Sequence[str]]
) -> Figure:
    """Draw a panel for each signal of a method, a line for each of its parts."""
    order = [*comparison.modalities, *sorted({part for parts in shown.values() for part in parts})]
    parts = [part for part in dict.fromkeys(order) if any(part in of_signal for of_signal in shown.values())]
    wide = min(len(shown), PANELS)
    tall = math.ceil(len(shown) / wide)
    title = f"{method} on {comparison.title}: its own signals, mean and range over seeds"
    figure = open_figure(max(3.4 * wide + 0.4, 5.0), 2.4 * tall, title, [part or WHOLE for part in parts])
    panels = list(figure.subplots(tall, wide, squeeze=False).flat)
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    for panel, (name, of_signal) in zip(panels, shown.items(), strict=False):
        for part in of_signal:
            found = series(runs, f"train/{name}/{part}" if part else f"train/{name}")
            if found:
                draw_seeds(panel, *found, part or WHOLE, style_at(parts.index(part)))
        _finish(panel, name)
    handles = handles_of(panels)
    add_legend(figure, {name: handles[name] for part in parts if (name := part or WHOLE) in handles})
    return figure
