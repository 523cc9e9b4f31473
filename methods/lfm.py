"""LFM: a contrastive loss between the modalities beside the classification loss, with a weight that changes.

A linear classifier for each modality, z the sum of their logits, and

    L = (1 - alpha) C + alpha A,    C = CE(z, y),    A = mean over pairs (j, l) of 1/2 [CE(S, i) + CE(S^T, i)]

with S[i, k] = cos(u_j of sample i, u_l of sample k) / tau: a sample's features are told from the batch's by the other
modality, without labels. The weight of epoch t = 1, 2, ... is

    heuristic    alpha = 1 - exp(-1 / t)
    learning     alpha <- clip(alpha - eta * dU/d alpha, 0, 1) after each epoch, from the loss U = C on held-out samples

where dU/d alpha = -(grad A - grad C) . H^-1 grad U and H holds the second derivatives of L (`_hypergradient`).

Cost: one forward and one backward pass a step; learning adds `solver_steps` + 3 backward passes on a batch and one pass
over the held-out share each epoch, and trains on that much less. The epoch's samples count the batch.

Paper: By Yang, Wan, Jiang and Xu. Temperature, step size, start and the approximation of H^-1 are not given. It writes
U on the samples of L, too, which has no answer but 0: where L is at its minimum, grad A - grad C is -grad C / alpha, so
dU/d alpha = grad C . H^-1 grad C / alpha >= 0. CREMA-D: 72.15 heuristic, 83.62 learned.

Released code: Two modalities; z is the mean, and there is no contrastive loss. A is half of KL(m || p_j) + KL(m || p_l)
with p the softmax of a modality's logits and m their mean (meant as Jensen-Shannon, whose arguments are swapped); L
counts twice. Alpha moves before each epoch by 1e-4 times the mean, over the very first weight of the network, of H grad
C (not its inverse), on the same 8 of 16 held-out samples, the first time in train mode; it hardly leaves 0.95. The main
script follows a polynomial fitted to alpha on CREMA-D, which leaves [0, 1] near epoch 180. An outside run reached 78.76
on CREMA-D.

Ours: Both strategies. The upper level is on a share held out of train (none is refused), H^-1 is damped conjugate
gradients on one training batch in eval mode: equal to the exact inverse on a convex problem to 1e-6, and alpha reaches
a known optimum. Losses equal the published golden numbers. `released` has the code's losses, with `heuristic` for its
polynomial; divergence, polynomial and slope equal the official functions to 1e-6, but a share is held out. More than
two modalities by pairs, and a linear map to a common width where features differ in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference, Variants
from benchmark.model import LateHead, MultimodalNet, Outputs, sum_logits

from ._batches import take
from ._heads import MeanHead, projections
from ._hypergradient import gradient, hypergradient

RELEASED_SAMPLES = 8
"""Held-out samples that the released code looks at."""
RELEASED_RATE = 1e-4
"""Step size of alpha in the released code at the start; it halves every 20 epochs."""
RELEASED_CURVE = (2.04623704e-01, 3.35472727e-03, 1.22989557e-04, -2.92947416e-06, 2.23835486e-08, -5.39717505e-11)
"""Coefficients of the released polynomial: the weight of classification by powers of the epoch, counted from 0."""


def heuristic_alpha(epoch: Tensor) -> Tensor:
    """Return the weight of alignment 1 - exp(-1 / t) in an epoch counted from 0: t = epoch + 1."""
    return -torch.expm1(-1 / (epoch + 1))


def released_alpha(epoch: Tensor) -> Tensor:
    """Return the weight of alignment by the released polynomial, in an epoch counted from 0."""
    return 1 - sum((c * epoch**power for power, c in enumerate(RELEASED_CURVE)), torch.zeros_like(epoch))


def contrastive_loss(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Return the symmetric InfoNCE loss of two modalities' features, (B, D) and (B, D) -> scalar."""
    similarity = F.normalize(one, dim=1) @ F.normalize(other, dim=1).T / temperature  # (B, B)
    own = torch.arange(len(one), device=one.device)
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2


def released_divergence(one: Tensor, other: Tensor) -> Tensor:
    """Return half of KL(m || p) + KL(m || q), averaged over samples, from the logits (B, K) of p and q."""
    logs = torch.stack([one.log_softmax(1), other.log_softmax(1)])  # (2, B, K)
    mean = logs.logsumexp(0) - math.log(2)  # in logs: a mean that underflows to 0 has no gradient of its logarithm
    return sum_logits(F.kl_div(log, mean, reduction="batchmean", log_target=True) for log in logs) / 2


def released_slope(losses: tuple[Tensor, Tensor], alpha: Tensor, params: list[nn.Parameter]) -> Tensor:
    """Return what the released code takes for dU/d alpha: the mean of the first parameter's part of H grad C."""
    first, second = (gradient(loss, params, differentiable=True) for loss in losses)
    slope = (1 - alpha) * first + alpha * second
    return gradient(slope @ first.detach(), params[:1]).mean()


class AlignedHead(LateHead):
    """A late head that also maps features to a common width, where they differ in it."""

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__(dims, num_classes)
        self.project = projections(dims, min(dims.values()))

    def common(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return features of one width, {modality: (B, D)}."""
        return {m: self.project[m](u) for m, u in features.items()}


class LFM(Method):
    reference = Reference(
        "Facilitating Multimodal Classification via Dynamically Learning Modality Gap",
        "NeurIPS",
        2024,
        "njustkmg/NeurIPS24-LFM @ ad44fa0 : Crema_epoch_learnable.py, Crema_epoch.py",
    )
    modalities = (2, None)
    off_switches = (OffSwitch({"strategy": "constant", "alpha": 0.0}, "sum"),)
    version = 2
    variants = (
        {},
        {"strategy": "heuristic"},
        {"strategy": "constant", "alpha": 0.5},
        {"variant": "released", "alpha": 0.5},  # 0.95 learns too slowly for a test
        {"variant": "released", "strategy": "heuristic"},
    )
    ablations = (
        {"strategy": "heuristic"},
        {"strategy": "constant", "alpha": 0.5},
        {"strategy": "constant", "alpha": 0.0},
        {"solver_steps": 1},
    )
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_released_divergence_equals_golden_numbers_and_is_no_jensen_shannon",
        paper_test="test_hypergradient_equals_the_exact_inverse_on_a_convex_problem",
    )

    class Config(Variants):
        strategy: Literal["heuristic", "learning", "constant"] = "learning"
        """What sets the weight of alignment: a schedule, held-out samples (paper: both), or nothing (ours)."""
        alpha: float | None = Field(default=None, ge=0, le=1)
        """Weight of alignment at the start if it is learned, throughout if it is constant; None for 0.95 in `released`
        (its code), whose alignment is weak, and else 0.5 (ours; the paper gives none)."""
        temperature: float = Field(default=0.1, gt=0)
        """Divisor of the cosines: tau (ours, as usual in contrastive learning; the paper gives none)."""
        alpha_lr: float = Field(default=0.1, gt=0)
        """Step size of alpha: eta (ours; the paper gives none)."""
        solver_steps: int = Field(default=10, ge=1)
        """Conjugate gradient steps (ours; the paper gives no approximation)."""
        damping: float = Field(default=1.0, ge=0)
        """What is added to the diagonal of H to make it positive definite (ours)."""
        held_out: float = Field(default=0.1, ge=0, lt=1)
        """Share of train on which alpha is learned, stratified (ours; in the released code 16 samples)."""

        def unsupported(self, task: TaskSpec) -> str | None:
            if self.variant == "released" and len(task.modalities) > 2:
                return "the released code is for two modalities; variant=paper takes more"
            return None

        def refuse(self, epochs: int) -> str | None:
            if self.strategy != "learning" or self.held_out:
                return None
            return (
                "held_out=0 leaves only training samples to learn alpha from; at the minimum of the training loss "
                "dC/d alpha = grad C . H^-1 grad C / alpha >= 0 there, so alpha would fall to 0 whatever the data. "
                "Hold out a share, or choose strategy=heuristic"
            )

    config: Config
    alpha: Tensor

    def __init__(self, config: Config, task: TaskSpec) -> None:
        super().__init__(config, task)
        self.released = config.variant == "released"
        self.learning = config.strategy == "learning"
        if self.learning:
            self.held_out_share = config.held_out
        usual = 0.95 if self.released else 0.5
        start = usual if config.alpha is None else config.alpha
        self.register_buffer("alpha", torch.tensor(start, dtype=torch.float64))  # released steps are about 1e-8

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        head = AlignedHead if self.config.variant == "paper" else MeanHead
        return MultimodalNet(task.build_encoders(), lambda dims: head(dims, task.num_classes))

    def start_epoch(self, epoch: int) -> None:
        if self.config.strategy == "heuristic":
            schedule = released_alpha if self.released else heuristic_alpha
            self.alpha.copy_(schedule(torch.tensor(epoch, dtype=torch.float64)))
        elif self.learning and self.released:
            self.move_alpha_as_released(epoch)
        self.run.log(alpha=self.alpha)

    def end_epoch(self, epoch: int) -> None:
        if self.learning and not self.released:
            self.net.eval()
            self.alpha.sub_(self.config.alpha_lr * self.alpha_slope(epoch)).clamp_(0, 1)
            self.net.train()

    def alpha_slope(self, epoch: int) -> Tensor:
        """Return the derivative of the held-out classification loss with respect to alpha."""
        settings = self.config
        with sdpa_kernel(SDPBackend.MATH):  # other kernels of attention cannot be differentiated twice
            losses = self.losses(next(self.run.train_batches(epoch, salt=1)))
            upper = self.held_out_gradient(epoch)
            return hypergradient(upper, losses, self.alpha, self.trainable(), settings.solver_steps, settings.damping)

    def held_out_gradient(self, epoch: int) -> Tensor:
        """Return the gradient of the classification loss on the held-out share, (P,)."""
        total, count = torch.zeros((), device=self.run.device), 0
        for batch in self.run.held_out_batches(epoch):
            loss, _ = self.losses(batch)
            total = total + len(batch.labels) * gradient(loss, self.trainable())
            count += len(batch.labels)
        return total / count

    def move_alpha_as_released(self, epoch: int) -> None:
        """Move alpha by the released rule, in train mode at first and in eval mode ever after."""
        self.net.train(epoch == 0)
        batch = next(self.run.held_out_batches(0))  # in every epoch the same samples
        few = take(batch, slice(RELEASED_SAMPLES))
        with sdpa_kernel(SDPBackend.MATH):
            slope = released_slope(self.losses(few), self.alpha, self.trainable())
        self.alpha.sub_(RELEASED_RATE / 2 ** (epoch // 20) * slope).clamp_(0.05, 0.95)
        self.net.train()

    def trainable(self) -> list[nn.Parameter]:
        """Return the parameters that are trained, the first encoder's first one first."""
        return [p for p in self.net.parameters() if p.requires_grad]

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the classification and the alignment loss of a batch, C and A."""
        return self.losses_of(self.net(batch.inputs), batch.labels)

    def losses_of(self, out: Outputs, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the classification and the alignment loss of outputs, C and A."""
        if self.released:
            pairs = [released_divergence(*pair) for pair in combinations(out.unimodal.values(), 2)]
        else:
            assert isinstance(self.net.head, AlignedHead)
            common = self.net.head.common(out.features)
            pairs = [contrastive_loss(*pair, self.config.temperature) for pair in combinations(common.values(), 2)]
        return F.cross_entropy(out.fused, labels), torch.stack(pairs).mean()

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        classification, alignment = self.losses_of(out, batch.labels)
        alpha = self.alpha.float()
        weighted = (1 - alpha) * classification + alpha * alignment
        return 2 * weighted if self.released else weighted
