"""ARM: what its loss adds up, that the subspace stays one, and what agreement does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods.arm import ARM, SubspaceHead, disagreement

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import train
from benchmark.data import Batch
from benchmark.model import Outputs


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("strong", ["audio", "video", "text"])
def test_loss_equals_an_independent_calculation(seed, strong):
    rng = np.random.default_rng(seed)
    names = ("audio", "video", "text")
    logits = dict(zip(names, rng.normal(0, 2, (3, 8, 3)), strict=True))
    labels = rng.integers(0, 3, 8)
    chances = {m: np.exp(z) / np.exp(z).sum(1, keepdims=True) for m, z in logits.items()}
    own = {m: -np.mean([np.log(p[i, y]) for i, y in enumerate(labels)]) for m, p in chances.items()}
    expected = own[strong]
    for m in names:
        if m != strong:
            apart = np.mean([((chances[strong][i] - chances[m][i]) ** 2).sum() for i in range(8)])
            expected += 0.6 * own[m] + 1.7 * apart
    config = ARM.Config(strong=strong, weak_weight=0.6, agreement=1.7)
    method = ARM(config, Blobs(Blobs.Config(num_modalities=3)).task)
    out = Outputs({}, {m: torch.from_numpy(z) for m, z in logits.items()}, torch.zeros(8, 3))
    ours = method.loss(out, Batch({}, torch.from_numpy(labels), torch.arange(8)))
    assert float(ours) == pytest.approx(expected, abs=1e-6)


def test_disagreement_is_none_of_equals_and_two_of_opposites():
    sure = torch.tensor([[50.0, 0.0]])
    assert float(disagreement(sure, sure + 3)) == 0
    assert float(disagreement(sure, sure.flip(1))) == pytest.approx(2)


@pytest.mark.parametrize("strong", ["audio", "video"])
def test_the_weak_modality_is_seen_through_an_orthonormal_projection_after_training(make_trainer, strong):
    trainer = make_trainer(ARM, {"strong": strong, "subspace": 0.6})
    weak = "video" if strong == "audio" else "audio"
    subspace = trainer.method.net.head.layers[weak][0]
    before = subspace.basis().detach()
    train(trainer)
    basis = subspace.basis().detach()  # (D, r)
    assert basis.shape == (8, 2)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2), atol=1e-5, rtol=0)
    assert not torch.allclose(basis @ basis.T, before @ before.T, atol=1e-3)
    assert trainer.method.net.head.layers[strong].weight.shape == (3, 8)
    outside = torch.linalg.svd(basis.T).Vh[2:]  # directions that the subspace lacks
    features = {m: torch.randn(4, 8) for m in ("audio", "video")}
    moved = {**features, weak: features[weak] + torch.randn(4, 6) @ outside}
    head = trainer.method.net.head
    torch.testing.assert_close(head(moved).fused, head(features).fused, atol=1e-5, rtol=0)


def test_rank_never_exceeds_the_width_of_features():
    head = SubspaceHead({"audio": 2, "video": 8}, 5, "video", 4)
    assert head.layers["audio"][0].weight.shape == (2, 2)
    assert head({"audio": torch.randn(3, 2), "video": torch.randn(3, 8)}).fused.shape == (3, 5)


def test_without_agreement_no_modality_reaches_another(make_trainer):
    for agreement in (0.0, 1.0):
        trainer = make_trainer(ARM, {"agreement": agreement})
        method = trainer.method
        batch = next(trainer.run.train_batches(0))
        inputs = {m: x.clone().requires_grad_() for m, x in batch.inputs.items()}
        method.eval()
        out = method.net(inputs)
        (grad,) = torch.autograd.grad(method.loss(out, batch), inputs["audio"], retain_graph=True)
        noisy = {**inputs, "video": torch.randn_like(inputs["video"])}
        (other,) = torch.autograd.grad(method.loss(method.net(noisy), batch), inputs["audio"])
        assert torch.allclose(grad, other, atol=1e-7) is (agreement == 0)


def test_much_agreement_brings_predictions_together(make_trainer):
    apart = []
    for agreement in (0.0, 30.0):
        trainer = make_trainer(ARM, {"agreement": agreement})
        train(trainer)
        method = trainer.method.eval()
        values = [disagreement(*method.net(b.inputs).unimodal.values()).detach() for b in trainer.run.train_in_order()]
        apart.append(float(torch.stack(values).mean()))
    assert apart[1] < apart[0] / 3


def test_bare_name_stands_for_each_strong_modality():
    task = Blobs(Blobs.Config(num_modalities=3)).task
    assert [dict(one) for one in ARM.expand(task)] == [{"strong": m} for m in ("audio", "video", "text")]
    assert "smell" in ARM.unsupported(ARM.Config(strong="smell"), task)
    assert ARM.unsupported(ARM.Config(), Blobs(Blobs.Config(num_modalities=1)).task)
