"""LFM: schedules and losses against golden numbers, the hypergradient against exact ones, alpha on known problems."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods._hypergradient import conjugate_gradient, gradient, hypergradient
from benchmark.methods.lfm import (
    LFM,
    AlignedHead,
    contrastive_loss,
    heuristic_alpha,
    released_alpha,
    released_divergence,
    released_slope,
)
from torch import nn
from torch.nn import functional as F

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import train
from benchmark.data import Batch, Modality, TaskSpec
from benchmark.model import Encoder

FIRST = [[3.0, 4.0], [0.0, 2.0], [1.0, 1.0]]
SECOND = [[1.0, 0.0], [2.0, 1.0], [0.0, -1.0]]


def double(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("t", "alpha"), [(1, 0.632121), (2, 0.393469), (3, 0.283469), (5, 0.181269), (10, 0.095163), (100, 0.009950)]
)
def test_heuristic_weight_equals_golden_numbers(t, alpha):
    assert float(heuristic_alpha(double(t - 1))) == pytest.approx(alpha, abs=1e-6)


@pytest.mark.parametrize(
    ("epoch", "weight"),
    [(0, 0.204624), (1, 0.208099), (20, 0.300887), (100, 0.539155), (183, 1.010540), (199, 0.915989)],
)
def test_released_curve_equals_golden_numbers_and_leaves_the_interval(epoch, weight):
    assert 1 - float(released_alpha(double(epoch))) == pytest.approx(weight, abs=1e-6)


@pytest.mark.parametrize(("temperature", "loss"), [(1.0, 1.218624), (0.5, 1.478293), (0.1, 4.477382)])
def test_contrastive_loss_equals_golden_numbers(temperature, loss):
    one, other = double(FIRST), double(SECOND)
    assert float(contrastive_loss(one, other, temperature)) == pytest.approx(loss, abs=1e-6)
    assert float(contrastive_loss(other, one, temperature)) == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_contrastive_loss_equals_an_independent_calculation(seed):
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(2, 7, 5))
    rows = []
    for i in range(7):
        cosines = [[u @ v / np.sqrt(u @ u * (v @ v)) for v in other] for u in one]
        for line in (cosines[i], [row[i] for row in cosines]):
            weights = np.exp(np.array(line) / 0.3)
            rows.append(-np.log(weights[i] / weights.sum()))
    expected = sum(rows) / (2 * 7)
    given = torch.from_numpy(one), torch.from_numpy(other)
    assert float(contrastive_loss(*given, 0.3)) == pytest.approx(expected, abs=1e-6)
    scale = torch.from_numpy(rng.uniform(0.1, 9, (7, 1)))
    order = torch.from_numpy(rng.permutation(7))
    assert float(contrastive_loss(scale * given[0], given[1], 0.3)) == pytest.approx(expected, abs=1e-6)
    assert float(contrastive_loss(given[0][order], given[1][order], 0.3)) == pytest.approx(expected, abs=1e-6)


def test_contrastive_loss_of_one_sample_is_none_and_of_constant_features_that_of_guessing():
    assert float(contrastive_loss(double([[1.0, 2.0]]), double([[3.0, -1.0]]), 0.1)) == 0
    assert float(contrastive_loss(torch.ones(5, 3), torch.ones(5, 3), 0.1)) == pytest.approx(np.log(5), abs=1e-6)
    assert float(contrastive_loss(torch.eye(2), torch.eye(2), 1.0)) == pytest.approx(0.313262, abs=1e-6)


@pytest.mark.parametrize(("part", "expected"), [(0.4, 0.020411), (0.1, 0.510826), (0.01, 1.614463), (1e-6, 6.214609)])
def test_released_divergence_equals_golden_numbers_and_is_no_jensen_shannon(part, expected):
    one = double([[1 - part, part]]).log()
    value = float(released_divergence(one, one.flip(1)))
    assert value == pytest.approx(expected, abs=1e-6)
    jensen_shannon = np.log(2) + part * np.log(part) + (1 - part) * np.log(1 - part)
    assert value > jensen_shannon + 1e-4


def problem(seed: int):
    """Return a strongly convex problem: losses C and A of training samples, U of others, as functions of theta (6,)."""
    draw = torch.Generator().manual_seed(seed)
    x, held, other = (torch.randn(12, 3, generator=draw, dtype=torch.float64) for _ in range(3))
    y, z, w = (torch.randint(2, (12,), generator=draw) for _ in range(3))

    def loss(inputs, labels):
        return lambda theta: F.cross_entropy(inputs @ theta.view(3, 2), labels) + 0.1 * theta.square().sum()

    return loss(x, y), loss(other, w), loss(held, z)


@pytest.mark.parametrize("seed", range(20))
def test_hypergradient_equals_the_exact_inverse_on_a_convex_problem(seed):
    first, second, held = problem(seed)
    theta = nn.Parameter(torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    alpha = double(0.3)
    hessian = torch.autograd.functional.hessian(lambda v: 0.7 * first(v) + 0.3 * second(v), theta.detach())
    grads = [torch.autograd.functional.jacobian(loss, theta.detach()) for loss in (first, second, held)]
    for damping in (0.0, 0.5):
        solved = torch.linalg.solve(hessian + damping * torch.eye(6), grads[2])
        expected = -(grads[1] - grads[0]) @ solved
        upper = gradient(held(theta), [theta])
        ours = hypergradient(upper, (first(theta), second(theta)), alpha, [theta], 6, damping)
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


def optimum(first, second, alpha):
    """Return the minimum of (1 - alpha) C + alpha A."""
    theta = nn.Parameter(torch.zeros(6, dtype=torch.float64))
    solver = torch.optim.LBFGS([theta], max_iter=200, tolerance_grad=1e-13, tolerance_change=0)

    def closure():
        solver.zero_grad()
        loss = (1 - alpha) * first(theta) + alpha * second(theta)
        loss.backward()
        return loss

    solver.step(closure)
    return theta


@pytest.mark.parametrize("seed", range(5))
def test_hypergradient_is_the_slope_of_the_held_out_loss_at_the_inner_optimum(seed):
    first, second, held = problem(seed)
    theta = optimum(first, second, 0.4)
    ours = hypergradient(gradient(held(theta), [theta]), (first(theta), second(theta)), double(0.4), [theta], 6, 0.0)
    after, before = (float(held(optimum(first, second, alpha)).detach()) for alpha in (0.401, 0.399))
    assert float(ours) == pytest.approx((after - before) / 0.002, abs=1e-5)


def test_one_dimensional_golden_numbers():
    theta = nn.Parameter(double([2 / 3]))
    losses = theta.square().sum() / 2, (theta - 1).square().sum()
    upper = gradient(losses[0], [theta])
    exact = hypergradient(upper, losses, double(0.5), [theta], 1, 0.0)
    assert float(exact) == pytest.approx(0.592593, abs=1e-6)
    first, second = (gradient(loss, [theta]) for loss in losses)
    assert float(-(second - first) @ upper) == pytest.approx(0.888889, abs=1e-6)
    assert float(released_slope(losses, double(0.5), [theta])) == pytest.approx(1.0, abs=1e-6)


def test_hypergradient_on_the_training_samples_is_never_negative_at_the_optimum():
    """Why the degenerate case is refused: alpha can only fall."""
    for seed in range(10):
        first, second, _ = problem(seed)
        theta = optimum(first, second, 0.4)
        upper = gradient(first(theta), [theta])
        ours = hypergradient(upper, (first(theta), second(theta)), double(0.4), [theta], 6, 0.0)
        assert float(ours) > 0


def test_solver_survives_negative_curvature_and_a_solved_system():
    target = double([1.0, 2.0])
    assert torch.equal(conjugate_gradient(lambda v: -v, target, 3), target)
    assert not conjugate_gradient(lambda v: v, torch.zeros(2), 3).any()
    mixed = conjugate_gradient(lambda v: v * double([1.0, -0.1]), target, 5)
    assert mixed.isfinite().all()
    torch.testing.assert_close(conjugate_gradient(lambda v: 4 * v, target, 10), target / 4)


class Known(LFM):
    """LFM on one parameter: C = 1/2 (theta - x)^2 with x the batch's audio, A = 1/2 (theta - 1)^2.

    The inner optimum is (1 - alpha) x + alpha, so with x = -1 in training and 0.2 in held-out samples, the best alpha
    is 0.6.
    """

    def losses(self, batch):
        theta = self.theta()
        return (theta - batch.inputs["audio"].mean()).square() / 2, (theta - 1).square() / 2

    def theta(self):
        return self.net.head.layers["audio"].bias[0]

    def trainable(self):
        return [self.net.head.layers["audio"].bias]


@pytest.mark.parametrize("start", [0.0, 0.3, 1.0])
def test_learned_alpha_converges_to_the_known_optimum(make_trainer, monkeypatch, start):
    trainer = make_trainer(Known, {"alpha": start, "alpha_lr": 0.3, "damping": 0.0})
    method, run = trainer.method, trainer.run

    def batches(value):
        batch = Batch({"audio": torch.full((4, 6), value)}, torch.zeros(4).long(), torch.arange(4))
        return lambda epoch, salt=0: iter([batch, batch])

    monkeypatch.setattr(run, "train_batches", batches(-1.0))
    monkeypatch.setattr(run, "held_out_batches", batches(0.2))
    for epoch in range(40):
        for batch in run.train_batches(epoch):
            for _ in range(30):
                first, second = method.losses(batch)
                method.optimizer.zero_grad()
                ((1 - method.alpha) * first + method.alpha * second).backward()
                with torch.no_grad():
                    method.net.head.layers["audio"].bias -= 0.5 * method.net.head.layers["audio"].bias.grad
        method.end_epoch(epoch)
    assert float(method.alpha) == pytest.approx(0.6, abs=1e-3)


def test_alpha_is_learned_from_held_out_samples_alone(make_trainer, whole):
    trainer = make_trainer(LFM, {"held_out": 0.2})
    seen = []
    losses = trainer.method.losses
    trainer.method.losses = lambda batch: (seen.append(batch), losses(batch))[1]
    trainer.method.held_out_gradient(0)
    held = {tuple(row.tolist()) for batch in trainer.run.held_out_batches(0) for row in batch.inputs["audio"]}
    assert {tuple(row.tolist()) for batch in seen for row in batch.inputs["audio"]} == held
    total = sum(len(batch.labels) for batch in seen)
    assert total == 17
    assert trainer.run.num_train == 68


def test_held_out_gradient_is_that_of_the_whole_share(make_trainer):
    trainer = make_trainer(LFM, {"held_out": 0.3})
    method = trainer.method.eval()
    batches = list(trainer.run.held_out_batches(0))
    assert len(batches) > 1
    joined = {m: torch.cat([batch.inputs[m] for batch in batches]) for m in ("audio", "video")}
    labels = torch.cat([batch.labels for batch in batches])
    expected = gradient(F.cross_entropy(method.net(joined).fused, labels), method.trainable())
    torch.testing.assert_close(method.held_out_gradient(0), expected)


def test_learning_leaves_network_and_random_numbers_as_they_were(make_trainer):
    trainer = make_trainer(LFM, {})
    trainer.run_epoch()
    before = {name: value.clone() for name, value in trainer.method.net.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    alpha = trainer.method.alpha.clone()
    trainer.method.end_epoch(1)
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(value, before[name]) for name, value in trainer.method.net.state_dict().items())
    assert not torch.equal(trainer.method.alpha, alpha)
    assert trainer.method.net.training
    assert all(p.grad is None or p.grad.isfinite().all() for p in trainer.method.net.parameters())


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_learning_without_held_out_samples_is_refused_with_the_reason(variant):
    reason = LFM.Config(held_out=0.0, variant=variant).refuse(10)
    assert "alpha would fall to 0" in reason
    assert "heuristic" in reason
    assert LFM.Config(held_out=0.0, strategy="heuristic").refuse(10) is None
    assert LFM.Config().refuse(10) is None


def test_full_weight_on_alignment_gives_classifiers_no_gradient_and_none_gives_only_theirs(make_trainer):
    for alpha in (0.0, 1.0):
        method = make_trainer(LFM, {"strategy": "constant", "alpha": alpha}).method
        batch = next(method.run.train_batches(0))
        method.loss(method.net(batch.inputs), batch).backward()
        assert bool(method.net.head.layers["audio"].weight.grad.any()) is (alpha == 0)
        assert method.net.encoders["audio"].layers[0].weight.grad.any()


def test_released_loss_counts_twice_on_the_mean_of_logits(make_trainer):
    method = make_trainer(LFM, {"variant": "released", "strategy": "constant", "alpha": 0.3}).method
    batch = next(method.run.train_batches(0))
    out = method.net(batch.inputs)
    one, other = out.unimodal.values()
    p, q = one.softmax(1), other.softmax(1)
    mean = (p + q) / 2
    divergence = ((mean * (mean / p).log()).sum(1) + (mean * (mean / q).log()).sum(1)).mean() / 2
    expected = 2 * (0.7 * F.cross_entropy((one + other) / 2, batch.labels) + 0.3 * divergence)
    torch.testing.assert_close(method.loss(out, batch), expected)


def test_released_alpha_moves_by_the_product_on_the_same_eight_samples(make_trainer):
    trainer = make_trainer(LFM, {"variant": "released", "held_out": 0.3}, epochs=50)
    method = trainer.method
    seen = []
    losses = method.losses
    method.losses = lambda batch: (seen.append((method.net.training, batch.inputs["audio"])), losses(batch))[1]
    moves = []
    for epoch in (0, 1, 45):
        before = method.alpha.clone()
        method.alpha.fill_(0.5)
        method.start_epoch(epoch)
        moves.append(float(0.5 - method.alpha))
        method.alpha.copy_(before)
    assert [mode for mode, _ in seen] == [True, False, False]
    assert all(torch.equal(inputs, seen[0][1]) for _, inputs in seen)
    assert len(seen[0][1]) == 8
    assert moves[1] != 0
    assert moves[2] == pytest.approx(moves[1] / 4, rel=0.2)
    assert method.net.training


def test_released_slope_equals_a_whole_hessian(make_trainer):
    draw = torch.Generator().manual_seed(0)
    first, second, _ = problem(1)
    parts = [
        nn.Parameter(torch.randn(2, generator=draw, dtype=torch.float64)),
        nn.Parameter(torch.randn(4, generator=draw, dtype=torch.float64)),
    ]
    joined = torch.cat(parts)
    losses = first(joined), second(joined)
    ours = released_slope(losses, double(0.3), parts)
    hessian = torch.autograd.functional.hessian(lambda v: 0.7 * first(v) + 0.3 * second(v), joined.detach())
    product = hessian @ torch.autograd.functional.jacobian(first, joined.detach())
    assert float(ours) == pytest.approx(float(product[:2].mean()), abs=1e-9)


def test_features_of_different_widths_are_mapped_to_the_smaller(make_trainer):
    head = AlignedHead({"audio": 4, "video": 6}, 3)
    common = head.common({"audio": torch.randn(5, 4), "video": torch.randn(5, 6)})
    assert {m: u.shape for m, u in common.items()} == {"audio": (5, 4), "video": (5, 4)}
    assert not list(AlignedHead({"audio": 4, "video": 4}, 3).project.parameters())


class Attentive(Encoder):
    """An encoder whose attention would by default run in a kernel that cannot be differentiated twice."""

    def __init__(self):
        super().__init__()
        self.dim = 6
        self.layer = nn.TransformerEncoderLayer(2, 1, 4, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.layer(x.unflatten(1, (3, 2))).flatten(1)


class AttentiveBlobs(Blobs):
    @property
    def task(self):
        given = super().task
        modalities = {**given.modalities, "video": Modality((6,), Attentive)}
        return TaskSpec(modalities, given.class_names)


def test_alpha_is_learned_through_attention_and_features_of_different_widths(make_trainer):
    trainer = make_trainer(LFM, {}, dataset=AttentiveBlobs(AttentiveBlobs.Config()))
    before = trainer.method.net.head.project["audio"].weight.detach().clone()
    trainer.run_epoch()
    assert float(trainer.method.alpha) != 0.5
    assert not torch.equal(trainer.method.net.head.project["audio"].weight, before)


def test_three_modalities_are_aligned_pair_by_pair(make_trainer):
    method = make_trainer(LFM, {}, dataset=Blobs(Blobs.Config(num_modalities=3))).method
    batch = next(method.run.train_batches(0))
    out = method.net(batch.inputs)
    audio, video, text = out.features.values()
    pairs = [contrastive_loss(*pair, 0.1) for pair in ((audio, video), (audio, text), (video, text))]
    torch.testing.assert_close(method.losses_of(out, batch.labels)[1], sum(pairs) / 3)


@pytest.mark.parametrize("settings", [{}, {"variant": "released"}])
def test_alpha_survives_interruption(make_trainer, settings):
    whole, first, second = (make_trainer(LFM, settings) for _ in range(3))
    history = train(whole)
    train(first, 2)
    second.load_state(first.state())
    assert torch.equal(second.method.alpha, first.method.alpha)
    assert train(second) == history[2:]
