"""MMCosine: cosines against an independent calculation, blind to norms; what the released code scores instead."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods.mmcosine import CosineHead, MMCosine, scaled_cosines

from benchmark.check.trained import train

DIMS = {"audio": 3, "video": 4, "text": 2}


def features_of(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {m: torch.randn(8, dim, generator=draw, dtype=torch.float64) for m, dim in DIMS.items()}


@pytest.mark.parametrize("seed", range(20))
def test_logits_follow_an_independent_calculation(seed):
    torch.manual_seed(seed)
    head, features = CosineHead(DIMS, 5, 15.0).double(), features_of(seed)
    out = head(features)
    total = np.zeros((8, 5))
    for m, u in features.items():
        weight = head.slices[m].detach().numpy()
        cosines = [[row @ w / np.sqrt(row @ row) / np.sqrt(w @ w) for w in weight] for row in u.numpy()]
        np.testing.assert_allclose(out.unimodal[m].detach().numpy(), 15.0 * np.array(cosines), atol=1e-6)
        total += 15.0 * np.array(cosines)
    np.testing.assert_allclose(out.fused.detach().numpy(), total, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_norms_of_features_and_weights_change_nothing(factor):
    torch.manual_seed(0)
    u, weight = torch.randn(8, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    plain = scaled_cosines(u, weight, 10.0)
    torch.testing.assert_close(scaled_cosines(factor * u, weight, 10.0), plain)
    torch.testing.assert_close(scaled_cosines(u, factor * weight, 10.0), plain)


def test_the_scale_bounds_each_modality_and_is_reached():
    u = torch.randn(8, 4)
    assert scaled_cosines(u, torch.randn(5, 4), 10.0).abs().max() <= 10.0 + 1e-5
    torch.testing.assert_close(scaled_cosines(u, u, 10.0).diagonal(), torch.full((8,), 10.0))


def test_gradients_are_orthogonal_to_features_and_weights():
    """A cosine cannot be changed along the vector itself, so training never grows a logit by a norm."""
    u = torch.randn(8, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    scaled_cosines(u, weight, 10.0).logsumexp(1).sum().backward()
    torch.testing.assert_close((u * u.grad).sum(1), torch.zeros(8, dtype=torch.float64))
    torch.testing.assert_close((weight * weight.grad).sum(1), torch.zeros(5, dtype=torch.float64))


def test_the_bias_is_never_trained(make_trainer):
    trainer = make_trainer(MMCosine, {})
    before = trainer.method.net.head.bias.clone()
    train(trainer)
    assert torch.equal(trainer.method.net.head.bias, before)


def test_both_variants_train_alike_and_only_their_fused_predictions_differ(make_trainer, whole):
    paper, released = (make_trainer(MMCosine, {"variant": v}) for v in ("paper", "released"))
    for trainer in (paper, released):
        train(trainer)
        trainer.method.eval()
    inputs = whole(paper.feeds.test)
    ours, theirs = paper.method.predict(inputs), released.method.predict(inputs)
    assert torch.equal(ours["audio"], theirs["audio"])
    torch.testing.assert_close(ours["fused"], ours["audio"] + ours["video"])
    head, features = released.method.net.head, released.method.net.encode(inputs)
    weight = torch.cat([head.slices["audio"], head.slices["video"]], 1)
    torch.testing.assert_close(theirs["fused"], torch.cat(list(features.values()), 1) @ weight.T + head.bias)
    assert not torch.allclose(ours["fused"], theirs["fused"])
