"""Noisy inputs at test time: a trained model on noisy modalities, without retraining.

Noise is added where the encoder would read an input, after `Dataset.transform`; nothing is cut back to the range of
clean inputs. A strength s means, for

- numbers: Gaussian noise whose standard deviation is s times the spread of the modality's training inputs, one figure
  for the whole modality, so that signal and noise are equally strong at s = 1 (0 dB);
- whole numbers, such as tokens: each is replaced with probability s^2 / (1 + s^2), the share of noise in the variance
  of a number at the same strength, by what a training sample drawn at random has at the same place.

The literature: MultiBench (NeurIPS 2021) adds noise of standard deviation 0 to 0.9 in steps of 0.1, QMF (ICML 2023)
50 and 100 of 255 grey levels, about 0.9 and 1.7 of the spread of a photograph, and at these replaces words by a blank
with probability 0.5 and 1. The noise of a sample depends on the names of data set and modality and on the sample's
position alone: it is the same for every method and seed, and a higher strength scales the same noise.

Shapes: N samples, B batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.method import Method
from benchmark.records import ALL, NoiseScore, NoiseScores
from benchmark.robustness.missing_modalities import Moments, scored
from benchmark.seeds import generator
from benchmark.train.evaluation import predict
from benchmark.train.trainer import Feeds
from benchmark.training import Feed

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Noise:
    """The noise for the inputs of one data set."""

    dataset: str
    moments: Mapping[str, Moments]
    """Of the training inputs."""
    tokens: Mapping[str, Tensor]
    """Training inputs of the modalities that are whole numbers, {modality: (N, ...)}."""

    def on(self, modality: str, x: Tensor, rows: Tensor, strength: float) -> Tensor:
        """Return the inputs x (B, ...) of the test samples at `rows` (B,) with noise."""
        draws = [generator("noise", self.dataset, modality, int(row)) for row in rows]
        if modality in self.tokens:
            return _replaced(x, self.tokens[modality], strength, draws)
        drawn = torch.stack([torch.randn(x.shape[1:], generator=draw) for draw in draws])
        return x + (strength * spread(self.moments[modality]) * drawn).to(x)


def spread(moments: Moments) -> float:
    """Return how far a modality's training inputs are from their mean: the root of the mean variance of an element."""
    return float(moments.std.double().square().mean().sqrt())


def _replaced(x: Tensor, tokens: Tensor, strength: float, draws: list[torch.Generator]) -> Tensor:
    """Replace elements of x (B, ...) at random by those at the same places of training samples (N, ...)."""
    share = strength**2 / (1 + strength**2)
    hit = torch.stack([torch.rand(x.shape[1:], generator=draw) < share for draw in draws]).to(x.device)
    donors = torch.stack([torch.randint(len(tokens), x.shape[1:], generator=draw) for draw in draws])
    return torch.where(hit, tokens.gather(0, donors.to(tokens.device)).to(x), x)


class NoisyFeed(Feed):
    """A split in which some modalities are noisy."""

    def __init__(self, feed: Feed, noise: Noise, strengths: Mapping[str, float]) -> None:
        """Add noise to modalities of a split.

        Args:
            feed: the split as it is.
            noise: what is added.
            strengths: {modality: strength}; modalities that are not named stay as they are.
        """
        self.labels = feed.labels
        self.batch_size = feed.batch_size
        self._clean = feed
        self._noise = noise
        self._strengths = strengths

    def in_order(self) -> Iterator[dict[str, Tensor]]:
        rows = torch.arange(len(self)).split(self.batch_size)
        for row, inputs in zip(rows, self._clean.in_order(), strict=True):
            noisy = {m: self._noise.on(m, inputs[m], row, strength) for m, strength in self._strengths.items()}
            yield {**inputs, **noisy}


def tokens_of(train: Feed) -> dict[str, Tensor]:
    """Return the training inputs of the modalities that are whole numbers, {modality: (N, ...)}."""
    parts = [{m: x for m, x in inputs.items() if not x.is_floating_point()} for inputs in train.in_order()]
    return {modality: torch.cat([part[modality] for part in parts]) for modality in parts[0]}


def measure(method: Method, feeds: Feeds, noise: Noise) -> NoiseScores:
    """Score a method's fused test prediction with noise on each modality, and on all, at every strength.

    Args:
        method: with its trained weights.
        feeds: the splits; only test is read.
        noise: what is added.

    Raises:
        NonFiniteLogits: when the method predicts NaN or infinity.
    """
    modalities = list(method.task.modalities)
    clean = scored(predict(method, feeds.test)["fused"], feeds.test)
    rows = []
    for name, noisy in {**{modality: [modality] for modality in modalities}, ALL: modalities}.items():
        for strength in STRENGTHS:
            feed = NoisyFeed(feeds.test, noise, dict.fromkeys(noisy, strength))
            found = scored(predict(method, feed)["fused"], feeds.test) if strength else clean
            rows.append(NoiseScore(**found, modality=name, strength=strength))
    return NoiseScores(rows)
