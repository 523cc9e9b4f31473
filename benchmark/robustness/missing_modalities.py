"""Missing modalities at test time: a trained model on incomplete inputs, without retraining.

A missing input is filled where the encoder would read it, after `Dataset.transform`. Which samples have a hole, and
what noise fills it, depends on the data set's and the modality's name alone: it is the same for every method and seed.

Shapes: N samples, M modalities, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from benchmark.errors import Problem, UserError
from benchmark.method import Method
from benchmark.records import MIXED, MissingScores, RateScore, SubsetScore
from benchmark.seeds import generator
from benchmark.train.evaluation import predict, score
from benchmark.train.trainer import Feeds
from benchmark.training import Feed

RATES = tuple(tenth / 10 for tenth in range(11))
"""Shares of the test samples that are affected."""


# --- fills ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moments:
    """Elementwise mean and standard deviation (over N, not N - 1) of a modality over train, each shaped as a sample."""

    mean: Tensor
    std: Tensor


def moments_of(train: Feed) -> dict[str, Moments]:
    """Return the moments of each modality, in one pass over a split."""
    count = 0
    means: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    for inputs in train.in_order():
        for m, x in inputs.items():
            mean, size = x.double().mean(0), len(x)
            apart = mean - means.get(m, torch.zeros_like(mean))
            means[m] = mean - apart * count / (count + size)
            within = (x.double() - mean).square().sum(0) + apart.square() * count * size / (count + size)
            squares[m] = squares.get(m, torch.zeros_like(mean)) + within
        count += size
    return {m: Moments(mean.float(), (squares[m] / count).sqrt().float()) for m, mean in means.items()}


def zeros(of: Moments, draws: Sequence[torch.Generator]) -> Tensor:
    """Return zeros for as many samples as there are `draws`."""
    return torch.zeros_like(of.mean).expand(len(draws), *of.mean.shape)


def means(of: Moments, draws: Sequence[torch.Generator]) -> Tensor:
    """Return the mean of train for each sample."""
    return of.mean.expand(len(draws), *of.mean.shape)


def noise(of: Moments, draws: Sequence[torch.Generator]) -> Tensor:
    """Return Gaussian noise with the mean and standard deviation of train."""
    return of.mean + of.std * torch.stack([torch.randn(of.mean.shape, generator=draw) for draw in draws]).to(of.mean)


FILLS: Mapping[str, Callable[[Moments, Sequence[torch.Generator]], Tensor]] = {
    "zero": zeros, "mean": means, "noise": noise,
}  # fmt: skip
"""What replaces a missing input: (moments of train, a source of randomness for each of B samples) -> (B, ...)."""


def fills_of(inputs: Mapping[str, Tensor]) -> list[str]:
    """Return the fills that these inputs allow: whole numbers, such as tokens, have no mean."""
    return [fill for fill in FILLS if fill == "zero" or all(x.is_floating_point() for x in inputs.values())]


# --- holes ---------------------------------------------------------------------------------------------------------


def holes(count: int, rate: float, *name: str) -> Tensor:
    """Return which of `count` samples are affected, (N,) bool: exactly round(rate * count) of them.

    Nested: a sample affected at one rate is affected at every higher rate. Depends on the name alone.
    """
    order = torch.randperm(count, generator=generator("missing", *name))
    mask = torch.zeros(count, dtype=torch.bool)
    mask[order[: round(rate * count)]] = True
    return mask


def lost(count: int, rate: float, dataset: str, modality: str, modalities: list[str]) -> Tensor:
    """Return the position in `modalities` of each sample's missing one, (N,) int64; -1 where none is missing.

    Args:
        count: number of samples.
        rate: share of them that is affected, in [0, 1].
        dataset: name of the data set.
        modality: one of `modalities`, or `MIXED` for one of them drawn uniformly for each sample.
        modalities: names in the task's order.
    """
    if modality == MIXED:
        which = torch.randint(len(modalities), (count,), generator=generator("missing", dataset, MIXED, "which"))
    else:
        which = torch.full((count,), modalities.index(modality))
    return torch.where(holes(count, rate, dataset, modality), which, -1)


# --- measuring -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fill:
    """What replaces the missing inputs of one data set."""

    name: str
    """One of `FILLS`."""
    dataset: str
    moments: Mapping[str, Moments]

    def of(self, modality: str, rows: Tensor) -> Tensor:
        """Return what replaces a modality of the samples at `rows`, (B, ...)."""
        draws = [generator("missing", self.dataset, modality, self.name, int(row)) for row in rows]
        return FILLS[self.name](self.moments[modality], draws)


class FilledFeed(Feed):
    """A split in which modalities of some samples are missing."""

    def __init__(self, feed: Feed, fill: Fill, lost: Mapping[str, Tensor]) -> None:
        """Replace missing inputs of a split.

        Args:
            feed: the split as it is.
            fill: what replaces missing inputs.
            lost: which samples lack a modality, {modality: (N,) bool}; other modalities are complete.
        """
        self.labels = feed.labels
        self.batch_size = feed.batch_size
        self._whole = feed
        self._fill = fill
        self._lost = lost

    def in_order(self) -> Iterator[dict[str, Tensor]]:
        rows = torch.arange(len(self)).split(self.batch_size)
        for row, inputs in zip(rows, self._whole.in_order(), strict=True):
            yield {m: self._filled(m, x, row) for m, x in inputs.items()}

    def _filled(self, modality: str, x: Tensor, row: Tensor) -> Tensor:
        if modality not in self._lost:
            return x
        (holes,) = torch.nonzero(self._lost[modality][row], as_tuple=True)
        return x.index_copy(0, holes.to(x.device), self._fill.of(modality, row[holes]).to(x)) if len(holes) else x


def measure(method: Method, feeds: Feeds, moments: Mapping[str, Moments], dataset: str) -> MissingScores:
    """Score a method's fused test prediction for every modality and `MIXED`, fill and rate, and for every subset.

    A sample's logits depend on that sample alone, so each fill costs one pass over test for each subset of the
    modalities, and holes are cut out of their logits.

    Args:
        method: with its trained weights.
        feeds: the splits; only test is read.
        moments: mean and spread of the training inputs.
        dataset: name of the data set.

    Raises:
        UserError: when a sample's logits depend on what other samples lack.
        NonFiniteLogits: when the method predicts NaN or infinity.
    """
    modalities, count = list(method.task.modalities), len(feeds.test)
    whole, samples = predict(method, feeds.test)["fused"], torch.arange(count)
    rows, groups = list[RateScore](), list[SubsetScore]()
    for name in fills_of(next(feeds.test.in_order())):
        fill = Fill(name, dataset, moments)
        subsets = {tuple(modalities): whole}
        for present in subsets_of(modalities)[:-1]:
            lacking = {m: torch.ones(count, dtype=torch.bool) for m in modalities if m not in present}
            subsets[present] = predict(method, FilledFeed(feeds.test, fill, lacking))["fused"]
        without = [subsets[tuple(m for m in modalities if m != lacking)] for lacking in modalities]
        logits = torch.stack([*without, whole])  # (M + 1, N, K); at position -1 nothing is missing
        if name == "zero":
            _check_independent(method, feeds.test, fill, lost(count, 0.5, dataset, MIXED, modalities), logits)
        for modality in (*modalities, MIXED):
            for rate in RATES:
                chosen = logits[lost(count, rate, dataset, modality, modalities), samples]
                rows.append(RateScore(**scored(chosen, feeds.test), modality=modality, rate=rate, fill=name))
        for present in subsets_of(modalities):
            groups.append(SubsetScore(**scored(subsets[present], feeds.test), present=present, fill=name))
    return MissingScores(rows, groups)


def subsets_of(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Return every group of modalities, from none to all, in the task's order."""
    return [group for size in range(len(modalities) + 1) for group in combinations(modalities, size)]


def scored(logits: Tensor, test: Feed) -> dict[str, float]:
    """Return the accuracy and macro-F1 of fused test logits (N, K)."""
    scores = score({"fused": logits}, test.labels)["fused"]
    return {metric: scores[metric] for metric in ("accuracy", "macro_f1")}


def _check_independent(method: Method, test: Feed, fill: Fill, which: Tensor, logits: Tensor) -> None:
    """Compare logits put together from those of single modalities with a pass over inputs that have the holes."""
    modalities = list(method.task.modalities)
    holes = {modality: which == position for position, modality in enumerate(modalities)}
    direct = predict(method, FilledFeed(test, fill, holes))["fused"]
    if not torch.allclose(direct, logits[which, torch.arange(len(which))], rtol=1e-3, atol=1e-4):
        raise UserError(
            Problem(
                f"predict of {type(method).__name__}",
                "logits of a sample that depend on that sample alone",
                "other logits when other samples of the batch lack a modality",
            )
        )
