"""G-Blend: weigh the losses of the modalities and of their fusion by how much each generalizes for its overfitting.

A concat head beside a linear classifier of each modality's own, L = sum of w_k L_k over the M modalities and the joint
loss. A share of train is held out. To estimate w, each loss k trains a copy of its part of the network alone for n
epochs, and with L^T and L^V the losses on train and held-out samples, before (0) and after (n),

    dG_k = L^V_0 - L^V_n,    dO_k = (L^V_n - L^T_n) - (L^V_0 - L^T_0),    w_k ~ max(dG_k, 0) / dO_k^2,    sum w_k = 1

`offline` estimates once with n the whole run; `online` before every super-epoch, with n its length. Then the network
trains as if nothing had happened. Only the joint head predicts.

One forward and one backward pass a step; each estimation is n epochs for every encoder twice, alone and jointly, and
four evaluations of as much, counted in the samples of the epoch that begins with it.

Paper: By Wang, Tran and Feiszli. w ~ dG / dO^2, offline or once in a super-epoch. Its held-out share and length of
super-epochs could not be checked.

Released code: Caffe2; takes weights as given, and raises where it would blend.

Ours: Estimates by copies that train each loss alone, at the rate of the moment throughout; both losses are measured in
eval mode on augmented samples. |dO| is kept above 0.05 nats and held-out samples stay out of training. Golden weights
of the formula to 1e-6; estimation leaves no trace.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference
from benchmark.model import MultimodalNet, Outputs, sum_logits

from ._auxiliary import AuxiliaryHead, auxiliary_net

JOINT = "joint"


def progress(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Return dG and dO, how much generalization and overfitting grew, from losses on (train, held out), (..., 2)."""
    gained = before[..., 1] - after[..., 1]
    overfitted = (after[..., 1] - after[..., 0]) - (before[..., 1] - before[..., 0])
    return gained, overfitted


def blend_weights(gained: Tensor, overfitted: Tensor, least: float) -> Tensor:
    """Return the weights (M + 1,) of the losses from their dG and |dO|, at least `least`; equal if none generalizes."""
    weights = gained.clamp_min(0) / overfitted.abs().clamp_min(least).square()
    return torch.where(weights.sum() > 0, weights / weights.sum(), 1 / len(weights))


class GBlend(Method):
    reference = Reference(
        "What Makes Training Multi-Modal Classification Networks Hard?",
        "CVPR",
        2020,
        "facebookresearch/VMZ @ 4cc542d : c2/lib/models/loss/loss_creator.py",
    )
    off_switches = (OffSwitch({"weights": {JOINT: 1.0}}, "multitask"),)
    variants = ({"super_epoch": 2}, {"mode": "offline"}, {"weights": {JOINT: 0.5}})
    ablations = ({"mode": "offline"}, {"weights": {}})
    """Weights estimated once, as in the paper, and all equal."""
    ledger = Ledger(
        code="cannot run",
        paper="from abstract or memory",
        paper_test="test_weights_equal_published_figures",
    )

    class Config(Method.Config):
        mode: Literal["offline", "online"] = "online"
        """Estimate the weights once, or before every super-epoch (paper: both)."""
        super_epoch: int = Field(default=10, ge=1)
        """Epochs between estimations, if online (BalanceBenchmark; the paper's schedule could not be checked)."""
        held_out: float = Field(default=0.1, gt=0, lt=1)
        """Part of train that is held out, stratified (tsai; the paper's share could not be checked)."""
        least_overfitting: float = Field(default=0.05, gt=0)
        """Growth of overfitting, in nats, below which a loss gains no more weight (ours). Smaller ones are the noise of
        a small held-out share, and dividing by their square hands all weight to one loss at random."""
        weights: dict[str, Annotated[float, Field(ge=0)]] | None = None
        """Weights to use instead of estimating any, by modality and `joint`, 1 where not named (released code)."""

        def unsupported(self, task: TaskSpec) -> str | None:
            return task.unknown(*(name for name in self.weights or {} if name != JOINT))

    config: Config
    net: MultimodalNet[AuxiliaryHead]
    weights: Tensor

    def __init__(self, config: Config, task: TaskSpec) -> None:
        super().__init__(config, task)
        self.held_out_share = config.held_out if config.weights is None else 0.0
        self.names = [*task.modalities, JOINT]
        given = config.weights or {}
        self.register_buffer("weights", torch.tensor([given.get(name, 1.0) for name in self.names]))

    def build_net(self, task: TaskSpec) -> MultimodalNet[AuxiliaryHead]:
        return auxiliary_net(task)

    def start_epoch(self, epoch: int) -> None:
        period = self.config.super_epoch if self.config.mode == "online" else self.run.epochs
        if self.config.weights is None and epoch % period == 0:
            self.weights.copy_(self.estimate(epoch, min(period, self.run.epochs - epoch)))
        self.run.log(**{f"weight/{name}": w for name, w in zip(self.names, self.weights.clone(), strict=True)})

    def estimate(self, epoch: int, num_epochs: int) -> Tensor:
        """Return the weights (M + 1,) that training copies of the network from here suggests."""
        losses = []
        for name in self.names:
            # Every copy meets the same random numbers, and training goes on as if there had been none.
            with torch.random.fork_rng(devices=[self.run.device] if self.run.device.type == "cuda" else []):
                losses.append(self.train_copy(self.part(name), range(epoch, epoch + num_epochs)))
        before, after = torch.stack(losses).unbind(1)
        return blend_weights(*progress(before, after), self.config.least_overfitting)

    def part(self, name: str) -> MultimodalNet:
        """Return a copy of what one loss trains: an encoder and its classifier, or all encoders and the joint head."""
        net = copy.deepcopy(self.net)
        part: MultimodalNet = net
        if name == JOINT:
            part.head = net.head.joint
        else:
            part.encoders = nn.ModuleDict({name: net.encoders[name]})
            part.head = net.head.auxiliary
        return part

    def train_copy(self, net: MultimodalNet, epochs: range) -> Tensor:
        """Train a copy and return its losses before and after, each on (train, held out): (2, 2)."""
        optimizer = self.run.probe_optimizer(net.parameters(), lr=self.optimizer.param_groups[0]["lr"])
        before = self.losses(net, epochs[0])
        net.train()
        for epoch in epochs:
            for batch in self.run.train_batches(epoch):
                optimizer.zero_grad()
                self.run.backward(F.cross_entropy(net(batch.inputs).fused, batch.labels))
                optimizer.step()
        return torch.stack([before, self.losses(net, epochs[0])])

    def losses(self, net: MultimodalNet, epoch: int) -> Tensor:
        """Return the mean loss of a copy on train and on held-out samples: (2,)."""
        net.eval()
        splits = (self.run.train_batches(epoch, salt=1), self.run.held_out_batches(epoch, salt=1))
        return torch.stack([mean_loss(net, batches) for batches in splits])

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        logits = [*out.unimodal.values(), out.fused]
        terms = zip(self.weights, logits, strict=True)
        return sum_logits(w * F.cross_entropy(z, batch.labels) for w, z in terms)


@torch.no_grad()
def mean_loss(net: MultimodalNet, batches: Iterable[Batch]) -> Tensor:
    """Return the cross-entropy of the fused logits, averaged over samples."""
    losses = [F.cross_entropy(net(b.inputs).fused, b.labels, reduction="none") for b in batches]
    return torch.cat(losses).mean()
