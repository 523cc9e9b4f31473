"""Missing: accuracy of finished models when a modality is missing at test time, from the files of `bench evaluate`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.records import RunView, State
from benchmark.report import Artifact, Comparison, Report, render, render_figure, slug
from benchmark.table import FAILED, MISSING, Cell, Column, Table

SCHEMA = 1
"""Version of missing.json."""
MIXED = "mixed"
FILLS = {
    "zero": "zeros",
    "mean": "the mean training input",
    "noise": "Gaussian noise with the training inputs' mean and spread",
}
"""What stands in for a missing input; the first is the literature's."""
PAPER = "zero"
RATES = (0.0, 0.2, 0.5)
"""Shares of the test samples that are affected, as in the literature's tables."""
LINES = ("-", "--", ":")
"""Line styles, the next for every ten methods."""

Scores = dict[tuple[str, str, float], float]
"""{(modality, fill, rate): fused accuracy in per cent}"""


class MissingReport(Report):
    about = "accuracy with modalities missing at test time, as a table and over rates"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        for comparison in comparisons:
            stem = slug(comparison.title)
            for fill in FILLS:
                yield from render(summary(comparison, fill), f"missing-{fill}-{stem}")
            if any(map(read, comparison.runs)):
                yield from render_figure(draw(comparison), f"missing-{stem}")

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        for comparison in comparisons:
            if any(map(read, comparison.runs)):
                yield summary(comparison, PAPER)


def read(run: RunView) -> Scores:
    """Return the scores of a run's missing.json; none where it is absent, damaged or of another run."""
    try:
        content = json.loads((run.folder.path / "missing.json").read_text(encoding="utf-8"))
        if run.record is None or (content["schema"], content["id"]) != (SCHEMA, run.record["id"]):
            return {}
        return {(row["modality"], row["fill"], row["rate"]): 100 * row["accuracy"] for row in content["rows"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def summary(comparison: Comparison, fill: str) -> Table:
    """Return the fused accuracy where any modality is missing, by rate, and where one is for half the samples."""
    wanted = [(MIXED, rate, "any one missing") for rate in RATES]
    wanted += [(modality, 0.5, f"{modality} missing") for modality in comparison.modalities]
    columns = [Column(f"{100 * rate:.0f} %", group) for _, rate, group in wanted]
    rows = []
    for method in comparison.methods:
        runs = comparison.of(method)
        rows.append((method, [cell(runs, modality, fill, rate) for modality, rate, _ in wanted]))
    caption = f"{comparison.title}: fused test accuracy (%) with missing modalities, mean ± std over seeds"
    return Table(caption, columns, rows, notes(comparison, fill)).ranked()


def cell(runs: Sequence[RunView], modality: str, fill: str, rate: float) -> Cell:
    """Return a method's accuracy in per cent, or a symbol for why there is none."""
    found = [read(run).get((modality, fill, rate)) for run in runs]
    failed = any(run.status.state is State.FAILED for run in runs)
    return Cell(tuple(value for value in found if value is not None), FAILED if failed else MISSING)


def notes(comparison: Comparison, fill: str) -> list[str]:
    """Return what a reader must know: what was done, and for which runs it was not."""
    done = [run for run in comparison.runs if read(run)]
    counts = sorted({sum(run.method == method for run in done) for method in comparison.methods})
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    lines = [
        f"n = {seeds} seeds. Trained on complete inputs; epoch chosen on validation; columns give the share of test "
        f"samples with a missing input, which is replaced by {FILLS[fill]}.",
        "any one missing: each affected sample lacks one modality, drawn uniformly. Every method meets the same holes.",
    ]
    left = [run for run in comparison.runs if run.record and not read(run)]
    if left:
        names = ", ".join(dict.fromkeys(run.method for run in left))
        lines.append(f"Finished but not evaluated: {len(left)} runs ({names}). To do so: bench evaluate")
    lines += comparison.left_out()
    return [*lines, "— not evaluated, ✗ failed."]


def draw(comparison: Comparison) -> Figure:
    """Draw accuracy over the share of affected samples: a panel for any one modality missing, and one for each."""
    titles = {MIXED: "any one missing", **{modality: f"{modality} missing" for modality in comparison.modalities}}
    drawn = Figure(figsize=(4.2 * len(titles), 3.8), layout="constrained")
    panels = drawn.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    handles: dict[str, Artist] = {}
    for panel, (modality, title) in zip(panels, titles.items(), strict=True):
        for position, method in enumerate(comparison.methods):
            style = {"color": f"C{position % 10}", "linestyle": LINES[position // 10 % len(LINES)]}
            _line(panel, comparison, method, modality, style)
        chance = [100 / len(run.record["class_names"]) for run in comparison.runs if run.record]
        panel.axhline(chance[0], color="0.5", linewidth=0.8, linestyle=(0, (1, 2)), label="chance")
        panel.set(title=title, xlabel="affected test samples (%)", xlim=(0, 100))
        panel.grid(alpha=0.3)
        lines, labels = panel.get_legend_handles_labels()
        handles.update(zip(labels, lines, strict=True))
    panels[0].set_ylabel("fused test accuracy (%)")
    drawn.suptitle(f"{comparison.title}: missing inputs replaced by {FILLS[PAPER]}")
    drawn.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=min(len(handles), 6))
    return drawn


def _line(panel: Axes, comparison: Comparison, method: str, modality: str, style: dict[str, str]) -> None:
    curves = []
    for run in comparison.of(method):
        found = {rate: value for (m, fill, rate), value in read(run).items() if (m, fill) == (modality, PAPER)}
        if found:
            curves.append(found)
    rates = sorted(set(curves[0]).intersection(*curves)) if curves else []
    if not rates:
        return
    values = np.array([[curve[rate] for rate in rates] for curve in curves])
    shares = 100 * np.array(rates)
    panel.plot(shares, values.mean(0), label=method, linewidth=1.4, **style)  # type: ignore[arg-type]
    panel.fill_between(shares, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0)
