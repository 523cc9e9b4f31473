"""Sum: the same function as concat, trained otherwise; not the same loss as late_sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods.late_sum import LateSum
from benchmark.methods.sum import Sum
from torch.nn import functional as F

from benchmark.check.trained import train
from benchmark.model import ConcatHead, LateHead

DIMS = {"audio": 3, "video": 4, "text": 2}


@pytest.mark.parametrize("seed", range(20))
def test_it_equals_concat_where_weights_agree_and_biases_add_up(seed):
    torch.manual_seed(seed)
    summed = LateHead(DIMS, 5).double()
    joint = ConcatHead(DIMS, 5).double()
    with torch.no_grad():
        for modality, layer in summed.layers.items():
            joint.slices[modality].copy_(layer.weight)
        joint.bias.copy_(torch.stack([layer.bias for layer in summed.layers.values()]).sum(0))
    features = {m: torch.randn(6, dim, dtype=torch.float64) for m, dim in DIMS.items()}
    expected = sum(
        features[m].numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        for m, layer in summed.layers.items()
    )
    np.testing.assert_allclose(summed(features).fused.detach().numpy(), expected, atol=1e-6)
    torch.testing.assert_close(joint(features).fused, summed(features).fused)


def test_each_bias_gets_the_whole_gradient_of_the_sum(make_trainer):
    trainer = make_trainer(Sum, {})
    batch = next(trainer.run.train_batches(0))
    out = trainer.method.net(batch.inputs)
    trainer.method.loss(out, batch).backward()
    residual = out.fused.detach().softmax(1) - F.one_hot(batch.labels, 3)
    for layer in trainer.method.net.head.layers.values():
        torch.testing.assert_close(layer.bias.grad, residual.mean(0))


def test_one_loss_couples_the_encoders_which_late_sum_leaves_apart(make_trainer):
    """Silence one encoder: the other's gradient changes under the sum's loss, and not under a loss for each."""
    for kind, coupled in ((Sum, True), (LateSum, False)):
        gradients = []
        for scale in (1.0, 0.0):
            method = make_trainer(kind, {}).method
            batch = next(make_trainer(kind, {}).run.train_batches(0))
            method.eval()  # so that dropout draws nothing
            inputs = {"audio": batch.inputs["audio"], "video": scale * batch.inputs["video"]}
            method.loss(method.net(inputs), batch).backward()
            gradients.append(method.net.encoders["audio"].layers[0].weight.grad.clone())
        assert torch.allclose(*gradients) is not coupled


def test_both_learn_from_the_same_initial_weights(make_trainer):
    one, other = make_trainer(Sum, {}), make_trainer(LateSum, {})
    for ours, theirs in zip(one.method.parameters(), other.method.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert train(one) != train(other)
