"""AMSS: each step trains a drawn part of every layer, a larger part of the modalities that have learnt less.

The head is that of `concat`, with z_m modality m's slice of the logits. After the backward pass of CE(z, y),

    I_m = H(y) - CE(z_m, y)                               information of m on the batch's labels, in nats
    r_m = (I_m + 1/2) / H(softmax(u_m))                   its rate, by the entropy of its D features
    share_m = 1 - softmax over m of r_m / T               in [0.1, 0.9]; 1/2 for all where an I_m + 1/2 <= 0

and of every weight in the encoder of m, ceil(share_m * N) of the N output units are drawn without replacement, with
probabilities q proportional to their squared gradients; the gradients of the others are zero. The same holds in each
row of m's slice of the head, entry by entry. AMSS+ multiplies what is drawn by 1 / (q + 1 / N), N / 2 where q is even:
at an unchanged learning rate its steps are far longer. Momentum and weight decay move masked weights too.

One forward and one backward pass, and the drawing.

Paper: By Yang et al. Only the abstract was available: mutual information rates set how much of a modality trains,
importance sampling which part; AMSS+ masks by unbiased estimation.

Released code: The audio-video script draws masks of the head and never applies them; its label entropy is 1.04 for a
batch of one class (0) and 1.79 for six even ones (exact). AMSS+'s factor 1 / (q + 1/N) is not unbiased, which would be
one over the probability of being drawn at all. The text-image script divides rates by no entropy; the one for three
modalities cannot run.

Ours: `paper` masks the head and has an exact entropy; `released` does neither. Its shares equal the official function
to 2e-8 on 200 batches, and draws have torch.multinomial's frequencies to 2e-3. All weights of an encoder are masked,
where the code names residual blocks; three modalities follow the formula for two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference, Variants
from benchmark.model import ConcatHead, MultimodalNet, Outputs, concat_net
from benchmark.seeds import seed_of

LIFT = 0.5
"""Added to the information, which is often below zero (released code)."""
TINY = torch.finfo(torch.float32).tiny


def entropy(frequencies: Tensor, labels: Tensor) -> Tensor:
    """Return the entropy of the labels in nats, from their frequencies (K,) in a batch."""
    total: Tensor = torch.special.entr(frequencies).sum()
    return total


def released_entropy(frequencies: Tensor, labels: Tensor) -> Tensor:
    """Return what the released code takes for it: the frequencies' cross-entropy, read as logits, with themselves.

    There are as many of them as the largest label in the batch says.
    """
    seen = torch.arange(len(frequencies), device=labels.device) <= labels.max()
    return frequencies.masked_fill(~seen, -torch.inf).logsumexp(0) - frequencies @ frequencies


LABEL_ENTROPIES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"exact": entropy, "released": released_entropy}


def feature_entropy(features: Tensor) -> Tensor:
    """Return the mean entropy of softmax(u) over dimensions, in nats: (B, D) -> scalar."""
    mean: Tensor = torch.special.entr(features.softmax(1)).sum(1).mean()
    return mean


def kept_shares(information: Tensor, entropies: Tensor, temperature: float) -> Tensor:
    """Return the share of its units that each modality trains: (M,) and (M,) -> (M,)."""
    lifted = information + LIFT
    shares = 1 - (lifted / entropies / temperature).softmax(0)
    return torch.where((lifted > 0).all(), shares.nan_to_num(0.5).clamp(0.1, 0.9), 0.5)


def draw_units(importance: Tensor, share: Tensor, draws: Tensor) -> Tensor:
    """Return which units are drawn, in proportion to their importance and without replacement: (.., N) bool.

    The largest of importance / draw are distributed so (Efraimidis and Spirakis, 2006).

    Args:
        importance: not negative, (.., N); units of none come last.
        share: of the units, rounded up; a scalar.
        draws: exponentially distributed, (.., N).
    """
    count = importance.shape[-1]
    order = (importance / draws).argsort(-1, descending=True)
    first = torch.arange(count, device=order.device) < (share * count).ceil()
    return torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, first.expand_as(order))


def factors(importance: Tensor, drawn: Tensor, plus: bool) -> Tensor:
    """Return what gradients are multiplied by, 0 where not drawn and else 1 or, in AMSS+, 1 / (q + 1 / N): (.., N)."""
    if not plus:
        return drawn.to(importance.dtype)
    q = importance / importance.sum(-1, keepdim=True).clamp_min(TINY)
    return drawn / (q + 1 / importance.shape[-1])


class AMSS(Method):
    reference = Reference(
        "Learning to Rebalance Multi-Modal Optimization by Adaptively Masking Subnetworks",
        "TPAMI",
        2025,
        "njustkmg/TPAMI-AMSS @ 3161ecc : AMSS/train_test.py, AMSS_IT/train_test_IT.py",
    )
    modalities = (2, None)
    off_switches = (OffSwitch({"share": 1.0}, "concat"),)
    variants = ({}, {"variant": "released"}, {"plus": True})
    ablations = ({"sampling": "uniform"}, {"share": 0.5}, {"mask_head": False}, {"plus": True})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sarcasm": {"temperature": 0.5},
        "twitter15": {"temperature": 0.5},
    }
    """The released README's, for text and images."""
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_shares_equal_an_independent_calculation",
        paper_test="test_units_are_drawn_one_after_the_other_in_proportion_to_their_importance",
    )

    class Config(Variants):
        released: ClassVar[Mapping[str, Any]] = {"mask_head": False, "label_entropy": "released"}

        plus: bool = False
        """AMSS+: multiply what is drawn by 1 / (q + 1 / N)."""
        temperature: float = Field(default=0.2, gt=0)
        """T: the lower, the more the shares differ (released code, audio and video)."""
        sampling: Literal["importance", "uniform"] = "importance"
        """Draw by squared gradients, or all units alike, the paper's motivating baseline."""
        share: float | None = Field(default=None, gt=0, le=1)
        """One share for all modalities and steps; None for the adaptive ones (released code: both)."""
        mask_head: bool = True
        """Mask the head too (paper; the released script for audio and video does not)."""
        label_entropy: Literal["exact", "released"] = "exact"
        """H(y) of the batch, or what the released script for audio and video takes for it."""

    config: Config
    net: MultimodalNet[ConcatHead]

    def build_net(self, task: TaskSpec) -> MultimodalNet[ConcatHead]:
        return concat_net(task)

    def start_epoch(self, epoch: int) -> None:
        self.generator = torch.Generator(self.run.device).manual_seed(seed_of(self.run.seed, epoch, "masks"))

    @torch.no_grad()
    def edit_gradients(self, out: Outputs, batch: Batch) -> None:
        for modality, share in zip(out.features, self.shares(out, batch), strict=True):
            self.run.log(**{f"share/{modality}": share})
            for parameter in self.net.encoders[modality].parameters():
                gradient = parameter.grad
                if gradient is not None and gradient.dim() > 1:
                    masked = self.factors(gradient.square().flatten(1).sum(1), share)
                    gradient.mul_(masked.view(-1, *[1] * (gradient.dim() - 1)))
            gradient = self.net.head.slices[modality].grad
            if self.config.mask_head and gradient is not None:
                gradient.mul_(self.factors(gradient.square(), share))

    def shares(self, out: Outputs, batch: Batch) -> Tensor:
        """Return the share of its units that each modality trains in this step, (M,)."""
        if self.config.share is not None:
            return torch.full((len(out.features),), self.config.share, device=batch.labels.device)
        frequencies = F.one_hot(batch.labels, self.task.num_classes).float().mean(0)
        label_entropy = LABEL_ENTROPIES[self.config.label_entropy](frequencies, batch.labels)
        losses = torch.stack([F.cross_entropy(z, batch.labels) for z in out.unimodal.values()])
        entropies = torch.stack([feature_entropy(u) for u in out.features.values()])
        return kept_shares(label_entropy - losses, entropies, self.config.temperature)

    def factors(self, importance: Tensor, share: Tensor) -> Tensor:
        """Return what the gradients of a layer's units are multiplied by, from their importance (.., N)."""
        importance = importance if self.config.sampling == "importance" else torch.ones_like(importance)
        draws = torch.empty_like(importance).exponential_(generator=self.generator)
        return factors(importance, draw_units(importance, share, draws), self.config.plus)
