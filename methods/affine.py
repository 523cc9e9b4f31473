"""Affine: FiLM. One modality's features are scaled and shifted by what the others make of theirs.

    [gamma; beta] = G u_others + g,    z = W (gamma * u_m + beta) + b,    loss = CE(z, y)

With two modalities the first conditions and the second is modulated. gamma multiplies as it is (no 1 + gamma), so
nothing of u_m passes where it is 0. z does not decompose, so there are no logits of one modality. One forward and one
backward pass.

Paper: By Perez et al. Features are scaled and shifted by another input, on the maps of a convolutional network; fusion
of pooled features is OGM's use of it.

Released code: Two modalities, the first conditions the second; gamma enters as it is. Called with three, it fails.

Ours: The released head, equal to OGM's and AMSS's to the last bit. More than two modalities condition by their
concatenation.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from benchmark.data import TaskSpec
from benchmark.method import Ledger, Method, Reference
from benchmark.model import Head, MultimodalNet, Outputs


def modulate(u: Tensor, generated: Tensor) -> Tensor:
    """Return gamma * u + beta from features (B, D) and [gamma; beta] (B, 2 D)."""
    gamma, beta = generated.chunk(2, 1)
    return gamma * u + beta


class FilmHead(Head):
    """One linear layer on a modality's features, modulated by those of the others."""

    def __init__(self, dims: Mapping[str, int], modulated: str, num_classes: int) -> None:
        super().__init__()
        self.modulated = modulated
        width = dims[modulated]
        self.generator = nn.Linear(sum(dims.values()) - width, 2 * width)
        self.output = nn.Linear(width, num_classes)

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        condition = torch.cat([u for m, u in features.items() if m != self.modulated], 1)
        fused = self.output(modulate(features[self.modulated], self.generator(condition)))
        return Outputs(features, {}, fused)


class Affine(Method):
    reference = Reference(
        "FiLM: Visual Reasoning with a General Conditioning Layer",
        "AAAI",
        2018,
        "GeWu-Lab/OGM-GE_CVPR2022 @ 343dc1d : models/fusion_modules.py",
    )
    modalities = (2, None)
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_logits_follow_an_independent_calculation",
        paper_test="test_scale_and_shift_are_the_halves_in_that_order",
    )

    class Config(Method.Config):
        modulated: str | None = None
        """The modality whose features are modulated; None for the last (released code: the second of two)."""

        def unsupported(self, task: TaskSpec) -> str | None:
            return task.unknown(self.modulated)

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        modulated = self.config.modulated or list(task.modalities)[-1]
        return MultimodalNet(task.build_encoders(), lambda dims: FilmHead(dims, modulated, task.num_classes))
