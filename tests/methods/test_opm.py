"""OPM: golden numbers, an independent calculation of the drop, and when it drops nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from benchmark.methods._confidence import discrepancies
from benchmark.methods.opm import OPM, drop, drop_rate
from torch.nn import functional as F

from benchmark.check.synthetic import Blobs

DIMS = {"audio": 3, "video": 4, "text": 2}


def rates_of(confidence: dict[str, float], q_base: float = 0.5, strength: float = 0.5) -> dict[str, float]:
    scalars = {m: torch.tensor(c, dtype=torch.float64) for m, c in confidence.items()}
    return {m: float(drop_rate(r, q_base, strength)) for m, r in discrepancies(scalars).items()}


def test_golden_rates():
    rates = rates_of({"audio": 3.0, "video": 1.0})
    assert math.tanh(2.0) == pytest.approx(0.964028, abs=1e-6)
    assert rates["audio"] == pytest.approx(0.741007, abs=1e-6)
    assert rates["video"] == 0.0


def test_equals_are_never_dropped_and_a_rate_is_a_probability():
    assert rates_of({"audio": 2.0, "video": 2.0}) == {"audio": 0.0, "video": 0.0}
    assert rates_of({"audio": 9.0, "video": 1.0}, q_base=0.9, strength=2.0)["audio"] == 1.0
    barely = rates_of({"audio": 1.0001, "video": 1.0})["audio"]
    assert barely == pytest.approx(0.5, abs=1e-3)  # it jumps from 0 to q_base


@pytest.mark.parametrize("seed", range(20))
def test_the_least_confident_of_three_is_never_dropped(seed):
    rng = np.random.default_rng(seed)
    confidence = dict(zip(DIMS, rng.uniform(0.1, 1, 3).tolist(), strict=True))
    rates = rates_of(confidence)
    assert rates[min(confidence, key=confidence.__getitem__)] == 0.0
    assert max(rates.values()) >= 0.5


@pytest.mark.parametrize("seed", range(20))
def test_drop_follows_an_independent_calculation(seed):
    rng = np.random.default_rng(seed)
    features = {m: rng.normal(size=(8, dim)) for m, dim in DIMS.items()}
    rates = {"audio": rng.uniform(0, 1), "video": rng.uniform(0, 1), "text": 0.0}
    draws = rng.uniform(size=(3, 8, 1))
    theta = sum(DIMS[m] * rates[m] for m in DIMS) / sum(DIMS.values())
    ours = drop(
        {m: torch.from_numpy(u) for m, u in features.items()},
        {m: torch.tensor(q, dtype=torch.float64) for m, q in rates.items()},
        torch.from_numpy(draws),
    )
    for position, (m, u) in enumerate(features.items()):
        for i in range(8):
            expected = np.zeros_like(u[i]) if draws[position, i, 0] < rates[m] else u[i] / (1 - theta)
            np.testing.assert_allclose(ours[m][i].numpy(), expected, atol=1e-6)


def test_a_dropped_feature_sends_no_gradient_back():
    features = {"audio": torch.ones(2, 3, requires_grad=True), "video": torch.ones(2, 3, requires_grad=True)}
    rates = {"audio": torch.tensor(0.5), "video": torch.tensor(0.0)}
    draws = torch.tensor([[[0.2], [0.7]], [[0.0], [0.0]]])
    sum(u.sum() for u in drop(features, rates, draws).values()).backward()
    assert features["audio"].grad.tolist() == [[0.0] * 3, [pytest.approx(4 / 3)] * 3]
    assert features["video"].grad.tolist() == [[pytest.approx(4 / 3)] * 3] * 2


@pytest.fixture
def stepped(make_trainer):
    """The loss on one batch in evaluation mode and what was logged, under given settings."""

    def step(epoch=0, **settings):
        trainer = make_trainer(OPM, settings)
        trainer.run.begin_epoch(0)
        trainer.method.start_epoch(epoch)
        trainer.method.eval()
        batch = next(trainer.run.train_batches(0))
        out = trainer.method.net(batch.inputs)
        plain = F.cross_entropy(out.fused, batch.labels)
        return float((trainer.method.loss(out, batch) - plain).detach()), trainer.run.means()

    return step


def test_nothing_is_dropped_before_the_warm_up_ends(stepped):
    assert stepped(epoch=5) == (0.0, {})
    for epoch in range(6, 9):
        difference, logged = stepped(epoch=epoch, p_exe=1.0)
        assert difference != 0.0
        assert sorted(rate > 0 for rate in (logged["drop/audio"], logged["drop/video"])) == [False, True]


def test_batches_are_let_alone_as_often_as_p_exe_says(make_trainer):
    trainer = make_trainer(OPM, {"warmup_epochs": 0, "p_exe": 0.7})
    batch = next(trainer.run.train_batches(0))
    out = trainer.method.net(batch.inputs)
    trainer.method.start_epoch(0)
    executed = [max(trainer.method.drop_rates(out, batch).values()) > 0 for _ in range(1000)]
    assert sum(executed) / 1000 == pytest.approx(0.7, abs=4.5 * math.sqrt(0.21 / 1000))


def test_a_single_modality_is_refused_with_a_reason():
    assert "two or more" in OPM.unsupported(OPM.Config(), Blobs(Blobs.Config(num_modalities=1)).task)
