"""What reports share in reading runs: which are evaluated, and cells of a table."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmark.records import Record
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
    """Warn where finished runs trained on one machine at the same time, as their ends and lengths tell.

    Ask by `comparison.once(together)`. What ran beside them and is not in the comparison is not seen.
    """
    spans: dict[str, list[tuple[float, float]]] = {}
    for run in comparison.runs:
        host = run.folder.read_environment().get("host") if run.record else None
        if run.record and isinstance(host, str):
            end = run.status.updated
            spans.setdefault(host, []).append((end - run.record.seconds.total, end))
    total = sum(map(len, spans.values()))
    shared = sum(
        any(min(end, other_end) - max(start, other) > SHARED * (end - start) for other, other_end in others)
        for alike in spans.values()
        for place, (start, end) in enumerate(alike)
        for others in [alike[:place] + alike[place + 1 :]]
    )
    if not shared:
        return []
    return [
        f"Warning: {shared} of {total} runs shared their machine with others of this table, so their seconds do not "
        "rank methods: go by samples and FLOPs, or train with --jobs 1."
    ]


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
