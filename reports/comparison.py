"""Comparison: every method on every data set, by the protocol's selection rule, and each data set in detail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from benchmark.metrics import FUSED, HEADLINE, METRICS, PROBE, Metric, present
from benchmark.records import RunView
from benchmark.report import Artifact, Comparison, Report, render
from benchmark.rules import BEST_VALID, ORACLE_TEST, RULES, Rule, dagger
from benchmark.tables.table import MISSING, UNSUPPORTED, Cell, Column, Mark, Table

from ._answers import Score
from ._bootstrap import resamples_for
from ._marks import LEVEL, Paired, paired


class ComparisonReport(Report):
    about = "methods by data sets, and fused and per-modality scores under every selection rule"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        if comparisons:
            yield from render(summary(comparisons), "comparison")
        for comparison in comparisons:
            yield from render(fused(comparison, metrics_of(comparison)), f"fused-{comparison.stem}")
            yield from render(unimodal(comparison, list(RULES.values())), f"unimodal-{comparison.stem}")

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        for comparison in comparisons:
            yield fused(comparison)
            yield unimodal(comparison)


def summary(comparisons: Sequence[Comparison]) -> Table:
    """Return the main table: for each data set every metric of the fused prediction."""
    methods = sorted({method for comparison in comparisons for method in methods_of(comparison)})
    columns, rows = [], {method: list[Cell]() for method in methods}
    for comparison in comparisons:
        for metric in metrics_of(comparison):
            title = comparison.title + dagger(comparison.selection)
            columns.append(Column(metric.heading, title, metric.digits))
            cells = column(comparison, (comparison.selection, FUSED, metric.name))
            for method in methods:
                rows[method].append(cells.get(method, Cell()))
    caption = "Fused test scores (%), mean ± std over seeds"
    return Table(caption, columns, list(rows.items()), notes(comparisons))


def fused(comparison: Comparison, metrics: Sequence[Metric] = (HEADLINE,)) -> Table:
    """Return the fused scores by each selection rule, and the optimism of choosing on test."""
    columns, cells = [], []
    for metric in metrics:
        group = f"fused test {metric.heading if len(metrics) > 1 else metric.words} at epoch"
        for rule in RULES.values():
            columns.append(Column(rule.title, group, metric.digits))
            cells.append(column(comparison, (rule.name, FUSED, metric.name)))
        columns.append(Column("optimism", group, metric.digits))
        cells.append({method: optimism(comparison, method, metric) for method in methods_of(comparison)})
    caption = f"{comparison.title}: fused test scores (%), mean ± std over seeds"
    return Table(caption, columns, _rows(comparison, cells), notes([comparison]))


def unimodal(comparison: Comparison, rules: Sequence[Rule] = ()) -> Table:
    """Return each modality's accuracy: by the method's own logits, and by a linear probe of its encoder.

    Args:
        comparison: the runs.
        rules: which epochs; by default that of the models that are kept.
    """
    columns, cells = [], []
    kept = comparison.kept
    for modality in comparison.modalities:
        for rule in rules or (kept,):
            columns.append(Column(f"own, {rule.title}", modality))
            cells.append(column(comparison, (rule.name, modality, HEADLINE.name)))
        columns.append(Column(PROBE, modality))
        cells.append(column(comparison, (kept.name, modality, PROBE)))
    caption = f"{comparison.title}: test accuracy of each modality (%), mean ± std over seeds"
    about_probe = (
        f"probe: linear classifier on the frozen encoder, {kept.label} epoch; unmarked, as its answers are not kept."
    )
    return Table(caption, columns, _rows(comparison, cells), [*notes([comparison]), about_probe])


def _rows(comparison: Comparison, cells: Sequence[Mapping[str, Cell]]) -> list[tuple[str, list[Cell]]]:
    return [(method, [column[method] for column in cells]) for method in methods_of(comparison)]


def methods_of(comparison: Comparison) -> list[str]:
    """Return the methods that ran or were planned, then those that cannot run on this data set."""
    return [*comparison.methods, *sorted(comparison.unsupported.keys() - set(comparison.methods))]


def column(comparison: Comparison, score: Score) -> dict[str, Cell]:
    """Return {method: its score as printed}, marked by test."""
    marks = comparison.once(paired).marks.get(score, {})
    return {
        method: replace(cell(comparison, method, score), mark=marks.get(method, Mark.NONE))
        for method in methods_of(comparison)
    }


def cell(comparison: Comparison, method: str, score: Score) -> Cell:
    """Return a method's score as printed, or the symbol for why there is none."""
    found = [value(run, score) for run in comparison.of(method)]
    scale = scale_of(score[2])
    return Cell(tuple(scale * one for one in found if one is not None), symbol(comparison, method, score[0]))


def symbol(comparison: Comparison, method: str, rule: str) -> str:
    """Return what stands for a score by a rule that there is none of: n/a also where the rule is not defined."""
    why = comparison.symbol(method)
    return UNSUPPORTED if why == MISSING and not comparison.is_defined(rule) else why


def scale_of(metric: str) -> float:
    """Return what a recorded value of a metric, or of the probe, is multiplied by for printing."""
    return (HEADLINE if metric == PROBE else METRICS[metric]).scale


def metrics_of(comparison: Comparison) -> list[Metric]:
    """Return the metrics that have columns: those that some of the runs were scored by."""
    return comparison.once(_metrics_of)


def _metrics_of(comparison: Comparison) -> list[Metric]:
    chosen = [one for run in comparison.runs if run.record for one in run.record.rules.values()]
    return present(name for one in chosen for name in one.test.get(FUSED, {}))


def value(run: RunView, score: Score) -> float | None:
    """Return a score of a finished run as recorded; None where the record has none."""
    rule, head, metric = score
    return run.probe(head, rule) if metric == PROBE else run.score(rule, head, metric)


def optimism(comparison: Comparison, method: str, metric: Metric) -> Cell:
    """Return how far choosing the epoch on test lifts a score over choosing it on validation, in points."""
    gaps, rules = [], (ORACLE_TEST, BEST_VALID)
    for run in comparison.of(method):
        chosen, honest = (value(run, (rule.name, FUSED, metric.name)) for rule in rules)
        if chosen is not None and honest is not None:
            gaps.append(metric.scale * (chosen - honest))
    return Cell(tuple(gaps), symbol(comparison, method, BEST_VALID.name))


def notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Return what a reader must know: seeds, marks, missing and failed runs, stale ones."""
    lines = []
    for comparison in comparisons:
        found = comparison.once(paired)
        lines.append(f"{comparison.title}: {seeds(comparison)}, selection {comparison.selection}.")
        lines += [*comparison.about_protocol(), *comparison.left_out(), *found.notes, *untested(comparison, found)]
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
