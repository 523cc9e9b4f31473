"""Channel: channel exchange, a vector-level adaptation. A channel that a modality does not use carries another's.

    x_m = BN_m(u_m),    x'_mc = x_mc if |gamma_mc| >= threshold, else the mean over j != m of x_jc
    z_m = V_m relu(x'_m) + c_m,    z = sum over m of softmax(a)_m sg(z_m)
    loss = sum over m of CE(z_m, y) + CE(z, y) + l1 * sum over m of |gamma_m| on modality m's own part of the channels

gamma are the scales of the normalisation; sg stops gradients, so the last cross-entropy trains `a` alone. The penalty
drives each modality's own part of the channels, one of M equal ones, to where they are exchanged. How much is exchanged
is logged as `exchanged/<modality>`. One forward and one backward pass.

Paper: By Wang et al. Channels of feature maps of equal size are exchanged between networks that share their
convolutions, within the part that the penalty acts on (as recalled). How tables of classification ported it is unknown.

Released code: Segmentation of two modalities: exchanges any channel below the threshold and adds the penalty once for
each output, three times in all.

Ours: An adaptation to vectors: encoders share nothing and their maps differ in size, so the entries of pooled features
are exchanged, once; features of different widths first pass a linear layer to the widest. `released` exchanges any
channel and counts the penalty for each output; the exchange equals the official one to the last bit. More than two
modalities take the mean of the others, as recalled from the paper. At the published l1 nothing is exchanged in a short
run.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, Reference, Variants
from benchmark.model import Head, LateHead, MultimodalNet, Outputs, sum_logits

from ._heads import projections


def own_parts(modalities: list[str], width: int) -> dict[str, Tensor]:
    """Return the channels that are each modality's own, (D,) bool: M consecutive parts, disjoint and covering."""
    part = torch.arange(width) * len(modalities) // width
    return {m: part == i for i, m in enumerate(modalities)}


def exchange(states: Mapping[str, Tensor], replaced: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return states (B, D) with each modality's replaced channels, (D,) bool, taken from the mean of the others."""
    exchanged = {}
    for modality, x in states.items():
        others = torch.stack([other for m, other in states.items() if m != modality]).mean(0)
        exchanged[modality] = torch.where(replaced[modality], others, x)
    return exchanged


class ExchangeHead(Head):
    """A classifier for each modality on normalised and exchanged channels; the fused logits weigh theirs."""

    def __init__(self, dims: Mapping[str, int], num_classes: int, threshold: float, within_parts: bool) -> None:
        super().__init__()
        width = max(dims.values())
        self.threshold, self.within_parts = threshold, within_parts
        self.project = projections(dims, width)
        self.norms = nn.ModuleDict({m: nn.BatchNorm1d(width) for m in dims})
        self.late = LateHead(dict.fromkeys(dims, width), num_classes)
        self.shares = nn.Parameter(torch.ones(len(dims)))
        for modality, part in own_parts(list(dims), width).items():
            self.register_buffer(f"part_{modality}", part, persistent=False)

    def part(self, modality: str) -> Tensor:
        """Return the channels (D,) bool that are a modality's own."""
        return self.get_buffer(f"part_{modality}")

    def scales(self) -> dict[str, Tensor]:
        """Return |gamma| of each modality's channels, (D,)."""
        return {m: norm.get_parameter("weight").abs() for m, norm in self.norms.items()}

    def replaced(self) -> dict[str, Tensor]:
        """Return which channels of each modality carry others', (D,) bool."""
        low = {m: scale < self.threshold for m, scale in self.scales().items()}
        return {m: low[m] & self.part(m) for m in low} if self.within_parts else low

    def penalty(self) -> Tensor:
        """Return the sum of |gamma| over each modality's own channels."""
        return sum_logits((scale * self.part(m)).sum() for m, scale in self.scales().items())

    def forward(self, features: dict[str, Tensor]) -> Outputs:
        states = {m: self.norms[m](self.project[m](u)) for m, u in features.items()}
        exchanged = {m: x.relu() for m, x in exchange(states, self.replaced()).items()}
        unimodal = self.late(exchanged).unimodal
        logits = torch.stack([z.detach() for z in unimodal.values()])  # (M, B, K)
        return Outputs(features, unimodal, torch.einsum("m,mbk->bk", self.shares.softmax(0), logits))


class Channel(Method):
    reference = Reference(
        "Deep Multimodal Fusion by Channel Exchanging (vector-level adaptation)",
        "NeurIPS",
        2020,
        "yikaiw/CEN @ 0088d87 : semantic_segmentation/models/modules.py, models/model.py, main.py",
    )
    modalities = (2, None)
    variants = ({}, {"variant": "released"}, {"threshold": 1.001})
    ledger = Ledger(
        code="verified on the same tensors",
        paper="reconstructed",
        code_test="test_exchange_follows_an_independent_calculation",
        paper_test="test_own_parts_are_disjoint_and_cover_all_channels",
    )

    class Config(Variants):
        threshold: float = Field(default=0.02, ge=0)
        """Channels with a smaller scale are exchanged (released code, segmentation)."""
        l1: float = Field(default=2e-4, ge=0)
        """Weight of the penalty on scales (released code, segmentation; image translation has 1e-3)."""

    config: Config
    net: MultimodalNet[ExchangeHead]

    def build_net(self, task: TaskSpec) -> MultimodalNet[ExchangeHead]:
        threshold, within_parts = self.config.threshold, self.config.variant == "paper"
        return MultimodalNet(
            task.build_encoders(), lambda dims: ExchangeHead(dims, task.num_classes, threshold, within_parts)
        )

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        head = self.net.head
        self.run.log(**{f"exchanged/{m}": which.float().mean() for m, which in head.replaced().items()})
        outputs = [*out.unimodal.values(), out.fused]
        count = len(outputs) if self.config.variant == "released" else 1
        fit = sum_logits(F.cross_entropy(logits, batch.labels) for logits in outputs)
        return fit + count * self.config.l1 * head.penalty()
