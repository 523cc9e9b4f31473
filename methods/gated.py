"""Gated: one modality's features pass a gate that the others open.

    z = W (sigmoid(P_others u_others) * P_m u_m) + b,    loss = CE(z, y)

With two modalities the first is the gate and the second passes it. z does not decompose, so there are no logits of one
modality. One forward and one backward pass.

Paper: By Kiela et al. A gate opened by one input, passed by another.

Released code: OGM's code (and AMSS's): the first of two modalities opens, the second passes. It crashes under OGM's own
modulation, and with three modalities.

Ours: The released head, equal to the last bit. Weights start as in OGM's code, Xavier-normal with zero biases, for a
product of small projections is near zero. More than two modalities open the gate by their concatenation, whose
projection is the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from benchmark.data import TaskSpec
from benchmark.method import Ledger, Method, Reference
from benchmark.model import Head, MultimodalNet, Outputs


def gate(opening: Tensor, passing: Tensor) -> Tensor:
    """Return sigmoid(opening) * passing, (B, D) each."""
    return opening.sigmoid() * passing


class GatedHead(Head):
    """One linear layer on a modality's projected features, gated by those of the others."""

    def __init__(self, dims: Mapping[str, int], gated: str, num_classes: int) -> None:
        super().__init__()
        self.gated = gated
        width = dims[gated]
        self.opening = nn.Linear(sum(dims.values()) - width, width)
        self.passing = nn.Linear(width, width)
        self.output = nn.Linear(width, num_classes)
        for layer in (self.opening, self.passing, self.output):  # as OGM's code draws every linear layer
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        others = torch.cat([u for m, u in features.items() if m != self.gated], 1)
        fused = self.output(gate(self.opening(others), self.passing(features[self.gated])))
        return Outputs(features, {}, fused)


class Gated(Method):
    reference = Reference(
        "Efficient Large-Scale Multi-Modal Classification",
        "AAAI",
        2018,
        "GeWu-Lab/OGM-GE_CVPR2022 @ 343dc1d : models/fusion_modules.py",
    )
    modalities = (2, None)
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_logits_follow_an_independent_calculation",
        paper_test="test_a_closed_gate_lets_nothing_through_and_an_open_one_all",
    )

    class Config(Method.Config):
        gated: str | None = None
        """The modality that passes the gate; None for the last (released code: the second of two)."""

        def unsupported(self, task: TaskSpec) -> str | None:
            return task.unknown(self.gated)

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        gated = self.config.gated or list(task.modalities)[-1]
        return MultimodalNet(task.build_encoders(), lambda dims: GatedHead(dims, gated, task.num_classes))
