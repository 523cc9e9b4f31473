"""Ablation: one row for each setting of a method, with what it reaches, what it grew to and what it weighs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmark.metrics import FUSED, HEADLINE
from benchmark.records import RunView
from benchmark.report import Artifact, Comparison, Report, render
from benchmark.rules import dagger
from benchmark.tables.table import Cell, Column, Table

from ._histories import History, histories

Value = Callable[[RunView], float | None]
"""Reads a number from a run; None where it has none."""


class AblationReport(Report):
    about = "settings of methods by fused, own and probe accuracy, classifiers and parameters"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        for comparison in comparisons:
            yield from render(ablation(comparison), f"ablation-{comparison.stem}")

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        return [ablation(comparison) for comparison in comparisons]


def ablation(comparison: Comparison) -> Table:
    """Return the table: accuracies in per cent by the comparison's selection rule, counts at the end of training."""
    rule, mark = comparison.selection, dagger(comparison.selection)
    logs = comparison.once(histories)
    counts = {run.folder.path: classifiers(run, logs.get(run.folder.path)) for run in comparison.runs}
    whole = wholes(comparison)
    shown: list[tuple[Column, Value]] = [(Column(f"fused{mark}"), partial(accuracy, rule=rule, head=FUSED))]
    if any(run.method != run.spec["method"]["name"] for run in comparison.runs) and whole:
        shown.append((Column("Δ", digits=1, rank=False), partial(change, comparison, whole, rule)))
    for modality in comparison.modalities:
        shown.append((Column(f"own{mark}", modality), partial(accuracy, rule=rule, head=modality)))
        shown.append((Column("probe", modality), partial(probe, modality=modality)))
        if any(modality in found for found in counts.values()):
            shown.append((Column("classifiers", modality, rank=False), partial(count, counts, modality)))
    shown.append((Column("parameters", digits=0, rank=False), num_parameters))
    rows = [
        (method, [cell(comparison, method, value_of) for _, value_of in shown])
        for method in [*comparison.methods, *sorted(set(comparison.unsupported) - set(comparison.methods))]
    ]
    caption = f"{comparison.title}: settings, test accuracy (%), mean ± std over seeds"
    columns = [column for column, _ in shown]
    return Table(caption, columns, rows, notes(comparison, [column.name for column in columns])).ranked()


def cell(comparison: Comparison, method: str, value_of: Value) -> Cell:
    """Return a value over seeds, once where it cannot differ, or the symbol for why there is none."""
    found = [value_of(run) for run in comparison.of(method)]
    values = tuple(value for value in found if value is not None)
    same = value_of is num_parameters and len(set(values)) == 1
    return Cell(values[:1] if same else values, comparison.symbol(method))


def wholes(comparison: Comparison) -> dict[tuple[str, int], RunView]:
    """Return {(name, seed): finished run of the method as it is, no setting changed}."""
    return {
        (run.method, run.seed): run
        for run in comparison.runs
        if run.method == run.spec["method"]["name"] and run.record
    }


def change(comparison: Comparison, whole: Mapping[tuple[str, int], RunView], rule: str, run: RunView) -> float | None:
    """Return the fused accuracy less that of the method as it is with the same seed and of the same code, in points."""
    base = whole.get((run.spec["method"]["name"], run.seed))
    if base is None or base is run or run.method in comparison.marked:
        return None
    ours, theirs = accuracy(run, rule, FUSED), accuracy(base, rule, FUSED)
    return None if ours is None or theirs is None else ours - theirs


def count(counts: Mapping[Path, Mapping[str, float]], modality: str, run: RunView) -> float | None:
    """Return how many classifiers a modality had, from what was read of all runs."""
    return counts[run.folder.path].get(modality)


def num_parameters(run: RunView) -> float | None:
    return float(run.record.num_parameters) if run.record else None


def accuracy(run: RunView, rule: str, head: str) -> float | None:
    """Return the test accuracy (%) of the fused prediction or of a modality's own logits at the rule's epoch."""
    found = run.score(rule, head)
    return None if found is None else HEADLINE.scale * found


def probe(run: RunView, modality: str) -> float | None:
    """Return the test accuracy (%) of a linear probe of the frozen encoder that is kept."""
    # not at the epoch of the rule: no encoder is kept for the epoch that is best on test
    found = run.probe(modality)
    return None if found is None else HEADLINE.scale * found


def classifiers(run: RunView, history: History | None) -> dict[str, float]:
    """Return how many classifiers each modality had in the last epoch, {} for a method that logs none."""
    logged = history.under("train/classifiers") if run.record and history else {}
    return {modality: float(counts[-1]) for modality, counts in logged.items() if math.isfinite(counts[-1])}


def notes(comparison: Comparison, columns: Sequence[str]) -> list[str]:
    """Return what a reader must know: rule, seeds, what the columns mean, missing and failed runs."""
    lines = [f"n = {comparison.num_seeds} seeds, selection {comparison.selection}; fused and own at its epoch."]
    if "Δ" in columns:
        lines.append("Δ: fused less that of the method with no setting changed, in points, over common seeds.")
    lines.append(
        "own: the method's own logits of a modality; probe: linear classifier on the frozen encoder, "
        f"{comparison.kept.label}."
    )
    if "classifiers" in columns:
        lines.append("classifiers: as trained in the last epoch. parameters: after it, with what was added at its end.")
    lines += comparison.left_out()
    lines.append(
        "— not run or not defined, ✗ failed"
        + ", n/a unsupported" * bool(comparison.unsupported)
        + ("; † epoch chosen on the test set." if dagger(comparison.selection) else ".")
    )
    return lines
