"""Comparison: every method on every data set, by the protocol's selection rule, and each data set in detail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from benchmark.records import RunView
from benchmark.report import Artifact, Comparison, Report, render, slug
from benchmark.tables.table import Cell, Column, Mark, Table

from ._answers import Score
from ._bootstrap import resamples_for
from ._marks import LEVEL, Paired, paired

RULE_NAMES = {"best_valid": "best valid", "last": "last epoch", "oracle_test": "oracle†"}
METRIC_NAMES = {"accuracy": "acc", "macro_f1": "macro-F1", "map": "mAP"}
PROBE = "probe"
"""The linear probe of the frozen encoder; its predictions are not kept."""


class ComparisonReport(Report):
    about = "methods by data sets, and fused and per-modality scores under the three selection rules"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        if comparisons:
            yield from render(summary(comparisons), "comparison")
        for comparison in comparisons:
            yield from render(fused(comparison, tuple(METRIC_NAMES)), f"fused-{slug(comparison.title)}")
            yield from render(unimodal(comparison, tuple(RULE_NAMES)), f"unimodal-{slug(comparison.title)}")

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        for comparison in comparisons:
            yield fused(comparison)
            yield unimodal(comparison)


def summary(comparisons: Sequence[Comparison]) -> Table:
    """Return the main table: for each data set accuracy, macro-F1 and mAP of the fused prediction, in per cent."""
    methods = sorted({method for comparison in comparisons for method in methods_of(comparison)})
    columns, rows = [], {method: list[Cell]() for method in methods}
    for comparison in comparisons:
        dagger = "†" if comparison.selection == "oracle_test" else ""
        for metric, name in METRIC_NAMES.items():
            columns.append(Column(name, comparison.title + dagger))
            cells = column(comparison, (comparison.selection, "fused", metric))
            for method in methods:
                rows[method].append(cells.get(method, Cell()))
    caption = "Fused test scores (%), mean ± std over seeds"
    return Table(caption, columns, list(rows.items()), notes(comparisons))


def fused(comparison: Comparison, metrics: Sequence[str] = ("accuracy",)) -> Table:
    """Return the fused scores by each selection rule, and the optimism of choosing on test."""
    columns, cells = [], []
    for metric in metrics:
        group = f"fused {METRIC_NAMES[metric] if len(metrics) > 1 else metric}"
        for rule, name in RULE_NAMES.items():
            columns.append(Column(name, group))
            cells.append(column(comparison, (rule, "fused", metric)))
        columns.append(Column("optimism", group))
        cells.append({method: optimism(comparison, method, metric) for method in methods_of(comparison)})
    caption = f"{comparison.title}: fused test scores (%), mean ± std over seeds"
    return Table(caption, columns, _rows(comparison, cells), notes([comparison]))


def unimodal(comparison: Comparison, rules: Sequence[str] = ("best_valid",)) -> Table:
    """Return each modality's accuracy: by the method's own logits, and by a linear probe of its encoder."""
    columns, cells = [], []
    for modality in comparison.modalities:
        for rule in rules:
            columns.append(Column(f"own, {RULE_NAMES[rule]}", modality))
            cells.append(column(comparison, (rule, modality, "accuracy")))
        columns.append(Column(PROBE, modality))
        cells.append(column(comparison, ("best_valid", modality, PROBE)))
    caption = f"{comparison.title}: test accuracy of each modality (%), mean ± std over seeds"
    about_probe = (
        "probe: linear classifier on the frozen encoder, best valid epoch; unmarked, as its answers are not kept."
    )
    return Table(caption, columns, _rows(comparison, cells), [*notes([comparison]), about_probe])


def _rows(comparison: Comparison, cells: Sequence[Mapping[str, Cell]]) -> list[tuple[str, list[Cell]]]:
    return [(method, [column[method] for column in cells]) for method in methods_of(comparison)]


def methods_of(comparison: Comparison) -> list[str]:
    """Return the methods that ran or were planned, then those that cannot run on this data set."""
    return [*comparison.methods, *sorted(comparison.unsupported.keys() - set(comparison.methods))]


def column(comparison: Comparison, score: Score) -> dict[str, Cell]:
    """Return {method: its score in per cent}, marked by test."""
    marks = comparison.once(paired).marks.get(score, {})
    return {
        method: replace(cell(comparison, method, score), mark=marks.get(method, Mark.NONE))
        for method in methods_of(comparison)
    }


def cell(comparison: Comparison, method: str, score: Score) -> Cell:
    """Return a method's score in per cent, or the symbol for why there is none."""
    found = [value(run, score) for run in comparison.of(method)]
    return Cell(tuple(100 * one for one in found if one is not None), comparison.symbol(method))


def value(run: RunView, score: Score) -> float | None:
    """Return a score of a finished run as a fraction; None where the record has none."""
    rule, head, metric = score
    entry = run.record["rules"].get(rule, {}) if run.record else {}
    found = entry.get(PROBE, {}).get(head) if metric == PROBE else entry.get("test", {}).get(head, {}).get(metric)
    return None if found is None else float(found)


def optimism(comparison: Comparison, method: str, metric: str) -> Cell:
    """Return how far choosing the epoch on test lifts a score over choosing it on validation, in points."""
    gaps = []
    for run in comparison.of(method):
        chosen, honest = (value(run, (rule, "fused", metric)) for rule in ("oracle_test", "best_valid"))
        if chosen is not None and honest is not None:
            gaps.append(100 * (chosen - honest))
    return Cell(tuple(gaps), comparison.symbol(method))


def notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Return what a reader must know: seeds, marks, missing and failed runs, stale ones."""
    lines = []
    for comparison in comparisons:
        found = comparison.once(paired)
        lines.append(f"{comparison.title}: {seeds(comparison)}, selection {comparison.selection}.")
        lines += [*comparison.left_out(), *found.notes, *untested(comparison, found)]
    return [*lines, *about_marks(comparisons), "— not run, ✗ failed, n/a unsupported; † epoch chosen on the test set."]


def seeds(comparison: Comparison) -> str:
    """Say how many seeds stand behind a mean: `n = 5 seeds, but ogm 3`."""
    counts = {method: sum(run.record is not None for run in comparison.of(method)) for method in comparison.methods}
    usual = max(Counter(counts.values()).items(), key=lambda item: (item[1], item[0]), default=(0, 0))[0]
    others = ", ".join(f"{method} {count}" for method, count in counts.items() if count != usual)
    return f"n = {usual} {'seed' if usual == 1 else 'seeds'}" + (f", but {others}" if others else "")


def untested(comparison: Comparison, found: Paired) -> list[str]:
    """Say which finished methods no test could judge, and where seeds were not resampled."""
    finished = {run.method for run in comparison.runs if run.record}
    lines = []
    if unread := sorted(finished - found.right.keys()):
        lines.append(f"Without a test, hence unmarked: {', '.join(unread)} (no readable predictions).")
    if len(found.right) > 1 and all(len(runs) == 1 for runs in found.right.values()):
        lines.append("With one seed only test samples are resampled: the marks say nothing about other seeds.")
    return lines


def about_marks(comparisons: Sequence[Comparison]) -> list[str]:
    """Say what bold and underlined mean, unless there is nothing to mark."""
    sizes = [len(comparison.once(paired).right) for comparison in comparisons]
    if max(sizes, default=0) < 2:
        return ["No marks: a test needs two methods with readable predictions."]
    resamples = resamples_for(max(sizes) - 1)
    return [
        f"Bold: the highest mean of a column and all that cannot be told from it (p ≥ {LEVEL}); underlined: the same"
        f" among the others. Paired bootstrap of test samples and common seeds ({resamples} resamples), Holm over a"
        " column; macro-F1 and mAP to first order. Few seeds make marks too sharp."
    ]
