"""Evaluation: logits, metrics, selection rules, linear probes. Metric definitions stand here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from benchmark.method import Method
from benchmark.training import Feed

Logits = dict[str, Tensor]
"""{"fused": (N, K), <modality>: (N, K)}, float32, on the CPU."""
Scores = dict[str, dict[str, float]]
"""{"fused" or modality: {metric: value}}"""


class NonFiniteLogits(RuntimeError):
    """A method predicted NaN or infinity."""


@torch.no_grad()
def predict(method: Method, feed: Feed) -> Logits:
    """Return the method's logits for every sample of a split, in order."""
    was_training = method.training
    method.eval()
    parts = [method.predict(inputs) for inputs in feed.in_order()]
    method.train(was_training)
    logits = {head: torch.cat([part[head] for part in parts]).float().cpu() for head in parts[0]}
    for head, values in logits.items():
        if not bool(torch.isfinite(values).all()):
            raise NonFiniteLogits(f"predict returned NaN or infinity in the {head} logits")
    return logits


@torch.no_grad()
def encode(method: Method, feed: Feed) -> dict[str, NDArray[np.float32]]:
    """Return the features {modality: (N, D)} of every sample of a split, in order."""
    was_training = method.training
    method.eval()
    parts = [method.net.encode(inputs) for inputs in feed.in_order()]
    method.train(was_training)
    return {m: torch.cat([part[m] for part in parts]).cpu().numpy() for m in parts[0]}


def score(logits: Logits, labels: Tensor, full: bool = False) -> Scores:
    """Score logits against labels (N,).

    Returns:
        For each head `accuracy`, `macro_f1` (0 for a class without predictions, as in the field's code) and `loss`
        (cross-entropy); with `full` also `map`, the average precision of each class's softmax column, averaged over the
        classes that occur.
    """
    from sklearn.metrics import average_precision_score, f1_score

    scores: Scores = {}
    truth = labels.cpu().numpy()
    for head, values in logits.items():
        num_classes = values.shape[1]
        guess = values.argmax(1).numpy()
        scores[head] = {
            "accuracy": float((guess == truth).mean()),
            "macro_f1": float(f1_score(truth, guess, labels=range(num_classes), average="macro", zero_division=0)),
            "loss": float(F.cross_entropy(values, labels.cpu())),
        }
        if full:
            columns = values.softmax(1).numpy()
            present = np.unique(truth)
            precisions = [average_precision_score(truth == k, columns[:, k]) for k in present]
            scores[head]["map"] = float(np.mean(precisions))
    return scores


def probe(train: NDArray[np.float32], train_labels: Tensor, test: NDArray[np.float32], test_labels: Tensor) -> float:
    """Return the test accuracy of a linear classifier on frozen features (N, D).

    The same for every method: features standardised on train, logistic regression with an L2 penalty of C = 1.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(train.astype(np.float64), train_labels.cpu().numpy())
    return float(model.score(test.astype(np.float64), test_labels.cpu().numpy()))


@dataclass(frozen=True)
class Rule:
    """A way to choose the epoch that is reported."""

    name: str
    about: str
    key: Callable[[Mapping[str, Any]], tuple[float, ...]]
    """What to maximise over the lines of the history; the first epoch wins a tie."""
    honest: bool = True
    """Whether it never looks at test."""


BEST_VALID = Rule(
    "best_valid",
    "highest fused validation accuracy, ties by lower validation loss",
    lambda line: (line["valid"]["fused"]["accuracy"], -line["valid"]["fused"]["loss"]),
)
LAST = Rule("last", "the last epoch", lambda line: (line["epoch"],))
ORACLE_TEST = Rule(
    "oracle_test",
    "highest fused test accuracy, as much of the literature does",
    lambda line: (line["test"]["fused"]["accuracy"],),
    honest=False,
)
RULES = (BEST_VALID, LAST, ORACLE_TEST)
