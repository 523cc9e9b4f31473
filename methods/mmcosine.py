"""MMCosine: logits of a modality are scaled cosines, so the norm of neither features nor weights makes one dominate.

    z = sum over m of z_m,    z_mk = scale * cos(u_m, W_mk),    loss = CE(z, y)

with W_mk the part of the output layer's row k that reads modality m; there is no bias, and |z_mk| <= scale. Any number
of modalities; one forward and one backward pass.

Paper: By Xu, Feng, Zhang and Hu. z is a sum of scaled cosines; that it also predicts by them is assumed.

Released code: Trains by cosines and predicts by the plain layer, sum of W_m u_m + b, norms and an untrained bias
included.

Ours: Both, as variants; the cosines equal the released expression to the last bit. Its versions of gated and FiLM heads
and its contrastive loss, off by default, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import TaskSpec
from benchmark.method import Ledger, Method, Reference, Variants
from benchmark.model import ConcatHead, MultimodalNet, Outputs, sum_logits


def scaled_cosines(features: Tensor, weight: Tensor, scale: float) -> Tensor:
    """Return scale * cos between each feature and each row of the weight: (B, D) and (K, D) -> (B, K)."""
    return scale * F.linear(F.normalize(features, dim=1), F.normalize(weight, dim=1))


class CosineHead(ConcatHead):
    """A concat head read by cosines; its bias is never trained."""

    def __init__(self, dims: Mapping[str, int], num_classes: int, scale: float) -> None:
        super().__init__(dims, num_classes)
        self.scale = scale
        self.bias.requires_grad_(False)

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        unimodal = {m: scaled_cosines(u, self.slices[m], self.scale) for m, u in features.items()}
        return Outputs(features, unimodal, sum_logits(unimodal.values()))

    def plain(self, features: dict[str, Tensor]) -> Tensor:
        """Return the logits (B, K) of the same layer without cosines."""
        return super().forward(features).fused


class MMCosine(Method):
    reference = Reference(
        "MMCosine: Multi-Modal Cosine Loss Towards Balanced Audio-Visual Fine-Grained Learning",
        "ICASSP",
        2023,
        "GeWu-Lab/MMCosine_ICASSP23 @ 00ba0a9 : main_CD.py, models/fusion_modules.py",
    )
    variants = ({}, {"variant": "released"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"cremad": {"scale": 10.0}}
    """Settings for single data sets, from the released code."""
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_logits_follow_an_independent_calculation",
        paper_test="test_the_scale_bounds_each_modality_and_is_reached",
    )

    class Config(Variants):
        scale: float = Field(default=10.0, gt=0)
        """Factor on cosines, which bounds each modality's logits (released code; BalanceBenchmark has 15)."""

    config: Config
    net: MultimodalNet[CosineHead]

    def build_net(self, task: TaskSpec) -> MultimodalNet[CosineHead]:
        return MultimodalNet(task.build_encoders(), lambda dims: CosineHead(dims, task.num_classes, self.config.scale))

    def predict(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out, head = self.net(inputs), self.net.head
        fused = head.plain(out.features) if self.config.variant == "released" else out.fused
        return {"fused": fused, **out.unimodal}
