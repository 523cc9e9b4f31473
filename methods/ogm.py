"""OGM and OGM-GE: slow the dominant modality's encoder by scaling its gradients on the fly.

Per step, with c_m the sum over the batch of softmax(z_m)[y], the confidence of modality m on its slice of the head:

    rho_m = mean over j != m of c_m / c_j
    k_m   = 1 - tanh(alpha * rho_m)  if rho_m > 1,  else 1
    g     <- k_m * g  (+ noise of the gradient's own standard deviation, in OGM-GE)     for encoder weights of m

For two modalities every choice of `rho` gives the same gradients. k jumps at rho = 1, by tanh(alpha), for rho enters as
it is. One forward and one backward pass.

Paper: By Peng et al. The formula, as recalled, names all of an encoder's parameters.

Released code: Modulates 4-D gradients only, those of convolutions; run without DataParallel it finds no encoder by name
and modulates nothing. 51 epochs in [0, 50].

Ours: Convolutions and other weights unless `modulated` says otherwise, always; equals an independent calculation of the
released lines. Of three modalities the mean of pairwise ratios, as the authors advise; the two other choices are what
re-implementations do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference
from benchmark.model import LateHead, MultimodalNet, Outputs, concat_net

from ._confidence import Ratio, confidences, discrepancies, least_ratio, mean_ratio, sum_ratio
from ._schedule import within

RATIOS: Mapping[str, Ratio] = {"mean": mean_ratio, "sum": sum_ratio, "least": least_ratio}


def coefficient(rho: Tensor, alpha: float) -> Tensor:
    """Return k = 1 - tanh(alpha * rho) where rho > 1, else 1."""
    return torch.where(rho > 1, 1 - torch.tanh(alpha * rho), 1.0)


def is_weight(parameter: Tensor) -> bool:
    """Return whether a parameter is a weight, not a bias or of normalisation.

    The released code takes 4-D gradients, all the convolutions of its ResNets; 2-D and 3-D weights are their
    counterparts in encoders of vectors and sequences.
    """
    return parameter.dim() > 1


class OGM(Method):
    reference = Reference(
        "Balanced Multimodal Learning via On-the-fly Gradient Modulation",
        "CVPR",
        2022,
        "GeWu-Lab/OGM-GE_CVPR2022 @ 343dc1d : main.py",
    )
    modalities = (2, None)
    off_switches = (
        OffSwitch({"alpha": 0.0, "noise": False}, "concat"),
        OffSwitch({"first_epoch": 1_000_000}, "concat"),
        OffSwitch({"fusion": "sum", "alpha": 0.0, "noise": False}, "sum"),
    )
    variants = ({}, {"rho": "sum"}, {"rho": "least"}, {"fusion": "sum", "modulated": "all"})
    ablations = ({"noise": False}, {"alpha": 0.0}, {"modulated": "all"}, {"fusion": "sum"})
    """OGM without GE and GE without OGM, as in the paper; the parameters of its formula; the head of its code."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"cremad": {"alpha": 0.8}, "vggsound": {"alpha": 0.1}}
    """Settings for single data sets, from the README of the released code; for others none is published."""
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_two_modalities_follow_an_independent_calculation",
        paper_test="test_coefficient_equals_published_figures",
    )

    class Config(Method.Config):
        alpha: float = Field(default=0.3, ge=0)
        """Strength of the modulation. The released README uses 0.8 on CREMA-D and 0.1 on VGGSound; 0.3 is what later
        re-implementations use across data sets (MLA, BalanceBenchmark)."""
        noise: bool = True
        """Add Gaussian noise of each gradient's standard deviation: OGM-GE (paper's main method); False is OGM."""
        first_epoch: int = Field(default=0, ge=0)
        """First epoch of modulation, from 0 (released code)."""
        last_epoch: int = Field(default=50, ge=0)
        """Last epoch of modulation, inclusive (released code)."""
        rho: Literal["mean", "sum", "least"] = "mean"
        """A modality's confidence among three: the mean of its ratios to the others (the authors, asked about it), its
        ratio to their sum (MLA's code, less the mistake of always slowing some modality), or to the least confident
        (BalanceBenchmark)."""
        fusion: Literal["concat", "sum"] = "concat"
        """The head: concat (the main experiments) or a linear layer for each modality, summed (released code)."""
        modulated: Literal["weights", "all"] = "weights"
        """Modulate weights of convolutions and other linear maps (released code), or biases and normalisation too, all
        that the paper's formula names."""

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        if self.config.fusion == "sum":
            return MultimodalNet(task.build_encoders(), lambda dims: LateHead(dims, task.num_classes))
        return concat_net(task)

    def start_epoch(self, epoch: int) -> None:
        self.active = within(epoch, self.config.first_epoch, self.config.last_epoch)

    @torch.no_grad()
    def edit_gradients(self, out: Outputs, batch: Batch) -> None:
        if not self.active:
            return
        confidence = confidences(out.unimodal, batch.labels)
        for modality, rho in discrepancies(confidence, RATIOS[self.config.rho]).items():
            k = coefficient(rho, self.config.alpha)
            self.run.log(**{f"k/{modality}": k, f"rho/{modality}": rho})
            for parameter in self.net.encoders[modality].parameters():
                gradient = parameter.grad
                if gradient is None or not (self.config.modulated == "all" or is_weight(parameter)):
                    continue
                spread = gradient.std() + 1e-8
                gradient.mul_(k)
                if self.config.noise:
                    gradient.add_(torch.randn_like(gradient) * spread)
