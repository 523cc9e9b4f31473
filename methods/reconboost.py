"""ReconBoost: modalities learn in turns of several epochs, each boosting what the others together have not learnt.

The ensemble is z = r * sum over m of z_m, with z_m = classifier(u_m), one classifier for all, and a learnt rate r.
After some epochs in which every modality learns by its own cross-entropy, stage s is about modality k = s mod M:

    boosting        (1 - lambda * p_y) * CE(z_k, y) + mu * mean (q_k - q_j)^2
    rectification   CE(z, y), everything trained

with q_m = softmax(z_m), p = softmax(r * sum over m != k of z_m) and j the modality of the stage before. The weight, the
reconciling regulariser, keeps k from repeating the others: the label becomes Y - lambda * p, masked to the true class,
a step of gradient boosting. The second term consolidates what the stage before learnt; neither p nor q_j gets a
gradient. Momentum starts anew with each phase.

Cost: one forward pass of every encoder each step; in boosting the backward pass of one encoder only.

Paper: By Hua, Xu, Bao, Yang and Huang. Stages of one modality each: cross-entropy, minus a KL divergence to the others'
prediction, plus memory consolidation; then all together. From the abstract and memory; the text was not available. The
KL divergence has no lower bound: what the others hold possible, k is rewarded for excluding.

Released code: Of the label Y - lambda * p only the true class is kept, over K: (w / K) * (1 - lambda * p_y) * CE;
consolidation detaches both sides, so it does nothing; others than k move their normalisation statistics while k learns.
Starts from networks trained for a whole run on one modality and goes on for hundreds of stages of 4 + 4 epochs (best at
stage 99 on CREMA-D), chosen on test, with 704 of 744 clips scored.

Ours: The mask of the released code without its 1 / K, which keeps the loss at zero or more; `regulariser=kl` is the
paper's, with which training can diverge. Equal to the official lines to 1e-6; consolidation detaches the earlier
modality only; `released` has the code's, but for a second forward pass of j, which only moves statistics once more. One
pass over train each epoch, as every other method: a tenth of the epochs, and what the stages leave over, goes into the
start, phases are shorter in short runs, and the run ends with a rectification.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, Reference, Variants, unimodal_losses
from benchmark.model import MultimodalNet, Outputs, sum_logits, summed_cross_entropy, true_class_probability
from benchmark.training import Run

from ._schedule import tenth
from ._shared import SharedHead

log = logging.getLogger(__name__)

LONGEST_PHASE = 4
"""Epochs of boosting, and of rectification, in a stage of the released code."""


def masked_boosting_loss(logits: Tensor, others: Tensor, labels: Tensor, lambda_: float, weight: float) -> Tensor:
    """Return weight * (1 - lambda * p_y) * CE(z_k, y) of each sample (B,), at least 0.

    It is the cross-entropy against Y - lambda * p, of which only the true class is kept.

    Args:
        logits: those of the modality that learns, (B, K).
        others: those of all others together, (B, K), without gradient.
        labels: class indices (B,).
        lambda_: weight of the regulariser.
        weight: weight of the whole.
    """
    left = 1 - lambda_ * true_class_probability(others, labels)
    return weight * left * F.cross_entropy(logits, labels, reduction="none")


def kl_boosting_loss(logits: Tensor, others: Tensor, labels: Tensor, lambda_: float, weight: float) -> Tensor:
    """Return weight * (CE(z_k, y) - lambda * KL(p || q_k)) of each sample (B,), without a lower bound."""
    divergence = F.kl_div(logits.log_softmax(1), others.log_softmax(1), reduction="none", log_target=True).sum(1)
    return weight * (F.cross_entropy(logits, labels, reduction="none") - lambda_ * divergence)


def released_boosting_loss(logits: Tensor, others: Tensor, labels: Tensor, lambda_: float, weight: float) -> Tensor:
    """Return `masked_boosting_loss` over the number of classes, (B,)."""
    return masked_boosting_loss(logits, others, labels, lambda_, weight / logits.shape[1])


BOOSTING: Mapping[str, Callable[[Tensor, Tensor, Tensor, float, float], Tensor]] = {
    "masked": masked_boosting_loss,
    "kl": kl_boosting_loss,
    "released": released_boosting_loss,
}


@dataclass(frozen=True)
class Schedule:
    """Which phase an epoch is in: a start, then stages of boosting and rectification to the end of the run."""

    start: int
    boosting: int
    rectification: int

    def stage(self, epoch: int) -> int | None:
        """Return the stage of an epoch, from 0; None during the start."""
        return None if epoch < self.start else (epoch - self.start) // (self.boosting + self.rectification)

    def boosts(self, epoch: int) -> bool:
        """Return whether an epoch is one of boosting."""
        past = epoch - self.start
        return past >= 0 and past % (self.boosting + self.rectification) < self.boosting

    def begins(self, epoch: int) -> bool:
        """Return whether an epoch is the first of its phase."""
        here, before = ((self.stage(e), self.boosts(e)) for e in (epoch, epoch - 1))
        return here != before


def plan(epochs: int, modalities: int, boosting: int | None, rectification: int | None, start: int | None) -> Schedule:
    """Return the schedule of a run. What is None fits the run: four stages a modality before a phase has two epochs."""
    fitting = min(max(epochs // (8 * modalities), 1), LONGEST_PHASE)
    boosting = fitting if boosting is None else boosting
    rectification = fitting if rectification is None else rectification
    least = tenth(epochs) if start is None else start
    rest = max(epochs - least, 0) % (boosting + rectification)
    return Schedule(least + rest, boosting, rectification)


class Ensemble(SharedHead):
    """One classifier for all modalities; the fused logits are their sum times a learnt rate."""

    def __init__(self, dims: Mapping[str, int], hidden: int, num_classes: int) -> None:
        super().__init__(
            dims, lambda width: nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))
        )
        self.rate = nn.Parameter(torch.ones(()))

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        out = super().forward(features)
        return Outputs(out.features, out.unimodal, self.rate * out.fused)


class ReconBoost(Method):
    reference = Reference(
        "ReconBoost: Boosting Can Achieve Modality Reconcilement",
        "ICML",
        2024,
        "huacong/ReconBoost @ 14ab57a : train.py, models/dynamic_net.py, schedule.py",
    )
    modalities = (2, None)
    version = 2
    variants = ({}, {"variant": "released"}, {"start_epochs": 1, "boosting_epochs": 2})
    ablations = ({"lambda_": 0.0}, {"memory": 0.0}, {"rectification_epochs": 0}, {"regulariser": "kl"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"cremad": {"lambda_": 0.2, "weight": 5.0}}
    """Of the released scripts (weights 5 and 1 on CREMA-D); 0.25 everywhere else."""
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_losses_equal_an_independent_calculation",
        paper_test="test_golden_numbers",
    )

    class Config(Variants):
        released: ClassVar[Mapping[str, Any]] = {
            "regulariser": "released",
            "weight": 4.0,
            "memory": 0.0,
            "others_eval": False,
        }

        regulariser: Literal["masked", "kl", "released"] = "masked"
        """Compare with the others in the true class (the released code's mask), in all classes by a KL divergence (as
        the paper writes it: the loss then has no lower bound, and training diverges, docs/findings.md), or in the true
        class, averaged over classes (released code)."""
        lambda_: float = Field(default=0.25, ge=0, le=1)
        """Weight of the regulariser beside cross-entropy (released scripts: 0.2 on CREMA-D, 0.25 elsewhere)."""
        weight: float = Field(default=1.0, gt=0)
        """Weight of the boosting loss (ours; released scripts: 5 on CREMA-D, 4 elsewhere, 1 on sentiment, over K)."""
        memory: float = Field(default=0.5, ge=0)
        """Weight of memory consolidation, mu (released code, where it has no effect)."""
        hidden: int = Field(default=256, ge=1)
        """Units of the shared classifier's hidden layer (released code)."""
        boosting_epochs: int | None = Field(default=None, ge=1)
        """Epochs of boosting in a stage; None for 4 (released code), or fewer where not each modality would get four
        stages of as many (ours)."""
        rectification_epochs: int | None = Field(default=None, ge=0)
        """Epochs of rectification in a stage; None as for boosting."""
        start_epochs: int | None = Field(default=None, ge=0)
        """Smallest number of epochs before the first stage, in which every modality learns alone (ours, in the place of
        pretrained networks); None for a tenth of the run."""
        others_eval: bool = True
        """Run the modalities that do not learn in evaluation mode (ours; released code: in training mode)."""

        @property
        def lengths(self) -> tuple[int | None, int | None, int | None]:
            """What is asked for: epochs of boosting, of rectification, and of the start."""
            return self.boosting_epochs, self.rectification_epochs, self.start_epochs

        def refuse(self, epochs: int) -> str | None:
            shortest = plan(epochs, epochs, *self.lengths)  # phases of one epoch where none is asked for
            if any(length is not None for length in self.lengths) and shortest.start >= epochs:
                return f"in {epochs} epochs no stage would end after the start"
            return None

    config: Config
    net: MultimodalNet[Ensemble]

    def build_net(self, task: TaskSpec) -> MultimodalNet[Ensemble]:
        hidden = self.config.hidden
        return MultimodalNet(task.build_encoders(), lambda dims: Ensemble(dims, hidden, task.num_classes))

    def attach(self, run: Run) -> None:
        super().attach(run)
        if self.config.regulariser == "kl":
            log.warning("regulariser=kl: the loss has no lower bound; `below_zero/<modality>` says how far it falls")
        self.schedule = plan(run.epochs, len(self.task.modalities), *self.config.lengths)

    def start_epoch(self, epoch: int) -> None:
        self.stage = self.schedule.stage(epoch)
        self.learner: str | None = None
        if self.schedule.begins(epoch):
            self.optimizer.state.clear()
        if self.stage is not None and self.schedule.boosts(epoch):
            self.learner = self.modality_of(self.stage)
        for modality, encoder in self.net.encoders.items():
            learns = self.learner in (None, modality)
            encoder.requires_grad_(learns)
            encoder.train(learns or not self.config.others_eval)
            self.run.log(**{f"learns/{modality}": float(learns)})

    def modality_of(self, stage: int) -> str:
        """Return the modality whose turn a stage is."""
        names = list(self.task.modalities)
        return names[stage % len(names)]

    def step(self, batch: Batch) -> dict[str, Tensor]:
        if self.learner is None:
            return super().step(batch)
        out = self.net(batch.inputs)
        terms: dict[str, Tensor] = {}
        loss = self.boosting_loss(out.unimodal, self.learner, batch.labels, terms)
        self.optimizer.zero_grad()  # to None, so that the optimizer leaves all else as it is
        self.run.backward(loss)
        self.optimizer.step()
        return {"boosting_loss": loss.detach(), **terms, **unimodal_losses(out, batch)}

    def boosting_loss(
        self, unimodal: Mapping[str, Tensor], learner: str, labels: Tensor, terms: dict[str, Tensor]
    ) -> Tensor:
        """Return the loss of the learner from the logits (B, K) of every modality; notes how far it is below zero."""
        assert self.stage is not None
        config = self.config
        others = self.net.head.rate * sum_logits(z for m, z in unimodal.items() if m != learner)
        each = BOOSTING[config.regulariser](unimodal[learner], others.detach(), labels, config.lambda_, config.weight)
        terms[f"below_zero/{learner}"] = each.detach().clamp_max(0).mean()
        loss = each.mean()
        if self.stage == 0 or not config.memory:
            return loss
        before = unimodal[self.modality_of(self.stage - 1)].detach().softmax(1)
        return loss + config.memory * F.mse_loss(unimodal[learner].softmax(1), before)

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        if self.stage is None:
            return summed_cross_entropy(out.unimodal, batch.labels)
        return super().loss(out, batch)
