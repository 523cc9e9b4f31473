"""MLA: the projection against its closed form, steps against a plain loop, and who weighs a prediction."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from benchmark.methods.mla import MLA, batch_weights, fixed_weights, sample_weights, shrink
from torch.nn import functional as F

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import same_state, train
from benchmark.data import Batch
from benchmark.settings import parse_settings

ALPHA = 0.03


def shrunk(directions, alpha=ALPHA):
    projection = torch.eye(directions.shape[1], dtype=torch.float64)
    for h in directions:
        projection = shrink(projection, h, alpha)
    return projection


@pytest.mark.parametrize("seed", range(20))
def test_projection_equals_its_closed_form(seed):
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(rng.integers(1, 20), 7)) * rng.uniform(0.1, 3)
    ours = shrunk(torch.from_numpy(directions)).numpy()
    expected = np.linalg.inv(np.eye(7) + sum(np.outer(h, h) for h in directions) / ALPHA)
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert np.array_equal(ours, ours.T)
    eigenvalues = np.linalg.eigvalsh(ours)
    assert eigenvalues.min() > 0
    assert eigenvalues.max() <= 1 + 1e-9


def test_what_is_left_of_a_direction():
    directions = torch.randn(3, 7, dtype=torch.float64)
    before, h = shrunk(directions[:2]), directions[2]
    left = ALPHA / (ALPHA + h @ before @ h) * (before @ h)
    torch.testing.assert_close(shrunk(directions) @ h, left)
    first = shrunk(directions[:1]) @ directions[0]
    assert float(first.norm() / directions[0].norm()) == pytest.approx(
        ALPHA / (ALPHA + float(directions[0].norm()) ** 2)
    )


def test_projected_gradients_spare_every_direction_seen():
    directions = 5 * torch.rand(4, 16, dtype=torch.float64)  # as features after a ReLU
    gradient = torch.randn(3, 16, dtype=torch.float64)
    changed = gradient @ shrunk(directions) @ directions.T
    assert float(changed.abs().max()) < 0.02 * float((gradient @ directions.T).abs().max())
    ascent = (gradient * (gradient @ shrunk(directions))).sum()
    assert float(ascent) > 0, "a step along the projected gradient must still descend"


def entropies(logits):
    """Entropy of each sample in nats: (B, K) -> (B,), in plain numpy."""
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    p = exponents / exponents.sum(1, keepdims=True)
    return -(p * np.log(p)).sum(1)


@pytest.mark.parametrize("seed", range(20))
def test_weights_equal_the_papers_and_the_released_formula(seed):
    logits = np.random.default_rng(seed).normal(size=(3, 5, 4)) * 2
    per_sample = np.stack([entropies(z) for z in logits])
    gates = np.exp(per_sample.max(0) - per_sample)
    np.testing.assert_allclose(sample_weights(torch.from_numpy(logits))[..., 0], gates / gates.sum(0), atol=1e-6)
    of_batch = np.array([entropies(z.T).sum() for z in logits])
    gates = np.exp(of_batch.max() - of_batch)
    np.testing.assert_allclose(batch_weights(torch.from_numpy(logits)).flatten(), gates / gates.sum(), atol=1e-6)


def test_weights_of_a_batch_are_one_for_each_modality_and_fit_any_logits():
    logits = torch.randn(3, 4, 6)
    assert batch_weights(logits).shape == fixed_weights(logits).shape == (3, 1, 1)
    assert (batch_weights(logits) * logits).shape == (3, 4, 6)


def test_golden_weights():
    sure, unsure = torch.tensor([[50.0, 0, 0, 0, 0, 0]]), torch.zeros(1, 6)
    weights = sample_weights(torch.stack([sure, unsure]))
    torch.testing.assert_close(weights, torch.tensor([6 / 7, 1 / 7])[:, None, None])
    equal = torch.randn(1, 4, 6).expand(3, 4, 6)
    torch.testing.assert_close(sample_weights(equal), torch.full((3, 4, 1), 1 / 3))
    assert fixed_weights(torch.zeros(2, 4, 6)).flatten().tolist() == pytest.approx([0.55, 0.45])
    assert fixed_weights(torch.zeros(3, 4, 6)).flatten().tolist() == pytest.approx([0.35, 0.25, 0.4])


def test_only_released_weights_depend_on_the_rest_of_the_batch():
    logits = torch.randn(2, 8, 5, dtype=torch.float64)
    torch.testing.assert_close(sample_weights(logits)[:, :3], sample_weights(logits[:, :3]))
    torch.testing.assert_close(sample_weights(logits), sample_weights(logits + torch.randn(2, 8, 1)))
    assert not torch.allclose(batch_weights(logits), batch_weights(logits[:, :3]))


def begun(make_trainer, epoch=0, count=2, **settings):
    trainer = make_trainer(MLA, settings, dataset=Blobs(Blobs.Config(num_modalities=count)))
    trainer.run.begin_epoch(epoch)
    trainer.method.start_epoch(epoch)
    return trainer.method, list(trainer.run.train_batches(epoch))


def plain_step(net, optimizer, batch, projection, alpha):
    """Alternation in plain autograd: one gradient and update for each modality, the projection by its definition."""
    features = net.encode(batch.inputs)
    head = net.head.classifier
    for modality, u in features.items():
        loss = F.cross_entropy(F.linear(u, head.weight, head.bias), batch.labels)
        params = [*net.encoders[modality].parameters(), head.weight, head.bias]
        gradients = list(torch.autograd.grad(loss, params))
        if projection is not None:
            gradients[-2] = gradients[-2] @ projection
            h = u.detach().mean(0, keepdim=True)
            k = projection @ h.T
            projection = projection - k @ k.T / (alpha + h @ k)
        for p in net.parameters():
            p.grad = None
        for p, gradient in zip(params, gradients, strict=True):
            p.grad = gradient
        optimizer.step()
    return projection


@pytest.mark.parametrize("settings", [{}, {"alpha": 0.5}, {"variant": "released"}, {"count": 3}])
def test_steps_equal_a_plain_loop(make_trainer, settings):
    method, batches = begun(make_trainer, **settings)
    method.double().eval()  # no dropout: the same features in both
    net = copy.deepcopy(method.net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    projection = torch.eye(8, dtype=torch.float64) if method.config.projection else None
    start = settings.get("alpha", 0.1)
    doubled = [Batch({m: x.double() for m, x in b.inputs.items()}, b.labels, b.index) for b in batches]
    for number, batch in enumerate(doubled):
        method.step(batch)
        alpha = start ** (1 + number / len(batches))
        projection = plain_step(net, optimizer, batch, projection, alpha)
    for (name, ours), theirs in zip(method.net.named_parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0, msg=name)


def test_a_step_for_one_modality_leaves_every_other_encoder_bit_for_bit(make_trainer):
    method, batches = begun(make_trainer)
    method.step(batches[0])  # so that there is momentum
    seen, real = [], method.optimizer.step

    def spy():
        before = {m: copy.deepcopy(e.state_dict()) for m, e in method.net.encoders.items()}
        real()
        seen.append({m for m, e in method.net.encoders.items() if not same_state(e.state_dict(), before[m])})

    method.optimizer.step = spy
    method.step(batches[1])
    assert seen == [{"audio"}, {"video"}]


def test_without_any_resistance_it_is_alternation_bit_for_bit(make_trainer):
    def trained(**settings):
        trainer = make_trainer(MLA, settings)
        train(trainer)
        return trainer.method.net.state_dict()

    plain = trained(projection=False)
    assert same_state(trained(alpha=1e15), plain)
    assert not same_state(trained(), plain)


def test_the_projection_outlives_epochs_and_interruption(make_trainer):
    whole, first, second = (make_trainer(MLA, {}) for _ in range(3))
    history = train(whole)
    train(first, 2)
    second.load_state(first.state())
    assert not torch.equal(second.method.projection, torch.eye(8))
    assert train(second) == history[2:]
    assert torch.linalg.eigvalsh(whole.method.projection.double()).min() > -1e-6


def test_prediction_is_the_weighted_sum(make_trainer):
    method, batches = begun(make_trainer, fusion="fixed")
    method.eval()
    logits = method.predict(batches[0].inputs)
    torch.testing.assert_close(logits["fused"], 0.55 * logits["audio"] + 0.45 * logits["video"])


def test_what_it_is_not_defined_for():
    def reason(count, **settings):
        task = Blobs(Blobs.Config(num_modalities=count)).task
        return MLA.unsupported(parse_settings(MLA.Config, settings, "test"), task)

    assert "two or more" in reason(1)
    assert reason(2) is reason(3) is reason(3, fusion="fixed") is None


def test_alpha_falls_tenfold_over_an_epoch(make_trainer, monkeypatch):
    used = []
    monkeypatch.setattr("benchmark.methods.mla.shrink", lambda p, h, alpha: used.append(alpha) or p)
    method, batches = begun(make_trainer)
    for batch in batches:
        method.step(batch)
    assert used[::2] == used[1::2]
    assert used[0] == pytest.approx(0.1)
    assert used[-1] == pytest.approx(0.1 * 10 ** (-(len(batches) - 1) / len(batches)))
    assert math.isclose(used[2] / used[0], used[4] / used[2])
