"""MSES: when a modality stops, where it goes back to, and that it then stays there bit for bit."""

from __future__ import annotations

import pytest
import torch
from benchmark.methods.mses import MSES, Watch

from benchmark.check.trained import same_state, train


def epochs_of(losses: list[float], patience: int, min_gain: float = 0.0) -> tuple[int | None, int]:
    """Return the epoch after which a modality stops, if it does, and its best epoch, both counted from 1."""
    watch, best = Watch(), 0
    for epoch, loss in enumerate(losses, 1):
        if watch.note(loss, min_gain):
            best = epoch
        elif watch.waited >= patience:
            return epoch, best
    return None, best


def test_golden_sequence_stops_after_the_fifth_epoch_and_goes_back_to_the_second():
    assert epochs_of([1.0, 0.9, 0.95, 0.96, 0.97], patience=3) == (5, 2)


@pytest.mark.parametrize(
    ("losses", "patience", "min_gain", "expected"),
    [
        ([1.0, 0.9, 0.8, 0.7], 1, 0.0, (None, 4)),
        ([1.0, 1.0, 1.0], 2, 0.0, (3, 1)),  # no gain is none
        ([1.0, 0.95, 0.91], 2, 0.1, (3, 1)),  # gains too small
        ([1.0, 1.1, 0.9, 1.1, 1.2], 2, 0.0, (5, 3)),  # waiting starts anew after a gain
    ],
)
def test_what_counts_as_a_gain(losses, patience, min_gain, expected):
    assert epochs_of(losses, patience, min_gain) == expected


@pytest.fixture
def scripted(make_trainer, monkeypatch):
    """A trainer whose held-out losses are given, by modality and epoch."""

    def make(losses, **settings):
        trainer = make_trainer(MSES, settings, epochs=6)
        monkeypatch.setattr(
            trainer.method, "held_out_losses", lambda epoch: {m: given[epoch] for m, given in losses.items()}
        )
        return trainer

    return make


LOSSES = {"audio": [1.0, 0.9, 0.95, 0.96, 0.97, 0.5], "video": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]}
"""By which audio stops after epoch 4 with a patience of 3, best in epoch 1, and video never."""


def state_of(trainer, modality):
    """All of a modality's own: parameters and normalisation statistics."""
    return {name: value.clone() for name, value in trainer.method.parts(modality).state_dict().items()}


@pytest.mark.parametrize("restore", [True, False])
def test_a_stopped_modality_stays_bit_for_bit_while_the_rest_trains(scripted, restore):
    trainer = scripted(LOSSES, patience=3, restore=restore)
    train(trainer, 2)
    best = state_of(trainer, "audio")
    train(trainer, 5)
    assert trainer.method.stopped == ["audio"]
    stopped, other = state_of(trainer, "audio"), state_of(trainer, "video")
    joint = trainer.method.net.head.joint.bias.clone()
    assert same_state(stopped, best) is restore
    train(trainer)
    assert same_state(state_of(trainer, "audio"), stopped)
    assert not same_state(state_of(trainer, "video"), other)
    assert not torch.equal(trainer.method.net.head.joint.bias, joint)


def test_who_has_stopped_never_starts_again(scripted):
    trainer = scripted({m: [1.0, 1.1, 0.5, 0.4, 0.3, 0.2] for m in LOSSES}, patience=1)
    train(trainer)
    assert trainer.method.stopped == ["audio", "video"]
    assert not any(p.requires_grad for p in trainer.method.net.encoders.parameters())


def test_resuming_after_a_stop_and_while_waiting_is_exact(make_trainer):
    settings = {"patience": 1, "min_gain": 0.2}
    whole = make_trainer(MSES, settings, epochs=6)
    history = train(whole)
    assert whole.method.stopped, "the test needs a stop"
    for cut in range(1, 6):
        first, second = make_trainer(MSES, settings, epochs=6), make_trainer(MSES, settings, epochs=6)
        train(first, cut)
        second.load_state(first.state())
        assert train(second) == history[cut:]
        assert same_state(second.state()["method"], whole.state()["method"])


def test_overfitting_is_measured_on_samples_that_are_not_trained_on(make_trainer, whole):
    trainer = make_trainer(MSES, {"held_out": 0.2})
    trained = {tuple(row.tolist()) for row in whole(trainer.run._train)["audio"]}
    held = {tuple(row.tolist()) for batch in trainer.run.held_out_batches(0) for row in batch.inputs["audio"]}
    assert len(held) == round(0.2 * (len(trained) + len(held)))
    assert not trained & held
    assert make_trainer(MSES, {"patience": None}).run.num_train == len(trained) + len(held)


def test_measuring_changes_nothing_that_training_sees(make_trainer):
    trainer = make_trainer(MSES, {})
    trainer.run_epoch()
    before = {name: value.clone() for name, value in trainer.method.net.state_dict().items()}
    trainer.method.held_out_losses(0)
    assert same_state(trainer.method.net.state_dict(), before)
    assert trainer.method.training
