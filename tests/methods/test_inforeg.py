"""InfoReg: the window, the pull, and the traces that decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from benchmark.methods.inforeg import SPAN, InfoReg, growth, leads, regulation
from torch.nn import functional as F

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import train


@pytest.mark.parametrize("seed", range(20))
def test_growth_equals_an_independent_calculation_over_a_whole_history(seed):
    rng = np.random.default_rng(seed)
    history = list(np.zeros(SPAN))  # the released code starts from ten zeros
    rolling = torch.zeros(1, SPAN + 1, dtype=torch.float64)
    assert float(growth(rolling)) == 1.0
    for trace in rng.uniform(0.1, 2, 25) * np.linspace(2, 0.5, 25):
        history.append(trace)
        rolling = torch.cat([rolling[:, 1:], torch.tensor([[trace]], dtype=torch.float64)], 1)
        now, before = sum(history[-10:]) / 10, sum(history[-11:-1]) / 10
        assert float(growth(rolling)) == pytest.approx((now - before) / now, abs=1e-9)


def test_window_is_open_while_there_are_fewer_than_ten_epochs_of_even_traces_and_closed_after():
    rolling, grown = torch.zeros(1, SPAN + 1), []
    for _ in range(13):
        grown.append(float(growth(rolling)))
        rolling = torch.cat([rolling[:, 1:], torch.ones(1, 1)], 1)
    assert grown == pytest.approx([1, *(1 / n for n in range(1, 11)), 0, 0])


@pytest.mark.parametrize("seed", range(20))
def test_pull_equals_an_independent_calculation(seed):
    rng = np.random.default_rng(seed)
    audio, video = rng.uniform(0, 1, 2)
    expected = [0.0, 0.0]
    if audio > video:
        expected[0] = 0.95 * math.exp(math.tanh(audio - video))
    else:
        expected[1] = 0.1 * math.exp(math.tanh(video - audio))
    confidence = torch.tensor([audio, video], dtype=torch.float64)
    ours = regulation(leads(confidence), torch.tensor([0.95, 0.1], dtype=torch.float64))
    assert ours.tolist() == pytest.approx(expected, abs=1e-6)


def test_nobody_is_pulled_when_all_are_equal_and_of_three_only_the_first():
    assert regulation(leads(torch.full((3,), 0.4)), torch.ones(3)).tolist() == [0, 0, 0]
    assert leads(torch.tensor([0.2, 0.8, 0.4])).tolist() == pytest.approx([0, 0.5, 0])


@pytest.fixture
def moved(make_trainer):
    """A method in the second step of an epoch, so that its encoders have left their anchors, with a batch."""

    def make(count=2, **settings):
        trainer = make_trainer(InfoReg, settings, dataset=Blobs(Blobs.Config(num_modalities=count)))
        trainer.run.begin_epoch(0)
        trainer.method.start_epoch(0)
        first, second, *_ = trainer.run.train_batches(0)
        trainer.method.step(first)
        trainer.run.begin_epoch(0)  # forgets what the first step logged
        trainer.method.zero_grad()
        return trainer.method, second

    return make


@pytest.mark.parametrize("count", [2, 3])
def test_only_the_leading_encoder_is_pulled_towards_the_start_of_the_epoch(moved, count):
    method, batch = moved(count)
    out = method.net(batch.inputs)
    method.loss(out, batch).backward()
    plain = {name: p.grad.clone() for name, p in method.net.named_parameters()}
    method.edit_gradients(out, batch)
    logged = method.run.means()
    pulled = [m for m in method.task.modalities if logged[f"beta/{m}"] > 0]
    assert len(pulled) == 1
    anchors = {
        f"encoders.{m}.{name}": anchor
        for m, encoder in method.net.encoders.items()
        for (name, _), anchor in zip(encoder.named_parameters(), method.anchors[m], strict=True)
    }
    for name, p in method.net.named_parameters():
        pull = 0.0
        if name.startswith(f"encoders.{pulled[0]}."):
            pull = logged[f"beta/{pulled[0]}"] * (p.detach() - anchors[name])
        torch.testing.assert_close(p.grad, plain[name] + pull)
    assert any(not torch.equal(p.grad, plain[name]) for name, p in method.net.named_parameters())


def test_a_closed_window_leaves_gradients_alone(moved):
    method, batch = moved(threshold=2.0)
    out = method.net(batch.inputs)
    method.loss(out, batch).backward()
    plain = [p.grad.clone() for p in method.net.parameters()]
    method.edit_gradients(out, batch)
    assert all(map(torch.equal, plain, (p.grad for p in method.net.parameters())))


@pytest.mark.parametrize(("window_of", "expected"), [("leader", [True, False]), ("first", [True, True])])
def test_window_is_judged_by_the_leader_or_by_the_first(make_trainer, window_of, expected):
    method = make_trainer(InfoReg, {"window_of": window_of}).method
    method.traces[0, -1] = 1.0  # grew in the last epoch
    method.traces[1] = 1.0  # constant
    method.start_epoch(1)
    assert method.window.tolist() == expected


def test_trace_sums_squared_gradients_of_weights_over_the_epoch(make_trainer):
    trainer = make_trainer(InfoReg, {})
    expected = {"audio": 0.0, "video": 0.0}
    edit = trainer.method.edit_gradients

    def spy(out, batch):
        edit(out, batch)
        for m in expected:
            layers = trainer.method.net.encoders[m].layers
            expected[m] += sum(float(layer.weight.grad.square().mean()) for layer in (layers[0], layers[4]))

    trainer.method.edit_gradients = spy
    line, _ = trainer.run_epoch()
    assert trainer.method.traces[:, -1].tolist() == pytest.approx(list(expected.values()))
    assert [line["train"][f"trace/{m}"] for m in expected] == pytest.approx(list(expected.values()))
    assert not trainer.method.traces[:, :-1].any()


def test_loss_adds_the_losses_of_the_slices(make_trainer):
    trainer = make_trainer(InfoReg, {"unimodal_weight": 0.5})
    batch = next(trainer.run.train_batches(0))
    out = trainer.method.net(batch.inputs)
    torch.testing.assert_close(sum(out.unimodal.values()), out.fused)
    own = sum(F.cross_entropy(z, batch.labels) for z in out.unimodal.values())
    torch.testing.assert_close(trainer.method.loss(out, batch), F.cross_entropy(out.fused, batch.labels) + 0.5 * own)


def test_released_strengths_are_those_of_audio_and_video(make_trainer):
    assert make_trainer(InfoReg, {"variant": "released"}).method.strengths.tolist() == pytest.approx([0.95, 0.1])
    assert make_trainer(InfoReg, {}).method.strengths.tolist() == pytest.approx([0.95, 0.95])


def test_traces_survive_interruption(make_trainer):
    settings = {"variant": "released", "threshold": 0.4}  # the window closes within the run
    whole, first, second = (make_trainer(InfoReg, settings) for _ in range(3))
    history = train(whole)
    train(first, 2)
    second.load_state(first.state())
    assert torch.equal(second.method.traces, first.method.traces)
    assert train(second) == history[2:]
