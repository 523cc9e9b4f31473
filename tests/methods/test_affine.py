"""Affine: FiLM against an independent calculation, its identity, and who modulates whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods.affine import Affine, FilmHead, modulate

from benchmark.check.synthetic import Blobs

DIMS = {"audio": 3, "video": 4, "text": 2}


@pytest.fixture
def features():
    torch.manual_seed(7)
    return {m: torch.randn(5, dim, dtype=torch.float64) for m, dim in DIMS.items()}


def linear(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


@pytest.mark.parametrize("modulated", list(DIMS))
@pytest.mark.parametrize("seed", range(20))
def test_logits_follow_an_independent_calculation(seed, modulated):
    torch.manual_seed(seed)
    head = FilmHead(DIMS, modulated, 6).double()
    features = {m: torch.randn(5, dim, dtype=torch.float64) for m, dim in DIMS.items()}
    condition = np.concatenate([u.numpy() for m, u in features.items() if m != modulated], 1)
    width = DIMS[modulated]
    generated = linear(head.generator, condition)
    expected = linear(head.output, generated[:, :width] * features[modulated].numpy() + generated[:, width:])
    np.testing.assert_allclose(head(features).fused.detach().numpy(), expected, atol=1e-6)


def test_a_generator_of_ones_and_zeros_leaves_the_modality_alone(features):
    head = FilmHead(DIMS, "video", 6).double()
    with torch.no_grad():
        head.generator.weight.zero_()
        head.generator.bias.copy_(torch.tensor([1.0] * 4 + [0.0] * 4))
    torch.testing.assert_close(head(features).fused, head.output(features["video"]))


def test_scale_and_shift_are_the_halves_in_that_order():
    u = torch.tensor([[2.0, 3.0]])
    torch.testing.assert_close(modulate(u, torch.tensor([[10.0, 100.0, 1.0, 2.0]])), torch.tensor([[21.0, 302.0]]))


def test_the_last_modality_is_modulated_unless_another_is_named(make_trainer):
    assert make_trainer(Affine, {}).method.net.head.modulated == "video"
    assert make_trainer(Affine, {"modulated": "audio"}).method.net.head.modulated == "audio"


def test_samples_do_not_see_each_other(features):
    head, order = FilmHead(DIMS, "text", 6).double(), torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(head({m: u[order] for m, u in features.items()}).fused, head(features).fused[order])


def test_what_cannot_be_modulated_is_refused_with_a_reason():
    two, one = Blobs(Blobs.Config()).task, Blobs(Blobs.Config(num_modalities=1)).task
    assert "smell" in Affine.unsupported(Affine.Config(modulated="smell"), two)
    assert "two or more" in Affine.unsupported(Affine.Config(), one)
