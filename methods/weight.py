"""Weight: modalities weighted by attention, for each sample anew, before they are added.

    paper       z = sum over m of w_m z_m,    z_m = V_m u_m + c_m,    w = softmax over m of attention(P_m u_m)
    released    z = W (sum over m of w_m * u_m) + b,    w_m = softmax_d(u_m) / sum over j of softmax_d(u_j)

Trained by CE(z, y). Any number of modalities; one forward and one backward pass.

Paper: CMML weighs hidden states by attention. Papers that report "Weight" say that predictions are weighted and
cite CMML; none says how in full.

Released code: AMSS's `cmml`: a weight for each sample, modality and dimension, without parameters; a modality's logits
are those of the shared layer on its features.

Ours: `paper` weighs predictions by the attention of CMML's code, one scalar for each sample and modality from a
perceptron that all modalities share: one reading. `released` equals AMSS's class to 4e-16; features of different widths
first pass a projection. They are two methods: a table must say which.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from benchmark.data import TaskSpec
from benchmark.method import Ledger, Method, Reference, Variants
from benchmark.model import Head, LateHead, MultimodalNet, Outputs, sum_logits

from ._heads import projections


def attention_weights(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return softmax over modalities of their scores (B, 1): weights (B, 1) that sum to 1."""
    return dict(zip(scores, torch.stack(list(scores.values())).softmax(0), strict=True))


def dimension_weights(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return each modality's share of the softmax over dimensions of features (B, D): weights that sum to 1.

    Taken in logarithms, since a quotient of softmaxes is 0 / 0 where both vanish.
    """
    return attention_weights({m: u.log_softmax(1) for m, u in features.items()})


def weighted_sum(weights: Mapping[str, Tensor], terms: Mapping[str, Tensor]) -> Tensor:
    """Return the sum over modalities of weight * term, (B, 1 or D) and (B, D) -> (B, D)."""
    return sum_logits(weights[m] * term for m, term in terms.items())


class PredictionWeightHead(Head):
    """A linear layer for each modality, weighted by one attention that all share."""

    def __init__(self, dims: Mapping[str, int], width: int, num_classes: int) -> None:
        super().__init__()
        self.late = LateHead(dims, num_classes)
        self.project = nn.ModuleDict({m: nn.Linear(dim, width) for m, dim in dims.items()})
        halves = [nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, width // 4), nn.ReLU()]
        self.attention = nn.Sequential(*halves, nn.Linear(width // 4, 1))

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        unimodal = self.late(features).unimodal
        weights = attention_weights({m: self.attention(self.project[m](u)) for m, u in features.items()})
        return Outputs(features, unimodal, weighted_sum(weights, unimodal))


class DimensionWeightHead(Head):
    """One linear layer on features weighted dimension by dimension."""

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__()
        width = max(dims.values())
        self.project = projections(dims, width)
        self.output = nn.Linear(width, num_classes)

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        states = {m: self.project[m](u) for m, u in features.items()}
        fused = self.output(weighted_sum(dimension_weights(states), states))
        return Outputs(features, {m: self.output(h) for m, h in states.items()}, fused)


class Weight(Method):
    reference = Reference(
        "Comprehensive Semi-Supervised Multi-Modal Learning",
        "IJCAI",
        2019,
        "njustkmg/IJCAI19_CMML @ e249f88 : code/Model/Train.py; njustkmg/TPAMI-AMSS @ 3161ecc : AMSS/fusion_modules.py",
    )
    variants = ({}, {"variant": "released"})
    ledger = Ledger(
        code="verified on the same tensors",
        paper="reconstructed",
        code_test="test_dimension_weights_follow_an_independent_calculation",
        paper_test="test_prediction_weights_follow_an_independent_calculation",
    )

    class Config(Variants):
        width: int = Field(default=128, ge=4)
        """Units of the projection that attention reads, halved in each of its two hidden layers (CMML's code: 128, 64,
        32). Unused by `released`."""

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        def head(dims: dict[str, int]) -> Head:
            if self.config.variant == "released":
                return DimensionWeightHead(dims, task.num_classes)
            return PredictionWeightHead(dims, self.config.width, task.num_classes)

        return MultimodalNet(task.build_encoders(), head)
