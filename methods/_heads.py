"""Parts of heads that several methods have."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from benchmark.model import LateHead, Outputs


class MeanHead(LateHead):
    """A linear layer for each modality; the fused logits are the mean."""

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        out = super().forward(features)
        return Outputs(features, out.unimodal, out.fused / len(features))


def projections(dims: Mapping[str, int], width: int) -> nn.ModuleDict:
    """Return a linear map of each modality's features (B, D) to one width; the identity where all have it already."""
    alike = set(dims.values()) == {width}
    return nn.ModuleDict({m: nn.Identity() if alike else nn.Linear(dim, width) for m, dim in dims.items()})
