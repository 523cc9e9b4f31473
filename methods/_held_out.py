"""How each modality does by itself on the held-out share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmark.method import Method

from ._features import evaluating


def held_out_mean(method: Method, epoch: int, measure: Callable[[Tensor, Tensor], Tensor]) -> dict[str, float]:
    """Return a measure of each modality's own logits, per held-out sample, in eval mode.

    Args:
        method: in training; its net has logits of every modality.
        epoch: decides the order of the samples, and their augmentation.
        measure: of logits (B, K) and labels (B,), summed over the batch.
    """
    totals = {m: torch.zeros((), device=method.run.device) for m in method.task.modalities}
    count = 0
    with evaluating(method):
        for batch in method.run.held_out_batches(epoch):
            count += len(batch.labels)
            for m, logits in method.net(batch.inputs).unimodal.items():
                totals[m] += measure(logits, batch.labels)
    return {m: float(total) / count for m, total in totals.items()}
