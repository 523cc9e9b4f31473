"""What a network makes of samples while it does not train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from benchmark.data import Batch
from benchmark.model import MultimodalNet


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Run a network in eval mode and without gradients; afterwards all of it is in training mode."""
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        net.train()


def encode_all(net: MultimodalNet, batches: Iterable[Batch]) -> tuple[dict[str, Tensor], Tensor]:
    """Return the features {modality: (N, D)} and labels (N,) of batches, in eval mode and without gradients."""
    with evaluating(net):
        encoded = [(net.encode(batch.inputs), batch.labels) for batch in batches]
    features = {m: torch.cat([u[m] for u, _ in encoded]) for m in encoded[0][0]}
    return features, torch.cat([y for _, y in encoded])
