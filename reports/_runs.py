"""What reports share in reading runs: which are evaluated, and cells of a table."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.records import Record, RunView
from benchmark.report import Comparison
from benchmark.rules import BEST_VALID
from benchmark.tables.table import MISSING, Cell

from ._histories import History

SHARED = 0.1
"""Part of a run's time beside another run from which on its seconds are not its own."""


def not_evaluated(comparison: Comparison, done: Collection[Path]) -> list[str]:
    """Say which finished runs have no sound file of `bench evaluate`; `done` are the folders of those that have."""
    left = [run for run in comparison.runs if run.record and run.folder.path not in done]
    names = ", ".join(dict.fromkeys(run.method for run in left))
    return [f"Finished but not evaluated: {len(left)} runs ({names}). To do so: bench evaluate"] if left else []


def seeds_of(comparison: Comparison, done: Collection[Path]) -> str:
    """Return how many runs of a method are among those in `done`, or the range over methods: `3`, `0 to 3`."""
    counts = sorted({sum(run.folder.path in done for run in comparison.of(m)) for m in comparison.methods})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def chosen_how(comparison: Comparison) -> str:
    """Say at which epoch the models stand that are kept and evaluated."""
    return "epoch chosen on validation" if comparison.kept is BEST_VALID else f"{comparison.kept.label} epoch"


def together(comparison: Comparison) -> list[str]:
    """Warn where finished runs had not the machine to themselves.

    Runs beside them are seen by how many were trained at a time, and by ends and lengths of those in the comparison;
    whatever else ran, by the load. Ask by `comparison.once(together)`.
    """
    found = [(run, run.folder.read_environment()) for run in comparison.runs if run.record]
    spans: dict[object, list[tuple[float, float]]] = {}
    lines, shared, crowded = list[str](), 0, list[tuple[float, object]]()
    for run, noted in found:
        if run.record and isinstance(noted.get("host"), str):
            end = run.status.updated
            spans.setdefault(noted["host"], []).append((end - run.record.seconds.total, end))
    for run, noted in found:
        beside = _whole(noted.get("jobs")) > 1 or _overlaps(run, spans.get(noted.get("host"), []))
        shared += beside
        if run.record and run.record.load is not None and _is_crowded(run.record.load, noted):
            crowded.append((run.record.load, noted["cores"]))
    so = "so their seconds do not rank methods: go by samples and FLOPs, or train"
    if shared:
        lines.append(
            f"Warning: {shared} of {len(found)} runs shared their machine with other runs, {so} with --jobs 1."
        )
    if crowded:
        load, cores = max(crowded, key=lambda one: one[0])
        lines.append(
            f"Warning: {len(crowded)} of {len(found)} runs ended on a machine busy with something else "
            f"(load {load:.1f} on {cores} cores), {so} where nothing else runs."
        )
    return lines


def _overlaps(run: RunView, spans: Sequence[tuple[float, float]]) -> bool:
    """Return whether a run shared some of its time with another of the same machine; `spans` holds its own, too."""
    if not run.record:
        return False
    end, length = run.status.updated, run.record.seconds.total
    beside = sum(min(end, last) - max(end - length, first) > SHARED * length for first, last in spans)
    return beside > 1


def _is_crowded(load: float, noted: Mapping[str, Any]) -> bool:
    """Return whether a machine did much beside one launcher's runs: more than a core and a quarter of its cores."""
    cores, own = _whole(noted.get("cores")), _whole(noted.get("jobs")) * _whole(noted.get("threads"))
    return cores > 0 and own > 0 and load - own > max(1.0, cores / 4)


def _whole(value: object) -> int:
    """Return a whole number of a file that may hold anything; 0 in place of others."""
    return value if isinstance(value, int) else 0


def passes(record: Record, history: History) -> float | None:
    """Return how often an epoch served the training split, on average; None where it was not recorded."""
    served = history.column("samples")
    return None if np.isnan(served).any() else float(served.mean()) / record.num_samples.train


def agreed(values: Sequence[float]) -> Sequence[float]:
    """Return a value over seeds once where all agree, so that no ± 0 is printed."""
    return values[:1] if len(set(values)) == 1 else values


def methods_of(comparison: Comparison) -> list[str]:
    """Return the rows of a table: the methods that have runs, and those that an experiment's plan could not run."""
    return [*comparison.methods, *sorted(set(comparison.unsupported) - set(comparison.methods))]


def cell(comparison: Comparison, method: str, values: Iterable[float | None], symbol: str = MISSING) -> Cell:
    """Return a cell of the finite values that there are, else what stands for none: `symbol` where nothing is wrong."""
    finite = tuple(value for value in values if value is not None and math.isfinite(value))
    why = comparison.symbol(method)
    return Cell(finite, symbol if why == MISSING else why)
