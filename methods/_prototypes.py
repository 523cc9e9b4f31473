"""Class prototypes: the mean features of each class, and logits by the distance to them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def draw_share(labels: Tensor, share: float, draw: torch.Generator) -> Tensor:
    """Return the positions, in order, of a random share of each class and at least one sample of it: (N,) -> (n,)."""
    order = torch.randperm(len(labels), generator=draw).to(labels.device)
    members = [order[labels[order] == k] for k in labels.unique()]
    return torch.cat([rows[: max(round(share * len(rows)), 1)] for rows in members]).sort().values


def class_means(features: Tensor, labels: Tensor, num_classes: int, absent: float = 0.0) -> Tensor:
    """Return the mean feature of each class, (N, D) and (N,) -> (K, D); `absent` for a class without samples."""
    members = F.one_hot(labels, num_classes).to(features.dtype)  # (N, K)
    counts = members.sum(0)[:, None]
    return torch.where(counts > 0, members.T @ features / counts.clamp_min(1), absent)


def similarities(features: Tensor, prototypes: Tensor) -> Tensor:
    """Return minus the Euclidean distance of each feature to each prototype: (B, D) and (K, D) -> (B, K).

    The gradient of a distance of zero is zero.
    """
    distances: Tensor = torch.linalg.vector_norm(features[:, None] - prototypes, dim=2)
    return -distances
