"""MNL: who guides and what is taught, against hand-computed numbers, plain numpy and plain autograd."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from benchmark.methods.mnl import MNL, margins, negative_loss, released_loss, rivals, who_guides
from torch.nn import functional as F

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import same_state, train

LOSSES = {"negative": negative_loss, "released": released_loss}


def golden(name, weight):
    """Loss and gradient of a student (0, 1, 2) under a teacher of probabilities (.6, .3, .1), label 0."""
    student = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log().requires_grad_()
    loss = LOSSES[name](student, teacher, torch.tensor([0]), torch.tensor([True]), weight)
    loss.backward()
    assert teacher.grad is None
    return float(loss.detach()), student.grad[0].tolist()


def test_golden_numbers():
    loss, gradient = golden("released", 0.7)
    assert loss == pytest.approx(0.910579, abs=1e-6)
    assert gradient == pytest.approx([-0.294920, 0.034417, 0.260503], abs=1e-6)
    loss, gradient = golden("negative", 1.0)
    assert loss == pytest.approx(0.463042, abs=1e-6)
    assert gradient == pytest.approx([0.036012, -0.202109, 0.166096], abs=1e-6)


def test_a_teacher_without_doubt_has_nothing_negative_to_teach():
    student, sure = torch.randn(4, 3), 200 * F.one_hot(torch.tensor([0, 1, 2, 0]), 3).float()
    labels, every = torch.tensor([0, 1, 2, 0]), torch.ones(4, dtype=torch.bool)
    assert float(negative_loss(student, sure, labels, every, 1.0)) == 0
    assert float(released_loss(student, sure, labels, every, 1.0)) == pytest.approx(
        float(F.cross_entropy(student, labels)) / 3
    )


def softmax(logits):
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


def plain_who_guides(first, second, fused, labels):
    """Sample by sample: 1 where the first guides, -1 where the second does, 0 where they disagree."""
    said = []
    for z, v, o, y, p, q in zip(first, second, fused, labels, softmax(first), softmax(second), strict=True):
        j = max((c for c in range(len(o)) if c != y), key=lambda c: o[c])
        wider = z[y] - z[j] > v[y] - v[j]
        surer = p[y] > q[y]
        said.append(0 if wider != surer else 1 if wider else -1)
    return np.array(said)


def plain_loss(name, student, teacher, labels, guided, weight):
    """The formulas of notes and released code with explicit sums."""
    log_q, p = np.log(softmax(student)), softmax(teacher)
    size, classes = student.shape
    total = 0.0
    for i, y in enumerate(labels):
        if guided[i]:
            wrong = -weight * sum(p[i, c] * log_q[i, c] for c in range(classes) if c != y)
            total += wrong if name == "negative" else (wrong - log_q[i, y]) / classes
    return total / size


@pytest.mark.parametrize("seed", range(20))
def test_guidance_equals_an_independent_calculation(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, 40, 4)) * rng.uniform(0.5, 3)
    labels = rng.integers(0, 4, 40)
    z, v, y = (torch.from_numpy(x) for x in (first, second, labels))
    forth, back = who_guides(z, v, (z + v) / 2, y)
    said = plain_who_guides(first, second, (first + second) / 2, labels)
    assert forth.tolist() == (said == 1).tolist()
    assert back.tolist() == (said == -1).tolist()
    assert {0, 1, -1} <= set(said.tolist())
    for name, function in LOSSES.items():
        ours = function(v, z, y, forth, 0.7)
        assert float(ours) == pytest.approx(plain_loss(name, second, first, labels, said == 1, 0.7), abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_released_gradient_equals_its_closed_form(seed):
    rng = np.random.default_rng(seed)
    student, teacher = (torch.from_numpy(rng.normal(size=(6, 4)) * 2) for _ in range(2))
    labels, guided = torch.from_numpy(rng.integers(0, 4, 6)), torch.from_numpy(rng.random(6) < 0.6)
    student.requires_grad_()
    released_loss(student, teacher, labels, guided, 0.7).backward()
    target = 0.7 * teacher.softmax(1)
    target[torch.arange(6), labels] = 1.0
    expected = (target.sum(1, keepdim=True) * student.detach().softmax(1) - target) / (6 * 4)
    torch.testing.assert_close(student.grad, guided[:, None] * expected)


def test_rivals_and_margins():
    fused = torch.tensor([[9.0, 1.0, 2.0], [1.0, 3.0, 2.0]])
    labels = torch.tensor([0, 0])
    assert rivals(fused, labels).tolist() == [2, 1]
    assert margins(fused, labels, torch.tensor([2, 1])).tolist() == [7.0, -2.0]


def test_twins_are_guided_by_the_later_one():
    logits, labels = torch.randn(5, 3), torch.randint(3, (5,))
    forth, back = who_guides(logits, logits, logits, labels)
    assert not forth.any()
    assert back.all()


def begun(make_trainer, epoch, count=2, **settings):
    trainer = make_trainer(MNL, settings, dataset=Blobs(Blobs.Config(num_modalities=count)))
    trainer.run.begin_epoch(epoch)
    trainer.method.start_epoch(epoch)
    trainer.method.eval()
    return trainer.method, next(trainer.run.train_batches(epoch))


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("count", [2, 3])
def test_loss_is_the_sum_of_its_parts(make_trainer, count, variant):
    method, batch = begun(make_trainer, 3, count, variant=variant)
    out, labels = method.net(batch.inputs), batch.labels
    logits = {m: z.detach().double().numpy() for m, z in out.unimodal.items()}
    fused = sum(logits.values()) / count
    np.testing.assert_allclose(out.fused.detach(), fused, atol=1e-6)
    expected = sum(float(F.cross_entropy(torch.from_numpy(z), labels)) for z in (fused, *logits.values()))
    name = "negative" if variant == "paper" else "released"
    for guide, guided in permutations(logits, 2):
        said = plain_who_guides(logits[guide], logits[guided], fused, labels.numpy()) == 1
        expected += plain_loss(name, logits[guided], logits[guide], labels.numpy(), said, 0.7)
    assert float(method.loss(out, batch).detach()) == pytest.approx(expected, abs=1e-5)


def test_warm_up_is_cross_entropy_alone(make_trainer):
    for epoch, settings, guides in [(0, {}, False), (1, {}, True), (0, {"variant": "released"}, True)]:
        method, batch = begun(make_trainer, epoch, **settings)
        out = method.net(batch.inputs)
        plain = F.cross_entropy(out.fused, batch.labels)
        plain = plain + sum(F.cross_entropy(z, batch.labels) for z in out.unimodal.values())
        assert bool(method.loss(out, batch) > plain) is guides


def test_without_weight_it_is_the_warm_up_bit_for_bit(make_trainer):
    def trained(**settings):
        trainer = make_trainer(MNL, settings)
        train(trainer)
        return trainer.method.state_dict()

    plain = trained(weight=0.0)
    assert same_state(trained(warmup_epochs=1_000_000), plain)
    assert not same_state(trained(), plain)


def test_a_guide_learns_nothing_from_guiding(make_trainer):
    method, batch = begun(make_trainer, 3)
    out = method.net(batch.inputs)
    forth, back = who_guides(out.unimodal["audio"], out.unimodal["video"], out.fused, batch.labels)
    logits = [out.unimodal[m] for m in ("audio", "video")]
    by_audio, by_video = torch.autograd.grad(method.guidance(out, batch.labels), logits)
    assert forth.any()
    assert back.any()
    assert not by_audio[~back].any()
    assert not by_video[~forth].any()
    assert by_audio[back].any()
    assert by_video[forth].any()


def test_resuming_at_the_end_of_the_warm_up_is_exact(make_trainer):
    settings = {"warmup_epochs": 2}
    whole, first, second = (make_trainer(MNL, settings) for _ in range(3))
    history = train(whole)
    train(first, 2)
    second.load_state(first.state())
    assert train(second) == history[2:]
