"""FedCMI: temperatures and distillation against golden and independent numbers, who is taught, and who fuses what."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from benchmark.methods._federated import owner
from benchmark.methods.fedcmi import FedCMI, distillation, temperatures

from benchmark.check.trained import train
from benchmark.model import Outputs

NAMES = ("audio", "video")


def test_a_class_ahead_by_e_has_a_third_and_none_is_above_one():
    # with rho = (e r, x, x) and mean r, x = r (3 - e) / 2
    r = 2.0
    rho = torch.tensor([math.e * r, r * (3 - math.e) / 2, r * (3 - math.e) / 2], dtype=torch.float64)
    assert temperatures(rho, 2.0).tolist() == pytest.approx([1 / 3, 1, 1], abs=1e-12)
    assert temperatures(rho, 0.0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("seed", range(20))
def test_temperatures_equal_an_independent_calculation(seed):
    random = np.random.default_rng(seed)
    rho = random.lognormal(random.choice([-0.5, 0.5]), 0.6, 5)
    rho[seed % 5] = np.nan  # a class without samples
    known = [x for x in rho if not np.isnan(x)]
    r = sum(known) / len(known)
    over = rho / r if r > 1 else r / rho
    expected = [1 / (1 + 2 * math.log(x)) if x > 1 else 1.0 for x in over]
    found = temperatures(torch.from_numpy(rho), 2.0)
    assert found.tolist() == pytest.approx(expected, abs=1e-9)
    assert (found <= 1).all()


def test_equal_modalities_leave_every_temperature_at_one():
    assert temperatures(torch.ones(6), 2.0).tolist() == [1.0] * 6


@pytest.mark.parametrize("seed", range(20))
def test_distillation_equals_an_independent_calculation_and_is_at_least_the_teachers_entropy(seed):
    random = np.random.default_rng(seed)
    student, teacher, heat = random.normal(size=(7, 4)), random.normal(0, 3, (7, 4)), random.uniform(0.2, 1, 7)

    def softened(logits, i):
        weights = np.exp(logits[i] / heat[i])
        return weights / weights.sum()

    expected = np.mean([-(softened(teacher, i) * np.log(softened(student, i))).sum() for i in range(7)])
    entropy = np.mean([-(softened(teacher, i) * np.log(softened(teacher, i))).sum() for i in range(7)])
    given = [torch.from_numpy(x) for x in (student, teacher, heat)]
    assert float(distillation(*given)) == pytest.approx(expected, abs=1e-9)
    assert float(distillation(*given)) >= entropy
    assert float(distillation(given[1], given[1], given[2])) == pytest.approx(entropy, abs=1e-9)


@pytest.fixture
def turn(make_trainer):
    """A trainer and a batch within the turn of a client that observes what is asked for, in a round of distillation."""

    def begin(modalities, **settings):
        share = 1.0 if len(modalities) == 2 else 0.0
        trainer = make_trainer(FedCMI, {"clients": 4, "per_round": 4, "multimodal": share, "warmup": 0, **settings})
        trainer.run.begin_epoch(1)
        method = trainer.method
        method.turn = next(turn for turn in method.turns(1) if turn.modalities == modalities)
        method.begin_turn(1)
        return method, next(method.turn.client.run.train_batches(1))

    return begin


@pytest.mark.parametrize(("weak", "dominant"), [NAMES, NAMES[::-1]])
def test_the_weak_modality_alone_learns_from_the_teacher(turn, weak, dominant):
    method, batch = turn(NAMES)
    out = method.net(batch.inputs)
    sure = {dominant: 5.0 * torch.nn.functional.one_hot(batch.labels, 3), weak: torch.zeros(len(batch.labels), 3)}
    loss = method.infiltration_loss(Outputs(out.features, {m: sure[m] for m in NAMES}, out.fused), batch)
    loss.backward()
    moved = {name for name, p in method.net.named_parameters() if p.grad is not None and p.grad.any()}
    assert {owner(name, NAMES) for name in moved} == {weak}
    assert any(name.startswith("encoders") for name in moved)
    assert {f"head.infiltration.{weak}.weight", f"head.classifiers.{weak}.weight"} <= moved
    assert f"head.own.{weak}.weight" not in moved
    assert all(p.grad is None for p in method.teachers[0].parameters())


def test_the_loss_is_the_sum_of_its_parts(turn):
    method, batch = turn(NAMES, unimodal_weight=1.5, distill_weight=0.5)
    out = method.net(batch.inputs)
    chosen = [z.log_softmax(1).gather(1, batch.labels[:, None]).mean() for z in (out.fused, *out.unimodal.values())]
    expected = -chosen[0] - 1.5 * (chosen[1] + chosen[2]) + 0.5 * method.infiltration_loss(out, batch)
    assert float((method.loss(out, batch) - expected).detach()) == pytest.approx(0, abs=1e-5)


def test_infiltration_never_enters_the_prediction_of_both_and_fills_the_place_of_what_is_missing(turn):
    for modalities, enters in ((NAMES, ()), (("video",), ("video",)), (("audio",), ("audio",))):
        method, batch = turn(modalities)
        method.eval()
        before = method.net(batch.inputs).fused
        for m in NAMES:
            kept = method.net.head.infiltration[m].weight.detach().clone()
            with torch.no_grad():
                method.net.head.infiltration[m].weight.mul_(-2)
                assert torch.equal(method.net(batch.inputs).fused, before) is (m not in enters)
                method.net.head.infiltration[m].weight.copy_(kept)
        if len(modalities) == 1:
            (missing,) = set(NAMES) - set(modalities)
            changed = {**batch.inputs, missing: torch.randn_like(batch.inputs[missing])}
            assert torch.equal(method.net(changed).fused, before)


def test_a_client_with_one_modality_minimises_the_fused_cross_entropy_alone(turn):
    method, batch = turn(("video",))
    out = method.net(batch.inputs)
    assert torch.equal(method.loss(out, batch), torch.nn.functional.cross_entropy(out.fused, batch.labels))


def test_ratios_are_those_of_class_means_of_the_global_network(turn):
    method, _ = turn(NAMES)
    found, samples = method.class_ratios(), list(method.turn.client.run.train_in_order())
    probabilities = {m: [[] for _ in range(3)] for m in NAMES}
    for batch in samples:
        for m, z in method.teachers[0](batch.inputs).unimodal.items():
            for row, label in zip(z.softmax(1), batch.labels.tolist(), strict=True):
                probabilities[m][label].append(float(row[label].detach()))
    for k in range(3):
        expected = np.mean(probabilities["audio"][k]) / np.mean(probabilities["video"][k])
        assert float(found[k]) == pytest.approx(expected, rel=1e-5)


def test_the_teacher_is_the_global_network_of_the_round_throughout_a_turn(make_trainer):
    trainer = make_trainer(FedCMI, {"clients": 3, "per_round": 3, "multimodal": 1.0, "warmup": 0})
    method = trainer.method
    for _ in range(2):
        start = method.snapshot()
        trainer.run_epoch()
        assert all(torch.equal(value, start[name]) for name, value in method.teachers[0].state_dict().items())
        assert not torch.equal(start["head.fusion.weight"], method.net.head.fusion.weight)


def test_distillation_waits_for_the_warmup_and_survives_interruption(make_trainer):
    settings = {"clients": 3, "per_round": 3, "multimodal": 0.67, "warmup": 2}
    whole, first, second = (make_trainer(FedCMI, settings) for _ in range(3))
    history = train(whole)
    assert ["first_dominates" in line for line in history] == [False, False, True, True]
    train(first, 2)
    second.load_state(first.state())
    assert train(second) == history[2:]
