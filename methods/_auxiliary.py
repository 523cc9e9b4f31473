"""The network of multi-task training: a concat head, and a classifier of each modality's own beside it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from benchmark.data import TaskSpec
from benchmark.model import ConcatHead, Head, LateHead, MultimodalNet, Outputs, summed_cross_entropy


class AuxiliaryHead(Head):
    """Fused logits from a concat head; those of one modality from a linear layer that is no part of the fused ones."""

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__()
        self.joint = ConcatHead(dims, num_classes)
        self.auxiliary = LateHead(dims, num_classes)

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        return Outputs(features, self.auxiliary(features).unimodal, self.joint(features).fused)


def auxiliary_net(task: TaskSpec) -> MultimodalNet[AuxiliaryHead]:
    """Return the task's encoders under an `AuxiliaryHead`."""
    return MultimodalNet(task.build_encoders(), lambda dims: AuxiliaryHead(dims, task.num_classes))


def multitask_loss(fused: Tensor, unimodal: Mapping[str, Tensor], labels: Tensor, weight: float) -> Tensor:
    """Return CE(z, y) + weight * sum over m of CE(z_m, y), from logits (B, K) and labels (B,)."""
    return F.cross_entropy(fused, labels) + weight * summed_cross_entropy(unimodal, labels)
