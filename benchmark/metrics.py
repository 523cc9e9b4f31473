"""What logits are scored by: each metric once, with its name, its label and its computation.

A metric that is added to `METRICS` is in the records of new runs, and from there in tables, CSV, pages and trackers;
records without it show a dash. Importing this loads neither numpy nor torch: they are loaded where they compute.

Shapes: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]
    """(N, K)"""
    Labels = NDArray[np.int64]
    """(N,)"""
    Shares = NDArray[np.float64] | NDArray[np.bool_]
    """(N,), whose mean is a score; truth values for accuracy."""

FUSED = "fused"
"""The head that combines all modalities; every other head is named after its modality."""
PROBE = "probe"
"""Accuracy of a linear classifier on a frozen encoder: the same for all methods, and no metric of their logits."""


@dataclass(frozen=True)
class Metric:
    """A number that logits (N, K) and labels (N,) decide."""

    name: str
    """Its key in records."""
    label: str
    """As printed in tables, CSV, pages and trackers."""
    words: str
    """In running text."""
    compute: Callable[[Logits, Labels], float]
    """Its value from logits (N, K) and labels (N,), as it is recorded: a share as a fraction."""
    shares: Callable[[Logits, Labels], Shares] | None = None
    """What each sample has of it (N,), with the value as their mean, so that tests can resample samples; None where a
    value does not add up from samples, and is then printed without marks."""
    higher_is_better: bool = True
    unit: str = "%"
    """As printed; per cent of what is recorded as a fraction."""
    digits: int = 1
    """As printed, after the point."""
    each_epoch: bool = True
    """Whether it is computed in every epoch; else only on test, for the epochs that the rules choose."""
    in_tables: bool = True
    """Whether tables and pages have a column for it."""

    @property
    def scale(self) -> float:
        """What a recorded value is multiplied by for printing."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def heading(self) -> str:
        """Its label, with the unit where that is not the per cent of all tables."""
        return self.label if self.unit in ("%", "") else f"{self.label} ({self.unit})"

    def text(self, value: float) -> str:
        """Return a recorded value as printed, without its unit."""
        return f"{self.scale * value:.{self.digits}f}"


def _accuracy(logits: Logits, labels: Labels) -> float:
    return float((logits.argmax(1) == labels).mean())


def _right(logits: Logits, labels: Labels) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = logits.argmax(1) == labels
    return right


def _macro_f1(logits: Logits, labels: Labels) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, logits.argmax(1), labels=range(logits.shape[1]), average="macro", zero_division=0))


def _f1_shares(logits: Logits, labels: Labels) -> Shares:
    from benchmark.shares import f1_shares

    return f1_shares(logits.argmax(1), labels, logits.shape[1])


def _mean_average_precision(logits: Logits, labels: Labels) -> float:
    import numpy as np
    import torch
    from sklearn.metrics import average_precision_score

    columns = torch.from_numpy(logits).softmax(1).numpy()  # torch's, whose last bits decide ties in all records so far
    return float(np.mean([average_precision_score(labels == k, columns[:, k]) for k in np.unique(labels)]))


def _precision_shares(logits: Logits, labels: Labels) -> Shares:
    from scipy.special import softmax

    from benchmark.shares import precision_shares

    return precision_shares(softmax(logits, axis=1), labels)


def _loss(logits: Logits, labels: Labels) -> float:
    import torch
    from torch.nn.functional import cross_entropy

    return float(cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)))


ACCURACY = Metric("accuracy", "acc", "accuracy", _accuracy, _right)
MACRO_F1 = Metric("macro_f1", "macro-F1", "macro-F1, 0 for a class without predictions", _macro_f1, _f1_shares)
MAP = Metric(
    "map",
    "mAP",
    "average precision of each class's softmax column, averaged over the classes that occur",
    _mean_average_precision,
    _precision_shares,
    each_epoch=False,
)
LOSS = Metric("loss", "loss", "cross-entropy", _loss, higher_is_better=False, unit="nats", digits=3, in_tables=False)

METRICS = {metric.name: metric for metric in (ACCURACY, MACRO_F1, MAP, LOSS)}
"""{name: metric}, in the order of their columns."""
HEADLINE = ACCURACY
"""The metric of rankings, curves and everything that shows one number."""


def in_tables() -> list[Metric]:
    """Return the metrics that tables and pages have columns for."""
    return [metric for metric in METRICS.values() if metric.in_tables]


def present(names: Iterable[str]) -> list[Metric]:
    """Return the metrics of tables that some records have, all of them where there are no records yet."""
    found = set(names)
    return [metric for metric in in_tables() if not found or metric.name in found]
