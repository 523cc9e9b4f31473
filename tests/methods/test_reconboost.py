"""ReconBoost: losses against hand-computed numbers and plain numpy, the schedule, and who moves in which phase."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods.reconboost import (
    ReconBoost,
    kl_boosting_loss,
    masked_boosting_loss,
    plan,
    released_boosting_loss,
)
from torch.nn import functional as F

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import same_state, train


def numpy_log_softmax(logits):
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def random_problem(seed, size=6, classes=5):
    rng = np.random.default_rng(seed)
    logits, others = rng.normal(size=(2, size, classes)) * rng.uniform(0.5, 4)
    return logits, others, rng.integers(0, classes, size)


@pytest.mark.parametrize("seed", range(20))
def test_losses_equal_an_independent_calculation(seed):
    logits, others, labels = random_problem(seed)
    log_q, log_p, onehot = numpy_log_softmax(logits), numpy_log_softmax(others), np.eye(5)[labels]
    p = np.exp(log_p)
    tensors = torch.from_numpy(logits), torch.from_numpy(others), torch.from_numpy(labels)
    divergence = (p * (log_p - log_q)).sum(1)
    expected = 1.5 * (-(onehot * log_q).sum(1) - 0.3 * divergence).mean()
    p_true = p[np.arange(6), labels]
    assert float(kl_boosting_loss(*tensors, 0.3, 1.5).mean()) == pytest.approx(expected, abs=1e-6)
    expected = 1.5 * (-(1 - 0.3 * p_true) * (onehot * log_q).sum(1)).mean()
    assert float(masked_boosting_loss(*tensors, 0.3, 1.5).mean()) == pytest.approx(expected, abs=1e-6)
    expected = (-5.0 * (onehot * log_q).mean(1) + 1.5 * (onehot * p * log_q).mean(1)).mean()
    assert float(released_boosting_loss(*tensors, 0.3, 5.0).mean()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_gradients_are_those_of_a_residual_label(seed):
    logits, others, labels = (torch.from_numpy(x) for x in random_problem(seed))
    logits.requires_grad_()
    q, p, onehot = logits.softmax(1).detach(), others.softmax(1), F.one_hot(labels, 5)
    size = len(labels)
    (gradient,) = torch.autograd.grad(kl_boosting_loss(logits, others, labels, 0.3, 1.0).mean(), logits)
    residual = onehot - 0.3 * p
    torch.testing.assert_close(gradient, (residual.sum(1, keepdim=True) * q - residual) / size)
    (gradient,) = torch.autograd.grad(masked_boosting_loss(logits, others, labels, 0.3, 1.0).mean(), logits)
    left = 1 - 0.3 * p.gather(1, labels[:, None])
    torch.testing.assert_close(gradient, left * (q - onehot) / size)
    (gradient,) = torch.autograd.grad(released_boosting_loss(logits, others, labels, 0.2, 5.0).mean(), logits)
    left = (5 - p.gather(1, labels[:, None])) / 5
    torch.testing.assert_close(gradient, left * (q - onehot) / size)


def test_golden_numbers():
    uniform, label = torch.zeros(1, 6), torch.tensor([0])
    assert float(released_boosting_loss(uniform, uniform, label, 0.2, 5.0)) == pytest.approx(1.443362, abs=1e-6)
    logits, others, labels = (torch.from_numpy(x) for x in random_problem(0))
    plain = F.cross_entropy(logits, labels)
    assert float(kl_boosting_loss(logits, others, labels, 0.0, 1.0).mean()) == pytest.approx(float(plain))
    assert float(released_boosting_loss(logits, others, labels, 0.0, 5.0).mean()) == pytest.approx(
        float(plain)
    )  # K = 5
    assert float(kl_boosting_loss(logits, logits, labels, 0.7, 1.0).mean()) == pytest.approx(float(plain))


@pytest.mark.parametrize(
    ("size", "plain", "masked"),
    [(1, 0.5216, 0.5055), (10, -1.3919, 8.3229e-05), (100, -16.392, 0.0), (1000, -166.392, 0.0)],
)
def test_only_the_literal_loss_falls_without_bound(size, plain, masked):
    logits, others, label = torch.tensor([[0.0, -size, -size]]).double(), torch.zeros(1, 3).double(), torch.tensor([0])
    assert float(kl_boosting_loss(logits, others, label, 0.25, 1.0)) == pytest.approx(plain, abs=1e-3)
    assert float(masked_boosting_loss(logits, others, label, 0.25, 1.0)) == pytest.approx(masked, abs=1e-4)


def test_how_far_a_loss_is_below_zero_is_logged(make_trainer):
    for regulariser, falls in (("masked", False), ("kl", True)):
        method, batches = begun(make_trainer, 1, regulariser=regulariser)
        method.net.head.classifier[-1].weight.data.mul_(30)
        terms = method.step(batches[0])
        assert (float(terms["below_zero/audio"]) < 0) is falls


def phases(epochs, modalities, *lengths):
    """Spell a run: s for the start, B for boosting, r for rectification."""
    schedule = plan(epochs, modalities, *lengths)
    return "".join("s" if schedule.stage(e) is None else "B" if schedule.boosts(e) else "r" for e in range(epochs))


def test_schedule():
    assert phases(10, 2, None, None, None) == "ssBrBrBrBr"
    assert phases(2, 2, None, None, None) == "ss"
    assert phases(12, 2, 2, 1, 0) == "BBrBBrBBrBBr"
    assert phases(13, 2, 2, 1, 3) == "ssssBBrBBrBBr"
    assert phases(7, 2, 2, 0, 1) == "sBBBBBB"
    assert phases(100, 2, None, None, None)[-8:] == "BBBBrrrr"
    for epochs in range(3, 130):
        for modalities in (2, 3):
            spelt = phases(epochs, modalities, None, None, None)
            assert spelt.endswith("Br") or spelt.endswith("rr")
            assert spelt.count("s") >= max(epochs // 10, 1)


def test_stages_take_turns_and_begin_once():
    schedule = plan(13, 3, 2, 1, 1)
    assert [schedule.stage(e) for e in range(13)] == [None, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [e for e in range(13) if schedule.begins(e)] == [1, 3, 4, 6, 7, 9, 10, 12]
    without = plan(5, 2, 2, 0, 1)
    assert [e for e in range(5) if without.begins(e)] == [1, 3]


SETTINGS = {"start_epochs": 1, "boosting_epochs": 1, "rectification_epochs": 1}


def begun(make_trainer, epoch, count=2, **settings):
    """A method at the beginning of an epoch: 0 starts, 1 boosts audio, 2 rectifies, 3 boosts video, 4 rectifies."""
    dataset = Blobs(Blobs.Config(num_modalities=count))
    trainer = make_trainer(ReconBoost, {**SETTINGS, **settings}, epochs=5, dataset=dataset)
    trainer.run.begin_epoch(epoch)
    trainer.method.start_epoch(epoch)
    return trainer.method, list(trainer.run.train_batches(epoch))


def parts(method):
    """Everything that can move, parameters and normalisation statistics, by part."""
    head = method.net.head
    modules = {**dict(method.net.encoders.items()), "classifier": head.classifier}
    states = {name: {k: v.clone() for k, v in module.state_dict().items()} for name, module in modules.items()}
    return {**states, "rate": {"rate": head.rate.detach().clone()}}


@pytest.mark.parametrize(
    ("epoch", "moves"),
    [
        (0, {"audio", "video", "classifier"}),
        (1, {"audio", "classifier"}),
        (2, {"audio", "video", "classifier", "rate"}),
        (3, {"video", "classifier"}),
    ],
)
def test_who_moves_in_which_phase(make_trainer, epoch, moves):
    method, batches = begun(make_trainer, epoch)
    before = parts(method)
    method.step(batches[0])
    method.step(batches[1])
    assert {name for name, state in parts(method).items() if not same_state(state, before[name])} == moves


def test_released_moves_the_others_statistics_but_no_parameter(make_trainer):
    method, batches = begun(make_trainer, 1, variant="released")
    video = method.net.encoders["video"]
    before = {name: value.clone() for name, value in video.state_dict().items()}
    method.step(batches[0])
    changed = {name for name, value in video.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not changed & {name for name, _ in video.named_parameters()}


@pytest.mark.parametrize(
    "settings", [{}, {"memory": 0.0}, {"regulariser": "kl"}, {"variant": "released"}, {"count": 3}]
)
def test_a_boosting_step_descends_what_the_formula_says(make_trainer, settings):
    method, batches = begun(make_trainer, 3, **settings)
    method.eval()
    method.net.head.rate.data.fill_(1.7)
    batch, config = batches[0], method.config
    out = method.net(batch.inputs)
    total = sum(z for m, z in out.unimodal.items() if m != "video")
    others, q = (1.7 * total).softmax(1).detach(), out.unimodal["video"].softmax(1)
    log_q = q.log()
    rows, labels = torch.arange(len(q)), batch.labels
    if config.regulariser == "masked":
        expected = (-(1 - 0.25 * others[rows, labels]) * log_q[rows, labels]).mean()
    elif config.regulariser == "kl":
        expected = (-log_q[rows, labels] - 0.25 * (others * (others.log() - log_q)).sum(1)).mean()
    else:
        expected = (-4 / 3 * (1 - 0.25 * others[rows, labels]) * log_q[rows, labels]).mean()
    if config.memory:
        expected = expected + 0.5 * (q - out.unimodal["audio"].softmax(1).detach()).square().mean()
    ours = method.boosting_loss(out.unimodal, "video", labels, {})
    torch.testing.assert_close(ours, expected)
    params = list(method.net.encoders["video"].parameters())
    gradients = [torch.autograd.grad(loss, params, retain_graph=True) for loss in (ours, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_nothing_of_the_boosting_loss_reaches_the_earlier_modality(make_trainer):
    method, batches = begun(make_trainer, 3)
    logits = {m: z.detach().requires_grad_() for m, z in method.net(batches[0].inputs).unimodal.items()}
    method.net.head.rate.requires_grad_()
    method.boosting_loss(logits, "video", batches[0].labels, {}).backward()
    assert logits["video"].grad.abs().sum() > 0
    assert logits["audio"].grad is None
    assert method.net.head.rate.grad is None


def test_momentum_starts_anew_with_each_phase_and_only_then(make_trainer):
    trainer = make_trainer(ReconBoost, {**SETTINGS, "boosting_epochs": 2}, epochs=7)
    seen = []
    real = trainer.method.start_epoch

    def spy(epoch):
        real(epoch)
        seen.append(len(trainer.method.optimizer.state) > 0)

    trainer.method.start_epoch = spy
    train(trainer)
    assert seen == [False, False, True, False, False, True, False]


@pytest.mark.parametrize("settings", [{}, {"variant": "released"}])
def test_resuming_within_and_between_phases_is_exact(make_trainer, settings):
    settings = {**SETTINGS, **settings, "boosting_epochs": 2}
    whole = make_trainer(ReconBoost, settings, epochs=7)
    history = train(whole)
    for cut in range(1, 7):
        first, second = (make_trainer(ReconBoost, settings, epochs=7) for _ in range(2))
        train(first, cut)
        second.load_state(first.state())
        assert train(second) == history[cut:]
        assert same_state(second.state()["method"], whole.state()["method"])


def test_an_epoch_is_one_pass_over_train_in_every_phase(make_trainer):
    trainer, plain = make_trainer(ReconBoost, SETTINGS, epochs=5), make_trainer("concat", {}, epochs=5)
    assert [trainer.run_epoch()[0]["samples"] for _ in range(5)] == [plain.run_epoch()[0]["samples"] for _ in range(5)]


def test_phases_that_do_not_fit_are_refused():
    config = ReconBoost.Config(start_epochs=2, boosting_epochs=4, rectification_epochs=4)
    assert "no stage would end" in config.refuse(9)
    assert config.refuse(10) is None
    assert ReconBoost.Config().refuse(2) is None
    assert "no stage would end" in ReconBoost.Config(boosting_epochs=4, rectification_epochs=4).refuse(8)
    assert ReconBoost.Config(boosting_epochs=4, rectification_epochs=4).refuse(9) is None


def test_prediction_is_the_sum_times_the_rate(make_trainer):
    method, batches = begun(make_trainer, 0)
    method.net.head.rate.data.fill_(0.5)
    method.eval()
    logits = method.predict(batches[0].inputs)
    torch.testing.assert_close(logits["fused"], 0.5 * (logits["audio"] + logits["video"]))
