"""InfoReg: early in training, hold the encoder of the leading modality near where it was when the epoch began.

The head is that of `concat`, and each modality's slice of it has a loss too: L = CE(z, y) + sum over m of CE(z_m, y).
With c_m the true-class probability of z_m, and T_m(e) the trace of the empirical Fisher information of an encoder over
epoch e, that is squared gradients summed over its steps, averaged in each weight tensor and summed over tensors,

    growth_m = (mean of the last 10 T_m - mean of those 10 an epoch earlier) / mean of the last 10
    g <- g + beta * (theta - theta at the start of the epoch)       for the encoder of the leading m if growth_m > 0.05
    beta = strength * exp(tanh(c_m - c of the others))

Epochs before the first count as traces of zero, so that the window is open at the start. One forward and one backward
pass.

Paper: By Huang et al. Only the overview (Figure 2) was available: finds the leading modality and judges the window of
that one.

Released code: Judges the window by audio whichever modality leads; strength 0.95 for audio, 0.1 for video; adds up
confidences over the batch, so that tanh is 1 or nearly so. Four backward passes a step, three for its logs.

Ours: `paper`: the leader's window, one strength, mean confidences. `released` equals the official code to 1e-7 over 20
runs of 13 epochs, in one backward pass. Of three modalities the lead is over the mean of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference, Variants
from benchmark.model import MultimodalNet, Outputs, concat_net, true_class_probability

from ._auxiliary import multitask_loss

SPAN = 10
"""Epochs in a moving average of traces (released code)."""


def growth(traces: Tensor) -> Tensor:
    """Return the growth of the moving averages of traces, the latest last: (M, SPAN + 1) -> (M,)."""
    now, before = traces[:, 1:].mean(1), traces[:, :-1].mean(1)
    return torch.where(now > 0, (now - before) / now, 1.0)


def leads(confidence: Tensor) -> Tensor:
    """Return by how much the most confident modality is ahead of the mean of the others, 0 for them: (M,) -> (M,)."""
    ahead = confidence - (confidence.sum() - confidence) / (len(confidence) - 1)
    return torch.where(confidence == confidence.max(), ahead, 0.0)


def regulation(lead: Tensor, strength: Tensor) -> Tensor:
    """Return beta of each modality, 0 for those that do not lead: (M,) and (M,) -> (M,)."""
    return torch.where(lead > 0, strength * lead.tanh().exp(), 0.0)


class InfoReg(Method):
    reference = Reference(
        "Adaptive Unimodal Regulation for Balanced Multimodal Information Acquisition",
        "CVPR",
        2025,
        "GeWu-Lab/InfoReg_CVPR2025 @ 939b2ed : main.py",
    )
    modalities = (2, None)
    off_switches = (OffSwitch({"strength": 0.0, "unimodal_weight": 0.0}, "concat"),)
    variants = ({}, {"variant": "released"}, {"threshold": 0.5})
    ablations = ({"strength": 0.0}, {"unimodal_weight": 0.0}, {"window_of": "first"})
    """Without the pull in the window, without the modalities' own losses, the window by the first modality."""
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_growth_equals_an_independent_calculation_over_a_whole_history",
        paper_test="test_pull_equals_an_independent_calculation",
    )

    class Config(Variants):
        released: ClassVar[Mapping[str, Any]] = {"window_of": "first", "strength_of_others": 0.1, "confidence": "sum"}

        strength: float = Field(default=0.95, ge=0)
        """Factor of the pull towards the start of the epoch (released code, audio)."""
        strength_of_others: float | None = Field(default=None, ge=0)
        """The same for modalities after the first; None for the same value (released code: 0.1, video)."""
        threshold: float = Field(default=0.05, ge=0)
        """Growth of the Fisher trace above which the window is open (released code)."""
        window_of: Literal["leader", "first"] = "leader"
        """Whose trace decides: the leading modality's (paper) or the first one's (released code, audio)."""
        confidence: Literal["mean", "sum"] = "mean"
        """True-class probability averaged over the batch (ours) or added up (released code)."""
        unimodal_weight: float = Field(default=1.0, ge=0)
        """Weight of the modalities' own losses (released code)."""

    config: Config
    traces: Tensor
    strengths: Tensor

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        first, others = self.config.strength, self.config.strength_of_others
        rest = len(task.modalities) - 1
        self.register_buffer("strengths", torch.tensor([first] + rest * [first if others is None else others]))
        self.register_buffer("traces", torch.zeros(rest + 1, SPAN + 1))
        return concat_net(task)

    def start_epoch(self, epoch: int) -> None:
        grown = growth(self.traces)
        decisive = grown if self.config.window_of == "leader" else grown[:1].expand_as(grown)
        self.window = decisive > self.config.threshold  # (M,)
        self.trace = torch.zeros_like(grown)
        self.anchors = {m: [p.detach().clone() for p in encoder.parameters()] for m, encoder in self.encoders()}
        self.run.log(**{f"growth/{m}": g for m, g in zip(self.task.modalities, grown, strict=True)})

    def encoders(self) -> list[tuple[str, nn.Module]]:
        return list(self.net.encoders.items())

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        return multitask_loss(out.fused, out.unimodal, batch.labels, self.config.unimodal_weight)

    @torch.no_grad()
    def edit_gradients(self, out: Outputs, batch: Batch) -> None:
        probabilities = torch.stack([true_class_probability(z, batch.labels) for z in out.unimodal.values()])  # (M, B)
        confidence = probabilities.mean(1) if self.config.confidence == "mean" else probabilities.sum(1)
        beta = torch.where(self.window, regulation(leads(confidence), self.strengths), 0.0)
        for position, (modality, encoder) in enumerate(self.encoders()):
            self.run.log(**{f"beta/{modality}": beta[position]})
            for p, anchor in zip(encoder.parameters(), self.anchors[modality], strict=True):
                if p.grad is not None:
                    p.grad.add_(beta[position] * (p - anchor))
                    if p.dim() > 1:  # weights of layers, not biases or normalisation (released code)
                        self.trace[position] += p.grad.square().mean()

    def end_epoch(self, epoch: int) -> None:
        self.traces.copy_(torch.cat([self.traces[:, 1:], self.trace[:, None]], 1))
        self.run.log(**{f"trace/{m}": t for m, t in zip(self.task.modalities, self.trace, strict=True)})
