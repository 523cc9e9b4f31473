"""DOMFN: fuse the modalities of a sample only where their own predictions agree, in training and in prediction.

Each modality has a perceptron f_m on its features and a classifier z_m on that; z is a perceptron on all f_m together.
With p_m = softmax(z_m), pbar their mean over modalities, and for each sample

    pen_m = max over k of (p_mk - pbar_k)^2,    fused if pen_m / tau < gamma for every m
    loss  = sum_m CE(z_m, y)                                                          if not fused, else
            sum_m CE(z_m, y) + CE(z, y) + sum_m (CE(z_m, y)^2 / 2 - eta * pen_m)

so modalities are fused while they differ little, and then pushed apart. A sample that is not fused is predicted by its
most confident modality. The first epochs train by sum_m CE(z_m, y), and no sample is fused. Of two modalities pen is at
most 1/4: with the released tau of 0.5 for three modalities, two would always be fused. One forward and one backward
pass.

Paper: By Yang et al. Only the abstract was available: a penalty for divergence decides for each sample whether to fuse,
and amends the loss.

Released code: Passes outputs through a sigmoid that is logits and probabilities at once, so that no cross-entropy falls
below 1.04 for six classes; batches of one sample. Its script never saves a model, since it compares errors the wrong
way round.

Ours: `released` has its losses, gate and prediction, losses and gradients equal to 2e-15 on 30 samples; `paper` reads
outputs as logits, whose squared cross-entropy, unbounded, can diverge at high rates. The gate acts within batches,
rates are the protocol's, and layers start Kaiming-normal, for with torch's weights stochastic gradient descent hardly
moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, Reference, Variants
from benchmark.model import Head, LateHead, MultimodalNet, Outputs
from benchmark.training import Run

FUSED_WIDTH = 64
"""Units of the hidden layer that fuses (released code)."""


def penalties(probabilities: Tensor) -> Tensor:
    """Return the largest squared difference from the mean over modalities: (M, B, K) -> (M, B)."""
    return (probabilities - probabilities.mean(0)).square().amax(2)


def instance_losses(own: Tensor, fused: Tensor, penalty: Tensor, fuses: Tensor, eta: float) -> Tensor:
    """Return the loss of each sample, (B,).

    Args:
        own: cross-entropy by each modality, (M, B).
        fused: cross-entropy by all of them, (B,).
        penalty: (M, B).
        fuses: which samples are fused, (B,) bool.
        eta: weight of the penalty.
    """
    return own.sum(0) + fuses * (fused + (own.square() / 2 - eta * penalty).sum(0))


def most_confident(logits: Tensor, probabilities: Tensor) -> Tensor:
    """Return the logits of the modality with the largest probability of any class, for each sample.

    Both arguments are (M, B, K), the result is (B, K).
    """
    best = probabilities.amax(2).argmax(0)
    return logits[best, torch.arange(len(best), device=best.device)]


class DivergenceHead(Head):
    """A perceptron and a classifier for each modality, and a perceptron on all of their states.

    Attributes:
        output: what logits are passed through before anything reads them.
    """

    def __init__(self, dims: Mapping[str, int], widths: Sequence[int], num_classes: int, output: nn.Module) -> None:
        super().__init__()
        self.towers = nn.ModuleDict({m: perceptron(dim, *widths) for m, dim in dims.items()})
        self.classifiers = LateHead(dict.fromkeys(dims, widths[-1]), num_classes)
        self.fusion = nn.Sequential(
            perceptron(len(dims) * widths[-1], FUSED_WIDTH), nn.Linear(FUSED_WIDTH, num_classes)
        )
        self.output = output

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        states = {m: self.towers[m](u) for m, u in features.items()}
        unimodal = {m: self.output(z) for m, z in self.classifiers(states).unimodal.items()}
        return Outputs(features, unimodal, self.output(self.fusion(torch.cat(list(states.values()), 1))))


def perceptron(*widths: int) -> nn.Sequential:
    """Return linear layers with ReLU after each, weights Kaiming-normal (He et al., ICCV 2015), biases zero."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        linear = nn.Linear(before, after)
        nn.init.kaiming_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers)


class DOMFN(Method):
    reference = Reference(
        "DOMFN: A Divergence-Orientated Multi-Modal Fusion Network for Resume Assessment",
        "ACM MM",
        2022,
        "njustkmg/MM22_DOMFN @ 77743c2 : models/encoder.py, engines/mosi_trainer.py",
    )
    modalities = (2, None)
    variants = (
        {"widths": [32]},
        {"widths": [64], "variant": "released"},
        {"widths": [64], "pretrain": 0.25, "gamma": 0.1},
    )
    ablations = ({"eta": 0.0}, {"gamma": None}, {"pretrain": 0.0})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"mosi": {"tau": 0.5}}
    """The released configuration's; 0.2 is that of its two modalities."""
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_losses_equal_an_independent_calculation_and_the_gradient_of_the_square",
        paper_test="test_penalties_equal_an_independent_calculation",
    )

    class Config(Variants):
        eta: float = Field(default=0.5, ge=0)
        """Weight of the penalty, for fused samples (released code)."""
        tau: float = Field(default=0.2, gt=0)
        """What a penalty is divided by (released code: 0.2 with two modalities, 0.5 with three)."""
        gamma: float | None = Field(default=0.8, ge=0)
        """Penalty over tau below which a sample is fused (released code); None fuses always, 0 never."""
        pretrain: float = Field(default=0.13, ge=0, le=1)
        """Part of the epochs, at the start, without fusion (released code: 30 of 230 and 15 of 115)."""

        widths: list[Annotated[int, Field(ge=1)]] = Field(default=[512, 256, 128], min_length=1)
        """Units of the layers on a modality's features (released code)."""

    config: Config
    fusing: Tensor

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        self.register_buffer("fusing", torch.tensor(False))
        released = self.config.variant == "released"
        self.to_probabilities = nn.Identity() if released else nn.Softmax(-1)
        output = nn.Sigmoid() if released else nn.Identity()
        return MultimodalNet(
            task.build_encoders(), lambda dims: DivergenceHead(dims, self.config.widths, task.num_classes, output)
        )

    def attach(self, run: Run) -> None:
        super().attach(run)
        self.first_fused = int(self.config.pretrain * run.epochs)

    def start_epoch(self, epoch: int) -> None:
        self.fuses = epoch >= self.first_fused and self.config.gamma != 0
        self.fusing.fill_(self.fuses)

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        own = torch.stack([F.cross_entropy(z, batch.labels, reduction="none") for z in out.unimodal.values()])
        if not self.fuses:
            return own.sum(0).mean()
        penalty = penalties(self.probabilities(out))
        fuses = self.agree(penalty)
        self.run.log(fused=fuses.float().mean())
        fused = F.cross_entropy(out.fused, batch.labels, reduction="none")
        return instance_losses(own, fused, penalty, fuses, self.config.eta).mean()

    def probabilities(self, out: Outputs) -> Tensor:
        """Return the predictions of all modalities, (M, B, K)."""
        probabilities: Tensor = self.to_probabilities(torch.stack(list(out.unimodal.values())))
        return probabilities

    def agree(self, penalty: Tensor) -> Tensor:
        """Return which samples are fused by their penalties: (M, B) -> (B,) bool."""
        gamma = torch.inf if self.config.gamma is None else self.config.gamma
        return (penalty / self.config.tau < gamma).all(0)

    def predict(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out = self.net(inputs)
        probabilities = self.probabilities(out)
        fuses = self.agree(penalties(probabilities)) & self.fusing
        own = most_confident(torch.stack(list(out.unimodal.values())), probabilities)
        return {"fused": torch.where(fuses[:, None], out.fused, own), **out.unimodal}
