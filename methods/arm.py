"""ARM: weak modalities predict from a small subspace of their features, and agree with the strong one. Reconstructed.

    L = CE(z_s, y) + sum over weak w of [weak_weight * CE(z_w, y) + agreement * mean |softmax z_s - softmax z_w|^2]

    z_s = W u_s + b,    z_w = U P_w u_w + c,    P_w P_w^T = I with r rows

so that what the weak modality keeps is its most discriminative subspace, and its predictions regularise those of the
strong one and the other way round. The rows of P stay orthonormal in every step. Which modality is strong is given, not
found: the bare name stands for one run with each. The fused logits are the sum, with the decision of the mean. One
forward and one backward pass.

Paper: By Yang, Ye, Zhan and Jiang. A linear model of given features, solved by alternation: a discriminative subspace
of the weak modality regularises the predictor of the strong one. Only the abstract was available; the objective is from
memory. Asymmetric Reinforcing against Multi-Modal Representation Bias, AAAI 2025, is another ARM.

Released code: No code.

Ours: The same two parts for networks, trained by gradient descent; losses, defaults and more than one weak modality are
ours. Without both parts it equals `late_sum` bit for bit; nothing published can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference
from benchmark.model import LateHead, MultimodalNet, Outputs, sum_logits


def disagreement(one: Tensor, other: Tensor) -> Tensor:
    """Return the squared distance of two predictions, averaged over samples, from logits (B, K): a scalar in [0, 2]."""
    return (one.softmax(1) - other.softmax(1)).square().sum(1).mean()


class Subspace(nn.Module):
    """An orthonormal projection to a few dimensions, (B, D) -> (B, r).

    Its basis is that of the rows of `weight`, whose lengths thus mean nothing: weight decay cannot shrink it.
    """

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(rank, dim)))

    def basis(self) -> Tensor:
        """Return orthonormal columns (D, r)."""
        columns: Tensor = torch.linalg.qr(self.weight.T).Q
        return columns

    def forward(self, u: Tensor) -> Tensor:
        return u @ self.basis()


class SubspaceHead(LateHead):
    """A late head whose weak modalities pass an orthonormal projection first."""

    def __init__(self, dims: Mapping[str, int], num_classes: int, strong: str, rank: int) -> None:
        """Args:
        dims: feature widths {modality: D}.
        num_classes: K.
        strong: the modality that passes none.
        rank: dimensions of a subspace; as many as classes restrict nothing, and none is made.
        """
        super().__init__(dims, num_classes)
        for modality, dim in dims.items() if rank < num_classes else ():
            if modality != strong:
                width = min(rank, dim)
                self.layers[modality] = nn.Sequential(Subspace(dim, width), nn.Linear(width, num_classes))


class ARM(Method):
    """The bare name stands for one run with each modality as the strong one."""

    reference = Reference(
        "Auxiliary Information Regularized Machine for Multiple Modality Feature Learning", "IJCAI", 2015
    )
    modalities = (2, None)
    off_switches = (OffSwitch({"agreement": 0.0, "subspace": 1.0}, "late_sum"),)
    ablations = ({"agreement": 0.0}, {"subspace": 1.0}, {"agreement": 0.0, "subspace": 1.0})
    ledger = Ledger(
        code="no code",
        paper="reconstructed",
        paper_test="test_loss_equals_an_independent_calculation",
    )

    class Config(Method.Config):
        strong: str | None = None
        """The strong modality; None for the first, but the bare name stands for each in turn."""
        weak_weight: float = Field(default=1.0, ge=0)
        """Weight of a weak modality's own loss (ours)."""
        agreement: float = Field(default=1.0, ge=0)
        """Weight of the disagreement of a weak modality with the strong one (ours)."""
        subspace: float = Field(default=0.5, gt=0, le=1)
        """Dimensions of a weak modality's subspace for each class, rounded up (ours). A linear classifier uses one for
        each class, so that 1 restricts nothing."""

        def unsupported(self, task: TaskSpec) -> str | None:
            return task.unknown(self.strong)

    config: Config

    @classmethod
    def expand(cls, task: TaskSpec) -> Sequence[Mapping[str, Any]]:
        return [{"strong": modality} for modality in task.modalities]

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        self.strong = self.config.strong or next(iter(task.modalities))
        rank = math.ceil(self.config.subspace * task.num_classes)
        return MultimodalNet(
            task.build_encoders(), lambda dims: SubspaceHead(dims, task.num_classes, self.strong, rank)
        )

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        strong = out.unimodal[self.strong]
        terms = []
        for modality, logits in out.unimodal.items():
            own = F.cross_entropy(logits, batch.labels)
            if modality != self.strong:
                own = self.config.weak_weight * own + self.config.agreement * disagreement(strong, logits)
            terms.append(own)
        return sum_logits(terms)
