"""Boosted concat: train jointly, then boost the weak modality's classifier on its frozen features.

First comes naive joint training; then every encoder and head is frozen and gradient boosting goes on for one modality
alone, a round an epoch:

    F_0 = z_m,    h_t fits the residual Y - softmax(F_{t-1}),    F_t = F_{t-1} + shrinkage * h_t

with h_t = Linear(ReLU(Linear(u_m))) fitted by least squares for an epoch. The fused logits are z with the weak
modality's z_m replaced by F_T.

Paper: By Jiang, Huang and Yang: the toy experiment of Figure 1 that motivates AUG, 65.1 % to 72.9 % on CREMA-D. Rounds,
learner and shrinkage are not stated.

Released code: No code for it.

Ours: One learner an epoch, fitted by least squares, with shrinkage 0.5: one reading of classical boosting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference, unimodal_losses
from benchmark.model import MultimodalNet, concat_net, sum_logits
from benchmark.training import Run


def residual_target(boosted: Tensor, labels: Tensor) -> Tensor:
    """Return Y - softmax(F), the negative gradient of the cross-entropy in the logits: (B, K)."""
    return F.one_hot(labels, boosted.shape[1]) - boosted.softmax(1)


class BoostedConcat(Method):
    reference = Reference(
        "Rethinking Multimodal Learning from the Perspective of Mitigating Classification Ability Disproportion",
        "NeurIPS",
        2025,
    )
    modalities = (2, None)
    off_switches = (OffSwitch({"share": 0.0}, "concat"),)
    ledger = Ledger(
        code="no code",
        paper="reconstructed",
        paper_test="test_residual_is_the_negative_gradient_of_the_cross_entropy",
    )

    class Config(Method.Config):
        modality: str | None = None
        """The modality to boost; None for the one with the lower score at the end of joint training."""
        share: float = Field(default=0.3, ge=0, lt=1)
        """Part of the epochs spent boosting, one learner each (ours)."""
        hidden: int = Field(default=256, ge=1)
        """Units of a learner's hidden layer, as AUG's classifiers."""
        shrinkage: float = Field(default=0.5, gt=0, le=1)
        """How much of each learner is added (ours)."""

        def unsupported(self, task: TaskSpec) -> str | None:
            return task.unknown(self.modality)

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        self.weak = self.config.modality
        self.learners = nn.ModuleList()
        self.frozen = False
        return concat_net(task)

    def attach(self, run: Run) -> None:
        super().attach(run)
        self.joint_epochs = run.epochs - int(self.config.share * run.epochs)

    def start_epoch(self, epoch: int) -> None:
        if epoch >= self.joint_epochs:
            if not self.frozen:
                self.weak = self.weak or self.weaker()
                self.freeze()
            self.add_learner()

    def step(self, batch: Batch) -> dict[str, Tensor]:
        if not self.frozen:
            return super().step(batch)
        assert self.weak is not None
        with torch.no_grad():
            self.net.eval()  # frozen means its normalisation statistics too
            out = self.net(batch.inputs)
            u = out.features[self.weak]
            before = self.boosted(out.unimodal[self.weak], u, len(self.learners) - 1)
        learner = self.learners[-1]
        loss = (learner(u) - residual_target(before, batch.labels)).square().sum(1).mean()
        self.optimizer.zero_grad()
        self.run.backward(loss)
        self.optimizer.step()
        return {"loss": loss.detach(), **unimodal_losses(out, batch)}

    def boosted(self, logits: Tensor, u: Tensor, rounds: int) -> Tensor:
        """Return F_t (B, K) from the modality's logits (B, K) and features (B, D) after `rounds` learners."""
        return sum_logits([logits, *(self.config.shrinkage * h(u) for h in list(self.learners)[:rounds])])

    def predict(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out = self.net(inputs)
        unimodal = dict(out.unimodal)
        if self.weak is not None and len(self.learners):
            u = out.features[self.weak]
            unimodal[self.weak] = self.boosted(unimodal[self.weak], u, len(self.learners))
        return {"fused": sum_logits(unimodal.values()), **unimodal}

    @torch.no_grad()
    def weaker(self) -> str:
        """Return the modality whose own logits give the true class the lower probability on train."""
        self.net.eval()
        losses = [unimodal_losses(self.net(batch.inputs), batch) for batch in self.run.train_in_order()]
        return max(self.task.modalities, key=lambda m: float(sum(loss[f"loss/{m}"] for loss in losses)))

    def freeze(self) -> None:
        """Stop training the network."""
        self.frozen = True
        self.net.requires_grad_(False)

    def add_learner(self) -> None:
        """Add one learner for the weak modality and train it alone."""
        assert self.weak is not None
        self.learners.requires_grad_(False)
        dim, hidden = self.net.encoder(self.weak).dim, self.config.hidden
        learner = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, self.task.num_classes))
        self.learners.append(learner.to(next(self.net.parameters()).device))
        self.train_also(learner.parameters())

    def get_extra_state(self) -> dict[str, Any]:
        return {"weak": self.weak, "frozen": self.frozen, "learners": len(self.learners)}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        self.weak = state["weak"]
        if state["frozen"]:
            self.freeze()
        for _ in range(len(self.learners), state["learners"]):
            self.add_learner()
