"""What a method's `end_epoch` does to its predictions: nothing may reach the logits that had no training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from benchmark.train.evaluation import Logits, predict
from benchmark.train.trainer import Trainer


@contextmanager
def watched_end(trainer: Trainer, changed: set[int]) -> Iterator[None]:
    """Note in `changed` the epochs whose `end_epoch` changes what the method predicts on the test split."""
    with _replaced_end(trainer, lambda end, epoch: _compare(trainer, end, epoch, changed)):
        yield


def untrained(trainers: tuple[Trainer, Trainer]) -> list[str]:
    """Train two trainers in the same state for an epoch; return what `end_epoch` leaves in the network untrained.

    The two differ only in the random numbers that `end_epoch` draws. Going back to earlier weights, averaging and
    fitting give the same numbers in both or go through an optimizer; what is drawn, or has grown, does neither.

    Returns:
        Names of parameters that are new, longer, or different in the two, and that no optimizer stepped in
        `end_epoch`; of buffers that are new or longer, and different.
    """
    one, other = (_end(trainer, seed) for seed, trainer in enumerate(trainers))
    found = []
    for name, value in one.after.items():
        grown = one.before.get(name) != value.shape
        random = name not in other.after or not torch.equal(value, other.after[name])
        if (grown and random) if name in one.buffers else (grown or random) and name not in one.stepped:
            found.append(name)
    return found


@dataclass
class _End:
    """The tensors of a method around its `end_epoch`."""

    before: dict[str, torch.Size] = field(default_factory=dict)
    after: dict[str, Tensor] = field(default_factory=dict)
    buffers: set[str] = field(default_factory=set)
    stepped: set[str] = field(default_factory=set)


def _end(trainer: Trainer, seed: int) -> _End:
    """Train an epoch whose `end_epoch` draws from a seed of its own."""
    method, seen, stepped = trainer.method, _End(), set[int]()

    def note(optimizer: Optimizer, *_: Any) -> None:
        stepped.update(id(p) for group in optimizer.param_groups for p in group["params"] if p.grad is not None)

    def watch(end: Callable[[int], None], epoch: int) -> None:
        seen.before = {
            name: x.shape for named in (method.named_parameters, method.named_buffers) for name, x in named()
        }
        torch.manual_seed(seed)
        hook = register_optimizer_step_post_hook(note)
        try:
            end(epoch)
        finally:
            hook.remove()
        parameters, buffers = dict(method.named_parameters()), dict(method.named_buffers())
        seen.after = {name: x.detach().clone() for name, x in {**parameters, **buffers}.items()}
        seen.buffers = set(buffers)
        seen.stepped = {name for name, p in parameters.items() if id(p) in stepped}

    with _replaced_end(trainer, watch):
        trainer.run_epoch()
    return seen


def _compare(trainer: Trainer, end: Callable[[int], None], epoch: int, changed: set[int]) -> None:
    before = _glance(trainer)
    end(epoch)
    after = _glance(trainer)
    if before.keys() != after.keys() or not all(torch.equal(x, after[head]) for head, x in before.items()):
        changed.add(epoch)


def _glance(trainer: Trainer) -> Logits:
    """Predict the test split and leave random numbers and modes as they were."""
    modes = {module: module.training for module in trainer.method.modules()}
    with torch.random.fork_rng(devices=[]):
        logits = predict(trainer.method, trainer.feeds.test)
    for module, training in modes.items():
        module.training = training
    return logits


@contextmanager
def _replaced_end(trainer: Trainer, watch: Callable[[Callable[[int], None], int], None]) -> Iterator[None]:
    """Call `watch(end_epoch, epoch)` wherever the trainer calls `end_epoch(epoch)`."""
    method = trainer.method
    end = method.end_epoch
    method.end_epoch = lambda epoch: watch(end, epoch)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del method.end_epoch
