"""Concat: its slices, and that it couples the encoders."""

from __future__ import annotations

import torch
from benchmark.methods.concat import Concat
from benchmark.methods.unimodal import Unimodal

from benchmark.check.trained import train


def test_concat_slices_sum_to_the_plain_linear_layer(make_trainer):
    trainer = make_trainer(Concat, {})
    head = trainer.method.net.head
    features = {m: torch.randn(7, 8) for m in ("audio", "video")}
    weight = torch.cat([head.slices["audio"], head.slices["video"]], 1)
    plain = torch.cat(list(features.values()), 1) @ weight.T + head.bias
    out = head(features)
    torch.testing.assert_close(out.fused, plain)
    torch.testing.assert_close(sum(out.unimodal.values()), out.fused)


def test_concat_couples_what_late_sum_does_not(make_trainer):
    joint, alone = make_trainer(Concat, {}), make_trainer(Unimodal, {"modality": "audio"})
    train(joint), train(alone)
    one, other = (trainer.method.net.encoders["audio"].state_dict() for trainer in (joint, alone))
    assert any(not torch.allclose(value, other[name]) for name, value in one.items())
