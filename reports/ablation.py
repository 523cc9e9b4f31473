"""Ablation: one row for each setting of a method, with what it reaches, what it grew to and what it weighs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmark.records import RunView, State
from benchmark.report import Artifact, Comparison, Report, render, slug
from benchmark.table import FAILED, MISSING, Cell, Column, Table


class AblationReport(Report):
    about = "settings of methods by fused, own and probe accuracy, classifiers and parameters"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        for comparison in comparisons:
            yield from render(ablation(comparison), f"ablation-{slug(comparison.title)}")

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        return [ablation(comparison) for comparison in comparisons]


def ablation(comparison: Comparison) -> Table:
    """Return the table: accuracies in per cent by the comparison's selection rule, counts at the end of training."""
    rule, dagger = comparison.selection, "†" if comparison.selection == "oracle_test" else ""
    runs = {method: comparison.of(method) for method in comparison.methods}
    counts = {run.folder.path: classifiers(run) for run in comparison.runs}
    columns = [Column(f"fused{dagger}")]
    rows = {method: [cell(alike, [accuracy(run, rule, "fused") for run in alike])] for method, alike in runs.items()}
    for modality in comparison.modalities:
        columns += [Column(f"own{dagger}", modality), Column("probe", modality)]
        grows = any(modality in found for found in counts.values())
        if grows:
            columns.append(Column("classifiers", modality, rank=False))
        for method, alike in runs.items():
            rows[method].append(cell(alike, [accuracy(run, rule, modality) for run in alike]))
            rows[method].append(cell(alike, [probe(run, modality) for run in alike]))
            if grows:
                rows[method].append(cell(alike, [counts[run.folder.path].get(modality) for run in alike]))
    columns.append(Column("parameters", digits=0, rank=False))
    for method, alike in runs.items():
        rows[method].append(cell(alike, [run.record["num_parameters"] if run.record else None for run in alike]))
    caption = f"{comparison.title}: settings, test accuracy (%), mean ± std over seeds"
    return Table(caption, columns, list(rows.items()), notes(comparison, any(counts.values()))).ranked()


def cell(runs: Sequence[RunView], values: Iterable[float | None]) -> Cell:
    """Return a cell of the values that there are, or the symbol for why there is none."""
    failed = any(run.status.state is State.FAILED for run in runs)
    return Cell(tuple(value for value in values if value is not None), FAILED if failed else MISSING)


def accuracy(run: RunView, rule: str, head: str) -> float | None:
    """Return the test accuracy (%) of the fused prediction or of a modality's own logits at the rule's epoch."""
    scores = run.record["rules"][rule]["test"].get(head) if run.record else None
    return None if scores is None else 100 * float(scores["accuracy"])


def probe(run: RunView, modality: str) -> float | None:
    """Return the test accuracy (%) of a linear probe of the frozen encoder, at the best valid epoch."""
    # not at the epoch of the rule: no encoder is kept for the epoch that is best on test
    found = run.record["rules"]["best_valid"].get("probe", {}).get(modality) if run.record else None
    return None if found is None else 100 * float(found)


def classifiers(run: RunView) -> dict[str, float]:
    """Return how many classifiers each modality had in the last epoch, {} for a method that logs none."""
    history = run.folder.read_history() if run.record else []
    logged = history[-1].get("train", {}) if history else {}
    prefix = "classifiers/"
    return {key.removeprefix(prefix): float(value) for key, value in logged.items() if key.startswith(prefix)}


def notes(comparison: Comparison, grows: bool) -> list[str]:
    """Return what a reader must know: rule, seeds, what the columns mean, missing and failed runs."""
    lines = [f"n = {comparison.num_seeds} seeds, selection {comparison.selection}; fused and own at its epoch."]
    lines.append(
        "own: the method's own logits of a modality; probe: linear classifier on the frozen encoder, best valid."
    )
    if grows:
        lines.append("classifiers: as trained in the last epoch. parameters: after it, with what was added at its end.")
    lines += comparison.left_out()
    lines.append(
        "— not run or not defined, ✗ failed"
        + "; † epoch chosen on the test set." * (comparison.selection == "oracle_test")
    )
    return lines
