"""DI-MML: encoders that learn apart, a classifier that they share, and lessons in single dimensions; then fusion.

Stage one trains each modality by its own classifier h_m, by a shared one g, which puts the features into one space, and
from some epoch on by lessons between them:

    L = sum over m of CE(h_m(u_m), y) + align * CE(g(u_m), y)  +  sum over pairs of L_mn,

where m teaches n the dimensions S = E_m without E_n, those in which m is effective and n is not:

    L_mn = mean over i of  -log softmax over k of (u_n[i, S] . sg(u_m[k, S]) / tau)  at k = i

A dimension is effective if the nearest class mean in it alone is right more often than in the average dimension. That
is found once, on train. No gradient flows from a lesson to its teacher. In stage two all this is frozen and a concat
classifier f learns; each sample then weighs the logits by certainty: w = softmax over k in {1 .. M, f} of max
softmax(z_k) / tau_2.

Cost: one forward and one backward pass a step, in stage two no backward pass of an encoder; a forward pass over train
once, before the lessons.

Paper: By Fan, Xu, Wang, Liu and Guo. Separate losses, a shared classifier, contrastive lessons in the dimensions where
only the teacher is effective, and fusion by certainty. The text was not available; the released code agrees with its
abstract.

Released code: Two modalities. Image noise of variance 0.1 on CREMA-D in train and test, encoders chosen on test,
exponentials that are not shifted, so that large features overflow.

Ours: Lessons, their gradients, dimensions and fusion equal the official functions to 1e-6. The 150 + 20 epochs become
shares of the run; there is no noise and no choice on test. Without effective dimensions there is no lesson instead of a
constant; until stage two the prediction weighs the modalities alone. For three modalities lessons are averaged over
pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, Reference
from benchmark.model import ConcatHead, Head, LateHead, MultimodalNet, Outputs, sum_logits, summed_cross_entropy
from benchmark.training import Run

from ._features import evaluating
from ._prototypes import class_means
from ._shared import SharedHead

FUSED_SHARE = 20 / 170
"""Part of the epochs that the released code spends in stage two."""
FREE_SHARE = 20 / 150
"""Part of stage one before the lessons."""
CHUNK = 64
"""Samples whose distances to all class means are held at a time."""


def effective_dimensions(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return which dimensions classify better than the average one, each alone by its nearest class mean.

    Args:
        features: (N, D).
        labels: class indices (N,).
        num_classes: K.

    Returns:
        A mask (D,).
    """
    means = class_means(features, labels, num_classes, absent=torch.inf)
    right = torch.zeros(features.shape[1], device=features.device)
    for u, y in zip(features.split(CHUNK), labels.split(CHUNK), strict=True):
        nearest = (u[:, None] - means).abs().argmin(1)  # (b, D)
        right += (nearest == y[:, None]).sum(0)
    return right > right.mean()


def lesson(student: Tensor, teacher: Tensor, dimensions: Tensor, temperature: float) -> Tensor:
    """Return the contrastive loss of a student's features (B, D) against a teacher's, in some dimensions (D,).

    Positive pairs are the same sample's, negative ones any other of the batch. Nothing flows to the teacher. Zero
    without dimensions.
    """
    similarities = (student * dimensions) @ (teacher.detach() * dimensions).T / temperature  # (B, B)
    loss = F.cross_entropy(similarities, torch.arange(len(student), device=student.device))
    return torch.where(dimensions.any(), loss, 0.0)


def weigh_by_certainty(logits: Tensor, temperature: float) -> Tensor:
    """Return the sum of logits (n, B, K) -> (B, K), each sample's weighted by softmax of their highest probability."""
    certainty = logits.softmax(2).amax(2, keepdim=True)  # (n, B, 1)
    return ((certainty / temperature).softmax(0) * logits).sum(0)


def stages(epochs: int, first_lesson: int | None, fusion_epochs: int | None) -> tuple[int, int]:
    """Return the first epoch with lessons and that of stage two, in a run of so many epochs; None as the authors do."""
    fusion = min(max(round(FUSED_SHARE * epochs), 1), epochs - 1) if fusion_epochs is None else fusion_epochs
    fused_from = epochs - fusion
    first = max(round(FREE_SHARE * fused_from), 1) if first_lesson is None else first_lesson
    return first, fused_from


class DetachedHead(Head):
    """A classifier of each modality's own, one that all share in training, and one on the concatenated features.

    Attributes:
        own: gives the logits of one modality.
        shared: gives those that align the features.
        joint: gives those of stage two.
        fuses: whether `joint` has a say.
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int, certainty: float) -> None:
        super().__init__()
        self.own = LateHead(dims, num_classes)
        self.shared = SharedHead(dims, lambda width: nn.Linear(width, num_classes))
        self.joint = ConcatHead(dims, num_classes)
        self.certainty = certainty
        self.fuses = False

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        unimodal = self.own(features).unimodal
        voices = [*unimodal.values(), self.joint(features).fused] if self.fuses else list(unimodal.values())
        return Outputs(features, unimodal, weigh_by_certainty(torch.stack(voices), self.certainty))


class DIMML(Method):
    reference = Reference(
        "Detached and Interactive Multimodal Learning",
        "ACM MM",
        2024,
        "fanyunfeng-bit/DI-MML @ 83b9b7a : main_CFT.py, main_CFT_stage2.py, loss/contrast_loss.py",
    )
    modalities = (2, None)
    variants = ({}, {"first_lesson": 0, "fusion_epochs": 2}, {"fusion_epochs": 0})
    ablations = ({"lessons": False}, {"align": 0.0}, {"fusion_epochs": 0})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cremad": {"temperature": 50.0, "certainty": 1.0},
    }
    """Temperatures that the authors give for their data sets."""
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_lesson_equals_an_independent_calculation",
        paper_test="test_loss_is_the_sum_of_its_parts",
    )

    class Config(Method.Config):
        align: float = Field(default=1.0, ge=0)
        """Weight of each cross-entropy of the shared classifier (released code)."""
        lessons: bool = True
        """Let modalities teach each other."""
        temperature: float = Field(default=50.0, gt=0)
        """tau of the lessons, which compare features as they are (authors: 50 on CREMA-D and ModelNet, else 10)."""
        first_lesson: int | None = Field(default=None, ge=0)
        """First epoch with lessons, from 0; None for 20 in 150 epochs of stage one (released code), not before 1."""
        fusion_epochs: int | None = Field(default=None, ge=0)
        """Epochs of stage two; None for 20 in 170 of the run (released code), at least 1 of several. With 0 there is
        none, and predictions weigh the modalities alone."""
        certainty: float = Field(default=1.0, gt=0)
        """tau_2 of the fusion by certainty (authors: 1 on CREMA-D and UCF, else 3)."""

        def refuse(self, epochs: int) -> str | None:
            taught_from, fused_from = stages(epochs, self.first_lesson, self.fusion_epochs)
            if fused_from < 1:
                return f"fusion_epochs={self.fusion_epochs} in {epochs} epochs, so no encoder would be trained"
            if self.first_lesson is not None and self.lessons and taught_from >= fused_from:
                return f"first_lesson={self.first_lesson}, but stage two starts in epoch {fused_from}"
            return None

    config: Config
    net: MultimodalNet[DetachedHead]
    effective: Tensor

    def build_net(self, task: TaskSpec) -> MultimodalNet[DetachedHead]:
        certainty = self.config.certainty
        net = MultimodalNet(task.build_encoders(), lambda dims: DetachedHead(dims, task.num_classes, certainty))
        width = net.head.shared.width
        self.register_buffer("effective", torch.zeros(len(task.modalities), width, dtype=torch.bool))
        return net

    def attach(self, run: Run) -> None:
        super().attach(run)
        self.taught_from, self.fused_from = stages(run.epochs, self.config.first_lesson, self.config.fusion_epochs)
        # Stage two learns at the recipe's first rate throughout, as in the released code. The trainer's optimizers
        # have come down to almost nothing by then, so this one is ours, and we checkpoint it.
        self.detached_optimizer = self.optimizer
        self.fusion_optimizer = run.probe_optimizer(self.net.head.joint.parameters())

    def start_epoch(self, epoch: int) -> None:
        self.net.head.fuses = epoch >= self.fused_from
        self.teaches = self.config.lessons and self.taught_from <= epoch < self.fused_from
        self.optimizer = self.fusion_optimizer if self.net.head.fuses else self.detached_optimizer
        if self.net.head.fuses:
            self.freeze()
        elif self.config.lessons and epoch == self.taught_from:
            self.find_effective()
        for modality, mask in zip(self.task.modalities, self.effective, strict=True):
            self.run.log(**{f"effective/{modality}": mask.sum()})

    def freeze(self) -> None:
        """Keep everything but the joint classifier as it is, normalisation statistics too."""
        self.net.encoders.eval()
        for part in (self.net.encoders, self.net.head.own, self.net.head.shared):
            part.requires_grad_(False)

    def find_effective(self) -> None:
        """Note the effective dimensions of each modality on train, in eval mode."""
        align = self.net.head.shared.align
        with evaluating(self.net):
            batches = [(align(self.net.encode(b.inputs)), b.labels) for b in self.run.train_in_order()]
        labels = torch.cat([y for _, y in batches])
        for modality, mask in zip(self.task.modalities, self.effective, strict=True):
            features = torch.cat([aligned[modality] for aligned, _ in batches])
            mask.copy_(effective_dimensions(features, labels, self.task.num_classes))

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        if self.net.head.fuses:
            return F.cross_entropy(self.net.head.joint(out.features).fused, batch.labels)
        loss = summed_cross_entropy(out.unimodal, batch.labels)
        aligned = self.net.head.shared.align(out.features)
        if self.config.align:
            logits = map(self.net.head.shared.classifier, aligned.values())
            loss = loss + self.config.align * sum_logits(F.cross_entropy(z, batch.labels) for z in logits)
        return loss + self.lessons(list(aligned.values())) if self.teaches else loss

    def lessons(self, features: Sequence[Tensor]) -> Tensor:
        """Return the losses of all ordered pairs of modalities, averaged over pairs; features (B, D) of each."""
        pairs = list(permutations(range(len(features)), 2))
        losses = [
            lesson(features[n], features[m], self.effective[m] & ~self.effective[n], self.config.temperature)
            for m, n in pairs
        ]
        total = 2 * torch.stack(losses).mean()
        self.run.log(lessons=total)
        return total

    def get_extra_state(self) -> dict[str, Any]:
        return {"fuses": self.net.head.fuses, "fusion_optimizer": self.fusion_optimizer.state_dict()}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        self.net.head.fuses = state["fuses"]
        if hasattr(self, "run"):  # not when loaded for evaluation
            self.fusion_optimizer.load_state_dict(state["fusion_optimizer"])
