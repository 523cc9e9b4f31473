"""AGM: coefficients, shares and gradients against numbers computed by hand and an independent calculation."""

from __future__ import annotations

import copy
import math
from itertools import permutations

import numpy as np
import pytest
import torch
from benchmark.methods._shapley import coalitions, shapley_values
from benchmark.methods.agm import AGM, coefficients, leads, scores
from torch import nn
from torch.nn import functional as F

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import train

NAMES = ("audio", "video", "text")


def test_coefficients_equal_published_figures():
    score, level = torch.tensor([0.5, 1.5], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    assert leads(score).tolist() == pytest.approx([2.71828, 0.36788], abs=1e-5)
    assert coefficients(score, level, 1.0, 10.0).tolist() == pytest.approx([0.179374, 1.881596], abs=1e-6)
    assert coefficients(score, level, 0.0, 10.0).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [2, 3])
def test_coefficients_equal_an_independent_calculation(seed, count):
    rng = np.random.default_rng(seed)
    score, history, alpha = rng.uniform(0, 3, count), rng.uniform(0, 3, count), rng.uniform(0, 2)
    expected = []
    for m in range(count):
        if count == 2:  # the released code's line for two modalities
            now, before = math.exp(score[1 - m] - score[m]), math.exp(history[1 - m] - history[m])
        else:
            now, before = (math.exp((s.mean() - s[m]) * 3 / 2) for s in (score, history))
        expected.append(math.exp(alpha * min(before - now, 7)))
    ours = coefficients(torch.from_numpy(score), torch.from_numpy(history), alpha, 7.0)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-6)
    assert float(leads(torch.from_numpy(score)).prod()) == pytest.approx(1.0)
    assert float(ours.max()) <= math.exp(7 * alpha)


@pytest.mark.parametrize("count", [2, 3])
def test_shapley_values_are_the_mean_gain_over_all_orders(count):
    draw = torch.Generator().manual_seed(count)
    names = NAMES[:count]
    worth = {group: torch.randn(4, 5, generator=draw, dtype=torch.float64) for group in coalitions(names)}
    ours = shapley_values(worth, names)
    orders = list(permutations(names))
    for m in names:
        gains = []
        for order in orders:
            before = frozenset(order[: order.index(m)])
            gains.append(worth[before | {m}] - worth.get(before, 0))
        torch.testing.assert_close(ours[m], torch.stack(gains).mean(0))
    torch.testing.assert_close(sum(ours.values()), worth[frozenset(names)])


def test_additive_worth_gives_each_its_own():
    own = {m: torch.randn(3) for m in NAMES}
    worth = {group: sum(own[m] for m in group) for group in coalitions(NAMES)}
    for m, value in shapley_values(worth, NAMES).items():
        torch.testing.assert_close(value, own[m])


def test_scores_are_cross_entropies_with_a_floor():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    sure = torch.tensor([[100.0, 0, 0, 0]] * 6)
    ours = scores({"audio": logits, "video": sure}, torch.where(labels == 0, 1, labels))
    assert float(ours[0]) == pytest.approx(
        float(F.cross_entropy(logits, torch.where(labels == 0, 1, labels))), rel=1e-5
    )
    assert float(ours[1]) == pytest.approx(-math.log(1e-8), rel=1e-5)


def logits_with(method, batch, zeroed, training):
    """The logits with the inputs of some modalities zeroed, as whole passes through the net."""
    method.net.train(training)
    out = method.net({m: torch.zeros_like(x) if m in zeroed else x for m, x in batch.inputs.items()})
    method.net.train()
    return out.fused


@pytest.fixture
def ready(make_trainer):
    """A method in mid-run without dropout, and a batch: `ready(count=3, alpha=2.0)`."""

    def make(count=2, **settings):
        trainer = make_trainer(AGM, {"clip": False, **settings}, dataset=Blobs(Blobs.Config(num_modalities=count)))
        for module in trainer.method.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        trainer.run_epoch()
        trainer.method.zero_grad()
        trainer.run.begin_epoch(1)
        trainer.method.start_epoch(1)
        return trainer.method, next(trainer.run.train_batches(1))

    return make


@pytest.mark.parametrize("count", [2, 3])
def test_gradient_is_that_of_each_share_times_its_coefficient(ready, count):
    method, batch = ready(count, alpha=2.0)
    names = NAMES[:count]
    before = copy.deepcopy(method.net.state_dict())
    method.loss(method.net(batch.inputs), batch).backward()
    ours = {name: p.grad.clone() for name, p in method.net.named_parameters()}
    logged = method.run.means()
    k = {m: logged[f"k/{m}"] for m in names}
    assert len(set(k.values())) == count

    method.net.load_state_dict(before)
    fused = logits_with(method, batch, (), training=True)
    worth = {group: logits_with(method, batch, set(names) - group, training=False) for group in coalitions(names)}
    worth[frozenset(names)] = fused
    upstream = (fused.softmax(1) - F.one_hot(batch.labels, 3)) / len(batch.labels)
    method.zero_grad()
    shares = shapley_values(worth, names)
    sum((upstream.detach() * k[m] * z).sum() for m, z in shares.items()).backward()
    for name, p in method.net.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, rtol=1e-4, atol=1e-6)


def test_equal_coefficients_are_plain_training_and_zero_ones_stop_it(ready):
    method, batch = ready()
    for value in (1.0, 0.0):
        method.modulate = lambda shares, labels, value=value: torch.full((2,), value)
        method.zero_grad()
        method.loss(method.net(batch.inputs), batch).backward()
        ours = [p.grad.clone() for p in method.net.parameters()]
        method.zero_grad()
        F.cross_entropy(method.net(batch.inputs).fused, batch.labels).backward()
        for gradient, p in zip(ours, method.net.parameters(), strict=True):
            torch.testing.assert_close(gradient, value * p.grad, rtol=1e-4, atol=1e-7)


def test_history_is_the_mean_of_all_scores_so_far(make_trainer):
    trainer = make_trainer(AGM, {})
    seen = []
    modulate = trainer.method.modulate

    def spy(shares, labels):
        seen.append((trainer.method.history.clone(), scores(shares, labels).detach()))
        return modulate(shares, labels)

    trainer.method.modulate = spy
    train(trainer, 2)
    assert not seen[0][0].any()
    all_scores = torch.stack([score for _, score in seen])
    torch.testing.assert_close(trainer.method.history, all_scores.mean(0))
    torch.testing.assert_close(seen[5][0], all_scores[:5].mean(0))


def test_shares_sum_to_the_fused_logits(ready):
    method, batch = ready(3)
    method.eval()
    logits = method.predict(batch.inputs)
    torch.testing.assert_close(sum(logits[m] for m in NAMES), logits["fused"])


def test_steep_gradients_are_clipped_and_others_are_not(ready):
    method, batch = ready(clip=True, alpha=0.0)
    for scale, clipped in ((1e-3, False), (1e3, True)):
        method.zero_grad()
        (scale * F.cross_entropy(method.net(batch.inputs).fused, batch.labels)).backward()
        before = [p.grad.clone() for p in method.net.parameters()]
        method.edit_gradients(None, batch)
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in method.net.parameters()))
        same = all(map(torch.equal, before, (p.grad for p in method.net.parameters())))
        assert same is not clipped
        assert not clipped or norm == pytest.approx(1.0, abs=1e-4)


def test_evaluation_passes_leave_normalisation_alone(ready):
    method, batch = ready()
    method.net(batch.inputs)
    tracked = {name: value.clone() for name, value in method.net.named_buffers()}
    method.eval()
    out = method.net(batch.inputs)
    method.train()
    method.loss(out, batch)
    for name, value in method.net.named_buffers():
        assert torch.equal(value, tracked[name]), name


def test_caps_are_those_of_the_released_code(make_trainer):
    three = Blobs(Blobs.Config(num_modalities=3))
    assert make_trainer(AGM, {}).method.cap == 10
    assert make_trainer(AGM, {}, dataset=three).method.cap == 7
    assert make_trainer(AGM, {"cap": 3.0}).method.cap == 3
