"""Gated: against an independent calculation, its half-open gate, and who gates whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods.gated import Gated, GatedHead, gate

from benchmark.check.synthetic import Blobs

DIMS = {"audio": 3, "video": 4, "text": 2}


def linear(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


@pytest.mark.parametrize("gated", list(DIMS))
@pytest.mark.parametrize("seed", range(20))
def test_logits_follow_an_independent_calculation(seed, gated):
    torch.manual_seed(seed)
    head = GatedHead(DIMS, gated, 6).double()
    features = {m: torch.randn(5, dim, dtype=torch.float64) for m, dim in DIMS.items()}
    others = np.concatenate([u.numpy() for m, u in features.items() if m != gated], 1)
    opened = 1 / (1 + np.exp(-linear(head.opening, others)))
    expected = linear(head.output, opened * linear(head.passing, features[gated].numpy()))
    np.testing.assert_allclose(head(features).fused.detach().numpy(), expected, atol=1e-6)


def test_a_projection_of_zero_half_opens_the_gate():
    torch.manual_seed(0)
    head = GatedHead({"audio": 3, "video": 4}, "video", 6)
    with torch.no_grad():
        head.opening.weight.zero_()
        head.opening.bias.zero_()
    features = {"audio": torch.randn(5, 3), "video": torch.randn(5, 4)}
    torch.testing.assert_close(head(features).fused, head.output(0.5 * head.passing(features["video"])))


def test_a_closed_gate_lets_nothing_through_and_an_open_one_all():
    passing = torch.randn(5, 4)
    torch.testing.assert_close(gate(torch.full((5, 4), -100.0), passing), torch.zeros(5, 4))
    torch.testing.assert_close(gate(torch.full((5, 4), 100.0), passing), passing)


def test_the_last_modality_is_gated_unless_another_is_named(make_trainer):
    assert make_trainer(Gated, {}).method.net.head.gated == "video"
    assert make_trainer(Gated, {"gated": "audio"}).method.net.head.gated == "audio"


def test_what_cannot_be_gated_is_refused_with_a_reason():
    two, one = Blobs(Blobs.Config()).task, Blobs(Blobs.Config(num_modalities=1)).task
    assert "smell" in Gated.unsupported(Gated.Config(gated="smell"), two)
    assert "two or more" in Gated.unsupported(Gated.Config(), one)
