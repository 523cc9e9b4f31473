"""Data Remixing: each sample trains the modality that is least sure of it, alone, in batches of one modality.

A concat head beside a linear classifier of each modality's own. For `warmup` epochs

    L = CE(z, y) + warmup_weight * sum over m of CE(z_m, y)

Then, before every epoch, each training sample is given to the modality m with the smallest

    kappa_m = KL(softmax(z_m) || uniform) = log2 K - H2(softmax(z_m))

in eval mode and without augmentation. Samples of one modality gather until they fill a batch, in which the features of
all others are zero, so that no two modalities meet in one gradient:

    L = CE(z, y) + gamma * CE(z_m, y)

Every sample is trained on once an epoch, but for a lone one that is left over, as batch normalisation needs two.

Cost: one forward and one backward pass a step, of one encoder only; a forward pass over train an epoch. `released` runs
all encoders and reads train twice.

Paper: By Ma, Chen and Deng. Samples that a modality finds hard are kept for it, the others masked; batches hold one
modality. CREMA-D +6.5 points, Kinetics-Sounds +3.4. The text was not available; order of batches and masking of
encoders could not be checked.

Released code: Features are zeroed in place, so masked encoders get zero gradients and still move by momentum, decay and
statistics; all batches of one modality come before those of the next, the last modality first; the best epoch is chosen
on test.

Ours: Rules and defaults of the code, but masked encoders rest and batches come as they fill; `released` does as the
code, for two modalities. Confidence and choice equal the official function on random logits; one released step equals
the official model's to 1e-6.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference, Variants
from benchmark.model import Head, MultimodalNet, Outputs

from ._auxiliary import auxiliary_net, multitask_loss
from ._batches import join, take
from ._features import evaluating


def confidence(logits: Tensor) -> Tensor:
    """Return the divergence of predictions from the uniform one, in bits: (B, K) -> (B,)."""
    negative_entropy = (logits.softmax(1) * logits.log_softmax(1)).sum(1)
    return (negative_entropy + math.log(logits.shape[1])) / math.log(2)


def last_least(values: Tensor) -> Tensor:
    """Return the place of the least in each row (B, M) -> (B,); the last of equals, as the released code chooses."""
    return values.shape[1] - 1 - values.flip(1).argmin(1)


class Remix(Method):
    version = 2
    reference = Reference(
        "Improving Multimodal Learning Balance and Sufficiency through Data Remixing",
        "ICML",
        2025,
        "MatthewMaxy/Remix_ICML2025 @ 80898aa : train.py, models/models.py",
    )
    modalities = (2, None)
    off_switches = (OffSwitch({"warmup": 1_000_000}, "multitask", {"weight": 0.5}),)
    variants = ({"warmup": 1}, {"warmup": 1, "variant": "released"})
    ablations = ({"warmup": 1_000_000}, {"warmup": 0}, {"gamma": 0.0})
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_confidence_equals_an_independent_calculation",
        paper_test="test_each_sample_is_kept_for_its_least_confident_modality",
    )

    class Config(Variants):
        warmup: int = Field(default=10, ge=0)
        """Epochs with all modalities at the start (released code)."""
        warmup_weight: float = Field(default=0.5, ge=0)
        """Weight of each modality's own loss in them (released code: alpha, beta)."""
        gamma: float = Field(default=1.0, ge=0)
        """Weight of the kept modality's own loss afterwards (released code)."""

        def unsupported(self, task: TaskSpec) -> str | None:
            if self.variant == "released" and len(task.modalities) > 2:
                return "the released code is for two modalities; variant=paper takes more"
            return None

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        return auxiliary_net(task)

    def start_epoch(self, epoch: int) -> None:
        self.remixing = epoch >= self.config.warmup
        if not self.remixing:
            return
        self.waiting: dict[str, list[Batch]] = {m: [] for m in self.task.modalities}
        self.full = 0
        self.kept = self.least_confident()
        for position, modality in enumerate(self.task.modalities):
            self.run.log(**{f"kept/{modality}": (self.kept == position).float().mean()})
        if self.config.variant == "released":
            first, last = self.task.modalities
            for batch in self.run.train_batches(epoch, salt=1, count=False):  # of both passes each sample trains once
                self.gather(last, batch)
            self.flush(last)
            self.gathered = [first]
        else:
            self.gathered = list(self.task.modalities)

    def end_epoch(self, epoch: int) -> None:
        if self.remixing:
            for modality in self.gathered:
                self.flush(modality)

    def least_confident(self) -> Tensor:
        """Return which modality is least confident of each training sample, by position: (N,); the last in a tie."""
        with evaluating(self.net):
            outputs = [self.net(batch.inputs).unimodal.values() for batch in self.run.train_in_order()]
        return torch.cat([last_least(torch.stack([confidence(z) for z in logits], 1)) for logits in outputs])

    def step(self, batch: Batch) -> dict[str, Tensor]:
        if not self.remixing:
            return super().step(batch)
        for modality in self.gathered:
            self.gather(modality, batch)
        return {}

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        return multitask_loss(out.fused, out.unimodal, batch.labels, self.config.warmup_weight)

    def gather(self, modality: str, batch: Batch) -> None:
        """Put a batch's samples of a modality with those that wait, and train when they fill a batch."""
        self.full = max(self.full, len(batch.labels))
        position = list(self.task.modalities).index(modality)
        mine = (self.kept[batch.index] == position).nonzero()[:, 0]  # once, for the host waits to know how many
        waiting = join([*self.waiting[modality], take(batch, mine)])
        if len(waiting.labels) > self.full + 1:  # so that never one is left over
            self.train_on(modality, take(waiting, slice(self.full)))
            waiting = take(waiting, slice(self.full, None))
        self.waiting[modality] = [waiting]

    def flush(self, modality: str) -> None:
        """Train on what waits, if it is more than one sample."""
        waiting = join(self.waiting[modality])
        if len(waiting.labels) > 1:
            self.train_on(modality, waiting)
        self.waiting[modality] = []

    def train_on(self, modality: str, batch: Batch) -> None:
        """Take one optimizer step with the features of every other modality at zero."""
        out = self.net.head(self.features_of(modality, batch))
        own = F.cross_entropy(out.unimodal[modality], batch.labels)
        loss = F.cross_entropy(out.fused, batch.labels) + self.config.gamma * own
        self.optimizer.zero_grad()
        self.run.backward(loss)
        self.optimizer.step()
        self.run.log(**{"loss": loss, f"loss/{modality}": own})

    def features_of(self, modality: str, batch: Batch) -> dict[str, Tensor]:
        """Return the features of a batch with those of every other modality at zero, {modality: (B, D)}."""
        if self.config.variant == "released":
            return {m: u if m == modality else 0 * u for m, u in self.net.encode(batch.inputs).items()}
        part = MultimodalNet({modality: self.net.encoder(modality)}, lambda dims: Head())
        part.low_precision = self.net.low_precision
        u = part.encode(batch.inputs)[modality]
        widths = {m: self.net.encoder(m).dim for m in self.net.encoders}
        return {m: u if m == modality else u.new_zeros(len(u), width) for m, width in widths.items()}
