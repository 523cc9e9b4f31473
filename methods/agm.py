"""AGM: scale the gradients of each modality's Shapley share of the logits, by how far it is ahead of its own history.

With F(S) the logits when the inputs of all modalities but those in S are zeroed, in eval mode save for F(all):

    z_m = Shapley value of m in F, the empty group being worth zero;  they sum to z = F(all), and the loss is CE(z, y)
    s_m = mean of -log softmax(z_m)[y] over the batch,                S_m = mean of s_m over all steps before
    k_m = exp(alpha * min(R_m - r_m, cap)),    r_m = exp(M / (M - 1) * (mean_j s_j - s_m)),    R_m alike from S

and the gradient that enters z_m is multiplied by k_m: a modality that does better than it used to against the others is
slowed, one that does worse is sped up. k_m = 1 for all is plain training. It does not scale the encoder of m alone,
since F(m) enters the shares of others too.

Two forward passes of each encoder a step, in train and in eval mode, 2^M - 1 of the head, and one backward pass through
all of them.

Paper: By Li et al. The text was not available.

Released code: Exponents for two and three modalities are one formula. After `last_epoch` the last coefficients stay in
force. 4 and 8 forward passes of each encoder a step. It tests on 669 of CREMA-D's 744 clips.

Ours: The released rules, so there is no variant: weights after an epoch of 6 steps differ by 2e-16. After `last_epoch`
training is plain; 2 forward passes give the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference
from benchmark.model import ConcatHead, MultimodalNet, Outputs, concat_net, sum_logits, true_class_probability

from ._schedule import within
from ._shapley import Coalition, coalitions, shapley_values

FLOOR = 1e-8
"""Least probability that enters a score (released code)."""
CAPS = {2: 10.0, 3: 7.0}
"""Largest lead over history that counts, by number of modalities (released code)."""


def scores(shares: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """Return the mean negative log-probability of the true class by each modality's logits (B, K): (M,)."""
    probabilities = torch.stack([true_class_probability(z, labels) for z in shares.values()])  # (M, B)
    return -probabilities.clamp_min(FLOOR).log().mean(1)


def leads(score: Tensor) -> Tensor:
    """Return r, how far each modality is ahead of the others: (M,) -> (M,); for two, exp(other - own)."""
    return torch.exp(len(score) / (len(score) - 1) * (score.mean() - score))


def coefficients(score: Tensor, history: Tensor, alpha: float, cap: float) -> Tensor:
    """Return k from the scores of a batch and their running means: (M,) and (M,) -> (M,)."""
    return torch.exp(alpha * (leads(history) - leads(score)).clamp(max=cap))


class AGM(Method):
    reference = Reference(
        "Boosting Multi-modal Model Performance with Adaptive Gradient Modulation",
        "ICCV",
        2023,
        "lihong2303/AGM_ICCV2023 @ 5a65542 : run/CREMAD_main.py, run/URFunny_main.py",
    )
    modalities = (2, None)
    off_switches = (
        OffSwitch({"alpha": 0.0, "clip": False, "own": "slice"}, "concat"),
        OffSwitch({"first_epoch": 1_000_000, "own": "slice"}, "concat"),
    )
    variants = ({}, {"clip": False, "alpha": 0.3})
    ablations = ({"clip": False}, {"alpha": 0.0})
    """Modulation without clipping, and clipping without modulation."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"cremad": {"alpha": 1.5}}
    """CREMA-D by the first author (the repository's issues 3 and 5), AV-MNIST from its README."""
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_coefficients_equal_published_figures",
        paper_test="test_shapley_values_are_the_mean_gain_over_all_orders",
    )

    class Config(Method.Config):
        alpha: float = Field(default=1.0, ge=0)
        """Strength of the modulation (released code's default)."""
        cap: float | None = Field(default=None, gt=0)
        """Largest lead over history that counts; None for 10 with two modalities and 7 with more (released code)."""
        clip: bool = True
        """Scale the whole gradient to norm 1 if an entry of the head's exceeds 1 (released code)."""
        first_epoch: int = Field(default=0, ge=0)
        """First epoch of modulation, from 0 (released code)."""
        last_epoch: int | None = Field(default=None, ge=0)
        """Last epoch of modulation, inclusive; None for all, as the authors run it (released default: 20)."""

        own: Literal["shapley", "slice"] = "shapley"
        """A modality's own logits in predictions: its Shapley share (released code), or its slice of the head as those
        of `concat`. Training is the same."""

    config: Config
    net: MultimodalNet[ConcatHead]
    history: Tensor
    num_steps: Tensor

    def build_net(self, task: TaskSpec) -> MultimodalNet[ConcatHead]:
        self.cap = self.config.cap or CAPS.get(len(task.modalities), min(CAPS.values()))
        self.register_buffer("history", torch.zeros(len(task.modalities)))
        self.register_buffer("num_steps", torch.zeros(()))
        return concat_net(task)

    def start_epoch(self, epoch: int) -> None:
        self.active = within(epoch, self.config.first_epoch, self.config.last_epoch)

    def shares(self, fused: Tensor, features: dict[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return each modality's share of the fused logits (B, K), from features (B, D) in eval mode."""
        absent = self.net.encode({m: torch.zeros_like(x[:1]) for m, x in inputs.items()})
        absent = {m: u.expand_as(features[m]) for m, u in absent.items()}

        def logits(present: Coalition) -> Tensor:
            out: Outputs = self.net.head({m: features[m] if m in present else absent[m] for m in features})
            return out.fused

        modalities = list(features)
        *some, everyone = coalitions(modalities)
        return shapley_values({**{group: logits(group) for group in some}, everyone: fused}, modalities)

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        if not self.active:
            return super().loss(out, batch)
        self.net.eval()
        shares = self.shares(out.fused, self.net.encode(batch.inputs), batch.inputs)
        self.net.train()
        k = self.modulate(shares, batch.labels)
        # Adds zero, and (k - 1) times the gradient of each share.
        extra = [(k_m - 1) * (z - z.detach()) for k_m, z in zip(k, shares.values(), strict=True)]
        return super().loss(Outputs(out.features, out.unimodal, sum_logits([out.fused, *extra])), batch)

    @torch.no_grad()
    def modulate(self, shares: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Return this step's coefficients (M,) and take its scores into the running means."""
        score = scores(shares, labels)
        k = coefficients(score, self.history, self.config.alpha, self.cap)
        self.num_steps += 1
        self.history += (score - self.history) / self.num_steps
        for modality, s, k_m in zip(shares, score, k, strict=True):
            self.run.log(**{f"k/{modality}": k_m, f"score/{modality}": s})
        return k

    @torch.no_grad()
    def edit_gradients(self, out: Outputs, batch: Batch) -> None:
        if not (self.active and self.config.clip):
            return
        steepest = torch.stack([w.grad.abs().max() for w in self.net.head.slices.values() if w.grad is not None]).max()
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        factor = torch.where(steepest > 1, (1 / (norm + 1e-6)).clamp(max=1), 1.0)
        for gradient in gradients:
            gradient.mul_(factor)

    def predict(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out = self.net(inputs)
        if self.config.own == "slice":
            return {"fused": out.fused, **out.unimodal}
        return {"fused": out.fused, **self.shares(out.fused, out.features, inputs)}
