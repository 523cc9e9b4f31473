"""The one training loop. It holds what all methods share, and nothing that only some need."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmark.data import Dataset, TaskSpec, hold_out
from benchmark.loading import listed, load_parts
from benchmark.method import Method
from benchmark.model import Encoder, draw_weights
from benchmark.protocol import Recipe
from benchmark.records import Epoch
from benchmark.rules import RULES, Rule, needs_validation
from benchmark.seeds import seed_everything
from benchmark.settings import Settings
from benchmark.train.evaluation import Logits, Scores, predict, score
from benchmark.train.gradients import GradientMeter
from benchmark.train.ownership import check_ownership, check_state, state_names
from benchmark.training import Feed, NonFiniteLoss, Run


@dataclass(frozen=True)
class Feeds:
    """The splits of a run, on its device."""

    train: Feed
    valid: Feed | None
    """None where all of train trains and no validation is published."""
    test: Feed
    test_ids: list[str]
    split: str
    """Digest of which sample is where."""


def load_feeds(dataset: Dataset, recipe: Recipe, device: torch.device) -> Feeds:
    """Load a data set and divide it into feeds, each holding its own samples only."""
    samples, split = load_parts(dataset, recipe.valid_share)
    parts = {name: samples.subset(getattr(split, name)) for name in ("train", "valid", "test")}
    sizes = {"train": recipe.batch_size, "valid": recipe.eval_batch_size, "test": recipe.eval_batch_size}
    feeds = {name: Feed(dataset, part, device, sizes[name]) for name, part in parts.items() if len(part)}
    valid = feeds.get("valid")
    return Feeds(feeds["train"], valid, feeds["test"], list(parts["test"].ids), split.digest(samples.ids))


def build_method(
    kind: type[Method], config: Settings, task: TaskSpec, recipe: Recipe, seed: int, device: torch.device
) -> Method:
    """Construct a method whose initial weights depend on the seed alone, on its device."""
    seed_everything(seed, "init")
    method = kind(config, replace(task, init=recipe.init))  # type: ignore[arg-type]
    if recipe.init == "released":
        draw_weights(method, but=Encoder)  # encoders drew themselves, each by its own seed
    if recipe.precision == "bf16":
        method.net.use_bfloat16()
    return method.to(device)


@dataclass
class Choice:
    """The best epoch so far by one rule."""

    epoch: int
    key: tuple[float, ...]


class Trainer:
    """Trains one method for one run, epoch by epoch.

    Attributes:
        epoch: the next epoch to train.
        rules: those that are defined on these feeds.
        choices: the best epoch so far by each of them.
        test_logits: the test logits of the last epoch evaluated.
        seconds: time spent in `train` and `evaluate`, over all attempts.
    """

    def __init__(self, method: Method, feeds: Feeds, recipe: Recipe, seed: int, device: torch.device) -> None:
        self.method = method
        self.feeds = feeds
        self.recipe = recipe
        self.seed = seed
        self.epoch = 0
        self.rules = [rule for rule in RULES.values() if feeds.valid or not needs_validation(rule.name)]
        self.choices: dict[str, Choice] = {}
        self.test_logits: Logits = {}
        self.seconds = {"train": 0.0, "evaluate": 0.0}
        train, held_out = _hold_out(feeds.train, method.held_out_share)
        self.run = Run(train, held_out, recipe, seed, device, method.task.num_classes)
        seed_everything(seed, "attach")
        before = state_names(method)
        method.attach(self.run)
        check_state(method, before)

    def state(self) -> dict[str, Any]:
        """Return what resuming needs, in types that load with `weights_only=True`."""
        return {
            "epoch": self.epoch,
            "method": self.method.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.run.optimizers],
            "choices": {name: [choice.epoch, list(choice.key)] for name, choice in self.choices.items()},
            "seconds": dict(self.seconds),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state` was taken."""
        seed_everything(self.seed, "load")
        self.method.load_state_dict(state["method"])
        for optimizer, saved in zip(self.run.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.epoch = state["epoch"]
        self.choices = {name: Choice(epoch, tuple(key)) for name, (epoch, key) in state["choices"].items()}
        self.seconds = dict(state["seconds"])

    def run_epoch(self) -> tuple[dict[str, Any], list[Rule]]:
        """Train and evaluate one epoch.

        Returns:
            Its line of the history, and the rules for which it is the best so far.

        Raises:
            NonFiniteLoss, NonFiniteGradient, NonFiniteLogits, UnownedParameters: when the run must not go on.
        """
        began = time.perf_counter()
        trained = self._train()
        evaluated = time.perf_counter()
        valid, test = self.evaluate()
        line = {"epoch": self.epoch, **trained, **({} if valid is None else {"valid": valid}), "test": test}
        improved = []
        for rule in self.rules:
            key = rule.key(Epoch(line))
            if rule.name not in self.choices or key > self.choices[rule.name].key:
                self.choices[rule.name] = Choice(self.epoch, key)
                improved.append(rule)
        self.epoch += 1
        self.seconds["train"] += evaluated - began
        self.seconds["evaluate"] += time.perf_counter() - evaluated
        return line, improved

    def evaluate(self) -> tuple[Scores | None, Scores]:
        """Score validation, where there is any, and test. Changes nothing that training sees."""
        seed_everything(self.seed, self.epoch, "evaluate")
        feed = self.feeds.valid
        valid = None if feed is None else score(predict(self.method, feed), feed.labels)
        self.test_logits = predict(self.method, self.feeds.test)
        return valid, score(self.test_logits, self.feeds.test.labels)

    def _train(self) -> dict[str, Any]:
        method, run = self.method, self.run
        seed_everything(self.seed, self.epoch, "train")
        method.train()
        run.begin_epoch(self.epoch)
        try:
            method.start_epoch(self.epoch)
            meter = GradientMeter(dict(method.net.encoders.items()), run.steps_per_epoch)
            for batch in method.batches(self.epoch):
                meter.before_step()
                scalars = method.step(batch)
                meter.after_step()
                run.end_step(scalars, len(batch.labels))
            self._check_finite()
            method.end_epoch(self.epoch)
        except Exception:
            self._check_finite()  # a NaN is the cause of whatever it led to
            raise
        check_ownership(method)
        rates = sorted({group["lr"] for optimizer in run.optimizers for group in optimizer.param_groups})
        return {"train": run.means(), "gradients": meter.means(), "lr": rates, "samples": run.samples_served}

    def _check_finite(self) -> None:
        """Raise `NonFiniteLoss` if a loss was not finite, with the samples to blame if there are any."""
        try:
            self.run.check_finite()
        except NonFiniteLoss as error:
            bad = self.feeds.train.not_finite()
            if not bad:
                raise
            said = "; ".join(f"{modality}: NaN or infinity in {listed(ids)}" for modality, ids in bad.items())
            raise NonFiniteLoss(f"{error}; as the encoders read them, {said}") from None


def _hold_out(train: Feed, share: float) -> tuple[Feed, Feed | None]:
    """Set a stratified share of train aside for methods that learn from unseen samples."""
    if not share:
        return train, None
    import numpy as np

    kept, held = hold_out(np.arange(len(train)), train.labels.cpu(), share)
    return train.subset(kept), train.subset(held)
