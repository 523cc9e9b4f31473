"""AMSS: shares, drawing and factors against numbers computed by hand and an independent calculation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from benchmark.methods.amss import AMSS, draw_units, entropy, factors, feature_entropy, kept_shares, released_entropy
from torch.nn import functional as F

from benchmark.check.synthetic import Blobs


def frequencies(labels, num_classes=6):
    labels = torch.tensor(labels)
    return F.one_hot(labels, num_classes).double().mean(0), labels


def test_label_entropies_equal_published_figures():
    even = frequencies([0, 1, 2, 3, 4, 5])
    uneven = frequencies([0] * 4 + [1] * 2 + [2] * 6 + [3] * 2 + [4] * 3 + [5] * 3)
    single = frequencies([5, 5, 5])
    assert [float(entropy(*each)) for each in (even, uneven, single)] == pytest.approx([1.792, 1.713, 0], abs=5e-4)
    released = [float(released_entropy(*each)) for each in (even, uneven, single)]
    assert released == pytest.approx([1.792, 1.766, 1.044], abs=5e-4)


@pytest.mark.parametrize("seed", range(20))
def test_released_label_entropy_counts_classes_up_to_the_largest_label(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, 7)
    p = np.bincount(labels) / len(labels)  # as long as the largest label says
    expected = -(p * (p - np.log(np.exp(p).sum()))).sum()
    assert float(released_entropy(*frequencies(labels.tolist(), 8))) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("seed", range(20))
def test_shares_equal_an_independent_calculation(seed, count):
    rng = np.random.default_rng(seed)
    information, entropies = rng.uniform(-0.4, 1.5, count), rng.uniform(0.5, 6, count)
    rates = [(i + 0.5) / h for i, h in zip(information, entropies, strict=True)]
    total = sum(math.exp(r / 0.2) for r in rates)
    expected = [min(max(1 - math.exp(r / 0.2) / total, 0.1), 0.9) for r in rates]
    ours = kept_shares(torch.tensor(information), torch.tensor(entropies), 0.2)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-6)


def test_shares_of_two_sum_to_one_and_the_weaker_keeps_more():
    entropies = torch.tensor([6.0, 6.0])
    assert kept_shares(torch.tensor([0.3, 0.3]), entropies, 0.2).tolist() == [0.5, 0.5]
    shares = kept_shares(torch.tensor([0.4, 0.3]), entropies, 0.2)
    assert float(shares.sum()) == pytest.approx(1)
    assert shares[0] < shares[1]
    assert kept_shares(torch.tensor([0.5, 0.3]), entropies, 0.2)[0] < shares[0]


@pytest.mark.parametrize("hopeless", [-0.5, -3.0, math.nan])
def test_shares_are_halves_when_any_modality_knows_too_little(hopeless):
    assert kept_shares(torch.tensor([0.9, hopeless]), torch.ones(2), 0.2).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("seed", range(20))
def test_feature_entropy_equals_an_independent_calculation(seed):
    u = np.random.default_rng(seed).normal(size=(4, 9))
    p = np.exp(u) / np.exp(u).sum(1, keepdims=True)
    assert float(feature_entropy(torch.tensor(u))) == pytest.approx(-(p * np.log(p)).sum(1).mean(), abs=1e-9)


def exponential(seed, *shape):
    return torch.empty(*shape).exponential_(generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9, 1.0])
def test_number_of_drawn_units_is_the_share_rounded_up(share):
    for count in (1, 7, 64):
        drawn = draw_units(torch.rand(5, count), torch.tensor(share), exponential(count, 5, count))
        assert drawn.sum(1).tolist() == [math.ceil(share * count)] * 5


def test_units_are_drawn_one_after_the_other_in_proportion_to_their_importance():
    importance = torch.tensor([1.0, 2.0, 5.0]).expand(40_000, 3)
    drawn = draw_units(importance, torch.tensor(0.5), exponential(0, 40_000, 3)).float().mean(0)  # two of three
    q = importance[0] / 8
    second = [sum(float(q[j] * q[i] / (1 - q[j])) for j in range(3) if j != i) for i in range(3)]
    assert drawn.tolist() == pytest.approx([float(q[i]) + second[i] for i in range(3)], abs=0.01)


def test_units_without_gradient_are_drawn_last():
    importance = torch.tensor([0.0, 1.0, 0.0, 1e-30])
    for seed in range(20):
        assert draw_units(importance, torch.tensor(0.5), exponential(seed, 4)).tolist() == [False, True, False, True]


@pytest.mark.parametrize("seed", range(20))
def test_factors_equal_an_independent_calculation(seed):
    rng = np.random.default_rng(seed)
    importance, drawn = rng.uniform(0, 2, (3, 8)), rng.integers(0, 2, (3, 8))
    q = importance / importance.sum(1, keepdims=True)
    ours = [factors(torch.tensor(importance), torch.tensor(drawn).bool(), plus) for plus in (False, True)]
    np.testing.assert_allclose(ours[0].numpy(), drawn, atol=1e-6)
    np.testing.assert_allclose(ours[1].numpy(), drawn / (q + 1 / 8), atol=1e-6)


def test_plus_multiplies_by_half_the_number_of_units_where_all_are_equal():
    everyone = torch.ones(10, dtype=torch.bool)
    assert factors(torch.full((10,), 3.0), everyone, plus=True).tolist() == pytest.approx([5.0] * 10)
    assert factors(torch.zeros(10), everyone, plus=True).isfinite().all()


def gradients_before_and_after(trainer):
    """Every gradient of a step, {name: (before, after)}, with the logged shares."""
    method, run = trainer.method, trainer.run
    run.begin_epoch(0)
    method.start_epoch(0)
    batch = next(run.train_batches(0))
    out = method.net(batch.inputs)
    method.loss(out, batch).backward()
    before = {name: p.grad.clone() for name, p in method.net.named_parameters()}
    method.edit_gradients(out, batch)
    return {name: (before[name], p.grad) for name, p in method.net.named_parameters()}, run.means()


@pytest.mark.parametrize("count", [2, 3])
def test_surviving_gradients_are_untouched_and_the_rest_zero(make_trainer, count):
    trainer = make_trainer(AMSS, {}, dataset=Blobs(Blobs.Config(num_modalities=count)))
    gradients, logged = gradients_before_and_after(trainer)
    for name, (before, after) in gradients.items():
        share = next((logged[f"share/{m}"] for m in trainer.method.task.modalities if f".{m}" in name), 1.0)
        if before.dim() == 1:
            assert torch.equal(before, after), name
            continue
        rows = after if name.startswith("head") else after.flatten(1).any(1)[None]
        kept = (rows != 0).sum(1)
        number = math.ceil(round(share * rows.shape[1], 5))
        assert kept.max() == number or name.startswith("head"), name
        assert (kept <= number).all(), name
        assert torch.equal(after, torch.where(after != 0, before, 0.0)), name
    assert sum(logged[f"share/{m}"] for m in trainer.method.task.modalities) == pytest.approx(count - 1)


def test_released_leaves_the_head_alone(make_trainer):
    for name, (before, after) in gradients_before_and_after(make_trainer(AMSS, {"variant": "released"}))[0].items():
        assert torch.equal(before, after) is (name.startswith("head") or before.dim() == 1), name


def test_weights_in_another_memory_order_are_masked_too(make_trainer):
    method = make_trainer(AMSS, {"share": 0.5, "mask_head": False}).method
    method.start_epoch(0)
    conv = torch.nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    method.net.encoders["audio"] = conv
    conv.weight.grad = torch.randn_like(conv.weight)
    method.net.encoders["video"] = torch.nn.Identity()
    method.edit_gradients(
        method.net.head({m: torch.randn(4, 8) for m in ("audio", "video")}), next(iter_batches(method))
    )
    assert int((conv.weight.grad.flatten(1).abs().sum(1) > 0).sum()) == 4


def iter_batches(method):
    return method.run.train_batches(0)


def test_forward_pass_is_that_of_concat(make_trainer):
    ours, concat = (make_trainer(kind, {}).method for kind in (AMSS, "concat"))
    inputs = next(ours.run.train_batches(0)).inputs
    for method in (ours, concat):
        method.eval()
    assert all(torch.equal(ours.predict(inputs)[head], z) for head, z in concat.predict(inputs).items())


def test_masks_differ_between_epochs_and_not_between_runs(make_trainer):
    draws = []
    for epoch in (0, 1, 0):
        method = make_trainer(AMSS, {}).method
        method.start_epoch(epoch)
        draws.append(torch.empty(9).exponential_(generator=method.generator))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])
