"""Greedy: gates, learning speeds, and which steps are curated."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from benchmark.methods.greedy import MMTM, Greedy, GreedyHead, speed
from torch import nn
from torch.nn import functional as F

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import same_state, train

NAMES = ("audio", "video", "text")
DIMS = {"audio": 12, "video": 8}


def make_head(released=False, dims=DIMS) -> GreedyHead:
    torch.manual_seed(0)
    return GreedyHead(dims, 5, 4.0, released).double()


def draw_features(dims=DIMS, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return {m: torch.randn(6, dim, generator=draw, dtype=torch.float64) for m, dim in dims.items()}


@pytest.mark.parametrize("seed", range(20))
def test_head_equals_an_independent_calculation(seed):
    head, features = make_head().eval(), draw_features(seed=seed)
    weights = {name: p.detach().numpy() for name, p in head.named_parameters()}
    joined = np.concatenate([u.numpy() for u in features.values()], 1)
    assert weights["mmtm.squeeze.weight"].shape == (10, 20)  # half the width of all features
    states = np.maximum(joined @ weights["mmtm.squeeze.weight"].T + weights["mmtm.squeeze.bias"], 0)
    logits = {}
    for m, u in features.items():
        excited = states @ weights[f"mmtm.excite.{m}.weight"].T + weights[f"mmtm.excite.{m}.bias"]
        gated = u.numpy() / (1 + np.exp(-excited))
        logits[m] = gated @ weights[f"classifiers.layers.{m}.weight"].T + weights[f"classifiers.layers.{m}.bias"]
    out = head(features)
    for m in features:
        np.testing.assert_allclose(out.unimodal[m].detach().numpy(), logits[m], atol=1e-6)
    np.testing.assert_allclose(out.fused.detach().numpy(), sum(logits.values()) / 2, atol=1e-6)


@pytest.mark.parametrize("curated", ["audio", "video"])
def test_a_curated_modality_hears_nothing_of_the_others_and_they_still_hear_it(curated):
    head = make_head()
    head(draw_features())  # so that means are not zero
    head.curated.copy_(torch.tensor([m == curated for m in DIMS]))
    other = next(m for m in DIMS if m != curated)
    features = draw_features()
    plain = head(features).unimodal
    changed = head({**features, other: features[other] + 1}).unimodal
    assert torch.equal(plain[curated], changed[curated])
    turned = head({**features, curated: features[curated] + 1}).unimodal
    assert not torch.equal(plain[other], turned[other])


def test_mean_gate_is_the_mean_over_regular_batches_and_carries_no_gradient():
    mmtm = MMTM(DIMS, 4.0)
    batches = [{m: torch.rand(6, dim) for m, dim in DIMS.items()} for _ in range(7)]
    for number, gates in enumerate(batches):
        mmtm.remember(gates, torch.tensor(number != 3))
    for m in DIMS:
        expected = torch.stack([gates[m].mean(0) for number, gates in enumerate(batches) if number != 3]).mean(0)
        torch.testing.assert_close(mmtm.mean(m), expected)
        assert not mmtm.mean(m).requires_grad


def test_means_advance_in_training_alone_and_for_released_in_curated_steps_with_the_gates_of_the_first():
    for released in (False, True):
        head = make_head(released, {"audio": 8, "video": 8})
        features = draw_features({"audio": 8, "video": 8})
        head.eval()(features)
        assert head.mmtm.num_batches == 0
        head.train()(features)
        assert head.mmtm.num_batches == 1
        head.curated[0] = True
        head(features)
        assert head.mmtm.num_batches == 1 + released
        assert torch.equal(head.mmtm.mean("audio"), head.mmtm.mean("video")) is released


def test_speed_is_relative():
    draw = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(3, 2, generator=draw)), nn.Parameter(torch.randn(4, generator=draw))]
    for p in params:
        p.grad = torch.randn(p.shape, generator=draw)
    norms = [
        sum(float(x.square().sum()) for x in part) for part in ([p.grad for p in params], [p.detach() for p in params])
    ]
    plain = float(speed(params).detach())
    assert plain == pytest.approx(norms[0] / norms[1])
    for p in params:
        p.data *= 3
        p.grad *= 3
    assert float(speed(params).detach()) == pytest.approx(plain)


def reference_speeds(method):
    """Squared norms by the names of parameters: those of the squeeze layer count for every modality."""
    found = {}
    for m in method.task.modalities:
        branches = {
            "bypass": [f"head.mmtm.excite.{m}.", "head.mmtm.squeeze."],
            "main": [f"encoders.{m}.", f"layers.{m}."],
        }
        for branch, parts in branches.items():
            params = [p for name, p in method.net.named_parameters() if any(part in name for part in parts)]
            squares = [
                sum(float(x.square().sum()) for x in xs)
                for xs in ([p.grad for p in params], [p.detach() for p in params])
            ]
            found[m, branch] = squares[0] / squares[1]
    return found


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("settings", [{}, {"epsilon": 0.2, "window": 3, "first_epoch": 0}, {"variant": "released"}])
def test_steps_are_curated_as_a_plain_loop_decides(make_trainer, settings, count):
    """Replays training and keeps the books with plain numbers, modality by modality."""
    trainer = make_trainer(Greedy, settings, dataset=Blobs(Blobs.Config(num_modalities=count)))
    method, names = trainer.method, NAMES[:count]
    totals = {(m, branch): 0.0 for m in names for branch in ("bypass", "main")}
    left, caring, decisions, epochs = 0, None, [], [0]
    edit = method.edit_gradients

    def check(out, batch):
        nonlocal left, caring
        assert method.net.head.curated.tolist() == [left > 0 and m == caring for m in names]
        decisions.append(left > 0)
        speeds = reference_speeds(method)
        edit(out, batch)
        if left:
            left -= 1
            return
        for key, value in speeds.items():
            totals[key] += value
        bdr = {m: math.log10(totals[m, "bypass"] / totals[m, "main"]) for m in names}
        if epochs[0] >= method.config.first_epoch and max(bdr.values()) - min(bdr.values()) > method.config.epsilon:
            left, caring = method.config.window, max(bdr, key=bdr.get)

    method.edit_gradients = check
    for epoch in range(4):
        epochs[0] = epoch
        trainer.run_epoch()
    assert 0 < sum(decisions) < len(decisions)
    assert method.bypass.tolist() == pytest.approx([totals[m, "bypass"] for m in names], rel=1e-4)
    assert method.main.tolist() == pytest.approx([totals[m, "main"] for m in names], rel=1e-4)


def test_without_bias_nothing_is_ever_curated(make_trainer):
    strict, late = make_trainer(Greedy, {"epsilon": 1e6}), make_trainer(Greedy, {"first_epoch": 100})
    assert train(strict) == train(late)
    assert same_state(strict.method.net.state_dict(), late.method.net.state_dict())
    assert not strict.method.net.head.curated.any()


def test_loss_is_the_sum_over_modalities(make_trainer):
    trainer = make_trainer(Greedy, {})
    batch = next(trainer.run.train_batches(0))
    out = trainer.method.net(batch.inputs)
    expected = sum(F.cross_entropy(z, batch.labels) for z in out.unimodal.values())
    torch.testing.assert_close(trainer.method.loss(out, batch), expected)


def test_a_curated_spell_survives_interruption(make_trainer):
    settings = {"first_epoch": 0, "window": 4}  # spells reach across the ends of epochs of six steps
    whole, first, second = (make_trainer(Greedy, settings) for _ in range(3))
    history = train(whole)
    train(first, 2)
    assert first.method.remaining > 0, "the test needs an interruption within a spell"
    second.load_state(first.state())
    assert train(second) == history[2:]


def test_released_refuses_features_of_several_widths(make_trainer):
    task = Blobs(Blobs.Config()).task
    assert Greedy.unsupported(Greedy.Config(variant="released"), task) is None

    class Wide:
        modalities = task.modalities

        def build_encoders(self):
            return {m: type("Stub", (), {"dim": dim}) for m, dim in DIMS.items()}

    assert "one width" in Greedy.unsupported(Greedy.Config(variant="released"), Wide())
    assert Greedy.unsupported(Greedy.Config(), Wide()) is None
