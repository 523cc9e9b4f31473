"""The baselines: what each couples and what it does not."""

from __future__ import annotations

import pytest
import torch
from benchmark.methods.concat import Concat
from benchmark.methods.late_sum import LateSum
from benchmark.methods.unimodal import Unimodal

from benchmark.check.methods import train
from benchmark.synthetic import Blobs


def encoder_of(trainer, modality):
    return {k: v.clone() for k, v in trainer.method.net.encoders[modality].state_dict().items()}


def test_concat_slices_sum_to_the_plain_linear_layer(make_trainer):
    trainer = make_trainer(Concat, {})
    head = trainer.method.net.head
    features = {m: torch.randn(7, 8) for m in ("audio", "video")}
    weight = torch.cat([head.slices["audio"], head.slices["video"]], 1)
    plain = torch.cat(list(features.values()), 1) @ weight.T + head.bias
    out = head(features)
    torch.testing.assert_close(out.fused, plain)
    torch.testing.assert_close(sum(out.unimodal.values()), out.fused)


def test_late_sum_trains_each_modality_as_if_it_were_alone(make_trainer):
    late = make_trainer(LateSum, {})
    alone = make_trainer(Unimodal, {"modality": "audio"})
    for trainer in (late, alone):
        for module in trainer.method.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # its random numbers are drawn in turn, so they differ
        linear = trainer.method.net.head.layers["audio"]
        with torch.no_grad():
            linear.weight.copy_(torch.linspace(-1, 1, linear.weight.numel()).view_as(linear.weight))
            linear.bias.zero_()
        train(trainer)
    for name, value in encoder_of(late, "audio").items():
        torch.testing.assert_close(value, encoder_of(alone, "audio")[name], msg=name)


def test_concat_couples_what_late_sum_does_not(make_trainer):
    joint, alone = make_trainer(Concat, {}), make_trainer(Unimodal, {"modality": "audio"})
    train(joint), train(alone)
    one, other = encoder_of(joint, "audio"), encoder_of(alone, "audio")
    assert any(not torch.allclose(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("hidden", [None, 16])
def test_late_sum_fuses_by_summing(make_trainer, hidden):
    method = make_trainer(LateSum, {"hidden": hidden}).method
    out = method.net({m: torch.randn(5, 6) for m in ("audio", "video")})
    torch.testing.assert_close(out.fused, out.unimodal["audio"] + out.unimodal["video"])


def test_unimodal_refuses_a_modality_that_is_not_there():
    reason = Unimodal.unsupported(Unimodal.Config(modality="smell"), Blobs(Blobs.Config()).task)
    assert "smell" in reason
    assert "audio, video" in reason
