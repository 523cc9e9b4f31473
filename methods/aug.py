"""AUG: boost the weak modality's classifier until the modalities classify equally well.

Every modality m has classifiers j = 1..n_m, z_mj = output(relu(hidden_mj(u_m))), with one output layer shared by all.
With S_k the sum of the first k logits and n = n_m, a modality's loss is

    n = 1:   CE(S_1, y)
    n > 1:   CE(S_n, y)  +  CE(S_{n-1}, y)  +  softCE(z_mn, Y - lambda * Y * sum_{j<n} softmax(z_mj))
             overall        maintenance        residual

Every few epochs the confident scores s_m (mean true-class probability) are compared, and the modality that lags
gets one more classifier.

Jiang, Huang and Yang, Rethinking Multimodal Learning from the Perspective of Mitigating Classification Ability
Disproportion, NeurIPS 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Method, OffSwitch, Reference
from benchmark.model import MultimodalNet, Outputs, SharedOutputHead, sum_logits
from benchmark.run import Run


def residual_weight(previous: Sequence[Tensor], labels: Tensor, strength: float) -> Tensor:
    """Return what is left of the true class (B,) after the previous classifiers' logits, each (B, K).

    It is 1 - lambda * sum_j p_j[y] and can fall below zero when several classifiers are sure.
    """
    probabilities = [z.softmax(1).gather(1, labels[:, None])[:, 0] for z in previous]
    return 1 - strength * sum_logits(probabilities)


def boosting_loss(logits: Sequence[Tensor], labels: Tensor, strength: float) -> Tensor:
    """Return one modality's loss from the logits (B, K) of its classifiers in the order of their adding."""
    if len(logits) == 1:
        return F.cross_entropy(logits[0], labels)
    before = sum_logits(logits[:-1])
    weight = residual_weight(logits[:-1], labels, strength).detach()
    residual = (weight * F.cross_entropy(logits[-1], labels, reduction="none")).mean()
    overall = F.cross_entropy(before + logits[-1], labels)
    maintenance = F.cross_entropy(before, labels)
    return residual + overall + maintenance


def lagging(scores: dict[str, float], sigma: float, tau: float) -> str | None:
    """Return the modality to boost: the other of the pair if s_m - sigma * s_other > tau, else None.

    With more than two modalities each is compared with the strongest, and the weakest that lags is chosen.
    """
    strongest = max(scores, key=lambda m: scores[m])
    behind = {m: s for m, s in scores.items() if m != strongest and scores[strongest] - sigma * s > tau}
    return min(behind, key=lambda m: behind[m]) if behind else None


class AUG(Method):
    reference = Reference(
        "Rethinking Multimodal Learning from the Perspective of Mitigating Classification Ability Disproportion",
        "NeurIPS",
        2025,
        "njustkmg/NeurIPS25-AUG @ 841d079 : train_CREMAD.py, model/AudioVideo.py",
    )
    off_switches = (OffSwitch({"max_classifiers": 1}, "late_sum", {"hidden": 256}),)

    class Config(Method.Config):
        hidden: int = Field(default=256, ge=1)
        """Units of each classifier's hidden layer (released code)."""
        lambda_: float = Field(default=0.5, ge=0, le=1)
        """Smoothing of the residual labels (released code at HEAD; the paper searches 0.1 to 1)."""
        sigma: float = Field(default=1.0, gt=0)
        """Scale of the weaker score in the comparison (paper, all data sets)."""
        tau: float = Field(default=0.01, ge=0)
        """Gap of scores that calls for a classifier (paper, all data sets)."""
        check_every: int | None = Field(default=None, ge=1)
        """Epochs between comparisons, t_N; None for a tenth of the epochs, as the paper's values are."""
        max_classifiers: int = Field(default=20, ge=1)
        """Most classifiers of one modality (ours; the paper sets none)."""

    config: Config

    @classmethod
    def unsupported(cls, config: Method.Config, task: TaskSpec) -> str | None:
        return None if len(task.modalities) > 1 else "compares modalities, so it needs at least two"

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        self.added: list[str] = []
        return MultimodalNet(
            task.build_encoders(), lambda dims: SharedOutputHead(dims, self.config.hidden, task.num_classes)
        )

    def attach(self, run: Run) -> None:
        super().attach(run)
        self.check_every = self.config.check_every or max(run.epochs // 10, 1)

    def start_epoch(self, epoch: int) -> None:
        self.scores = dict.fromkeys(self.task.modalities, torch.zeros((), device=self.run.device))

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        head: SharedOutputHead = self.net.head  # type: ignore[assignment]
        losses = {}
        for modality, logits in head.classifier_logits(out.features).items():
            losses[modality] = boosting_loss(logits, batch.labels, self.config.lambda_)
            self.run.log(**{f"loss/{modality}": losses[modality]})
            true = out.unimodal[modality].detach().softmax(1).gather(1, batch.labels[:, None])
            self.scores[modality] = self.scores[modality] + true.sum()
        return sum_logits(losses.values())

    def end_epoch(self, epoch: int) -> None:
        scores = {m: float(s) / self.run.samples_served for m, s in self.scores.items()}
        for modality, s in scores.items():
            self.run.log(**{f"score/{modality}": s, f"classifiers/{modality}": 1.0 + self.added.count(modality)})
        if (epoch + 1) % self.check_every == 0:
            weak = lagging(scores, self.config.sigma, self.config.tau)
            if weak is not None and self.added.count(weak) + 1 < self.config.max_classifiers:
                self.grow(weak)

    def grow(self, modality: str) -> None:
        """Give a modality one more classifier, trained from now on at the current rate."""
        layer = self.net.head.add(modality)  # type: ignore[operator]
        self.added.append(modality)
        self.run.add_parameters(self.optimizer, layer.parameters())

    def get_extra_state(self) -> dict[str, Any]:
        return {"added": list(self.added)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        # The order of growth is the order of the optimizer's groups.
        for modality in state["added"][len(self.added) :]:
            if hasattr(self, "run"):
                self.grow(modality)
            else:
                self.net.head.add(modality)  # type: ignore[operator]
                self.added.append(modality)
