"""OGM and OGM-GE: slow the dominant modality's encoder by scaling its gradients on the fly.

Per step, with c_m the sum over the batch of softmax(z_m)[y], the confidence of modality m on its slice of the head:

    rho_m = mean over j != m of c_m / c_j
    k_m   = 1 - tanh(alpha * rho_m)  if rho_m > 1,  else 1
    g     <- k_m * g  (+ noise of the gradient's own standard deviation, in OGM-GE)     for encoder weights of m

Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation, CVPR 2022.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from benchmark.data import Batch, TaskSpec
from benchmark.method import Method, OffSwitch, Reference
from benchmark.model import MultimodalNet, Outputs, concat_net, true_class_probability


def confidences(unimodal: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """Return the summed true-class probability of each modality's logits (B, K), a scalar each."""
    return {m: true_class_probability(z, labels).sum() for m, z in unimodal.items()}


def discrepancies(confidence: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return rho_m: how much more confident m is than the others, the mean of the pairwise ratios."""
    return {
        m: torch.stack([own / other for j, other in confidence.items() if j != m]).mean()
        for m, own in confidence.items()
    }


def coefficient(rho: Tensor, alpha: float) -> Tensor:
    """Return k = 1 - tanh(alpha * rho) where rho > 1, else 1."""
    return torch.where(rho > 1, 1 - torch.tanh(alpha * rho), 1.0)


class OGM(Method):
    """Modulates convolution weights, as the released code; pairwise ratios for three modalities."""

    reference = Reference(
        "Balanced Multimodal Learning via On-the-fly Gradient Modulation",
        "CVPR",
        2022,
        "GeWu-Lab/OGM-GE_CVPR2022 @ 343dc1d : main.py",
    )
    off_switches = (
        OffSwitch({"alpha": 0.0, "noise": False}, "concat"),
        OffSwitch({"first_epoch": 1_000_000}, "concat"),
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

    config: Config

    @classmethod
    def unsupported(cls, config: Method.Config, task: TaskSpec) -> str | None:
        return None if len(task.modalities) > 1 else "compares modalities, so it needs at least two"

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        return concat_net(task)

    def start_epoch(self, epoch: int) -> None:
        self.active = self.config.first_epoch <= epoch <= self.config.last_epoch

    @torch.no_grad()
    def edit_gradients(self, out: Outputs, batch: Batch) -> None:
        if not self.active:
            return
        confidence = confidences(out.unimodal, batch.labels)
        for modality, rho in discrepancies(confidence).items():
            k = coefficient(rho, self.config.alpha)
            self.run.log(**{f"k/{modality}": k, f"rho/{modality}": rho})
            for parameter in self.net.encoders[modality].parameters():
                gradient = parameter.grad
                if gradient is None or not is_modulated(parameter):
                    continue
                spread = gradient.std() + 1e-8
                gradient.mul_(k)
                if self.config.noise:
                    gradient.add_(torch.randn_like(gradient) * spread)


def is_modulated(parameter: Tensor) -> bool:
    """Tell weights, which are modulated, from biases and normalisation, which are not.

    The released code takes 4-D gradients, all the convolutions of its ResNets; 2-D and 3-D weights are their
    counterparts in encoders of vectors and sequences.
    """
    return parameter.dim() > 1
