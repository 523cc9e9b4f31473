"""DOMFN: penalties, gate and losses against numbers computed by hand and an independent calculation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from benchmark.methods.domfn import DOMFN, instance_losses, most_confident, penalties
from torch.nn import functional as F

from benchmark.check.synthetic import Blobs

SMALL = {"widths": [16], "pretrain": 0.0}


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("seed", range(20))
def test_penalties_equal_an_independent_calculation(seed, count):
    p = softmax(np.random.default_rng(seed).normal(size=(count, 6, 4)))
    ours = penalties(torch.tensor(p))
    for m in range(count):
        for i in range(6):
            expected = max((p[m, i, k] - p[:, i, k].mean()) ** 2 for k in range(4))
            assert float(ours[m, i]) == pytest.approx(expected, abs=1e-9)
    if count == 2:
        torch.testing.assert_close(ours[0], ours[1])


def test_penalty_is_zero_in_agreement_and_at_most_a_quarter_for_two_and_four_ninths_for_three():
    sure = torch.eye(3)
    assert penalties(sure[[0, 0]][:, None]).tolist() == [[0], [0]]
    assert penalties(sure[[0, 1]][:, None]).flatten().tolist() == pytest.approx([1 / 4] * 2)
    assert float(penalties(sure[[0, 1, 2]][:, None]).max()) == pytest.approx(4 / 9)


@pytest.mark.parametrize("seed", range(20))
def test_losses_equal_an_independent_calculation_and_the_gradient_of_the_square(seed):
    rng = np.random.default_rng(seed)
    own, fused, penalty = rng.uniform(0, 3, (2, 5)), rng.uniform(0, 3, 5), rng.uniform(0, 0.25, (2, 5))
    fuses = rng.integers(0, 2, 5).astype(bool)
    expected = []
    for i in range(5):
        loss = sum(own[:, i])  # the released code's else branch: three backward passes, one for each modality
        if fuses[i]:
            loss += fused[i] + sum(0.5 * own[m, i] ** 2 - 0.5 * penalty[m, i] for m in range(2))
        expected.append(loss)
    leaf = torch.tensor(own, requires_grad=True)
    ours = instance_losses(leaf, torch.tensor(fused), torch.tensor(penalty), torch.tensor(fuses), 0.5)
    np.testing.assert_allclose(ours.detach().numpy(), expected, atol=1e-6)
    ours.sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), 1 + fuses * own, atol=1e-6)


def test_most_confident_modality_speaks_for_each_sample():
    logits = torch.tensor([[[2.0, 0.0], [0.1, 0.0]], [[0.0, 1.0], [0.0, 3.0]]])  # (M, B, K)
    assert most_confident(logits, logits.softmax(2)).tolist() == [[2, 0], [0, 3]]


@pytest.fixture
def ready(make_trainer):
    """A method in an epoch, and a batch: `ready(count=3, gamma=0.0)`."""

    def make(count=2, epoch=0, **settings):
        trainer = make_trainer(DOMFN, {**SMALL, **settings}, dataset=Blobs(Blobs.Config(num_modalities=count)))
        trainer.run.begin_epoch(epoch)
        trainer.method.start_epoch(epoch)
        return trainer.method, next(trainer.run.train_batches(epoch))

    return make


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("count", [2, 3])
def test_loss_of_a_batch_is_the_mean_over_its_samples_one_by_one(ready, count, variant):
    tau = {(2, "paper"): 0.009, (2, "released"): 0.0145, (3, "paper"): 0.005, (3, "released"): 0.006}[
        count, variant
    ]  # some of the samples are fused
    method, batch = ready(count, variant=variant, tau=tau)
    method.double().eval()
    with torch.no_grad():
        out = method.net({m: x.double() for m, x in batch.inputs.items()})
    losses, fused_samples = [], 0
    for i, y in enumerate(batch.labels):
        logits = {m: z[i] for m, z in out.unimodal.items()}
        p = torch.stack([z if variant == "released" else z.softmax(0) for z in logits.values()])
        own = [F.cross_entropy(z, y) for z in logits.values()]
        pen = [float(((p[m] - p.mean(0)) ** 2).max()) for m in range(count)]
        if all(each / tau < 0.8 for each in pen):
            fused_samples += 1
            own = [ce + 0.5 * ce * ce - 0.5 * each for ce, each in zip(own, pen, strict=True)]
            own.append(F.cross_entropy(out.fused[i], y))
        losses.append(float(sum(own)))
    assert float(method.loss(out, batch)) == pytest.approx(np.mean(losses), abs=1e-6)
    assert 0 < fused_samples < len(losses)


@pytest.mark.parametrize(("num_classes", "floor"), [(2, 0.313262), (6, 1.043592), (7, 1.165422)])
def test_released_cross_entropy_cannot_fall_below_its_floor(num_classes, floor):
    head = torch.nn.Sigmoid()
    sure = torch.full((1, num_classes), -100.0)
    sure[0, 0] = 100.0
    assert float(F.cross_entropy(head(sure), torch.tensor([0]))) == pytest.approx(floor, abs=1e-6)
    assert floor == pytest.approx(math.log(1 + (num_classes - 1) / math.e), abs=1e-6)


def fusing_weights(method):
    return [p.detach().clone() for p in method.net.head.fusion.parameters()]


@pytest.mark.parametrize("settings", [{"gamma": 0.0}, {"pretrain": 1.0}])
def test_what_never_fuses_leaves_the_fusing_layers_alone_and_predicts_by_one_modality(make_trainer, settings):
    trainer = make_trainer(DOMFN, {**SMALL, **settings})
    before = fusing_weights(trainer.method)
    for _ in range(3):
        trainer.run_epoch()
    assert all(map(torch.equal, before, fusing_weights(trainer.method)))
    method = trainer.method.eval()
    inputs = next(trainer.run.train_batches(0)).inputs
    logits = method.predict(inputs)
    own = torch.stack([logits["audio"], logits["video"]])
    torch.testing.assert_close(logits["fused"], most_confident(own, own.softmax(2)))


def test_what_always_fuses_predicts_so(ready):
    method, batch = ready(gamma=None, tau=1e-9)
    method.eval()
    torch.testing.assert_close(method.predict(batch.inputs)["fused"], method.net(batch.inputs).fused)


def test_two_modalities_always_fuse_at_the_settings_for_three(ready):
    method, _ = ready(tau=0.5)
    worst = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert method.agree(penalties(worst)).all()
    method, _ = ready()
    assert not method.agree(penalties(worst)).any()
    edge = torch.tensor([[[0.89, 0.11], [0.91, 0.09]], [[0.1, 0.9]] * 2])  # differences of 0.79 and 0.81
    assert method.agree(penalties(edge)).tolist() == [True, False]


def test_fusion_begins_after_pretraining_and_a_resumed_run_knows(make_trainer):
    first, second = (make_trainer(DOMFN, {**SMALL, "pretrain": 0.5}) for _ in range(2))
    assert not first.method.fusing
    fused = []
    for _ in range(3):
        fused.append("fused" in first.run_epoch()[0]["train"])
    assert fused == [False, False, True]
    second.load_state(first.state())
    assert second.method.fusing
