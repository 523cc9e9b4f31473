"""Gradient norms: those of each encoder, only where a step wrote them, and training ends in the same bits."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import benchmark.train.trainer
from benchmark.check.trained import same_state
from benchmark.method import Method, Reference
from benchmark.model import concat_net
from benchmark.train.gradients import STEPS, GradientMeter, norm


@pytest.fixture
def layers():
    return {"audio": nn.Linear(3, 2), "video": nn.Linear(4, 2)}


def backward(layer, scale=1.0):
    """Write gradients and return their norm, added up by hand."""
    (scale * layer(torch.ones(5, layer.in_features)).square().sum()).backward()
    return math.sqrt(sum(float(value) ** 2 for p in layer.parameters() for value in p.grad.flatten()))


def test_the_norm_is_that_of_all_gradients_in_one_vector():
    parts = [torch.arange(6.0).view(2, 3), torch.tensor([7.0])]
    assert float(norm(parts)) == pytest.approx(math.sqrt(sum(k * k for k in range(6)) + 49))


def test_it_is_the_mean_over_the_steps_that_were_watched(layers):
    meter, expected = GradientMeter(layers, 4 * STEPS), {"audio": [], "video": []}
    for step in range(4 * STEPS):
        for layer in layers.values():
            layer.zero_grad()
        meter.before_step()
        for modality, layer in layers.items():
            found = backward(layer, 1 + step)
            if step % 4 == 0:
                expected[modality].append(found)
        meter.after_step()
    assert len(expected["audio"]) == STEPS
    assert meter.means() == pytest.approx({m: sum(found) / STEPS for m, found in expected.items()}, rel=1e-5)


@pytest.mark.parametrize("clear", ["never", "to none", "to zero"])
def test_what_an_earlier_step_left_is_not_counted(layers, clear):
    meter = GradientMeter(layers, 1)
    expected = []
    for step in range(4):  # audio in even steps, video never after the first
        if clear != "never" or step == 0:
            layers["audio"].zero_grad(set_to_none=clear == "to none")
        meter.before_step()
        if clear == "to zero" and step:
            layers["video"].zero_grad(set_to_none=False)
        if step % 2 == 0:
            layers["audio"].zero_grad()
            expected.append(backward(layers["audio"], 1 + step))
        meter.after_step()
        if step == 0:
            backward(layers["video"])  # between steps, as a probe may
    assert meter.means() == pytest.approx({"audio": sum(expected) / 2}, rel=1e-5)


def test_gradients_set_by_hand_are_counted(layers):
    meter = GradientMeter(layers, 1)
    meter.before_step()
    for p in layers["video"].parameters():
        p.grad = torch.full_like(p, 2.0)
    meter.after_step()
    assert meter.means() == pytest.approx({"video": 2 * math.sqrt(10)})


def test_norms_that_are_not_finite_or_zero_are_none(layers):
    meter = GradientMeter(layers, 1)
    meter.before_step()
    for modality, value in (("audio", float("inf")), ("video", 0.0)):
        for p in layers[modality].parameters():
            p.grad = torch.full_like(p, value)
    meter.after_step()
    assert meter.means() == {}


def test_it_keeps_no_gradient_in_memory(layers):
    backward(layers["audio"])
    meter = GradientMeter(layers, 1)
    meter.before_step()
    layers["audio"].zero_grad(set_to_none=True)
    meter.after_step()
    assert meter.means() == {}


class Blind(GradientMeter):
    def before_step(self) -> None: ...

    def after_step(self) -> None: ...


@pytest.mark.parametrize("method", ["ogm", "aug", "mmpareto", "gblend"])
def test_watching_changes_neither_history_nor_weights(trainer, monkeypatch, method):
    def trained():
        subject = trainer(method, optimizer={"kind": "sgd", "lr": 0.05, "momentum": 0.9})
        return [subject.run_epoch()[0] for _ in range(3)], subject.state()

    watched, state = trained()
    monkeypatch.setattr(benchmark.train.trainer, "GradientMeter", Blind)
    blind, other = trained()
    assert [line.pop("gradients") for line in blind] == [{}] * 3
    assert all(line.pop("gradients") for line in watched)
    assert json.dumps(watched) == json.dumps(blind)
    assert same_state(state["method"], other["method"])
    assert same_state(state["optimizers"][0], other["optimizers"][0])


class Alternating(Method):
    """Trains audio in even epochs and video in odd ones, each alone."""

    reference = Reference("test")

    def build_net(self, task):
        return concat_net(task)

    def start_epoch(self, epoch):
        self.turn = ("audio", "video")[epoch % 2]

    def loss(self, out, batch):
        return nn.functional.cross_entropy(out.unimodal[self.turn], batch.labels)


def test_a_method_that_alternates_has_the_norm_of_what_it_trained(trainer):
    subject = trainer(Alternating)
    assert [list(subject.run_epoch()[0]["gradients"]) for _ in range(3)] == [["audio"], ["video"], ["audio"]]


def test_the_norm_in_the_history_is_that_of_the_gradients_the_optimizer_used(trainer):
    subject = trainer("ogm", {"alpha": 0.8}, batch_size=200)  # one step an epoch
    line, _ = subject.run_epoch()
    for modality, encoder in subject.method.net.encoders.items():
        squares = sum(float(p.grad.double().square().sum()) for p in encoder.parameters())
        assert line["gradients"][modality] == pytest.approx(math.sqrt(squares), rel=1e-5)
