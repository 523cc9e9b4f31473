"""A head that all modalities share: one classifier reads the features of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from benchmark.model import Head, Outputs, sum_logits


class SharedHead(Head):
    """One classifier for the features of every modality; the fused logits are the sum.

    A classifier can only be shared between features of one width. The papers' encoders have that; of others, the wider
    ones pass a linear map to the smallest width first (ours).
    """

    def __init__(self, dims: Mapping[str, int], classifier: Callable[[int], nn.Module]) -> None:
        """Args:
        dims: feature widths {modality: D}.
        classifier: makes the classifier from the width that it reads.
        """
        super().__init__()
        self.width = min(dims.values())
        self.narrow = nn.ModuleDict(
            {m: nn.Identity() if dim == self.width else nn.Linear(dim, self.width) for m, dim in dims.items()}
        )
        self.classifier = classifier(self.width)

    def align(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return features {modality: (B, D)} in the shared width."""
        return {m: self.narrow[m](u) for m, u in features.items()}

    def logits_of(self, modality: str, u: Tensor) -> Tensor:
        """Return the logits (B, K) of a modality's features (B, D)."""
        logits: Tensor = self.classifier(self.narrow[modality](u))
        return logits

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        unimodal = {m: self.logits_of(m, u) for m, u in features.items()}
        return Outputs(features, unimodal, sum_logits(unimodal.values()))
