"""PMR: pull the slow modality's features towards class prototypes, and calm the dominant one at first.

The prototypes c_mk are class means of the features over a tenth of train, refreshed before each epoch. With d the
Euclidean distance, s_m = -d(u_m, c_m) are logits, and P_m is the sum over the batch of softmax(s_m)[y]:

    k_m = clip(max_j P_j / P_m - 1, 0, 1)                           how far m lags; 0 for the dominant modality
    L   = CE(z, y)  +  alpha * sum_m k_m * CE(s_m, y)               PCE
                    -  mu * sum_{j != m} k_j * H(softmax(s_m))      PER: for the dominant m, in the first epochs only

One forward and one backward pass a step, and a forward pass over a tenth of train an epoch.

Paper: By Fan et al., read in full; the number of epochs with PER and the momentum are not stated.

Released code: Coefficients are 0 or 1; no PER; a random tenth of train in which a class may be missing, which makes its
loss NaN; scripts set momentum to 0.

Ours: Both, as variants; a released step differs by 5e-8 in single precision. In both the tenth is drawn anew each
epoch, stratified and not augmented, and the prototypes of the untrained network are forgotten after epoch 0, as in the
released code. Three modalities: k and PER by the formulas above.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference, Variants
from benchmark.model import ConcatHead, MultimodalNet, Outputs, concat_net, true_class_probability
from benchmark.seeds import generator
from benchmark.training import Run

from ._confidence import FLOOR
from ._features import encode_all
from ._prototypes import class_means, draw_share, similarities
from ._schedule import tenth, within


def lags(confidence: Tensor, hard: bool = False) -> Tensor:
    """Return how far each modality lags behind the most confident one: clip(max P / P_m - 1, 0, 1), (M,) -> (M,).

    Args:
        confidence: summed true-class probability of each modality.
        hard: give 1 to every modality that lags at all, as the released code does.
    """
    confidence = confidence.clamp_min(FLOOR)
    excess = confidence.max() / confidence - 1
    return excess.sign() if hard else excess.clamp(max=1)


def entropy(logits: Tensor) -> Tensor:
    """Return the mean entropy of softmax(logits) in nats: (B, K) -> scalar."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()


class PMR(Method):
    reference = Reference(
        "PMR: Prototypical Modal Rebalance for Multimodal Learning",
        "CVPR",
        2023,
        "fanyunfeng-bit/Modal-Imbalance-PMR @ 3615e48 : main_Prototype_grad.py",
    )
    modalities = (2, None)
    off_switches = (
        OffSwitch({"alpha": 0.0, "mu": 0.0}, "concat"),
        OffSwitch({"first_epoch": 1_000_000}, "concat"),
    )
    version = 2
    variants = ({}, {"per_epochs": 4}, {"variant": "released"})
    ablations = ({"mu": 0.0}, {"alpha": 0.0}, {"coefficient": "hard"})
    """PCE without PER and PER without PCE, as in the paper; the coefficient all or nothing."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"cremad": {"alpha": 2.0}}
    """Values of the released scripts (bash.sh)."""
    ledger = Ledger(
        code="verified on the same tensors",
        paper="verified from text",
        code_test="test_coefficients_equal_those_of_paper_and_released_code",
        paper_test="test_loss_equals_an_independent_calculation",
    )

    class Config(Variants):
        released: ClassVar[Mapping[str, Any]] = {"coefficient": "hard", "mu": 0.0, "momentum": 0.0, "last_epoch": 70}

        alpha: float = Field(default=1.0, ge=0)
        """Weight of the prototype losses (released code's default; the paper uses 1 and 2)."""
        coefficient: Literal["clip", "hard"] = "clip"
        """How strongly to pull a modality that lags: by its lag, at most 1 (paper), or always 1 (released code)."""
        mu: float = Field(default=0.01, ge=0)
        """Weight of the entropy bonus, PER (paper: 0.01 and 0.001; the released code has none)."""
        per_epochs: int | None = Field(default=None, ge=0)
        """Epochs with PER, from the first; None for a tenth of the run (ours: the paper does not state E_r)."""
        momentum: float = Field(default=0.2, ge=0, lt=1)
        """Part of the old prototypes that stays (released code's default; its scripts use 0, the paper states none)."""
        share: float = Field(default=0.1, gt=0, le=1)
        """Part of train that the prototypes are means over (paper and released code)."""
        first_epoch: int = Field(default=0, ge=0)
        """First epoch of rebalancing, from 0 (released code)."""
        last_epoch: int | None = Field(default=None, ge=0)
        """Last epoch of rebalancing, inclusive; None for all (the released scripts stop after 70 of 100 to 150)."""

    config: Config
    net: MultimodalNet[ConcatHead]

    def build_net(self, task: TaskSpec) -> MultimodalNet[ConcatHead]:
        net = concat_net(task)
        for modality, weight in net.head.slices.items():
            self.register_buffer(f"prototypes_{modality}", torch.zeros_like(weight))
        return net

    def attach(self, run: Run) -> None:
        super().attach(run)
        per_epochs = self.config.per_epochs
        self.per_epochs = tenth(run.epochs) if per_epochs is None else per_epochs

    def start_epoch(self, epoch: int) -> None:
        first = self.config.first_epoch
        self.active = within(epoch, first, self.config.last_epoch)
        self.calm = epoch < self.per_epochs
        if self.active:
            anew = epoch <= max(first, 1)  # there are none yet, or only those of the untrained network
            self.refresh_prototypes(epoch, momentum=0.0 if anew else self.config.momentum)

    def refresh_prototypes(self, epoch: int, momentum: float) -> None:
        """Move the prototypes to the class means over a share of train, in eval mode."""
        draw = generator(self.run.seed, epoch, "prototypes")
        chosen = draw_share(self.run.train_labels, self.config.share, draw)
        features, labels = encode_all(self.net, self.run.train_at(chosen))
        for modality, u in features.items():
            means = class_means(u, labels, self.task.num_classes)
            prototypes = self.prototypes(modality)
            prototypes.copy_(momentum * prototypes + (1 - momentum) * means)

    def prototypes(self, modality: str) -> Tensor:
        """Return the class prototypes of a modality, (K, D)."""
        return self.get_buffer(f"prototypes_{modality}")

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        loss = super().loss(out, batch)
        if not self.active:
            return loss
        logits = {m: similarities(u, self.prototypes(m)) for m, u in out.features.items()}
        confidence = torch.stack([true_class_probability(s, batch.labels).sum() for s in logits.values()])
        lag = lags(confidence.detach(), self.config.coefficient == "hard")
        for k, (modality, s) in zip(lag, logits.items(), strict=True):
            loss = loss + self.config.alpha * k * F.cross_entropy(s, batch.labels)
            if self.calm:
                loss = loss - self.config.mu * torch.where(k == 0, lag.sum(), 0.0) * entropy(s)
            self.run.log(**{f"lag/{modality}": k})
        return loss
