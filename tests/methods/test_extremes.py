"""Every method's losses and gradients where logits are a thousand times too large and more, in all directions."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch

from benchmark.check.synthetic import Blobs
from benchmark.data import Batch
from benchmark.registry import METHODS
from benchmark.seeds import generator
from benchmark.training import Run

LOWEST = -10.0
"""Below it a loss falls without bound: an entropy of the few classes here is at most 1.1, a weight at most 5."""
UNBOUNDED = "no lower bound"
"""What the docstring of a method's file, its part of the ledger, says where a loss is unbounded."""
LITERAL = {
    "aug": {"clamp": False, "classifiers": {"audio": 9, "video": 9}},
    "reconboost": {"regulariser": "kl", "start_epochs": 1},
}
"""Settings of a paper's text that have no bound: the search must find them."""


@pytest.fixture
def losses(make_trainer, monkeypatch):
    """Return the losses of four epochs with features that are scaled and random.

    In the first step of an epoch each sample has a direction of its own; in the others all samples of a batch have one
    class and one direction, so that a loss that falls in some direction is not outweighed by those that rise.
    """
    found: list[float] = []
    backward = Run.backward

    def watched(run, loss):
        found.append(float(loss.detach()))
        backward(run, loss)

    monkeypatch.setattr(Run, "backward", watched)

    def collect(name, settings, scale):
        found.clear()
        kind = METHODS.find(name).load()
        dataset = Blobs(Blobs.Config())
        settings = {**kind.expand(dataset.task)[0], **settings}
        trainer = make_trainer(name, settings, epochs=4, optimizer={"kind": "sgd", "lr": 1e-12}, dataset=dataset)
        method, run = trainer.method, trainer.run
        draw, alike = generator("extremes"), [False]

        def scaled(module, given, u):
            return 0 * u + scale * torch.randn((1 if alike[0] else len(u), *u.shape[1:]), generator=draw)

        for encoder in method.net.encoders.values():
            encoder.register_forward_hook(scaled)
        for epoch in range(4):
            run.begin_epoch(epoch)
            method.start_epoch(epoch)
            for batch, number in zip(method.batches(epoch), range(8), strict=False):
                alike[0] = number > 0
                labels = batch.labels * 0 + number % 3 if number else batch.labels
                run.end_step(method.step(dataclasses.replace(batch, labels=labels)), len(labels))
        run.check_finite()
        assert found, "no loss was seen"
        return list(found)

    return collect


def cases(full):
    for name in METHODS.known():
        kind = METHODS.find(name).load()
        several = [*kind.variants, *kind.ablations] if full else kind.variants[:1]
        yield from (pytest.param(name, settings, id=f"{name} {settings}") for settings in several)


def unbounded(name):
    """Return whether the ledger of a method says that a loss has no lower bound."""
    return UNBOUNDED in " ".join((sys.modules[METHODS.find(name).load().__module__].__doc__ or "").split())


@pytest.mark.parametrize(("name", "settings"), cases(full=False))
def test_losses_are_bounded_below_and_gradients_finite(losses, name, settings):
    assert min(losses(name, settings, 1e4)) > LOWEST or unbounded(name)


@pytest.mark.full
@pytest.mark.parametrize("scale", [1e3, 1e4])
@pytest.mark.parametrize(("name", "settings"), cases(full=True))
def test_losses_of_variants_and_ablations_are_bounded_below_and_gradients_finite(losses, name, settings, scale):
    assert min(losses(name, settings, scale)) > LOWEST or unbounded(name)


@pytest.mark.parametrize("name", LITERAL)
def test_the_search_finds_what_has_no_bound_and_the_ledger_and_a_warning_say_so(losses, caplog, name):
    assert min(losses(name, LITERAL[name], 1e3)) < LOWEST
    assert UNBOUNDED in caplog.text
    assert unbounded(name)
    caplog.clear()
    assert min(losses(name, {}, 1e3)) >= 0  # the default is bounded, so what the ledger says is of a setting
    assert not caplog.text


def test_confidences_that_underflow_leave_gradients_finite(make_trainer):
    for name, settings in (("ogm", {"alpha": 0.0, "noise": False}), ("ogm", {}), ("opm", {"warmup_epochs": 0})):
        trainer = make_trainer(name, settings)
        with torch.no_grad():
            trainer.method.net.head.bias.zero_()
            trainer.method.net.head.slices["audio"].zero_()
            trainer.method.net.head.slices["video"].zero_()
            trainer.method.net.head.slices["video"][1:].fill_(1e4)
        for encoder in trainer.method.net.encoders.values():
            encoder.register_forward_hook(lambda module, given, u: u.abs() + 1)
        batch = next(trainer.run.train_batches(0))
        batch = Batch(batch.inputs, torch.zeros_like(batch.labels), batch.index)  # of class 0, which video excludes
        trainer.run.begin_epoch(0)
        trainer.method.start_epoch(0)
        trainer.method.step(batch)
        trainer.run.check_finite()
