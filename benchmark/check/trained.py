"""A method under contract tests: trained once, watched on the way, so that all the tests look at the same run."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from benchmark.check.epoch_end import watched_end
from benchmark.data import Batch, Dataset
from benchmark.method import Method
from benchmark.protocol import Recipe, Sgd, Steps
from benchmark.settings import Settings
from benchmark.train.evaluation import Logits, predict
from benchmark.train.trainer import Trainer, build_method, load_feeds

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=4, batch_size=16, optimizer=Sgd(lr=0.05), schedule=Steps(every=2))


@dataclass
class Trained:
    """A trainer that has trained all its epochs, and what was seen of it on the way.

    Attributes:
        history: the line of each epoch, as JSON.
        states: the checkpoint after each epoch, as bytes.
        served: positions in train of each batch of the first epoch (B,).
        moved: encoders whose parameters the first epoch changed.
        predicted_twice: logits of the test split after the first epoch, and once more.
        evaluates_alike: whether one more evaluation, after the second epoch, changed nothing.
        rates: learning rate of each group of parameters in each epoch: by the schedule, and found.
        ends: epochs whose `end_epoch` changes predictions.
    """

    trainer: Trainer
    history: list[str] = field(default_factory=list)
    states: list[bytes] = field(default_factory=list)
    served: list[Tensor] = field(default_factory=list)
    moved: set[str] = field(default_factory=set)
    predicted_twice: tuple[Logits, Logits] = field(default_factory=lambda: ({}, {}))
    evaluates_alike: bool = False
    rates: list[tuple[float, float]] = field(default_factory=list)
    ends: set[int] = field(default_factory=set)

    def watch(self) -> None:
        """Train all epochs."""
        with watched_end(self.trainer, self.ends):
            self._watch_epochs()

    def _watch_epochs(self) -> None:
        self._first_epoch()
        self._note_epoch()
        self.predicted_twice = (self._predict(), self._predict())
        while self.trainer.epoch < RECIPE.epochs:
            self.history += train(self.trainer, self.trainer.epoch + 1)
            self._note_epoch()
            if self.trainer.epoch == 2:
                before = copy.deepcopy(self.trainer.state())
                self.trainer.evaluate()
                self.evaluates_alike = same_state(before, self.trainer.state())

    def _first_epoch(self) -> None:
        method = self.trainer.method
        before = {name: p.detach().clone() for name, p in method.net.encoders.named_parameters()}
        step = method.step

        def spy(batch: Batch) -> dict[str, Tensor]:
            self.served.append(batch.index)
            return step(batch)

        method.step = spy  # type: ignore[method-assign]
        self.history += train(self.trainer, 1)
        del method.step
        after = method.net.encoders.named_parameters()
        self.moved = {name.split(".")[0] for name, p in after if not torch.equal(p, before[name])}

    def _note_epoch(self) -> None:
        self.states.append(saved(self.trainer))
        factor = RECIPE.schedule.factor(self.trainer.epoch - 1, RECIPE.epochs)
        for optimizer in self.trainer.run.optimizers:
            self.rates += [(group["initial_lr"] * factor, group["lr"]) for group in optimizer.param_groups]

    def _predict(self) -> Logits:
        return predict(self.trainer.method, self.trainer.feeds.test)


@dataclass(frozen=True)
class Subject:
    """A method under test on a task."""

    kind: type[Method]
    config: Settings
    dataset: Dataset
    thorough: bool = True

    def trainer(self, recipe: Recipe = RECIPE, seed: int = 0) -> Trainer:
        return Trainer(self.build(recipe, seed), load_feeds(self.dataset, recipe, CPU), recipe, seed, CPU)

    def build(self, recipe: Recipe = RECIPE, seed: int = 0) -> Method:
        """Return the method as constructed, without a run."""
        return build_method(self.kind, self.config, self.dataset.task, recipe, seed, CPU)

    @cached_property
    def trained(self) -> Trained:
        """The subject trained without interruption."""
        trained = Trained(self.trainer())
        trained.watch()
        return trained

    def resumed(self, epoch: int) -> Trainer:
        """Return a new trainer that goes on from the checkpoint after so many epochs."""
        return self._load(self.trained.states[epoch - 1])

    def before(self, epoch: int) -> Trainer:
        """Return a new trainer that is about to train an epoch as the uninterrupted run did."""
        return self.resumed(epoch) if epoch else self.trainer()

    @cached_property
    def same_in_pieces(self) -> bool:
        """Whether training that stops and is resumed after each epoch ends with the same history and weights."""
        trainer = self.trainer()
        history = train(trainer, 1)
        for epoch in range(2, RECIPE.epochs + 1):
            trainer = self._load(saved(trainer))
            history += train(trainer, epoch)
        return history == self.trained.history and self.ends_like(trainer)

    def ends_like(self, trainer: Trainer) -> bool:
        """Compare a method's state at the end of its training with that of the uninterrupted run."""
        return same_state(trainer.method.state_dict(), self.trained.trainer.method.state_dict())

    def _load(self, state: bytes) -> Trainer:
        trainer = self.trainer()
        trainer.load_state(torch.load(io.BytesIO(state), weights_only=True))
        return trainer


@dataclass(frozen=True)
class Subjects:
    """The subjects of a series of contract tests, each trained once: a baseline serves many methods."""

    thorough: bool = True
    _known: dict[str, Subject] = field(default_factory=dict)

    def find(self, kind: type[Method], config: Settings, dataset: Dataset) -> Subject:
        key = f"{kind.__module__} {kind.__qualname__} {config!r} {dataset.config!r}"
        return self._known.setdefault(key, Subject(kind, config, dataset, self.thorough))


def train(trainer: Trainer, epochs: int | None = None) -> list[str]:
    """Train and return the history as JSON lines."""
    end = trainer.recipe.epochs if epochs is None else epochs
    lines = []
    while trainer.epoch < end:
        lines.append(json.dumps(trainer.run_epoch()[0], sort_keys=True))
    return lines


def saved(trainer: Trainer) -> bytes:
    """Return a trainer's checkpoint."""
    buffer = io.BytesIO()
    torch.save(trainer.state(), buffer)
    return buffer.getvalue()


def same_state(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Compare two trees of values and tensors bit for bit."""
    flat = [list(_leaves(tree)) for tree in (one, other)]
    return len(flat[0]) == len(flat[1]) and all(
        path == path2 and (torch.equal(x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else x == y)
        for (path, x), (path2, y) in zip(*flat, strict=True)
    )


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key in tree:
            yield from _leaves(tree[key], f"{path}/{key}")
    elif isinstance(tree, list | tuple):
        for position, item in enumerate(tree):
            yield from _leaves(item, f"{path}/{position}")
    else:
        yield path, tree
