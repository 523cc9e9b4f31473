"""DI-MML: dimensions, lessons and certainty against plain numpy, what flows where, and what stage two leaves alone."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from benchmark.methods._prototypes import class_means
from benchmark.methods.di_mml import DIMML, effective_dimensions, lesson, stages, weigh_by_certainty
from torch.nn import functional as F

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import same_state, train


@pytest.mark.parametrize("seed", range(20))
def test_effective_dimensions_equal_an_independent_calculation(seed):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(4), rng.integers(0, 4, 146)])
    features = rng.normal(size=(150, 9)) + np.outer(labels, rng.uniform(0, 1.5, 9))
    accuracy = []
    for column in features.T:
        means = [column[labels == k].mean() for k in range(4)]
        nearest = [int(np.argmin([abs(x - mean) for mean in means])) for x in column]
        accuracy.append(np.mean(nearest == labels))
    expected = np.array(accuracy) > np.mean(accuracy)
    ours = effective_dimensions(torch.from_numpy(features), torch.from_numpy(labels), 4)
    assert ours.tolist() == expected.tolist()
    assert 0 < ours.sum() < 9


def test_a_class_without_samples_is_nobodys_nearest():
    features, labels = torch.tensor([[0.1], [-0.1], [5.0]]), torch.tensor([0, 0, 2])
    assert class_means(features, labels, 4, absent=math.inf).flatten().tolist() == pytest.approx(
        [0, math.inf, 5, math.inf]
    )
    assert not effective_dimensions(features, labels, 4).any()  # one dimension is no better than the average


def numpy_lesson(student, teacher, chosen, temperature):
    """The released formula, sample by sample."""
    total = 0.0
    for i in range(len(student)):
        scores = [math.exp(student[i, chosen] @ teacher[k, chosen] / temperature) for k in range(len(teacher))]
        total -= math.log(scores[i] / sum(scores))
    return total / len(student)


@pytest.mark.parametrize("seed", range(20))
def test_lesson_equals_an_independent_calculation(seed):
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(2, 6, 8))
    mask = rng.random(8) < 0.5
    mask[0] = True
    given = torch.from_numpy(student).requires_grad_()
    taught_by = torch.from_numpy(teacher).requires_grad_()
    ours = lesson(given, taught_by, torch.from_numpy(mask), 1.7)
    assert float(ours.detach()) == pytest.approx(numpy_lesson(student, teacher, np.flatnonzero(mask), 1.7), abs=1e-6)
    ours.backward()
    assert taught_by.grad is None
    assert not given.grad[:, ~torch.from_numpy(mask)].any()
    assert given.grad[:, torch.from_numpy(mask)].any()


def test_lessons_at_their_ends():
    every, none = torch.ones(8, dtype=torch.bool), torch.zeros(8, dtype=torch.bool)
    constant = torch.ones(5, 8).requires_grad_()
    assert float(lesson(constant, constant, every, 50.0).detach()) == pytest.approx(math.log(5))
    nothing = lesson(constant, constant, none, 50.0)
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert not constant.grad.any()
    large = 1e4 * torch.eye(5, 8)
    assert float(lesson(large, large, every, 1.0)) == 0, "exponentials must not overflow"


@pytest.mark.parametrize("seed", range(20))
def test_certainty_weights_equal_an_independent_calculation(seed):
    logits = np.random.default_rng(seed).normal(size=(3, 5, 4)) * 3
    exponents = np.exp(logits)
    highest = (exponents / exponents.sum(2, keepdims=True)).max(2)
    weights = np.exp(highest / 0.7) / np.exp(highest / 0.7).sum(0)
    ours = weigh_by_certainty(torch.from_numpy(logits), 0.7)
    np.testing.assert_allclose(ours, (weights[..., None] * logits).sum(0), atol=1e-6)
    np.testing.assert_allclose(weigh_by_certainty(torch.from_numpy(logits), 1e9), logits.mean(0), atol=1e-6)


def test_stages_have_the_authors_proportions():
    assert stages(170, None, None) == (20, 150)
    assert stages(60, None, None) == (7, 53)
    assert stages(2, None, None) == (1, 1)
    assert stages(1, None, None) == (1, 1)
    assert stages(10, 3, 4) == (3, 6)


def test_what_does_not_fit_is_refused():
    refuse = DIMML.Config.refuse
    assert "no encoder" in refuse(DIMML.Config(fusion_epochs=5), 5)
    assert "stage two starts in epoch 3" in refuse(DIMML.Config(first_lesson=3, fusion_epochs=2), 5)
    assert refuse(DIMML.Config(first_lesson=2, fusion_epochs=2), 5) is None
    assert [refuse(DIMML.Config(), epochs) for epochs in (1, 2, 3, 60)] == [None] * 4


SETTINGS = {"first_lesson": 1, "fusion_epochs": 2}
"""Of 5 epochs: 0 without lessons, 1 and 2 with, 3 and 4 in stage two."""


def at_epoch(make_trainer, epoch, count=2, **settings):
    trainer = make_trainer(DIMML, {**SETTINGS, **settings}, epochs=5, dataset=Blobs(Blobs.Config(num_modalities=count)))
    train(trainer, epoch)
    trainer.method.train()
    trainer.run.begin_epoch(epoch)
    trainer.method.start_epoch(epoch)
    return trainer.method, list(trainer.run.train_batches(epoch))


@pytest.mark.parametrize("count", [2, 3])
def test_dimensions_are_found_once_on_train_in_eval_mode(make_trainer, count):
    method, _ = at_epoch(make_trainer, 1, count)
    assert method.training
    assert method.net.training
    method.net.eval()
    batches = list(method.run.train_in_order())
    labels = torch.cat([batch.labels for batch in batches])
    for modality, mask in zip(method.task.modalities, method.effective, strict=True):
        u = torch.cat([method.net.encode(batch.inputs)[modality] for batch in batches])
        assert torch.equal(mask, effective_dimensions(u.detach(), labels, 3))
    later, _ = at_epoch(make_trainer, 2, count)
    assert torch.equal(later.effective, method.effective)
    assert later.teaches


@pytest.mark.parametrize("count", [2, 3])
def test_loss_is_the_sum_of_its_parts(make_trainer, count):
    method, batches = at_epoch(make_trainer, 2, count, align=0.3, temperature=5.0)
    method.eval()
    method.effective.copy_(torch.rand(method.effective.shape) < 0.5)
    batch = batches[0]
    u, y = method.net.encode(batch.inputs), batch.labels
    names, head = list(u), method.net.head
    expected = sum(F.cross_entropy(head.own.layers[m](u[m]), y) for m in names)
    expected = expected + 0.3 * sum(F.cross_entropy(head.shared.classifier(u[m]), y) for m in names)
    lessons = 0.0
    for i, teacher in enumerate(names):
        for j, student in enumerate(names):
            chosen = np.flatnonzero(method.effective[i] & ~method.effective[j])
            if i != j and len(chosen):
                lessons += numpy_lesson(u[student].detach().numpy(), u[teacher].detach().numpy(), chosen, 5.0)
    expected = expected + lessons / (count * (count - 1) / 2)
    torch.testing.assert_close(method.loss(method.net(batch.inputs), batch), expected)


def test_no_modality_changes_anothers_encoder_but_through_lessons(make_trainer):
    method, batches = at_epoch(make_trainer, 1)
    method.eval()
    method.effective.copy_(torch.stack([torch.arange(8) < 4, torch.arange(8) < 0]))  # audio teaches, video learns
    batch = batches[0]
    encoders = {m: list(e.parameters()) for m, e in method.net.encoders.items()}

    def gradient(loss, modality):
        return torch.autograd.grad(loss, encoders[modality], allow_unused=True, retain_graph=True)

    out = method.net(batch.inputs)
    lessons = method.lessons(list(out.features.values()))
    assert all(g is None or not g.any() for g in gradient(lessons, "audio"))
    assert any(g.any() for g in gradient(lessons, "video"))
    own = F.cross_entropy(out.unimodal["audio"], batch.labels)
    assert all(g is None for g in gradient(own, "video"))


def test_stage_two_trains_the_joint_classifier_alone_bit_for_bit(make_trainer):
    trainer = make_trainer(DIMML, SETTINGS, epochs=5)
    train(trainer, 3)
    head, encoders = trainer.method.net.head, trainer.method.net.encoders

    def states():
        modules = (encoders, head.own, head.shared, head.joint)
        return [{k: v.clone() for k, v in module.state_dict().items()} for module in modules]

    before = states()
    assert not head.fuses
    train(trainer)
    assert head.fuses
    assert [same_state(*pair) for pair in zip(states(), before, strict=True)] == [True, True, True, False]


def test_stage_one_leaves_the_joint_classifier_as_drawn_and_out_of_predictions(make_trainer):
    trainer = make_trainer(DIMML, SETTINGS, epochs=5)
    drawn = {k: v.clone() for k, v in trainer.method.net.head.joint.state_dict().items()}
    train(trainer, 3)
    assert same_state(trainer.method.net.head.joint.state_dict(), drawn)
    method = trainer.method.eval()
    inputs = next(method.run.train_in_order()).inputs
    logits = method.predict(inputs)
    voices = [logits["audio"], logits["video"]]
    torch.testing.assert_close(logits["fused"], weigh_by_certainty(torch.stack(voices), 1.0))
    train(trainer)
    logits = method.eval().predict(inputs)
    joint = method.net.head.joint(method.net.encode(inputs)).fused
    voices = [logits["audio"], logits["video"], joint]
    torch.testing.assert_close(logits["fused"], weigh_by_certainty(torch.stack(voices), 1.0))


def test_stage_two_learns_at_the_recipes_first_rate_with_fresh_momentum(make_trainer):
    method, _ = at_epoch(make_trainer, 3)
    assert method.optimizer.param_groups[0]["lr"] == 0.05
    assert method.detached_optimizer.param_groups[0]["lr"] < 0.05
    assert not method.optimizer.state


def test_without_lessons_and_alignment_modalities_train_as_in_late_sum(make_trainer):
    off = {"lessons": False, "align": 0.0, "fusion_epochs": 0}
    histories = [map(json.loads, train(make_trainer(*which))) for which in ((DIMML, off), ("late_sum", {}))]
    for ours, theirs in zip(*histories, strict=True):
        for part in ("valid", "test"):
            assert {m: ours[part][m] for m in ("audio", "video")} == {m: theirs[part][m] for m in ("audio", "video")}


def test_resuming_anywhere_is_exact(make_trainer):
    whole = make_trainer(DIMML, SETTINGS, epochs=5)
    history = train(whole)
    for cut in range(1, 5):
        first, second = (make_trainer(DIMML, SETTINGS, epochs=5) for _ in range(2))
        train(first, cut)
        second.load_state(first.state())
        assert train(second) == history[cut:]
        assert same_state(second.state(), {**whole.state(), "seconds": second.state()["seconds"]})
