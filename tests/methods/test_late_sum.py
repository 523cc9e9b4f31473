"""Late sum: nothing couples the encoders, and logits are summed."""

from __future__ import annotations

import pytest
import torch
from benchmark.methods.late_sum import LateSum
from benchmark.methods.unimodal import Unimodal

from benchmark.check.trained import train


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
    torch.testing.assert_close(*(trainer.method.net.encoders["audio"].state_dict() for trainer in (late, alone)))


@pytest.mark.parametrize("hidden", [None, 16])
def test_late_sum_fuses_by_summing(make_trainer, hidden):
    method = make_trainer(LateSum, {"hidden": hidden}).method
    out = method.net({m: torch.randn(5, 6) for m in ("audio", "video")})
    torch.testing.assert_close(out.fused, out.unimodal["audio"] + out.unimodal["video"])
