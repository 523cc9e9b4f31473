"""G-Blend: golden weights, and estimations that leave no trace and see what they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods.gblend import GBlend, blend_weights, progress
from torch.nn import functional as F

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import same_state, train


def test_weights_equal_published_figures():
    gained, overfitted = torch.tensor([0.5, 0.2, 0.4]), torch.tensor([0.5, 0.1, 0.4])
    assert blend_weights(gained, overfitted, 1e-4).tolist() == pytest.approx([0.081633, 0.816327, 0.102041], abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_weights_equal_an_independent_calculation(seed):
    rng = np.random.default_rng(seed)
    before, after = rng.uniform(0, 3, (4, 2)), rng.uniform(0, 3, (4, 2))
    raw = []
    for (train_0, held_0), (train_n, held_n) in zip(before, after, strict=True):
        gained, overfitted = held_0 - held_n, (held_n - train_n) - (held_0 - train_0)
        raw.append(max(gained, 0) / max(overfitted**2, 0.01))
    expected = np.array(raw) / sum(raw) if sum(raw) else np.full(4, 0.25)
    ours = blend_weights(*progress(torch.from_numpy(before), torch.from_numpy(after)), 0.1)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-6)
    scaled = blend_weights(*progress(torch.from_numpy(3 * before), torch.from_numpy(3 * after)), 0.3)
    torch.testing.assert_close(scaled, ours)


def test_scaling_one_loss_divides_its_weight():
    gained, overfitted, c = torch.tensor([0.5, 0.2, 0.4]), torch.tensor([0.5, 0.1, 0.4]), torch.tensor([1.0, 3.0, 1.0])
    plain, scaled = blend_weights(gained, overfitted, 1e-4), blend_weights(c * gained, c * overfitted, 1e-4)
    assert float(scaled[1] / scaled[0]) == pytest.approx(float(plain[1] / plain[0]) / 3)


def test_what_does_not_generalize_gets_nothing_and_equal_curves_get_equal_weights():
    assert blend_weights(torch.tensor([0.3, -0.1]), torch.tensor([0.2, 0.0]), 0.05).tolist() == [1, 0]
    assert blend_weights(torch.full((3,), -0.1), torch.ones(3), 0.05).tolist() == pytest.approx([1 / 3] * 3)
    assert blend_weights(torch.full((4,), 0.2), torch.zeros(4), 0.05).tolist() == [0.25] * 4


def test_estimation_leaves_network_optimizer_and_random_numbers_as_they_were(make_trainer):
    trainer = make_trainer(GBlend, {"super_epoch": 2})
    trainer.run_epoch()
    method = trainer.method
    state, optimizer = [
        {name: x.clone() if isinstance(x, torch.Tensor) else x for name, x in tree.items()}
        for tree in (method.state_dict(), dict(enumerate(trainer.run.optimizers[0].state.values())))
    ]
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    weights = method.estimate(1, 2)
    assert torch.equal(torch.rand(3), expected)
    assert same_state(state, method.state_dict())
    assert same_state(optimizer, dict(enumerate(trainer.run.optimizers[0].state.values())))
    assert method.net.training
    assert float(weights.sum()) == pytest.approx(1)
    assert len(trainer.run.optimizers) == 1


def test_copies_hold_what_their_loss_trains(make_trainer):
    method = make_trainer(GBlend, {}).method
    inputs = {m: torch.randn(5, 6) for m in ("audio", "video")}
    method.eval()
    whole = method.net(inputs)
    for name, expected in {**whole.unimodal, "joint": whole.fused}.items():
        part = method.part(name)
        assert set(part.encoders) == ({"audio", "video"} if name == "joint" else {name})
        assert torch.equal(part(inputs).fused, expected)


def test_a_copy_learns_from_train_alone_and_is_measured_on_both_splits(make_trainer):
    trainer = make_trainer(GBlend, {})
    method, run = trainer.method, trainer.run
    part = method.part("audio")
    trained, measured = [], []
    forward = part.forward

    def spy(inputs):
        (trained if torch.is_grad_enabled() else measured).append(inputs["audio"])
        return forward(inputs)

    part.forward = spy
    losses = method.train_copy(part, range(2))
    assert losses.shape == (2, 2)
    expected = [batch.inputs["audio"] for epoch in range(2) for batch in run.train_batches(epoch)]
    assert all(map(torch.equal, trained, expected))
    assert len(trained) == len(expected)
    once = [b.inputs["audio"] for b in (*run.train_batches(0, salt=1), *run.held_out_batches(0, salt=1))]
    assert all(map(torch.equal, measured, 2 * once))
    assert len(measured) == 2 * len(once)
    assert float(losses[1, 0].detach()) < float(losses[0, 0].detach())


def test_held_out_share_is_stratified_and_apart_from_train(make_trainer):
    run = make_trainer(GBlend, {"held_out": 0.2}).run
    held = torch.cat([batch.labels for batch in run.held_out_batches(0)])
    assert sorted(held.bincount().tolist()) == [5, 6, 6]
    assert run.num_train + len(held) == 85


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"super_epoch": 3}, [(0, 3), (3, 3), (6, 1)]), ({"mode": "offline"}, [(0, 7)]), ({"weights": {}}, [])],
)
def test_weights_are_estimated_when_due(make_trainer, settings, expected):
    trainer = make_trainer(GBlend, settings, epochs=7)
    asked = []

    def estimate(epoch, num_epochs):
        asked.append((epoch, num_epochs))
        return torch.tensor([0.2, 0.3, 0.5])

    trainer.method.estimate = estimate
    for epoch in range(7):
        trainer.method.start_epoch(epoch)
    assert asked == expected


def test_loss_is_the_weighted_sum(make_trainer):
    trainer = make_trainer(GBlend, {"weights": {"audio": 0.2, "video": 0.0, "joint": 0.7}})
    batch = next(trainer.run.train_batches(0))
    out = trainer.method.net(batch.inputs)
    expected = 0.2 * F.cross_entropy(out.unimodal["audio"], batch.labels) + 0.7 * F.cross_entropy(
        out.fused, batch.labels
    )
    torch.testing.assert_close(trainer.method.loss(out, batch), expected)


def test_weights_survive_interruption_within_a_super_epoch(make_trainer):
    settings = {"super_epoch": 3}
    whole, first, second = (make_trainer(GBlend, settings) for _ in range(3))
    history = train(whole)
    train(first, 1)
    second.load_state(first.state())
    assert torch.equal(second.method.weights, first.method.weights)
    assert train(second) == history[1:]


def test_samples_of_estimations_are_counted(make_trainer):
    trainer = make_trainer(GBlend, {"super_epoch": 2})
    served = [trainer.run_epoch()[0]["samples"] for _ in range(2)]
    assert served[1] == trainer.run.num_train
    assert served[0] == trainer.run.num_train * (1 + 3 * (2 + 2))  # three losses, two epochs, two evaluations each


def test_unknown_losses_are_refused():
    task = Blobs(Blobs.Config()).task
    assert "smell" in GBlend.unsupported(GBlend.Config(weights={"smell": 1.0}), task)
    assert GBlend.unsupported(GBlend.Config(weights={"joint": 1.0, "audio": 0.0}), task) is None
