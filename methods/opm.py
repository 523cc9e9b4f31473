"""OPM: drop the dominant modality's features, for samples drawn at random, before they are fused.

Per step, with c_m the confidence of modality m on its slice of the head and r_m the mean over j != m of c_m / c_j:

    rho_m = tanh(max(r_m - 1, 0))
    q_m   = min(q_base * (1 + strength * rho_m), 1)  if rho_m > 0,  else 0
    u_m   <- keep * u_m / (1 - theta),    keep ~ Bernoulli(1 - q_m) for each sample,    theta = sum d_m q_m / sum d_m

with d_m the widths, in a share `p_exe` of the batches and not before the end of the warm-up. Prediction drops nothing.
The least confident modality has q = 0, so no sample loses all. One forward pass of the encoders, two of the head, one
backward pass.

Paper: By Wei, Hu, Du and Wen. The text was not available. Its OGM is `ogm`.

Released code: Two modalities; a stray bracket keeps it from running. Without it, rates and dropping are the formulas
here; its removal of samples that lose all never happens.

Ours: Equals the released functions to the last bit, forward. Backward, the released dropping returns theta as theta's
gradient and the confidences behind it are not detached, so its gradient is ours + grad(theta^2 / 2); here theta is a
constant. Draws come from a generator of their own, so that encoders with dropout draw what they would in `concat`. More
modalities by the mean of pairwise ratios.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec, to_device
from benchmark.method import Ledger, Method, OffSwitch, Reference
from benchmark.model import MultimodalNet, Outputs, concat_net
from benchmark.seeds import generator

from ._confidence import confidences, discrepancies


def drop_rate(ratio: Tensor, q_base: float, strength: float) -> Tensor:
    """Return q, the probability of dropping a modality whose confidence is `ratio` times that of the others."""
    rho = (ratio - 1).relu().tanh()
    return torch.where(rho > 0, (q_base * (1 + strength * rho)).clamp(0, 1), 0.0)


def drop(features: Mapping[str, Tensor], rates: Mapping[str, Tensor], draws: Tensor) -> dict[str, Tensor]:
    """Return features (B, D) with those dropped whose draw is below the rate, the rest scaled up to make up for it.

    Args:
        features: {modality: (B, D)}.
        rates: {modality: scalar} probabilities.
        draws: uniform numbers in [0, 1), (M, B, 1).
    """
    widths = {m: u.shape[1] for m, u in features.items()}
    theta = torch.stack([width * rates[m] for m, width in widths.items()]).sum() / sum(widths.values())
    return {m: u * (draw >= rates[m]) / (1 - theta) for (m, u), draw in zip(features.items(), draws, strict=True)}


class OPM(Method):
    reference = Reference(
        "On-the-fly Modulation for Balanced Multimodal Learning",
        "TPAMI",
        2024,
        "GeWu-Lab/BML_TPAMI2024 @ 4b3aa4f : code/models/Classifier.py, code/main.py",
    )
    modalities = (2, None)
    off_switches = (
        OffSwitch({"q_base": 0.0, "warmup_epochs": 0}, "concat"),
        OffSwitch({"p_exe": 0.0, "warmup_epochs": 0}, "concat"),
        OffSwitch({"warmup_epochs": 1_000_000}, "concat"),
    )
    variants = ({}, {"warmup_epochs": 0})
    ablations = ({"strength": 0.0}, {"warmup_epochs": 0}, {"p_exe": 1.0})
    """Dropping as often however dominant a modality is; from the first epoch; in every batch."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "ksounds": {"q_base": 0.5, "strength": 0.5, "p_exe": 0.7, "warmup_epochs": 6}
    }
    """Settings for single data sets, from the released scripts; for others none is published."""
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_drop_follows_an_independent_calculation",
        paper_test="test_golden_rates",
    )

    class Config(Method.Config):
        q_base: float = Field(default=0.5, ge=0, le=1)
        """Probability of dropping a modality that is barely dominant (released script; its config file has 0.4)."""
        strength: float = Field(default=0.5, ge=0)
        """How much the probability grows with dominance, relative to q_base: lambda (released script)."""
        p_exe: float = Field(default=0.7, ge=0, le=1)
        """Share of the batches in which anything is dropped (released script)."""
        warmup_epochs: int = Field(default=6, ge=0)
        """Epochs at the start without dropping (released code: epochs 0 to 5)."""

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        return concat_net(task)

    def start_epoch(self, epoch: int) -> None:
        self.active = epoch >= self.config.warmup_epochs
        self.generator = generator(self.run.seed, epoch, "drop")

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        if not self.active:
            return super().loss(out, batch)
        rates = self.drop_rates(out, batch)
        self.run.log(**{f"drop/{m}": rate for m, rate in rates.items()})
        draws = torch.rand(len(rates), len(batch.labels), 1, generator=self.generator)
        fused = self.net.head(drop(out.features, rates, to_device(draws, batch.labels.device))).fused
        return F.cross_entropy(fused, batch.labels)

    @torch.no_grad()
    def drop_rates(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return this batch's probabilities {modality: scalar}, all 0 in a batch that is left as it is."""
        executed = float(torch.rand((), generator=self.generator) < self.config.p_exe)
        ratios = discrepancies(confidences(out.unimodal, batch.labels))
        return {m: executed * drop_rate(r, self.config.q_base, self.config.strength) for m, r in ratios.items()}
