"""OGM against hand-computed numbers and an independent calculation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from benchmark.methods._confidence import confidences, discrepancies
from benchmark.methods.ogm import OGM, RATIOS, coefficient

from benchmark.check.synthetic import Blobs
from benchmark.train.trainer import Trainer


@pytest.mark.parametrize(
    ("alpha", "rho", "expected"),
    [
        (0.1, 1.0 + 1e-9, 0.900),
        (0.1, 1.5, 0.851),
        (0.1, 3.0, 0.709),
        (0.8, 1.0 + 1e-9, 0.336),
        (0.8, 1.5, 0.166),
        (0.8, 3.0, 0.016),
    ],
)
def test_coefficient_equals_published_figures(alpha, rho, expected):
    assert float(coefficient(torch.tensor(rho, dtype=torch.float64), alpha)) == pytest.approx(expected, abs=6e-4)


def test_equal_or_lower_confidence_is_never_slowed():
    assert float(coefficient(torch.tensor(1.0), 5.0)) == 1.0
    assert float(coefficient(torch.tensor(0.3), 5.0)) == 1.0


@pytest.mark.parametrize("seed", range(20))
def test_two_modalities_follow_an_independent_calculation(seed):
    rng = np.random.default_rng(seed)
    logits = {m: rng.normal(size=(16, 5)) for m in ("audio", "video")}
    labels = rng.integers(0, 5, 16)
    expected = {}
    for m, z in logits.items():
        exponents = np.exp(z - z.max(1, keepdims=True))
        expected[m] = sum(exponents[i, k] / exponents[i].sum() for i, k in enumerate(labels))
    ours = confidences({m: torch.from_numpy(z) for m, z in logits.items()}, torch.from_numpy(labels))
    rho = discrepancies(ours)
    assert float(rho["audio"]) == pytest.approx(expected["audio"] / expected["video"], abs=1e-6)
    assert float(rho["audio"] * rho["video"]) == pytest.approx(1.0, abs=1e-9)
    coefficients = [float(coefficient(r, 0.3)) for r in rho.values()]
    assert max(coefficients) == 1.0
    assert min(coefficients) == pytest.approx(1 - math.tanh(0.3 * float(max(rho.values()))), abs=1e-6)


def test_three_modalities_use_the_mean_of_pairwise_ratios():
    rho = discrepancies({"audio": torch.tensor(4.0), "video": torch.tensor(2.0), "text": torch.tensor(1.0)})
    assert [float(r) for r in rho.values()] == [3.0, 1.25, 0.375]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("mean", [3.0, 1.25, 0.375]), ("sum", [4 / 3, 0.4, 1 / 6]), ("least", [4.0, 2.0, 1.0])],
)
def test_each_rule_for_three_modalities(rule, expected):
    confidence = {"audio": torch.tensor(4.0), "video": torch.tensor(2.0), "text": torch.tensor(1.0)}
    assert [float(r) for r in discrepancies(confidence, RATIOS[rule]).values()] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_every_rule_gives_two_modalities_the_same_coefficients(seed):
    draw = torch.Generator().manual_seed(seed)
    confidence = dict(zip(("audio", "video"), torch.rand(2, generator=draw) + 0.1, strict=True))
    of_rule = [
        [float(coefficient(r, 0.3)) for r in discrepancies(confidence, rule).values()] for rule in RATIOS.values()
    ]
    assert of_rule[0] == pytest.approx(of_rule[1])
    assert of_rule[0] == pytest.approx(of_rule[2])
    assert max(of_rule[0]) == 1.0


@pytest.mark.parametrize("seed", range(20))
def test_three_modalities_never_all_slow_down(seed):
    draw = torch.Generator().manual_seed(seed)
    confidence = dict(zip(("audio", "video", "text"), torch.rand(3, generator=draw) + 0.1, strict=True))
    for rule in RATIOS.values():
        rho = discrepancies(confidence, rule)
        assert float(coefficient(rho[min(confidence, key=confidence.__getitem__)], 1.0)) == 1.0


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in trainer.method.net.named_parameters()}


@pytest.fixture
def stepped(make_trainer):
    """Gradients after one step under given settings, from the same weights and batch."""

    def step(**settings):
        trainer = make_trainer(OGM, settings)
        trainer.run.begin_epoch(0)
        trainer.method.start_epoch(0)
        torch.manual_seed(0)
        trainer.method.step(next(trainer.run.train_batches(0)))
        return gradients(trainer), trainer.run.means()

    return step


def test_only_weights_of_encoders_are_scaled_and_by_k(stepped):
    plain, _ = stepped(alpha=0.0, noise=False)
    slowed, logged = stepped(alpha=2.0, noise=False)
    assert min(logged["k/audio"], logged["k/video"]) < 1
    for name, gradient in plain.items():
        k = logged[f"k/{name.split('.')[1]}"] if name.startswith("encoders") and gradient.dim() > 1 else 1.0
        torch.testing.assert_close(slowed[name], gradient * k)


@pytest.mark.parametrize("fusion", ["concat", "sum"])
def test_all_parameters_of_encoders_are_scaled_when_asked_for(stepped, fusion):
    plain, _ = stepped(alpha=0.0, noise=False, fusion=fusion)
    slowed, logged = stepped(alpha=2.0, noise=False, modulated="all", fusion=fusion)
    assert min(logged["k/audio"], logged["k/video"]) < 1
    for name, gradient in plain.items():
        k = logged[f"k/{name.split('.')[1]}"] if name.startswith("encoders") else 1.0
        torch.testing.assert_close(slowed[name], gradient * k)


def test_outside_the_window_nothing_is_touched(stepped):
    plain, _ = stepped(alpha=0.0, noise=False)
    for settings in ({"first_epoch": 1}, {"first_epoch": 3, "last_epoch": 2}):
        untouched, logged = stepped(alpha=2.0, **settings)
        assert "k/audio" not in logged
        assert all(torch.equal(untouched[name], gradient) for name, gradient in plain.items())


def test_noise_has_the_spread_of_the_unscaled_gradient(stepped):
    plain, _ = stepped(alpha=0.0, noise=False)
    noisy, logged = stepped(alpha=2.0, noise=True)
    for name, gradient in plain.items():
        if name.startswith("encoders") and gradient.dim() > 1:
            noise = noisy[name] - gradient * logged[f"k/{name.split('.')[1]}"]
            assert float(noise.std() / gradient.std()) == pytest.approx(1.0, abs=0.35)  # 48 or 64 draws
        else:
            assert torch.equal(noisy[name], gradient)


def test_a_single_modality_is_refused_with_a_reason():
    assert "two or more" in OGM.unsupported(OGM.Config(), Blobs(Blobs.Config(num_modalities=1)).task)
