"""Evaluation: logits, their scores, linear probes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.method import Method
from benchmark.metrics import METRICS
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
        For each head the metrics of every epoch; with `full` all of `METRICS`.
    """
    truth = labels.cpu().numpy()
    chosen = [metric for metric in METRICS.values() if full or metric.each_epoch]
    return {
        head: {metric.name: metric.compute(values.numpy(), truth) for metric in chosen}
        for head, values in logits.items()
    }


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
