"""MLA: modalities learn in turn through one shared head, whose update spares what the one before has taught it.

Per batch and modality, in a fixed order, with z_m = W u_m + b and a step of its own on CE(z_m, y):

    P   <-  P - (P h)(P h)^T / (alpha + h^T P h),   P_0 = I,   h the mean feature of the modality before
    dW  <-  dW P                                    so W hardly changes what it says about h

alpha falls tenfold over each epoch. At test, with H_m the entropy of softmax(z_m), each sample weighs its modalities:

    z = sum over m of lambda_m z_m,   lambda = softmax over m of -H

P is never reset and only shrinks, so the head settles as training goes on; `kept/<modality>` logs how much of its
gradient is left. Any number of modalities.

Cost: one forward pass of each encoder and one of the head for each modality; M backward passes, each through one
encoder, and M optimizer steps; a (D, D) matrix.

Paper: By Zhang, Yoon, Bansal and Yao. Alternating steps through a shared head; its gradient is projected away from the
mean features seen so far; each sample weighs its modalities by entropy. The text was not available: formulas are as
recalled and as reviews describe them, those of orthogonal weights modification in one layer.

Released code: The projection is dead code: it looks for a parameter by a name that the head does not have, so gradient
and matrix stay as they are. If enabled it divides by a (D, D) matrix instead of a scalar and turns descent into ascent.
Entropy runs over the batch, so a sample's prediction depends on its neighbours. Of its 744 CREMA-D test clips only 71
are in the list that all others use.

Ours: `paper`: the scalar denominator of orthogonal weights modification, eigenvalues in (0, 1], the previous modality's
mean, entropy over classes. `released`: plain alternation without projection, and one weight a modality and batch, equal
to the official functions' to 1e-6. Wider features are mapped to the smallest width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, Reference, Variants
from benchmark.model import MultimodalNet, sum_logits

from ._shared import SharedHead

FIXED: Mapping[int, tuple[float, ...]] = {2: (0.55, 0.45), 3: (0.35, 0.25, 0.4)}
"""Weights of the modalities, in order, of the released code without its dynamic fusion (CREMA-D, IEMOCAP)."""


def shrink(projection: Tensor, h: Tensor, alpha: Tensor | float) -> Tensor:
    """Return the projection (D, D) after taking a direction h (D,) out of it; symmetric, eigenvalues in (0, 1].

    What is left of h is the part alpha / (alpha + h^T P h) of P h.
    """
    direction = projection @ h
    return projection - torch.outer(direction, direction) / (alpha + h @ direction)


def sample_weights(logits: Tensor) -> Tensor:
    """Return softmax of minus the entropy of each sample's classes, over modalities: (M, B, K) -> (M, B, 1)."""
    entropy = -(logits.softmax(2) * logits.log_softmax(2)).sum(2, keepdim=True)
    return (-entropy).softmax(0)


def batch_weights(logits: Tensor) -> Tensor:
    """Return the released code's weights, (M, B, K) -> (M, 1, 1): entropy of the samples, summed over the classes."""
    entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum((1, 2), keepdim=True)
    return (-entropy).softmax(0)


def fixed_weights(logits: Tensor) -> Tensor:
    """Return the weights that the released code fixes for so many modalities: (M, B, K) -> (M, 1, 1)."""
    return logits.new_tensor(FIXED[len(logits)])[:, None, None]


FUSIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sample": sample_weights,
    "batch": batch_weights,
    "fixed": fixed_weights,
}


class MLA(Method):
    reference = Reference(
        "Multimodal Representation Learning by Alternating Unimodal Adaptation",
        "CVPR",
        2024,
        "Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation @ ab6c184 : main.py, utils/utils.py",
    )
    modalities = (2, None)
    variants = ({}, {"variant": "released"}, {"fusion": "fixed"})
    ablations = ({"projection": False}, {"fusion": "fixed"}, {"projection": False, "fusion": "fixed"})
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_weights_equal_the_papers_and_the_released_formula",
        paper_test="test_projection_equals_its_closed_form",
    )

    class Config(Variants):
        released: ClassVar[Mapping[str, Any]] = {"projection": False, "fusion": "batch"}

        projection: bool = True
        """Project the head's gradient (paper); the released code means to and does not."""
        alpha: float = Field(default=0.1, gt=0)
        """How much of a direction stays, against its squared length; raised to the power of 1 + the part of the epoch
        that has passed, so 0.1 falls to 0.01 (released code)."""
        fusion: Literal["sample", "batch", "fixed"] = "sample"
        """Who weighs the modalities in a prediction: each sample (paper), a batch as a whole (released code with
        dynamic fusion), or constants (released code without)."""

        def unsupported(self, task: TaskSpec) -> str | None:
            if self.fusion == "fixed" and len(task.modalities) not in FIXED:
                return "fusion=fixed has weights for two and three modalities"
            return None

    config: Config
    net: MultimodalNet[SharedHead]
    projection: Tensor

    def build_net(self, task: TaskSpec) -> MultimodalNet[SharedHead]:
        net = MultimodalNet(
            task.build_encoders(), lambda dims: SharedHead(dims, lambda width: nn.Linear(width, task.num_classes))
        )
        self.register_buffer("projection", torch.eye(net.head.width))
        return net

    def start_epoch(self, epoch: int) -> None:
        self.passed = 0  # steps of this epoch

    def step(self, batch: Batch) -> dict[str, Tensor]:
        alpha = self.config.alpha ** (1 + self.passed / self.run.steps_per_epoch)
        self.passed += 1
        losses = {}
        for modality, u in self.net.head.align(self.net.encode(batch.inputs)).items():
            loss = F.cross_entropy(self.net.head.classifier(u), batch.labels)
            self.optimizer.zero_grad()  # to None, so that momentum moves no other modality's encoder
            self.run.backward(loss)
            if self.config.projection:
                self.project(modality)
                self.projection.copy_(shrink(self.projection, u.detach().mean(0), alpha))
            self.optimizer.step()
            losses[f"loss/{modality}"] = loss.detach()
        return {"loss": sum_logits(losses.values()), **losses}

    @torch.no_grad()
    def project(self, modality: str) -> None:
        """Take from the head's gradient (K, D) what would change its answers to the features before."""
        assert isinstance(self.net.head.classifier, nn.Linear)
        gradient = self.net.head.classifier.weight.grad
        assert gradient is not None
        projected = gradient @ self.projection
        self.run.log(**{f"kept/{modality}": projected.norm() / gradient.norm().clamp_min(1e-12)})
        gradient.copy_(projected)

    def predict(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        unimodal = self.net(inputs).unimodal
        logits = torch.stack(list(unimodal.values()))  # (M, B, K)
        return {"fused": (FUSIONS[self.config.fusion](logits) * logits).sum(0), **unimodal}
