"""UMT: what the teachers are, that they stay so, and what they teach."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods.umt import UMT, distance
from torch import nn
from torch.nn import functional as F

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import train


@pytest.mark.parametrize("seed", range(20))
def test_distance_equals_an_independent_calculation(seed):
    rng = np.random.default_rng(seed)
    ours, theirs = ({m: rng.normal(size=(5, dim)) for m, dim in {"audio": 3, "video": 4}.items()} for _ in range(2))
    found = distance(*({m: torch.tensor(u) for m, u in each.items()} for each in (ours, theirs)))
    for m, d in found.items():
        assert float(d) == pytest.approx(((ours[m] - theirs[m]) ** 2).sum() / ours[m].size, abs=1e-6)


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("count", [2, 3])
def test_gradient_is_that_of_both_losses_and_none_reaches_the_teachers(make_trainer, count):
    trainer = make_trainer(UMT, {"weight": 3.0}, dataset=Blobs(Blobs.Config(num_modalities=count)))
    trainer.run_epoch()
    method = trainer.method
    trainer.run.begin_epoch(1)
    method.start_epoch(1)
    batch = next(trainer.run.train_batches(1))
    for module in method.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    method.zero_grad()
    method.loss(method.net(batch.inputs), batch).backward()
    ours = {name: p.grad.clone() for name, p in method.net.named_parameters()}
    method.zero_grad()
    out = method.net(batch.inputs)
    loss = F.cross_entropy(out.fused, batch.labels)
    for m, u in out.features.items():
        teacher = method.teachers.encoders[m]
        assert not teacher.training
        loss = loss + 3 * ((u - teacher(batch.inputs[m]).detach()) ** 2).mean()
    loss.backward()
    for name, p in method.net.named_parameters():
        torch.testing.assert_close(ours[name], p.grad)
    assert all(p.grad is None for p in method.teachers.parameters())


def test_teachers_train_before_the_first_epoch_from_the_students_first_weights_and_never_after(make_trainer):
    trainer = make_trainer(UMT, {"teacher_epochs": 2})
    method = trainer.method
    first = state_of(method.teachers.encoders)
    assert same(first, state_of(method.net.encoders))
    trainer.run_epoch()
    trained = state_of(method.teachers)
    assert not same(first, state_of(method.teachers.encoders))
    train(trainer)
    assert same(trained, state_of(method.teachers))


def test_teachers_know_the_task_by_themselves(make_trainer):
    trainer = make_trainer(UMT, {"teacher_epochs": 6})
    trainer.run_epoch()
    teachers = trainer.method.teachers.eval()
    right = {"audio": 0, "video": 0}
    for batch in trainer.run.train_in_order():
        for m, z in teachers(batch.inputs).unimodal.items():
            right[m] += int((z.argmax(1) == batch.labels).sum())
    assert all(hits > 0.8 * trainer.run.num_train for hits in right.values())


def test_students_come_closer_to_their_teachers_than_without_them(make_trainer):
    @torch.no_grad()
    def distance_after_training(weight):
        method = (trainer := make_trainer(UMT, {"weight": weight}, epochs=8)).method
        with torch.enable_grad():
            train(trainer)
        batch = next(trainer.run.train_batches(0))
        method.eval()
        found = distance(method.net.encode(batch.inputs), method.teachers.encode(batch.inputs))
        return sum(float(d) for d in found.values())

    assert distance_after_training(10.0) < 0.5 * distance_after_training(1e-6)


def test_epochs_of_the_teachers_are_counted(make_trainer):
    for settings, extra in (({}, 4), ({"teacher_epochs": 2}, 2), ({"weight": 0.0}, 0)):
        trainer = make_trainer(UMT, settings)
        samples = [trainer.run_epoch()[0]["samples"] for _ in range(2)]
        assert samples == [(1 + extra) * trainer.run.num_train, trainer.run.num_train]


def test_resumed_in_mid_run_it_keeps_its_teachers(make_trainer):
    whole, first, second = (make_trainer(UMT, {"teacher_epochs": 1}) for _ in range(3))
    history = train(whole)
    train(first, 2)
    second.load_state(first.state())
    assert same(state_of(first.method.teachers), state_of(second.method.teachers))
    assert train(second) == history[2:]
