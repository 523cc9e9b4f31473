"""How confident each modality is, and by how much more than the others: what on-the-fly modulation goes by."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from benchmark.model import true_class_probability

FLOOR = 1e-30
"""Least confidence that is told from none, so that ratios stay finite where a probability underflows."""

Ratio = Callable[[Tensor, Tensor], Tensor]
"""One modality's confidence against those of the M - 1 others: a scalar and (M - 1,) -> a scalar."""


def mean_ratio(own: Tensor, others: Tensor) -> Tensor:
    """Return the mean of the pairwise ratios. The least confident modality never gets more than 1."""
    return (own / others).mean()


def sum_ratio(own: Tensor, others: Tensor) -> Tensor:
    """Return the ratio to the sum of the others. At most one modality gets more than 1, often none of three."""
    return own / others.sum()


def least_ratio(own: Tensor, others: Tensor) -> Tensor:
    """Return the ratio to the least confident modality. All but that one get more than 1."""
    return own / torch.minimum(own, others.min())


def confidences(unimodal: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """Return the summed true-class probability of each modality's logits (B, K), a scalar each."""
    return {m: true_class_probability(z, labels).sum() for m, z in unimodal.items()}


def discrepancies(confidence: Mapping[str, Tensor], ratio: Ratio = mean_ratio) -> dict[str, Tensor]:
    """Return rho_m, how much more confident m is than the others; finite, whatever underflows."""
    confidence = {m: own.clamp_min(FLOOR) for m, own in confidence.items()}
    return {
        m: ratio(own, torch.stack([other for j, other in confidence.items() if j != m]))
        for m, own in confidence.items()
    }
