"""MNL: the modality that knows a sample better tells the others which classes it is not.

The logits of modalities with a classifier each are averaged, z = mean of z_m. After a warm-up on cross-entropy alone:

    L = CE(z, y)  +  sum over m of CE(z_m, y)  +  weight * sum over pairs of L_mn
    L_mn = - sum over c != y of sg(p_m[c]) * log p_n[c],    p_m = softmax(z_m), averaged over the batch

with a term where m guides n: it gives the true class y both the higher probability and the wider margin z_m[y] - z_m[j]
over j, the strongest other class of the fused logits. Where the two disagree there is no guide. One forward and one
backward pass.

Paper: By Gong, Gao, Zhu, Hu and Cao. The modality with the higher true-class probability and the wider margin guides
the other in the wrong classes only, after a warm-up on cross-entropy. Known from notes; the length of the warm-up and
the weight are not in them.

Released code: Adds -log p[y] of the guided modality, so positive learning, which the paper is set against; no warm-up;
averages over batch and classes. Late fusion of text and images on MVSA-Single only; selects on validation, as it
should.

Ours: Both: `released` equals the official lines in loss and gradient to 1e-6, the paper's form equals numbers computed
by hand. A tenth of the run as warm-up is ours; so are the code's weight 0.7 in the paper's form and pairs of three
modalities, each of which may guide. In a tie the later modality guides, as in the released code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, Reference, Variants
from benchmark.model import MultimodalNet, Outputs, sum_logits, summed_cross_entropy, true_class_probability
from benchmark.training import Run

from ._heads import MeanHead
from ._schedule import tenth


def rivals(fused: Tensor, labels: Tensor) -> Tensor:
    """Return the strongest class of each sample but the true one: (B, K) and (B,) -> (B,)."""
    return fused.scatter(1, labels[:, None], -torch.inf).argmax(1)


def margins(logits: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """Return by how much the true class leads the class `others`: (B, K), (B,) and (B,) -> (B,)."""
    return (logits.gather(1, labels[:, None]) - logits.gather(1, others[:, None]))[:, 0]


def who_guides(first: Tensor, second: Tensor, fused: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return for which samples the first modality guides the second, and the other way round; never both.

    Args:
        first: logits of a modality (B, K).
        second: logits of another (B, K).
        fused: logits of all together (B, K).
        labels: class indices (B,).

    Returns:
        Masks (B,) and (B,).
    """
    others = rivals(fused, labels)
    wider = margins(first, labels, others) > margins(second, labels, others)
    surer = true_class_probability(first, labels) > true_class_probability(second, labels)
    return wider & surer, ~wider & ~surer


def negative_terms(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Return the teacher's cross-entropy to the student in all classes but the true one, (B, K) -> (B,).

    Nothing flows to the teacher.
    """
    wrong = teacher.detach().softmax(1).scatter(1, labels[:, None], 0.0)
    return -(wrong * student.log_softmax(1)).sum(1)


def negative_loss(student: Tensor, teacher: Tensor, labels: Tensor, guided: Tensor, weight: float) -> Tensor:
    """Return the guidance of a student by a teacher, averaged over samples.

    Args:
        student: logits (B, K).
        teacher: logits (B, K), without gradient.
        labels: class indices (B,).
        guided: which samples are guided (B,).
        weight: weight of the negative terms.
    """
    return (guided * weight * negative_terms(student, teacher, labels)).mean()


def released_loss(student: Tensor, teacher: Tensor, labels: Tensor, guided: Tensor, weight: float) -> Tensor:
    """Return the released code's guidance, with cross-entropy of the true class; arguments as of `negative_loss`."""
    positive = F.cross_entropy(student, labels, reduction="none")
    terms = positive + weight * negative_terms(student, teacher, labels)
    return (guided * terms).mean() / student.shape[1]


GUIDANCE: Mapping[str, Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]] = {
    "negative": negative_loss,
    "released": released_loss,
}


class MNL(Method):
    reference = Reference(
        "Multimodal Negative Learning",
        "NeurIPS",
        2025,
        "BaoquanGong/Multimodal-Negative-Learning @ 64cea56 : train_latefusion.py",
    )
    modalities = (2, None)
    variants = ({}, {"variant": "released"})
    ablations = ({"weight": 0.0}, {"warmup_epochs": 0}, {"guidance": "released"})
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_released_gradient_equals_its_closed_form",
        paper_test="test_golden_numbers",
    )

    class Config(Variants):
        released: ClassVar[Mapping[str, Any]] = {"guidance": "released", "warmup_epochs": 0}

        guidance: Literal["negative", "released"] = "negative"
        """What a guide teaches: the wrong classes only (paper), or the true one as well, over K (released code)."""
        weight: float = Field(default=0.7, ge=0)
        """Weight of the wrong classes (released script; the paper's could not be read)."""
        warmup_epochs: int | None = Field(default=None, ge=0)
        """Epochs of cross-entropy alone; None for a tenth of the run, at least 1 (ours; released code: 0)."""

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        return MultimodalNet(task.build_encoders(), lambda dims: MeanHead(dims, task.num_classes))

    def attach(self, run: Run) -> None:
        super().attach(run)
        given = self.config.warmup_epochs
        self.guided_from = tenth(run.epochs) if given is None else given

    def start_epoch(self, epoch: int) -> None:
        self.guides = epoch >= self.guided_from

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        alone = summed_cross_entropy(out.unimodal, batch.labels)
        loss = super().loss(out, batch) + alone
        return loss + self.guidance(out, batch.labels) if self.guides else loss

    def guidance(self, out: Outputs, labels: Tensor) -> Tensor:
        """Return the sum over pairs of modalities of what one teaches the other, each sample in one direction."""
        teach, weight = GUIDANCE[self.config.guidance], self.config.weight
        terms = []
        for (first, z_first), (second, z_second) in combinations(out.unimodal.items(), 2):
            forth, back = who_guides(z_first, z_second, out.fused, labels)
            self.run.log(**{f"guides/{first}_{second}": forth.float().mean()})
            self.run.log(**{f"guides/{second}_{first}": back.float().mean()})
            terms.append(teach(z_second, z_first, labels, forth, weight))
            terms.append(teach(z_first, z_second, labels, back, weight))
        return sum_logits(terms)
