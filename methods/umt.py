"""UMT: unimodal teachers. Each encoder learns the joint task and to give the features of one trained alone.

    loss = CE(z, y) + weight * sum over m of mean over the entries of (u_m - t_m(x_m))^2

with the head of `concat` and, for each modality, a teacher t_m: an encoder with the same first weights, trained before
by the cross-entropy of a linear layer of its own, frozen since and run in evaluation mode. Any number of modalities.

Two forward passes and one backward pass of each encoder a step. Before the first epoch the teachers take as many epochs
as the run has, one forward and one backward pass each; they are counted in the samples of the first epoch, and a run
that is interrupted in it starts it over.

Paper: By Du et al. Only the abstract was available: features of encoders trained alone are distilled into late fusion.
Weight, distance and schedule of the teachers are open.

Released code: No code found. A third party (BalanceBenchmark) takes squared errors with weight 10 and leaves its
teachers in training mode.

Ours: Squared errors of pooled features with weight 10, teachers in evaluation mode. They train as long as the run, at
its first learning rate throughout, and their last epoch counts.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference
from benchmark.model import LateHead, MultimodalNet, Outputs, concat_net, sum_logits, summed_cross_entropy
from benchmark.training import Run


def distance(features: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the mean squared difference of each modality's features (B, D) from the teacher's (B, D), scalars."""
    return {m: F.mse_loss(u, targets[m]) for m, u in features.items()}


class UMT(Method):
    reference = Reference("On Uni-Modal Feature Learning in Supervised Multi-Modal Learning", "ICML", 2023)
    off_switches = (OffSwitch({"weight": 0.0}, "concat"),)
    variants = ({}, {"teacher_epochs": 1, "weight": 1.0})
    ledger = Ledger(
        code="no code",
        paper="reconstructed",
        paper_test="test_distance_equals_an_independent_calculation",
    )

    class Config(Method.Config):
        weight: float = Field(default=10.0, ge=0)
        """Weight of each modality's distance to its teacher (BalanceBenchmark; the paper's could not be checked). At 0
        there are no teachers."""
        teacher_epochs: int | None = Field(default=None, ge=1)
        """Epochs of the teachers before the first; None for as many as the run has (ours)."""

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        net = concat_net(task)
        self.teachers = MultimodalNet(task.build_encoders(), lambda dims: LateHead(dims, task.num_classes))
        self.teachers.requires_grad_(False)
        return net

    def attach(self, run: Run) -> None:
        super().attach(run)
        if self.net.low_precision:
            self.teachers.use_bfloat16()

    def start_epoch(self, epoch: int) -> None:
        if self.config.weight and epoch == 0:
            self.train_teachers(self.config.teacher_epochs or self.run.epochs)
        self.teachers.eval()

    def train_teachers(self, num_epochs: int) -> None:
        """Train every teacher by its own loss, at the rate of the first epoch."""
        self.teachers.requires_grad_(True)
        rate = self.optimizer.param_groups[0]["lr"]
        optimizer = self.run.probe_optimizer(self.teachers.parameters(), lr=rate)
        for epoch in range(num_epochs):
            for batch in self.run.train_batches(epoch):
                own = self.teachers(batch.inputs).unimodal
                optimizer.zero_grad()
                self.run.backward(summed_cross_entropy(own, batch.labels))
                optimizer.step()
        self.teachers.requires_grad_(False)

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        loss = super().loss(out, batch)
        if not self.config.weight:
            return loss
        with torch.no_grad():
            targets = self.teachers.encode(batch.inputs)
        distances = distance(out.features, targets)
        self.run.log(**{f"distance/{m}": d for m, d in distances.items()})
        return loss + self.config.weight * sum_logits(distances.values())
