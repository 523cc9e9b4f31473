"""CML: what the chain removes, when confidence is penalised, and who gets a gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods.cml import CML, confidence, penalty, released_penalty, removal_ranks
from torch.nn import functional as F

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import train
from benchmark.seeds import generator


def chances(logits):
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@pytest.mark.parametrize("seed", range(20))
def test_penalties_equal_independent_calculations(seed):
    rng = np.random.default_rng(seed)
    smaller, larger = rng.normal(0, 2, (2, 40, 3))
    labels = rng.integers(0, 3, 40)
    plain, released = [], []
    for p, q, y in zip(chances(smaller), chances(larger), labels, strict=True):
        rise = max(0.0, max(p) - max(q))
        plain.append(rise)
        released.append(0.0 if np.argmax(p) == y and np.argmax(q) != y else rise)
    given = torch.from_numpy(smaller), torch.from_numpy(larger)
    assert float(penalty(*given)) == pytest.approx(np.mean(plain), abs=1e-6)
    assert float(released_penalty(*given, torch.from_numpy(labels))) == pytest.approx(sum(released), abs=1e-6)


def test_confidence_that_falls_costs_nothing_and_gives_no_gradient():
    smaller = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    larger = torch.tensor([[2.0, 0.0, 0.0]], requires_grad=True)
    loss = penalty(smaller, larger)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not smaller.grad.any()
    assert not larger.grad.any()
    assert float(penalty(larger, smaller).detach()) == pytest.approx(
        float((confidence(larger) - confidence(smaller)).detach())
    )


SURE, UNSURE = [4.0, 0.0, 0.0], [1.0, 0.0, 0.0]
SURE_OTHER = [0.0, 4.0, 0.0]


@pytest.mark.parametrize(
    ("smaller", "larger", "label", "penalised", "held"),
    [
        (SURE, UNSURE, 0, True, False),  # both right
        (SURE_OTHER, UNSURE, 0, True, False),  # right with the modality only
        (SURE, UNSURE, 2, True, True),  # both wrong
        (SURE_OTHER, UNSURE, 1, False, True),  # right without the modality only
    ],
)
def test_released_penalty_spares_the_samples_that_it_should(smaller, larger, label, penalised, held):
    small, large = (torch.tensor([z], requires_grad=True) for z in (smaller, larger))
    loss = released_penalty(small, large, torch.tensor([label]))
    loss.backward()
    assert bool(loss > 0) is penalised
    assert bool(small.grad.any()) is penalised
    assert bool(large.grad.any()) is not held


def test_every_order_of_removal_is_drawn_about_as_often():
    ranks = removal_ranks(6000, 3, generator(0))
    orders, counts = ranks.unique(dim=0, return_counts=True)
    assert len(orders) == 6
    assert counts.min() > 850


@pytest.mark.parametrize("count", [2, 3])
def test_chain_removes_one_modality_after_the_other(make_trainer, count):
    trainer = make_trainer(CML, {}, dataset=Blobs(Blobs.Config(num_modalities=count)))
    method = trainer.method
    method.start_epoch(0)
    out = method.net(next(trainer.run.train_batches(0)).inputs)
    ranks = removal_ranks(len(out.fused), count, generator(0, 0, "removal"))
    chain = method.chain(out)
    assert len(chain) == count
    head = method.net.head
    for removed, logits in enumerate(chain):
        for row, order in enumerate(ranks.tolist()):
            expected = head.bias.clone()
            for place, (m, u) in zip(order, out.features.items(), strict=True):
                if place >= removed:
                    expected = expected + u[row] @ head.slices[m].T
            torch.testing.assert_close(logits[row], expected)


@pytest.mark.parametrize(("variant", "strength"), [("paper", 1.0), ("released", 0.1)])
def test_loss_averages_classification_and_adds_the_penalties(make_trainer, variant, strength):
    trainer = make_trainer(CML, {"variant": variant}, dataset=Blobs(Blobs.Config(num_modalities=3)))
    method = trainer.method
    method.start_epoch(0)
    batch = next(trainer.run.train_batches(0))
    out = method.net(batch.inputs)
    first, second, third = method.chain(out)
    expected = sum(F.cross_entropy(z, batch.labels) for z in (first, second, third)) / 3
    for small, large in ((second, first), (third, second)):
        given = (small, large, batch.labels)
        expected = expected + strength * (penalty(small, large) if variant == "paper" else released_penalty(*given))
    method.start_epoch(0)
    torch.testing.assert_close(method.loss(out, batch), expected)


def test_penalty_makes_violations_rarer(make_trainer):
    shares = []
    for strength in (0.0, 30.0):
        trainer = make_trainer(CML, {"strength": strength, "subsets": False}, dataset=Blobs(Blobs.Config(noise=2.0)))
        trainer.recipe = trainer.recipe.model_copy(update={"epochs": 12})
        lines = [trainer.run_epoch()[0]["train"]["violations"] for _ in range(12)]
        shares.append(sum(lines[-3:]) / 3)
    assert shares[1] < shares[0] / 2


def test_orders_survive_interruption(make_trainer):
    whole, first, second = (make_trainer(CML, {}) for _ in range(3))
    history = train(whole)
    train(first, 2)
    second.load_state(first.state())
    assert train(second) == history[2:]
