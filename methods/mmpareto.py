"""MMPareto: let each encoder learn from its own loss without harm to the joint one.

A concat head beside a linear classifier of each modality's own, with losses L = CE(z, y) and L_m = CE(z_m, y). For each
encoder, with g0 the gradient of L and g1 that of L_m over all its parameters,

    w = 1/2                                      if <g0, g1> > 0
    w = argmin ||w g0 + (1 - w) g1||, the two-task Pareto weight, if they conflict
    h = 2 w g0 + 2 (1 - w) g1
    g <- gamma * h * max(1, ||g0 + g1|| / ||h||)

The heads keep the gradient of L + sum of L_m. Without a conflict an encoder thus gets gamma times its gradient under
`multitask`: the control is that with its encoders' rate times gamma. The rule is for one encoder, so any number of
modalities will do.

One forward and two backward passes a step, since g1 is the gradient of all losses less g0, and the loss of one modality
does not reach the encoder of another.

Paper: By Wei and Hu. Rescales the combined gradient of an encoder as a whole. The text was not available.

Released code: Rescales each parameter tensor by itself, so the result no longer points along the Pareto direction;
divides zero by zero where gradients are opposite. M + 2 backward passes.

Ours: `paper` rescales the whole; `released` equals the official code to 8e-16 over 20 epochs of 6 steps. Two backward
passes give the same gradients; a vanishing direction stays zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, Reference, Variants, unimodal_losses
from benchmark.model import MultimodalNet

from ._auxiliary import auxiliary_net, multitask_loss

TINY = torch.finfo(torch.float32).tiny
"""Keeps a quotient of zeros at zero."""


def joint_weight(joint: Tensor, own: Tensor) -> Tensor:
    """Return w, the weight of the joint loss's gradient: (P,) and (P,) -> scalar in [0, 1]."""
    product = joint @ own
    spread = (joint - own).square().sum()
    return torch.where(product > 0, 0.5, (own @ own - product) / spread.clamp_min(TINY))


def combine(joint: Tensor, own: Tensor) -> Tensor:
    """Return h, twice the weighted mean of two gradients: (P,) and (P,) -> (P,)."""
    w = joint_weight(joint, own)
    return 2 * w * joint + 2 * (1 - w) * own


def lengthen(direction: Tensor, uniform: Tensor) -> Tensor:
    """Return a vector (P,) with at least the norm of another."""
    scale: Tensor = (uniform.norm() / direction.norm().clamp_min(TINY)).clamp_min(1)
    return scale * direction


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """Return tensors of any shapes as one vector (P,)."""
    return torch.cat([x.flatten() for x in tensors])


class MMPareto(Method):
    reference = Reference(
        "MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance",
        "ICML",
        2024,
        "GeWu-Lab/MMPareto_ICML2024 @ a339db3 : code/MMPareto.py, code/min_norm_solvers.py",
    )
    variants = ({}, {"variant": "released"})
    ablations = ({"gamma": 1.0}, {"rescale": "tensor"})
    """The common direction without the longer step; rescaled for each tensor, as in the released code."""
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_gradients_equal_published_figures",
        paper_test="test_a_step_equals_an_independent_calculation",
    )

    class Config(Variants):
        released: ClassVar[Mapping[str, Any]] = {"rescale": "tensor"}

        gamma: float = Field(default=1.5, gt=0)
        """Factor on every encoder's gradient (released code)."""
        rescale: Literal["encoder", "tensor"] = "encoder"
        """What keeps its norm: an encoder's whole gradient (paper) or each of its parameters' (released code)."""

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        return auxiliary_net(task)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        out = self.net(batch.inputs)
        encoders = {m: list(encoder.parameters()) for m, encoder in self.net.encoders.items()}
        every = [p for params in encoders.values() for p in params]
        gradients = torch.autograd.grad(F.cross_entropy(out.fused, batch.labels), every, retain_graph=True)
        joint = dict(zip(every, gradients, strict=True))
        loss = multitask_loss(out.fused, out.unimodal, batch.labels, weight=1.0)
        self.optimizer.zero_grad()
        self.run.backward(loss)
        for modality, params in encoders.items():
            self.rebalance(modality, {p: joint[p] for p in params})
        self.optimizer.step()
        return {"loss": loss.detach(), **unimodal_losses(out, batch)}

    @torch.no_grad()
    def rebalance(self, modality: str, joint: Mapping[Tensor, Tensor]) -> None:
        """Replace the gradients of an encoder, those of all losses, given those of the joint loss {parameter: g0}."""
        sizes = [p.numel() for p in joint]
        uniform, g0 = flatten(p.grad for p in joint if p.grad is not None), flatten(joint.values())
        h = combine(g0, uniform - g0)
        self.run.log(**{f"conflict/{modality}": (g0 @ (uniform - g0) <= 0).float()})
        whole = [len(h)] if self.config.rescale == "encoder" else sizes
        pieces = zip(h.split(whole), uniform.split(whole), strict=True)
        final = self.config.gamma * torch.cat([lengthen(piece, like) for piece, like in pieces])
        for p, gradient in zip(joint, final.split(sizes), strict=True):
            p.grad = gradient.view_as(p)
