"""SMV: value each modality for each sample, and train once more on what is worth little, alone.

A coalition S of modalities is worth v(S) = |S| if the head predicts y with the features of the others at zero, else 0.
The Shapley value phi_m of a modality for a sample is 1 where all do their part; sum over m is M or 0. Before each epoch
after `warmup`, every training sample is valued in eval mode, and copies join the training samples of the epoch in which
the features of all modalities but m are zeroed:

    sample level     for each sample and m: 1 copy if phi_m is a little below 1, 2 if it is about 0, 3 if it is negative
    modality level   for the m with the lowest mean of phi over a part of train: of N * 2/3 * alpha * (highest mean -
                     lowest) samples drawn with replacement

The loss is the cross-entropy of the fused logits.

Copies come from a second shuffled pass and are mixed with the samples of the first into steps of about the batch size.
One forward and one backward pass a step, on up to 5 times as many samples for two modalities, which the epoch's samples
count, and a forward pass over train an epoch.

Paper: By Wei et al. The text was not available.

Released code: The scripts do not run: data sets are given an argument that they do not take. Two modalities; originals
and copies shuffle together.

Ours: Its rules; values and numbers of copies equal the released functions' in 20 of 20 draws. Values are of samples
without augmentation, copies come from a second pass and share its augmentation. Three modalities: thresholds restated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference, unimodal_losses
from benchmark.model import MultimodalNet, Outputs, concat_net
from benchmark.seeds import generator

from ._batches import join, take
from ._features import evaluating
from ._shapley import coalitions, shapley_values

THRESHOLDS = (1e-6, 0.6, 1.1)
"""Lacks of value, 1 - phi, beyond which a sample gets one copy more. Of two modalities 0.5, 1 and 1.5 are possible."""


def copies_by_sample(values: Tensor) -> Tensor:
    """Return how often each sample is copied for each modality, from values phi: (N, M) -> (N, M)."""
    return sum(((1 - values > threshold).long() for threshold in THRESHOLDS), torch.zeros_like(values).long())


def copies_by_modality(values: Tensor, part: float, alpha: float, draw: torch.Generator) -> Tensor:
    """Return copies (N, M) of random samples for the modality that is worth least on a random part of train.

    `part` is the size of the part that the means are over; both are drawn with replacement.
    """
    count, num_modalities = values.shape
    seen = torch.randint(count, (max(int(part * count), 1),), generator=draw).to(values.device)
    means = values[seen].mean(0)
    number = int(count * 2 / 3 * alpha * float(means.max() - means.min()))
    chosen = torch.randint(count, (number,), generator=draw).to(values.device)
    lowest = F.one_hot(means.argmin(), num_modalities)
    return chosen.bincount(minlength=count)[:, None] * lowest


class SMV(Method):
    reference = Reference(
        "Enhancing Multimodal Cooperation via Sample-level Modality Valuation",
        "CVPR",
        2024,
        "GeWu-Lab/Valuate-and-Enhance-Multimodal-Cooperation @ 7ed12b0 : code/sample_level.py, code/modality_level.py",
    )
    modalities = (2, None)
    off_switches = (OffSwitch({"warmup": 1_000_000}, "concat"),)
    variants = ({"warmup": 1}, {"warmup": 1, "level": "modality"})
    ablations = ({"level": "modality"}, {"warmup": 0})
    """Copies by modality, as in the paper; copies from the first epoch."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"ksounds": {"warmup": 5, "part": 0.2, "alpha": 1.0}}
    """The released scripts'."""
    ledger = Ledger(
        code="verified on the same tensors",
        paper="from abstract or memory",
        code_test="test_values_and_copies_equal_the_complete_table",
        paper_test="test_values_of_three_are_mean_gains_and_sum_to_the_worth_of_all",
    )

    class Config(Method.Config):
        level: Literal["sample", "modality"] = "sample"
        """Copy by each sample's values, or by their means (released code: both)."""
        warmup: int = Field(default=5, ge=0)
        """Epochs without copies at the start (released code)."""
        part: float = Field(default=0.2, gt=0, le=1)
        """Part of train that the means of the modality level are over (released code)."""
        alpha: float = Field(default=1.0, ge=0)
        """Factor on the number of copies at the modality level (released code)."""

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        return concat_net(task)

    def start_epoch(self, epoch: int) -> None:
        self.copying = epoch >= self.config.warmup
        if not self.copying:
            return
        values = self.value_samples()
        if self.config.level == "sample":
            self.copies = copies_by_sample(values)
        else:
            draw = generator(self.run.seed, epoch, "copies")
            self.copies = copies_by_modality(values, self.config.part, self.config.alpha, draw)
        self.second_pass = self.run.train_batches(epoch, salt=1, count=False)  # only the copies are trained on
        for modality, phi, number in zip(self.task.modalities, values.mean(0), self.copies.sum(0), strict=True):
            self.run.log(**{f"value/{modality}": phi, f"copies/{modality}": number})

    def value_samples(self) -> Tensor:
        """Return the Shapley value of each modality for each training sample, (N, M)."""
        with evaluating(self.net):
            return torch.cat([self.value_batch(batch) for batch in self.run.train_in_order()])

    def value_batch(self, batch: Batch) -> Tensor:
        """Return the Shapley value of each modality for each sample of a batch, (B, M)."""
        modalities = list(self.task.modalities)
        features = self.net.encode(batch.inputs)
        worth = {}
        for group in coalitions(modalities):
            present = {m: u if m in group else torch.zeros_like(u) for m, u in features.items()}
            right = self.net.head(present).fused.argmax(1) == batch.labels
            worth[group] = len(group) * right.float()
        return torch.stack(list(shapley_values(worth, modalities).values()), 1)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        if not self.copying:
            return super().step(batch)
        pool, kept = self.mix(batch, next(self.second_pass))
        num_steps = max(round(len(kept) / len(batch.labels)), 1)
        order = torch.randperm(len(kept), device=kept.device)
        scalars = [self.train_on(take(pool, rows), kept[rows]) for rows in order.tensor_split(num_steps)]
        return {name: torch.stack([one[name] for one in scalars]).mean() for name in scalars[0]}

    def mix(self, batch: Batch, other: Batch) -> tuple[Batch, Tensor]:
        """Return a batch and the copies of another together, with the modalities that each row keeps, (rows, M)."""
        copies = self.copies[other.index]  # (B, M)
        rows, columns = copies.nonzero(as_tuple=True)
        number = copies[rows, columns]
        rows, columns = (where.repeat_interleave(number) for where in (rows, columns))
        pool = join([batch, self.run.counted(take(other, rows))])
        everything = torch.ones_like(copies[:1]).expand(len(batch.labels), -1)
        return pool, torch.cat([everything, F.one_hot(columns, copies.shape[1])])

    def train_on(self, batch: Batch, kept: Tensor) -> dict[str, Tensor]:
        """Take one optimizer step with the features of modalities at zero where `kept` (B, M) is."""
        features = self.net.encode(batch.inputs)
        masked = {m: u * keep[:, None] for (m, u), keep in zip(features.items(), kept.unbind(1), strict=True)}
        out: Outputs = self.net.head(masked)
        loss = self.loss(out, batch)
        self.optimizer.zero_grad()
        self.run.backward(loss)
        self.optimizer.step()
        with torch.no_grad():
            return {"loss": loss.detach(), **unimodal_losses(self.net.head(features), batch)}
