"""What the predictions of a run tell: confusion matrices, and the test samples that are most confidently wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.records import Predictions, read_table
from benchmark.site.reading import number

MISTAKES = 10
"""Samples shown for each head and rule."""
MOST_CLASSES = 50
"""Classes up to which a confusion matrix is shown whole."""
FOLDED_CLASSES = 30
"""Classes shown of a larger one: those with the most mistakes; the others are added up."""

Array = NDArray[Any]


def read_predictions(path: Path) -> Iterator[Predictions]:
    """Yield the predictions by each rule.

    Raises:
        OSError, ValueError: when there are none, or they are damaged.
    """
    try:
        table = read_table(path)
    except ValueError as error:
        raise ValueError(f"{path.name}: damaged ({error})") from None
    for rule in table.rules:
        found = table.of(rule)
        widths = [values.shape[1] for values in found.logits.values()]
        if any(not 0 <= found.labels.min() <= found.labels.max() < width for width in widths):
            raise ValueError(f"{path.name}: damaged (a label without a logit)")
        yield found


def _softmax(logits: Array) -> Array:
    raised = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    shares: Array = raised / raised.sum(1, keepdims=True)
    return shares


def confusion(labels: Array, guesses: Array, num_classes: int) -> Array:
    """Count samples by true class (rows) and predicted class (columns), (K, K)."""
    return np.bincount(labels * num_classes + guesses, minlength=num_classes**2).reshape(num_classes, num_classes)


def fold(counts: Array) -> tuple[list[int], Array]:
    """Shorten a large confusion matrix.

    Returns:
        The classes shown, and the matrix (C, C), or (C + 1, C + 1) with the other classes added up at the end.
    """
    num_classes = len(counts)
    if num_classes <= MOST_CLASSES:
        return list(range(num_classes)), counts
    mistakes = counts.sum(1) - np.diag(counts)
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:FOLDED_CLASSES])
    place = np.full(num_classes, FOLDED_CLASSES)
    place[shown] = np.arange(FOLDED_CLASSES)
    folded = np.zeros((FOLDED_CLASSES + 1, FOLDED_CLASSES + 1), dtype=counts.dtype)
    np.add.at(folded, (place[:, None], place[None, :]), counts)
    return shown.tolist(), folded


def most_mistaken(shares: Array, labels: Array) -> list[int]:
    """Return the samples that a head gets wrong with the highest confidence, highest first.

    Args:
        shares: softmax probabilities (N, K).
        labels: classes (N,).
    """
    guesses = shares.argmax(1)
    wrong = np.flatnonzero(guesses != labels)
    order = np.argsort(-shares[wrong, guesses[wrong]], kind="stable")
    return [int(sample) for sample in wrong[order][:MISTAKES]]


def as_data(path: Path, class_names: Sequence[str]) -> dict[str, Any]:
    """Return what a run's page draws, in JSON types.

    Raises:
        OSError, ValueError: when there are no predictions, or they are damaged.
    """
    rules: dict[str, Any] = {}
    heads: list[str] = []
    num_classes = len(class_names)
    for predictions in read_predictions(path):
        probabilities = {head: _softmax(values) for head, values in predictions.logits.items()}
        heads = list(probabilities)
        entries = {}
        for head, shares in probabilities.items():
            num_classes = max(num_classes, shares.shape[1])
            shown, counts = fold(confusion(predictions.labels, shares.argmax(1), shares.shape[1]))
            entries[head] = {
                "classes": shown,
                "counts": counts.tolist(),
                "mistakes": [
                    _sample(predictions, probabilities, sample) for sample in most_mistaken(shares, predictions.labels)
                ],
            }
        rules[predictions.rule] = entries
    names = [*class_names, *(str(position) for position in range(len(class_names), num_classes))]
    return {"heads": heads, "names": names, "rules": rules}


def _sample(predictions: Predictions, probabilities: Mapping[str, Array], sample: int) -> dict[str, Any]:
    said = []
    for shares in probabilities.values():
        guess = int(shares[sample].argmax())
        said.append([guess, number(round(float(shares[sample, guess]), 4))])
    return {"id": predictions.ids[sample], "label": int(predictions.labels[sample]), "said": said}
