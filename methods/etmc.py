"""ETMC: each modality gives evidence for each class; opinions are combined by Dempster's rule and trained as such.

    e_v = softplus(o_v),    alpha_v = e_v + 1,    1 + e / K = product over v of (1 + e_v / K)

for the views v: each modality, and a pseudo-view on the concatenated features. The product is what the reduced rule of
combination comes to, element by element, in any order. With S = sum of alpha, the loss of an opinion is

    psi(S) - psi(alpha_y)  +  annealing * KL(Dir(alpha with the true class set to 1) || Dir(1)),

summed with equal weights over modalities, pseudo-view and their combination; annealing = min(1, epoch / anneal_epochs).
Logits are log(alpha), so that softmax gives the expected probabilities alpha / S. One forward and one backward pass.

Paper: By Han, Zhang, Fu and Zhou. Reduced Dempster's rule, view by view; loss over views, pseudo-view and combination.
Without the pseudo-view it is their TMC, ICLR 2021.

Released code: The paper's; gradients are accumulated over three batches and the epoch is chosen on test.

Ours: The rule in closed form, for any number of modalities; equals the released combination to 9e-15 and its loss to
1e-15. What belongs to the protocol is not followed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, Reference
from benchmark.model import Head, LateHead, MultimodalNet, Outputs, sum_logits

SERIES_FROM = 8.0
"""From here on four terms of Stirling's series are exact to 1e-9."""
HALF_LOG_2_PI = math.log(2 * math.pi) / 2


def combine(evidence: Sequence[Tensor]) -> Tensor:
    """Return the evidence (B, K) of several views' combined opinion from theirs, (B, K) each."""
    num_classes = evidence[0].shape[1]
    combined = torch.zeros_like(evidence[0])
    for e in evidence:
        combined = combined + e + combined * e / num_classes
    return combined


def expected_cross_entropy(alpha: Tensor, labels: Tensor) -> Tensor:
    """Return psi(S) - psi(alpha_y), the cross-entropy expected under Dir(alpha): (B, K) -> (B,)."""
    return alpha.sum(1).digamma() - alpha.gather(1, labels[:, None])[:, 0].digamma()


def remainders(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what Stirling's first terms leave of lgamma(x) and digamma(x), for x >= 1.

    lgamma(x) = (x - 1/2) ln x - x + ln(2 pi) / 2 + first,    digamma(x) = ln x + second.
    """
    low, high = x.clamp(max=SERIES_FROM), x.clamp(min=SERIES_FROM)
    inverse = 1 / high
    square = inverse.square()
    series = inverse * (1 / 12 - square * (1 / 360 - square / 1260))
    series_slope = -inverse / 2 - square * (1 / 12 - square * (1 / 120 - square / 252))
    exact = low.lgamma() - ((low - 0.5) * low.log() - low + HALF_LOG_2_PI)
    small = x < SERIES_FROM
    return torch.where(small, exact, series), torch.where(small, low.digamma() - low.log(), series_slope)


def divergence_from_uniform(alpha: Tensor) -> Tensor:
    """Return KL(Dir(alpha) || Dir(1)): (B, K) -> (B,).

    lgamma(S) - sum lgamma(alpha) - lgamma(K) + sum (alpha - 1) (digamma(alpha) - digamma(S)), with those terms of
    lgamma and digamma left out that cancel: they outgrow single precision from an evidence of a thousand on.
    """
    total, count = alpha.sum(1), alpha.shape[1]
    (first, slope), (first_total, slope_total) = remainders(alpha), remainders(total)
    logs = (count - 0.5) * total.log() - alpha.log().sum(1) / 2 - (count - 1) * HALF_LOG_2_PI - math.lgamma(count)
    return logs + first_total - first.sum(1) + ((alpha - 1) * slope).sum(1) - (total - count) * slope_total


def opinion_loss(evidence: Tensor, labels: Tensor, annealing: float) -> Tensor:
    """Return the mean loss of an opinion with evidence (B, K): fit, plus pressure on evidence for wrong classes."""
    wrong = evidence * (1 - F.one_hot(labels, evidence.shape[1]))
    fit = expected_cross_entropy(evidence + 1, labels)
    return (fit + annealing * divergence_from_uniform(wrong + 1)).mean()


@dataclass(frozen=True)
class Opinions(Outputs):
    """Outputs with the evidence behind them."""

    evidence: Sequence[Tensor]
    """(B, K) for each modality, the pseudo-view if there is one, and their combination."""


class EvidentialHead(Head):
    """A linear layer for each modality and one for the pseudo-view, read as evidence."""

    def __init__(self, dims: Mapping[str, int], num_classes: int, pseudo_view: bool) -> None:
        super().__init__()
        self.views = LateHead(dims, num_classes)
        self.pseudo = nn.Linear(sum(dims.values()), num_classes) if pseudo_view else None

    def forward(self, features: dict[str, Tensor]) -> Opinions:
        evidence = {m: F.softplus(o) for m, o in self.views(features).unimodal.items()}
        views = list(evidence.values())
        if self.pseudo is not None:
            views.append(F.softplus(self.pseudo(torch.cat(list(features.values()), 1))))
        combined = combine(views)
        return Opinions(features, {m: e.log1p() for m, e in evidence.items()}, combined.log1p(), [*views, combined])


class ETMC(Method):
    reference = Reference(
        "Trusted Multi-View Classification with Dynamic Evidential Fusion",
        "TPAMI",
        2022,
        "hanmenghan/TMC @ 08d0ca4 : ETMC TPAMI/models/TMC.py, train_ETMC_nyud2.py",
    )
    version = 2
    variants = ({}, {"pseudo_view": False})
    ablations = ({"pseudo_view": False},)
    """TMC, without the opinion on the concatenated features."""
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_golden_combination",
        paper_test="test_combination_equals_dempsters_rule_in_any_order",
    )

    class Config(Method.Config):
        pseudo_view: bool = True
        """Combine with an opinion on the concatenated features too (ETMC); False is TMC."""
        anneal_epochs: int = Field(default=10, ge=1)
        """Epochs until evidence for wrong classes is pressed down in full (released code)."""

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        pseudo_view = self.config.pseudo_view
        return MultimodalNet(task.build_encoders(), lambda dims: EvidentialHead(dims, task.num_classes, pseudo_view))

    def start_epoch(self, epoch: int) -> None:
        self.annealing = min(1.0, epoch / self.config.anneal_epochs)

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        assert isinstance(out, Opinions)
        return sum_logits(opinion_loss(e, batch.labels, self.annealing) for e in out.evidence)
