"""Multitask: what its loss adds up, whom it reaches, and that fused logits ignore the auxiliary classifiers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods._auxiliary import AuxiliaryHead, multitask_loss
from benchmark.methods.multitask import Multitask

from benchmark.check.trained import train

MODALITIES = ("audio", "video", "text")


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of log sum exp(z) - z[y], written out."""
    return float(np.mean([np.log(np.exp(z).sum()) - z[y] for z, y in zip(logits, labels, strict=True)]))


@pytest.mark.parametrize("seed", range(20))
def test_loss_equals_an_independent_sum_of_cross_entropies(seed):
    rng = np.random.default_rng(seed)
    fused, *rest = rng.normal(size=(4, 16, 5))
    unimodal = dict(zip(MODALITIES, rest, strict=True))
    labels, weight = rng.integers(0, 5, 16), float(rng.uniform(0, 2))
    expected = cross_entropy(fused, labels) + weight * sum(cross_entropy(z, labels) for z in unimodal.values())
    ours = multitask_loss(
        torch.from_numpy(fused),
        {m: torch.from_numpy(z) for m, z in unimodal.items()},
        torch.from_numpy(labels),
        weight,
    )
    assert float(ours) == pytest.approx(expected, abs=1e-6)


@pytest.fixture
def head():
    torch.manual_seed(0)
    return AuxiliaryHead({"audio": 3, "video": 4}, 5).double()


@pytest.fixture
def features():
    torch.manual_seed(1)
    return {m: torch.randn(7, dim, dtype=torch.float64, requires_grad=True) for m, dim in (("audio", 3), ("video", 4))}


def test_fused_logits_are_those_of_concat_and_ignore_the_auxiliary_classifiers(head, features):
    weight = torch.cat([head.joint.slices["audio"], head.joint.slices["video"]], 1)
    plain = torch.cat(list(features.values()), 1) @ weight.T + head.joint.bias
    torch.testing.assert_close(head(features).fused, plain)
    with torch.no_grad():
        for parameter in head.auxiliary.parameters():
            parameter.fill_(9.0)
    torch.testing.assert_close(head(features).fused, plain)


def test_an_auxiliary_loss_reaches_its_own_encoder_alone(head, features):
    head(features).unimodal["audio"].sum().backward()
    assert features["audio"].grad.abs().sum() > 0
    assert features["video"].grad is None


def test_an_encoder_gets_the_gradient_of_concat_plus_its_own(head, features):
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    out = head(features)
    multitask_loss(out.fused, out.unimodal, labels, 0.5).backward()
    onehot = np.eye(5)[labels]
    softmax = lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True)  # noqa: E731
    for modality, u in features.items():
        joint = (softmax(out.fused.detach().numpy()) - onehot) @ head.joint.slices[modality].detach().numpy()
        own = softmax(out.unimodal[modality].detach().numpy()) - onehot
        auxiliary = own @ head.auxiliary.layers[modality].weight.detach().numpy()
        np.testing.assert_allclose(u.grad.numpy(), (joint + 0.5 * auxiliary) / 7, atol=1e-9)


def test_weight_decides_how_far_the_encoders_leave_those_of_concat(make_trainer):
    ends = []
    for settings in ({"weight": 0.0}, {"weight": 1.0}, {"weight": 4.0}):
        trainer = make_trainer(Multitask, settings, epochs=1)
        train(trainer)
        ends.append(torch.cat([p.detach().flatten() for p in trainer.method.net.encoders.parameters()]))
    none, little, much = ends
    assert 0 < (little - none).norm() < (much - none).norm()
