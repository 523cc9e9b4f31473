"""Capacity: parameters, operations and training time beside accuracy, encoder widths of one data set together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmark.records import RunView, State
from benchmark.report import Artifact, Comparison, Report, render, slug
from benchmark.table import FAILED, MISSING, Cell, Column, Table


class CapacityReport(Report):
    about = "parameters, FLOPs, training time and accuracy of every method, all variants of a data set in one table"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        for name, group in by_dataset(comparisons).items():
            yield from render(capacity(name, group), f"capacity-{slug(name)}")

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        for name, group in by_dataset(comparisons).items():
            yield capacity(name, group)


def by_dataset(comparisons: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    """Group comparisons by the name of the data set, whatever its settings."""
    groups: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault(str(comparison.runs[0].spec["dataset"]["name"]), []).append(comparison)
    return groups


def capacity(name: str, comparisons: Sequence[Comparison]) -> Table:
    """Return the table of one data set; best values are not marked, since its rows differ in more than the method."""
    modalities = list(dict.fromkeys(m for comparison in comparisons for m in comparison.modalities))
    unit, scale, digits = unit_of([run for comparison in comparisons for run in comparison.runs])
    columns = [
        Column(f"parameters ({unit})", "cost", digits, rank=False),
        Column("MFLOPs per sample", "cost", 2, rank=False),
        Column("training (s)", "cost", 1, rank=False),
        Column("fused", "accuracy (%)", rank=False),
        *(Column(f"{modality}, own", "accuracy (%)", rank=False) for modality in modalities),
    ]
    labels = [comparison.dataset for comparison in comparisons]
    rows = []
    for comparison in comparisons:
        # a label that stands for two comparisons, of two protocols, would not tell their rows apart
        label = comparison.dataset if labels.count(comparison.dataset) == 1 else comparison.title
        for method in comparison.methods:
            runs = comparison.of(method)
            cells = [
                cell(runs, lambda record: record["num_parameters"] / scale),
                cell(runs, lambda record: None if record.get("flops") is None else record["flops"] / 1e6),
                cell(runs, lambda record: record["seconds"]["train"]),
                *(cell(runs, accuracy(comparison.selection, head)) for head in ("fused", *modalities)),
            ]
            rows.append((f"{method} @ {label}", cells))
    caption = f"{name}: cost and accuracy, mean ± std over seeds where they differ"
    return Table(caption, columns, rows, notes(comparisons), corner="method @ data set")


def unit_of(runs: Sequence[RunView]) -> tuple[str, float, int]:
    """Return the unit of the parameters, how many it stands for, and the digits that tell the smallest model."""
    counts = [run.record["num_parameters"] for run in runs if run.record]
    unit, scale = ("M", 1e6) if max(counts, default=0) >= 1e6 else ("k", 1e3)
    smallest = min(counts, default=0) / scale
    return unit, scale, 1 if smallest >= 10 else 2 if smallest >= 1 else 3


def accuracy(rule: str, head: str) -> Callable[[dict[str, Any]], float | None]:
    """Return what reads a head's test accuracy in per cent from a record; None where the method has no such head."""

    def find(record: dict[str, Any]) -> float | None:
        scores = record["rules"][rule]["test"].get(head)
        return None if scores is None else 100 * float(scores["accuracy"])

    return find


def cell(runs: Sequence[RunView], value_of: Callable[[dict[str, Any]], float | None]) -> Cell:
    """Return a value over seeds; once where all seeds agree, as they do on sizes, so that no ± 0 is printed."""
    found = [value_of(run.record) for run in runs if run.record]
    values = tuple(value for value in found if value is not None)
    failed = any(run.status.state is State.FAILED for run in runs)
    return Cell(values[:1] if len(set(values)) == 1 else values, FAILED if failed else MISSING)


def notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Return what a reader must know: how it was measured, and what is missing or failed."""
    lines = []
    for comparison in comparisons:
        dagger = "†" if comparison.selection == "oracle_test" else ""
        lines.append(f"{comparison.title}: n = {comparison.num_seeds} seeds, selection {comparison.selection}{dagger}.")
        lines += comparison.left_out()
    return [
        *lines,
        "FLOPs of one prediction: convolutions and matrix products, a multiplication and an addition being two.",
        "Parameters and FLOPs of the network after the last epoch. Seconds depend on the machine.",
        "own: the method's own logits. — no value, ✗ failed; † epoch chosen on the test set.",
    ]
