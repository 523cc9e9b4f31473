"""Capacity: parameters, operations, time and memory beside accuracy, encoder widths of one data set together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmark.metrics import FUSED, HEADLINE
from benchmark.records import Record, RunView
from benchmark.report import Artifact, Comparison, Report, render, slug
from benchmark.rules import dagger
from benchmark.tables.table import Column, Table

from ._histories import histories
from ._runs import agreed, cell, methods_of, passes, together

MEMORY = {"process": "memory (MB)", "gpu": "GPU memory (MB)"}
"""{part of a record's peak memory: its column}"""


class CapacityReport(Report):
    about = "parameters, FLOPs, time, memory and accuracy of every method, all variants of a data set in one table"

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
    everyone = [run for comparison in comparisons for run in comparison.runs]
    unit, scale, digits = unit_of(everyone)
    places = [place for place in MEMORY if any(place in run.record.memory for run in everyone if run.record)]
    heads = [FUSED, *modalities]
    columns = [
        Column(f"parameters ({unit})", "cost", digits, rank=False),
        Column("MFLOPs per sample", "cost", 2, rank=False),
        Column("passes per epoch", "cost", 2, rank=False),
        Column("s per epoch", "cost", 2, rank=False),
        Column("training (s)", "cost", 1, rank=False),
        *(Column(MEMORY[place], "cost", 0, rank=False) for place in places),
        Column("fused", "accuracy (%)", rank=False),
        *(Column(f"{modality}, own", "accuracy (%)", rank=False) for modality in modalities),
    ]
    labels = [comparison.dataset for comparison in comparisons]
    rows = []
    for comparison in comparisons:
        # a label that stands for two comparisons, of two protocols, would not tell their rows apart
        label = comparison.dataset if labels.count(comparison.dataset) == 1 else comparison.title
        logs = comparison.once(histories)
        for method in methods_of(comparison):
            runs = [(run.record, logs.get(run.folder.path)) for run in comparison.of(method) if run.record]
            records = [record for record, _ in runs]
            values: list[Sequence[float | None]] = [
                [record.num_parameters / scale for record in records],
                [None if record.flops is None else record.flops / 1e6 for record in records],
                [passes(record, log) for record, log in runs if log],
                [record.seconds.train / len(log) for record, log in runs if log],
                [record.seconds.train for record in records],
                *([memory(record, place) for record in records] for place in places),
                *([accuracy(record, comparison.selection, head) for record in records] for head in heads),
            ]
            cells = [cell(comparison, method, agreed([v for v in found if v is not None])) for found in values]
            rows.append((f"{method} @ {label}", cells))
    caption = f"{name}: cost and accuracy, mean ± std over seeds where they differ"
    return Table(caption, columns, rows, notes(comparisons), corner="method @ data set")


def unit_of(runs: Sequence[RunView]) -> tuple[str, float, int]:
    """Return the unit of the parameters, how many it stands for, and the digits that tell the smallest model."""
    counts = [run.record.num_parameters for run in runs if run.record]
    unit, scale = ("M", 1e6) if max(counts, default=0) >= 1e6 else ("k", 1e3)
    smallest = min(counts, default=0) / scale
    return unit, scale, 1 if smallest >= 10 else 2 if smallest >= 1 else 3


def memory(record: Record, place: str) -> float | None:
    """Return a peak in MB; None where it was not recorded."""
    peak = record.memory.get(place)
    return None if peak is None else peak / 1e6


def accuracy(record: Record, rule: str, head: str) -> float | None:
    """Return a head's test accuracy in per cent; None where the method has no such head."""
    found = record.score(rule, head)
    return None if found is None else HEADLINE.scale * found


def notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Return what a reader must know: how it was measured, and what is missing or failed."""
    lines = []
    for comparison in comparisons:
        rule = comparison.selection + dagger(comparison.selection)
        lines.append(f"{comparison.title}: n = {comparison.num_seeds} seeds, selection {rule}.")
        lines += [*comparison.once(together), *comparison.left_out()]
    return [
        *lines,
        "FLOPs of one prediction: convolutions and matrix products, a multiplication and an addition being two.",
        "Parameters and FLOPs of the network after the last epoch. Seconds and memory depend on the machine.",
        "passes: samples trained on over those in train, for an epoch; a share held out of train makes it less than 1, "
        "batches drawn for estimates more. Memory at its peak: of the run's process, libraries and data included; of "
        "its tensors on the GPU.",
        "own: the method's own logits. — no value, ✗ failed, n/a unsupported; † epoch chosen on the test set.",
    ]
