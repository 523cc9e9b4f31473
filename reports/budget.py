"""Budget: accuracy when every method stops where the cheapest ended, in training seconds and in samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from benchmark.metrics import HEADLINE, LOSS
from benchmark.records import RunView
from benchmark.report import Artifact, Comparison, Report, render
from benchmark.rules import BEST_VALID
from benchmark.tables.table import MISSING, UNSUPPORTED, Column, Table

from ._histories import Array, History, histories
from ._runs import agreed, cell, methods_of, together


@dataclass(frozen=True)
class Spent:
    """What a finished run spent, and what it had reached by when."""

    seconds: Array
    """Spent on training after each epoch (E,); the record knows the sum, and every epoch counts alike."""
    samples: Array
    """Trained on after each epoch (E,), in passes over train."""
    best: NDArray[np.int64]
    """The best valid epoch so far, after each one (E,), from 0."""
    accuracy: Array
    """Fused test accuracy (%) of each epoch (E,)."""

    def reached(self, epochs: int) -> float | None:
        """Return the test accuracy of the best valid among the first epochs; None without any."""
        return float(self.accuracy[self.best[epochs - 1]]) if epochs else None


class BudgetReport(Report):
    about = "accuracy at equal training seconds and at equal samples, where the cheapest method ended"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        for comparison in comparisons:
            yield from render(equal_budget(comparison), f"budget-{comparison.stem}")

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        return [equal_budget(comparison) for comparison in comparisons]


def spent(run: RunView, history: History | None) -> Spent | None:
    """Return what a finished run spent; None for others and where samples or scores were not recorded."""
    if not run.record or history is None:
        return None
    served, accuracy = history.column("samples"), history.score("test")
    valid, loss = history.score("valid"), history.score("valid", metric=LOSS.name)
    if not np.isfinite([served, accuracy, valid, loss]).all():
        return None
    pace = run.record.seconds.train / len(history)
    samples = served.cumsum() / run.record.num_samples.train
    percent = np.asarray(HEADLINE.scale * accuracy, dtype=np.float64)
    return Spent(pace * np.arange(1, len(history) + 1, dtype=np.float64), samples, best_so_far(valid, loss), percent)


def best_so_far(valid: Array, loss: Array) -> NDArray[np.int64]:
    """Return the position of the highest accuracy so far (E,): ties by lower loss, then to the first."""
    best = [0]
    for place in range(1, len(valid)):
        better = (valid[place], -loss[place]) > (valid[best[-1]], -loss[best[-1]])
        best.append(place if better else best[-1])
    return np.array(best)


def affordable(after: Array, budget: float) -> int:
    """Return how many epochs a budget pays for, from what each had cost when it ended (E,)."""
    return int((after <= budget * (1 + 1e-9)).sum())


def reads_all(run: RunView) -> bool:
    """Return whether a finished run's network has an encoder for every modality.

    One that has not is cheap, but no measure for the others.
    """
    return run.record is not None and all(run.probe(modality) is not None for modality in run.record.modalities)


def budgets(methods: Sequence[Sequence[Spent]]) -> tuple[float, float] | None:
    """Return the seconds and the passes of the cheapest of these methods, means over seeds; None without any."""
    if not methods:
        return None
    seconds = min(fmean(float(one.seconds[-1]) for one in runs) for runs in methods)
    return seconds, min(fmean(float(one.samples[-1]) for one in runs) for runs in methods)


def equal_budget(comparison: Comparison) -> Table:
    """Return what each method spent and reached, and what it had reached when the cheapest had ended."""
    logs = comparison.once(histories)
    found = {
        method: [one for run in comparison.of(method) if (one := spent(run, logs.get(run.folder.path)))]
        for method in methods_of(comparison)
    }
    whole = [method for method in comparison.methods if all(map(reads_all, comparison.of(method)))]
    blank = MISSING if comparison.is_defined(BEST_VALID.name) else UNSUPPORTED
    limits = budgets([found[method] for method in whole if found[method]])
    columns = [Column("training (s)", "whole run", rank=False), Column("passes", "whole run", rank=False)]
    columns.append(Column("fused", "whole run"))
    for name in ("equal seconds", "equal samples"):
        columns += [Column("epochs", name, rank=False), Column("fused", name)]
    rows = []
    for method, runs in found.items():
        values: list[Sequence[float | None]] = [
            [float(one.seconds[-1]) for one in runs],
            agreed([float(one.samples[-1]) for one in runs]),
            [one.reached(len(one.accuracy)) for one in runs],
        ]
        for which in range(2):
            counts = [affordable((one.seconds, one.samples)[which], limits[which]) if limits else 0 for one in runs]
            values.append(agreed([float(count) for count in counts]))
            values.append([one.reached(count) for one, count in zip(runs, counts, strict=True)])
        rows.append((method, [cell(comparison, method, one, blank) for one in values]))
    caption = f"{comparison.title}: fused test accuracy (%) at equal budget, mean ± std over seeds"
    return Table(caption, columns, rows, notes(comparison, limits)).ranked()


def notes(comparison: Comparison, limits: tuple[float, float] | None) -> list[str]:
    """Return what a reader must know: what the budgets are, and what they leave out."""
    lines = [f"n = {comparison.num_seeds} seeds. The epoch is chosen on validation among those within the budget."]
    if limits:
        lines.append(
            f"Budgets: {limits[0]:.1f} s of training and {limits[1]:.1f} passes over train, what the cheapest method "
            "that reads every modality took in all, on average over seeds."
        )
    lines.append(
        "Seconds are those of the whole run, its epochs counted alike; they depend on the machine and on what else "
        "ran. passes: samples trained on over those in train. A run cut short still followed the schedule of the whole."
    )
    lines = [*comparison.once(together), *lines, *comparison.left_out()]
    return [*lines, "— not run, not recorded or no epoch within the budget, ✗ failed, n/a unsupported."]
