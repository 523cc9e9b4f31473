"""Boosted concat: what is frozen stays, each round fits what is left, and boosting can only see train."""

from __future__ import annotations

import pytest
import torch
from benchmark.methods.boosted_concat import BoostedConcat, residual_target
from torch.nn import functional as F

from benchmark.check.trained import train


def test_residual_is_the_negative_gradient_of_the_cross_entropy():
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    F.cross_entropy(logits, labels, reduction="sum").backward()
    torch.testing.assert_close(residual_target(logits.detach(), labels), -logits.grad)


def test_joint_training_ends_where_boosting_begins(make_trainer):
    trainer = make_trainer(BoostedConcat, {"share": 0.5}, epochs=6)
    train(trainer, 3)
    frozen = {name: value.clone() for name, value in trainer.method.net.state_dict().items()}
    assert len(trainer.method.learners) == 0
    train(trainer)
    assert len(trainer.method.learners) == 3
    for name, value in trainer.method.net.state_dict().items():
        assert torch.equal(value, frozen[name]), name


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_only_the_boosted_modality_changes(make_trainer, whole, modality):
    trainer = make_trainer(BoostedConcat, {"share": 0.5, "modality": modality}, epochs=6)
    train(trainer, 3)
    before = trainer.method.predict(whole(trainer.feeds.test))
    train(trainer)
    trainer.method.eval()
    after = trainer.method.predict(whole(trainer.feeds.test))
    trainer.method.net.eval()
    plain = trainer.method.net(whole(trainer.feeds.test)).unimodal
    other = {"audio": "video", "video": "audio"}[modality]
    assert torch.equal(after[other], plain[other])
    assert not torch.equal(after[modality], plain[modality])
    torch.testing.assert_close(after["fused"], after["audio"] + after["video"])
    assert set(before) == set(after)


def test_boosting_lowers_the_loss_of_the_modality_on_train(make_trainer, whole):
    trainer = make_trainer(BoostedConcat, {"share": 0.7, "modality": "audio"}, epochs=10)
    train(trainer, 3)
    feed = trainer.feeds.train
    trainer.method.eval()
    joint = float(F.cross_entropy(trainer.method.predict(whole(feed))["audio"], feed.labels).detach())
    train(trainer)
    trainer.method.eval()
    boosted = float(F.cross_entropy(trainer.method.predict(whole(feed))["audio"], feed.labels).detach())
    assert boosted < joint
