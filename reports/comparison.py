"""Comparison: every method on every data set, by the protocol's selection rule, and each data set in detail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmark.records import RunView, State
from benchmark.report import Artifact, Comparison, Report, render, slug
from benchmark.table import FAILED, MISSING, Cell, Column, Table

RULE_NAMES = {"best_valid": "best valid", "last": "last epoch", "oracle_test": "oracle†"}
METRIC_NAMES = {"accuracy": "acc", "macro_f1": "macro-F1", "map": "mAP"}


class ComparisonReport(Report):
    about = "methods by data sets, and fused and per-modality accuracy under the three selection rules"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        if comparisons:
            yield from render(summary(comparisons), "comparison")
        for comparison in comparisons:
            yield from render(fused(comparison), f"fused-{slug(comparison.title)}")
            yield from render(unimodal(comparison, tuple(RULE_NAMES)), f"unimodal-{slug(comparison.title)}")

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        for comparison in comparisons:
            yield fused(comparison)
            yield unimodal(comparison)


def summary(comparisons: Sequence[Comparison]) -> Table:
    """Return the main table: for each data set accuracy, macro-F1 and mAP of the fused prediction, in per cent."""
    methods = sorted({method for comparison in comparisons for method in comparison.methods})
    columns, rows = [], {method: list[Cell]() for method in methods}
    for comparison in comparisons:
        dagger = "†" if comparison.selection == "oracle_test" else ""
        for metric, name in METRIC_NAMES.items():
            columns.append(Column(name, comparison.title + dagger))
            for method in methods:
                rows[method].append(cell(comparison.of(method), comparison.selection, "fused", metric))
    return Table(
        "Fused test scores (%), mean ± std over seeds", columns, list(rows.items()), notes(comparisons)
    ).ranked()


def fused(comparison: Comparison) -> Table:
    """Return the fused accuracy by each selection rule, and the optimism of choosing on test."""
    columns = [Column(name, "fused accuracy") for name in RULE_NAMES.values()]
    columns.append(Column("optimism", "fused accuracy", rank=False))
    rows = []
    for method in comparison.methods:
        runs = comparison.of(method)
        cells = [cell(runs, rule, "fused", "accuracy") for rule in RULE_NAMES]
        rows.append((method, [*cells, optimism(runs)]))
    caption = f"{comparison.title}: fused test accuracy (%), mean ± std over seeds"
    return Table(caption, columns, rows, notes([comparison])).ranked()


def unimodal(comparison: Comparison, rules: Sequence[str] = ("best_valid",)) -> Table:
    """Return each modality's accuracy: by the method's own logits, and by a linear probe of its encoder."""
    columns = []
    for modality in comparison.modalities:
        columns += [Column(f"own, {RULE_NAMES[rule]}", modality) for rule in rules]
        columns.append(Column("probe", modality))
    rows = []
    for method in comparison.methods:
        runs, cells = comparison.of(method), []
        for modality in comparison.modalities:
            cells += [cell(runs, rule, modality, "accuracy") for rule in rules]
            cells.append(cell(runs, "best_valid", modality, "probe"))
        rows.append((method, cells))
    caption = f"{comparison.title}: test accuracy of each modality (%), mean ± std over seeds"
    lines = [*notes([comparison]), "probe: linear classifier on the frozen encoder, best valid epoch."]
    return Table(caption, columns, rows, lines).ranked()


def cell(runs: Sequence[RunView], rule: str, head: str, metric: str) -> Cell:
    """Return a method's score in per cent; `probe` is the linear probe of the frozen encoder."""
    values = []
    for run in runs:
        entry = run.record["rules"][rule] if run.record else {}
        found = (
            entry.get("probe", {}).get(head) if metric == "probe" else entry.get("test", {}).get(head, {}).get(metric)
        )
        if found is not None:
            values.append(100 * found)
    failed = any(run.status.state is State.FAILED for run in runs)
    return Cell(tuple(values), FAILED if failed else MISSING)


def optimism(runs: Sequence[RunView]) -> Cell:
    """Return how far choosing the epoch on test lifts accuracy over choosing it on validation, in points."""
    gaps = []
    for run in runs:
        if run.record:
            test = {
                rule: run.record["rules"][rule]["test"]["fused"]["accuracy"] for rule in ("oracle_test", "best_valid")
            }
            gaps.append(100 * (test["oracle_test"] - test["best_valid"]))
    return Cell(tuple(gaps), cell(runs, "best_valid", "fused", "accuracy").symbol)


def notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Return what a reader must know: seeds, missing and failed runs, stale ones."""
    lines = []
    for comparison in comparisons:
        lines.append(f"{comparison.title}: n = {comparison.num_seeds} seeds, selection {comparison.selection}.")
        lines += comparison.left_out()
    return [*lines, "— not run, ✗ failed; † epoch chosen on the test set."]
