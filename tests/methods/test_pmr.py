"""PMR: prototypes, coefficients and losses against hand-computed numbers and an independent calculation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from benchmark.methods.pmr import PMR, class_means, draw_share, entropy, lags, similarities
from torch.nn import functional as F

from benchmark.check.trained import same_state, train
from benchmark.model import Outputs
from benchmark.seeds import generator


@pytest.mark.parametrize(
    ("rho", "clip", "hard"),
    [(1.3, (0.0, 0.3), (0, 1)), (5.0, (0.0, 1.0), (0, 1)), (0.8, (0.25, 0.0), (1, 0)), (1.0, (0.0, 0.0), (0, 0))],
)
def test_coefficients_equal_those_of_paper_and_released_code(rho, clip, hard):
    confidence = torch.tensor([rho, 1.0], dtype=torch.float64)
    assert lags(confidence).tolist() == pytest.approx(clip)
    assert lags(confidence, hard=True).tolist() == list(hard)


def test_never_do_both_modalities_lag():
    for _ in range(200):
        for hard in (False, True):
            assert float(lags(torch.rand(2) + 0.01, hard).prod()) == 0


def test_prototypes_are_class_means_and_zero_for_a_class_without_samples():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(40, 7)), rng.integers(0, 3, 40)
    ours = class_means(torch.from_numpy(features), torch.from_numpy(labels), 4).numpy()
    for k in range(3):
        np.testing.assert_allclose(ours[k], features[labels == k].mean(0), atol=1e-12)
    assert not ours[3].any()


def test_share_holds_every_class():
    labels = torch.cat([torch.zeros(100), torch.ones(30), torch.full((2,), 2.0)]).long()[torch.randperm(132)]
    chosen = draw_share(labels, 0.1, generator(0))
    assert labels[chosen].bincount().tolist() == [10, 3, 1]
    assert not torch.equal(chosen, draw_share(labels, 0.1, generator(1)))
    assert draw_share(labels, 1.0, generator(0)).tolist() == list(range(132))


def test_equal_prototypes_say_nothing_and_a_feature_on_its_prototype_costs_nothing():
    prototypes = 100 * torch.eye(5, dtype=torch.float64)
    labels = torch.arange(5)
    on_it = prototypes.clone().requires_grad_()
    cost = F.cross_entropy(similarities(on_it, prototypes), labels)
    cost.backward()
    assert float(cost.detach()) == pytest.approx(0, abs=1e-9)
    assert torch.isfinite(on_it.grad).all()
    same = torch.ones(5, 5, dtype=torch.float64)
    assert float(F.cross_entropy(similarities(prototypes, same), labels)) == pytest.approx(math.log(5))


def numpy_softmax(logits):
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


def numpy_loss(features, prototypes, fused, labels, alpha, mu):
    """The paper's equations for two modalities, sample by sample."""
    probabilities = []
    for u, c in zip(features, prototypes, strict=True):
        distances = np.array([[math.dist(row, prototype) for prototype in c] for row in u])
        probabilities.append(numpy_softmax(-distances))
    first, second = (sum(p[i, y] for i, y in enumerate(labels)) for p in probabilities)
    rho = first / second
    beta = min(max(1 / rho - 1, 0), 1) if rho < 1 else 0.0
    gamma = min(max(rho - 1, 0), 1) if rho >= 1 else 0.0
    cost = [-np.mean([math.log(p[i, y]) for i, y in enumerate(labels)]) for p in (numpy_softmax(fused), *probabilities)]
    spread = [np.mean([-sum(q * math.log(q) for q in row) for row in p]) for p in probabilities]
    return cost[0] + alpha * (beta * cost[1] + gamma * cost[2]) - mu * (gamma * spread[0] + beta * spread[1])


@pytest.mark.parametrize("seed", range(20))
def test_loss_equals_an_independent_calculation(make_trainer, seed):
    rng = np.random.default_rng(seed)
    scales = dict(zip(("audio", "video"), rng.uniform(0.3, 2, 2), strict=True))
    features = {m: rng.normal(size=(6, 8)) * s for m, s in scales.items()}
    prototypes = {m: rng.normal(size=(3, 8)) * s for m, s in scales.items()}
    fused, labels = rng.normal(size=(6, 3)), rng.integers(0, 3, 6)
    method = make_trainer(PMR, {"alpha": 2.0, "mu": 0.3}).method.double()
    for modality, c in prototypes.items():
        method.prototypes(modality).copy_(torch.from_numpy(c))
    method.active = method.calm = True
    batch = next(method.run.train_batches(0))
    batch = type(batch)(batch.inputs, torch.from_numpy(labels), batch.index)
    ours = method.loss(
        Outputs({m: torch.from_numpy(u) for m, u in features.items()}, {}, torch.from_numpy(fused)), batch
    )
    expected = numpy_loss(list(features.values()), list(prototypes.values()), fused, labels, 2.0, 0.3)
    assert float(ours) == pytest.approx(expected, abs=1e-6)


def started(make_trainer, **settings):
    trainer = make_trainer(PMR, settings)
    trainer.run.begin_epoch(0)
    trainer.method.start_epoch(0)
    return trainer.method, next(trainer.run.train_batches(0))


def gradients(method, batch):
    method.zero_grad()
    method.eval()  # no dropout: the same features each time
    method.loss(method.net(batch.inputs), batch).backward()
    return {name: p.grad.clone() for name, p in method.net.named_parameters()}


def test_prototype_loss_reaches_the_encoder_of_the_slow_modality_only(make_trainer):
    method, batch = started(make_trainer, mu=0.0, coefficient="hard")
    with_it = gradients(method, batch)
    logged = method.run.means()
    slow = max(("audio", "video"), key=lambda m: logged[f"lag/{m}"])
    method.active = False
    without = gradients(method, batch)
    for name, gradient in with_it.items():
        changed = not torch.allclose(gradient, without[name], atol=1e-9)
        assert changed == name.startswith(f"encoders.{slow}."), name


def test_entropy_bonus_makes_the_dominant_modality_less_sure(make_trainer):
    method, batch = started(make_trainer, alpha=0.0, mu=1.0, coefficient="hard")

    def entropies():
        features = method.net.encode(batch.inputs)
        return {m: float(entropy(similarities(u, method.prototypes(m))).detach()) for m, u in features.items()}

    with_it = gradients(method, batch)
    logged, before = method.run.means(), entropies()
    dominant = min(("audio", "video"), key=lambda m: logged[f"lag/{m}"])
    method.active = False
    without = gradients(method, batch)
    with torch.no_grad():
        for name, p in method.net.named_parameters():
            p.sub_(1e-3 * (with_it[name] - without[name]))
    after = entropies()
    assert after.pop(dominant) > before.pop(dominant)
    assert after == before


def test_prototypes_are_what_the_encoders_say_in_eval_mode_and_carry_no_gradient(make_trainer):
    method, _ = started(make_trainer, share=0.4)
    before = {name: value.clone() for name, value in method.net.state_dict().items()}
    method.refresh_prototypes(3, momentum=0.0)
    assert same_state(before, method.net.state_dict())
    assert method.net.training
    method.net.eval()
    train = list(method.run.train_in_order())
    features = torch.cat([method.net.encode(batch.inputs)["audio"] for batch in train]).detach()
    labels = torch.cat([batch.labels for batch in train])
    chosen = draw_share(labels, 0.4, generator(0, 3, "prototypes"))
    means = torch.stack([features[i].mean(0) for i in (chosen[labels[chosen] == k] for k in range(3))])
    torch.testing.assert_close(method.prototypes("audio"), means)
    assert not method.prototypes("audio").requires_grad


def test_momentum_keeps_its_part_of_the_old_prototypes(make_trainer):
    method, _ = started(make_trainer, share=1.0)
    fresh = method.prototypes("video").clone()
    method.prototypes("video").copy_(torch.ones_like(fresh))
    method.refresh_prototypes(1, momentum=0.25)
    torch.testing.assert_close(method.prototypes("video"), 0.25 + 0.75 * fresh)


@pytest.mark.parametrize(("settings", "kept"), [({}, 2), ({"first_epoch": 1}, 2), ({"first_epoch": 2}, 3)])
def test_momentum_begins_after_the_first_prototypes_of_a_trained_network(make_trainer, settings, kept):
    trainer = make_trainer(PMR, {"momentum": 0.9, **settings})
    used = []
    trainer.method.refresh_prototypes = lambda epoch, momentum: used.append((epoch, momentum))
    for epoch in range(4):
        trainer.method.start_epoch(epoch)
    assert used == [(e, 0.0 if e < kept else 0.9) for e in range(settings.get("first_epoch", 0), 4)]


def test_entropy_bonus_ends_after_its_epochs_and_rebalancing_after_its_own(make_trainer):
    method = make_trainer(PMR, {"per_epochs": 1, "last_epoch": 2}).method
    phases = []
    for epoch in range(4):
        method.start_epoch(epoch)
        phases.append((method.calm, method.active))
    assert phases == [(True, True), (False, True), (False, True), (False, False)]


def test_prototypes_survive_interruption(make_trainer):
    settings = {"momentum": 0.5, "per_epochs": 3, "alpha": 2.0}
    whole, first, second = (make_trainer(PMR, settings) for _ in range(3))
    history = train(whole)
    train(first, 2)
    second.load_state(first.state())
    assert torch.equal(second.method.prototypes("audio"), first.method.prototypes("audio"))
    assert train(second) == history[2:]
