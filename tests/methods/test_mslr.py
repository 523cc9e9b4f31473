"""MSLR: golden changes of rates, that a rate acts on its modality alone, and the schedule left as it was."""

from __future__ import annotations

import pytest
import torch
from benchmark.methods.mslr import MSLR, adjusted

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import same_state, train


@pytest.mark.parametrize(
    ("accuracies", "limit", "expected"),
    [
        ([0.5, 0.5, 0.5, 0.5, 0.5, 0.6], None, 1.2),
        ([0.7, 0.7, 0.7], None, 1.0),
        ([0.4, 0.6, 0.25], None, 0.5),
        ([0.0, 0.0, 0.5], None, 1.0),
        ([0.01, 0.9], 10.0, 10.0),
        ([0.9, 0.01], 10.0, 0.1),
    ],
)
def test_golden_changes(accuracies, limit, expected):
    assert adjusted(1.0, accuracies, limit) == pytest.approx(expected)
    if limit is None:
        assert adjusted(0.3, accuracies) == pytest.approx(0.3 * expected)


def moved(trainer, modality):
    """How far one step moves what is a modality's own."""
    trainer.run.begin_epoch(0)
    trainer.method.start_epoch(0)
    params = list(trainer.method.parts(modality).parameters())
    before = torch.cat([p.detach().flatten() for p in params])
    torch.manual_seed(0)
    trainer.method.step(next(trainer.run.train_batches(0)))
    return torch.cat([p.detach().flatten() for p in params]) - before


def test_a_rate_scales_the_step_of_its_modality_and_of_no_other(make_trainer):
    keep = {"strategy": "keep", "pretrain": 0.0}
    for modality, factor in (("audio", 0.25), ("video", 1.0)):
        plain = moved(make_trainer(MSLR, keep), modality)
        slowed = moved(make_trainer(MSLR, {**keep, "rates": {"audio": 0.25}}), modality)
        torch.testing.assert_close(slowed, factor * plain, atol=1e-6, rtol=1e-3)
        assert plain.abs().max() > 0


def test_the_schedule_stays_as_it_was_outside_a_step(make_trainer):
    trainer = make_trainer(MSLR, {"rates": {"audio": 0.25}})
    trainer.run_epoch()
    rates = [group["lr"] for group in trainer.run.optimizers[0].param_groups]
    assert len(rates) == 2
    assert len(set(rates)) == 1
    with trainer.method.own_rates():
        assert [group["lr"] for group in trainer.run.optimizers[0].param_groups] == [0.25 * rates[0], rates[0]]
    assert [group["lr"] for group in trainer.run.optimizers[0].param_groups] == rates


@pytest.fixture
def scripted(make_trainer, monkeypatch):
    """A trainer whose held-out accuracies are given by epoch, the same for both modalities."""

    def make(accuracies, epochs, **settings):
        trainer = make_trainer(MSLR, settings, epochs=epochs)
        given = lambda epoch: dict.fromkeys(("audio", "video"), accuracies[epoch])  # noqa: E731
        monkeypatch.setattr(trainer.method, "held_out_accuracies", given)
        return trainer

    return make


def test_rates_change_every_n_epochs_against_the_n_before(scripted):
    trainer = scripted([0.4, 0.6, 0.6, 0.3, 0.9, 0.9], 6, every=2, pretrain=0.0)
    rates = []
    for _ in range(6):
        trainer.run_epoch()
        rates.append(trainer.method.rates["audio"])
    expected = [1.0, 1.0, 1.2, 1.2, 1.2 * 0.9 / 0.45, 1.2 * 0.9 / 0.45]
    assert rates == pytest.approx(expected)


def test_nothing_is_measured_before_fusion(scripted):
    trainer = scripted([0.1, 0.1, 0.4, 0.6, 0.75, 0.5], 6, every=2, pretrain=0.34)
    train(trainer)
    assert trainer.method.fused_epoch == 2
    assert trainer.method.rates["video"] == pytest.approx(0.75 / 0.5)


def test_constant_accuracy_keeps_the_rates(scripted):
    trainer = scripted([0.5] * 6, 6, every=1, pretrain=0.0, rates={"audio": 0.5})
    train(trainer)
    assert trainer.method.rates == {"audio": 0.5, "video": 1.0}


def test_resuming_with_changed_rates_and_a_full_window_is_exact(make_trainer):
    settings = {"every": 2, "pretrain": 0.0}
    whole = make_trainer(MSLR, settings, epochs=6)
    history = train(whole)
    assert set(whole.method.rates.values()) != {1.0}, "the test needs a change of rates"
    for cut in range(1, 6):
        first, second = make_trainer(MSLR, settings, epochs=6), make_trainer(MSLR, settings, epochs=6)
        train(first, cut)
        second.load_state(first.state())
        assert train(second) == history[cut:]
        assert same_state(second.state()["method"], whole.state()["method"])


def test_rates_of_modalities_that_are_not_there_are_refused_with_a_reason():
    assert "smell" in MSLR.unsupported(MSLR.Config(rates={"smell": 1.0}), Blobs(Blobs.Config()).task)


def test_released_rates_follow_the_lines_of_the_released_code(make_trainer, monkeypatch):
    accuracies = [0.2, 0.4, 0.5, 0.3, 0.6, 0.5, 0.9, 0.1]
    first, memory, expected, ratio = 0.9, [], [], 1.0
    for accuracy in accuracies:  # a plain loop over epochs, as AGM's script has it
        if len(memory) < 5:
            memory.append(accuracy)
        else:
            ratio = accuracy / (sum(memory) / 5)
            memory = [*memory[1:], accuracy]
        expected.append(first * ratio)
    trainer = make_trainer(MSLR, {"variant": "released", "rates": {"audio": first}}, epochs=len(accuracies))
    noted = iter(accuracies)
    monkeypatch.setattr(trainer.method, "held_out_accuracies", lambda epoch: {"audio": next(noted)})
    found = []
    for _ in accuracies:
        trainer.run_epoch()
        found.append(trainer.method.rates["audio"])
    assert found == pytest.approx(expected)
    assert len(set(found)) == 4


def test_released_rates_scale_gradients_and_not_weight_decay(make_trainer):
    released = {"variant": "released", "strategy": "keep"}
    plain, slowed = (
        moved(make_trainer(MSLR, {**released, "rates": rates}), "audio") for rates in ({}, {"audio": 0.25})
    )
    trainer = make_trainer(MSLR, released)
    (group, *_) = trainer.run.optimizers[0].param_groups
    weights = torch.cat([p.detach().flatten() for p in trainer.method.parts("audio").parameters()])
    decay = -group["lr"] * group["weight_decay"] * weights
    assert group["weight_decay"] > 0
    torch.testing.assert_close(slowed - decay, 0.25 * (plain - decay), atol=1e-7, rtol=1e-3)
