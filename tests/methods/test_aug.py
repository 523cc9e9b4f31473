"""AUG: the invariants of its maths, with numbers computed by hand or independently."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods.aug import (
    AUG,
    AUGHead,
    Gate,
    confidence_shares,
    lags_by_difference,
    lags_by_ratio,
    probability_of_sum,
    summed_probabilities,
    weighted_cross_entropy,
)
from torch.nn import functional as F

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import same_state, train
from benchmark.data import TaskSpec
from benchmark.errors import UserError
from benchmark.method import Method
from benchmark.model import SharedOutputHead
from benchmark.plan.sweep import Sweep, plan
from benchmark.settings import parse_settings

GROWING = {"check_every": 1, "tau": 0.0, "sigma": 0.5}
"""Settings under which classifiers are added often."""


@pytest.mark.parametrize("strength", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(20))
def test_residual_equals_soft_cross_entropy_against_smoothed_labels(strength, seed):
    draw = torch.Generator().manual_seed(seed)
    previous = torch.randn(8, 3, 5, generator=draw, dtype=torch.float64)
    last = torch.randn(8, 5, generator=draw, dtype=torch.float64)
    labels = torch.randint(5, (8,), generator=draw)
    onehot = F.one_hot(labels, 5).double()
    for residual, explained in (
        (probability_of_sum, previous.sum(1).softmax(1)),
        (summed_probabilities, previous.softmax(2).sum(1)),
    ):
        target = onehot - strength * onehot * explained
        expected = F.cross_entropy(last, target)  # torch's own soft cross-entropy
        weight = 1 - strength * residual(previous, labels)
        assert float(weighted_cross_entropy(last, labels, weight)) == pytest.approx(float(expected), abs=1e-9)
        if strength == 0:
            assert float(expected) == pytest.approx(float(F.cross_entropy(last, labels)), abs=1e-12)


def test_paper_residual_goes_negative_where_the_released_one_cannot():
    sure = torch.tensor([[[50.0, 0.0]] * 3])  # three classifiers, all certain of the true class
    labels = torch.tensor([0])
    assert float(1 - 0.5 * summed_probabilities(sure, labels)) == pytest.approx(-0.5)
    assert float(1 - 0.5 * probability_of_sum(sure, labels)) == pytest.approx(0.5)
    weight = 1 - 0.5 * summed_probabilities(sure, labels)
    assert float(weighted_cross_entropy(torch.tensor([[0.0, 1.0]]), labels, weight)) < 0


def test_negative_residuals_are_logged_and_clamped_unless_told_otherwise(make_trainer):
    settings = {"classifiers": {"audio": 5}, "lambda_": 1.0, "assign": False, "losses": ["residual"]}
    trainer = make_trainer(AUG, settings)
    lines = [trainer.run_epoch()[0]["train"] for _ in range(3)]
    assert lines[-1]["negative/audio"] > 0
    assert "negative/video" not in lines[-1]
    assert min(line["residual/audio"] for line in lines) >= 0
    literal = make_trainer(AUG, {**settings, "clamp": False})
    assert min(literal.run_epoch()[0]["train"]["residual/audio"] for _ in range(3)) < 0


@pytest.mark.parametrize(
    ("scores", "by_difference", "by_ratio"),
    [
        ((0.300, 0.295), [], ["video"]),
        ((0.505, 0.499), [], ["video"]),
        ((0.990, 0.978), ["video"], ["video"]),
        ((0.4, 0.8), ["audio"], ["audio"]),
        ((0.5, 0.5), [], []),
    ],
)
def test_score_tests_decide_as_computed_by_hand(scores, by_difference, by_ratio):
    named = dict(zip(("audio", "video"), scores, strict=True))
    assert lags_by_difference(named, 1.0, 0.01) == by_difference
    assert lags_by_ratio(named, 1.0, 0.01) == by_ratio


def test_scaling_both_scores_changes_only_the_difference_test():
    scores = {"audio": 0.9, "video": 0.87}
    small = {m: s / 10 for m, s in scores.items()}
    assert lags_by_ratio(scores, 1.0, 0.01) == lags_by_ratio(small, 1.0, 0.01) == ["video"]
    assert lags_by_difference(scores, 1.0, 0.01) == ["video"]
    assert lags_by_difference(small, 1.0, 0.01) == []


def test_of_two_modalities_never_both_lag():
    rng = np.random.default_rng(0)
    for first, second, sigma in rng.uniform(0.05, 1, (500, 3)):
        for test in (lags_by_difference, lags_by_ratio):
            assert len(test({"audio": first, "video": second}, sigma, 0.01)) <= 1


def test_of_three_modalities_several_may_lag():
    scores = {"audio": 0.9, "video": 0.3, "text": 0.3}
    assert lags_by_ratio(scores, 1.0, 0.01) == ["video", "text"]  # .3 < .4 * 1.2 twice, .9 > .4 * .6
    assert sorted(lags_by_difference(scores, 1.0, 0.01)) == ["text", "video"]
    assert lags_by_ratio(dict.fromkeys(scores, 0.5), 1.0, 0.01) == []


def make_head(counts=(1, 1), weights=None) -> AUGHead:
    torch.manual_seed(0)
    head = AUGHead({"audio": 12, "video": 12}, 16, 5)
    head.weights = weights
    for modality, count in zip(("audio", "video"), counts, strict=True):
        for _ in range(count - 1):
            head.bank(modality).grow()
    return head


def layers(head: AUGHead, modality: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of each trained classifier by itself."""
    bank = head.bank(modality)
    return list(zip(bank.weight.split(16), bank.bias.split(16), strict=True))


@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_batched_classifiers_equal_the_plain_loop(count):
    head = make_head((count, 1))
    u = torch.randn(9, 12)
    loop = [head.output(F.relu(F.linear(u, *layer))) for layer in layers(head, "audio")]
    states = head.banks["audio"](u)
    torch.testing.assert_close(head.logits_of(states), torch.stack(loop).sum(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(head.output(states), torch.stack(loop, 1), atol=1e-5, rtol=1e-5)
    ours = torch.autograd.grad(head.logits_of(states).square().sum(), list(head.parameters()), allow_unused=True)
    theirs = torch.autograd.grad(torch.stack(loop).sum(0).square().sum(), list(head.parameters()), allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_adding_changes_one_modality_by_the_new_classifier_alone():
    head = make_head((2, 2))
    features = {m: torch.randn(6, 12) for m in ("audio", "video")}
    before = head(features).unimodal
    parameters = sum(p.numel() for p in head.parameters())
    head.bank("audio").grow()
    after = head(features).unimodal
    new = head.output(F.relu(F.linear(features["audio"], *layers(head, "audio")[-1])))
    torch.testing.assert_close(after["audio"] - before["audio"], new)
    assert torch.equal(after["video"], before["video"])
    assert sum(p.numel() for p in head.parameters()) - parameters == 12 * 16 + 16
    assert len([m for m in head.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 5]) == 1


def test_merge_alpha_one_predicts_as_the_first_modality_and_none_sums():
    features = {m: torch.randn(6, 12) for m in ("audio", "video")}
    alone = make_head(weights=[1.0, 0.0])(features)
    torch.testing.assert_close(alone.fused, alone.unimodal["audio"])
    summed = make_head()(features)
    torch.testing.assert_close(summed.fused, summed.unimodal["audio"] + summed.unimodal["video"])


def test_one_classifier_has_plain_cross_entropies_as_its_loss(make_trainer):
    trainer = make_trainer(AUG, {"max_classifiers": 1})
    batch = next(trainer.run.train_batches(0))
    trainer.method.start_epoch(0)
    trainer.method.eval()
    out = trainer.method.net(batch.inputs)
    expected = sum(F.cross_entropy(z, batch.labels).item() for z in out.unimodal.values())
    assert float(trainer.method.step(batch)["loss"]) == pytest.approx(expected, rel=1e-6)


def test_paper_trains_what_it_adds_and_released_does_not(make_trainer):
    for variant, trained in (("paper", True), ("released", False)):
        trainer = make_trainer(AUG, {"variant": variant})
        trainer.method.start_epoch(0)
        bank = trainer.method.net.head.bank("audio")
        trainer.method.grow("audio")
        new = {True: lambda bank=bank: bank.weight[256:], False: lambda bank=bank: bank.frozen_weight}[trained]
        before, first = new().detach().clone(), bank.weight[:256].detach().clone()
        for batch in trainer.run.train_batches(0):
            trainer.method.step(batch)
        assert before.shape == (256, 8)
        assert torch.equal(before, new()) is not trained
        assert not torch.equal(first, bank.weight[:256])
        assert not trainer.run.unowned(trainer.method)


def test_what_is_added_starts_without_momentum_and_the_rest_keeps_its_own(make_trainer):
    trainer = make_trainer(AUG, {"assign": False})
    trainer.run_epoch()
    optimizer, bank = trainer.run.optimizers[0], trainer.method.net.head.bank("audio")
    momentum = optimizer.state[bank.weight]["momentum_buffer"].clone()
    trainer.method.grow("audio")
    grown = optimizer.state[bank.weight]["momentum_buffer"]
    assert torch.equal(grown[:256], momentum)
    assert not grown[256:].any()
    assert momentum.any()


def test_new_classifiers_join_at_the_current_rate(make_trainer):
    trainer = make_trainer(AUG, GROWING)  # the checks' recipe drops the rate after two epochs
    train(trainer)
    rates = {group["lr"] for group in trainer.run.optimizers[0].param_groups}
    assert len(trainer.method.added) >= 2
    assert len(rates) == 1


@pytest.mark.parametrize("settings", [GROWING, {**GROWING, "patience": 1}, {**GROWING, "variant": "released"}])
def test_growth_survives_interruption_with_momentum_in_place(make_trainer, settings):
    whole = make_trainer(AUG, settings)
    history = train(whole)
    first, second = make_trainer(AUG, settings), make_trainer(AUG, settings)
    train(first, 3)
    assert first.method.added, "the test needs growth before the interruption"
    second.load_state(first.state())
    assert train(second) == history[3:]
    assert second.method.added == whole.method.added
    assert same_state(second.run.optimizers[0].state_dict(), whole.run.optimizers[0].state_dict())


@pytest.mark.parametrize("settings", [GROWING, {**GROWING, "patience": 1}, {**GROWING, "variant": "released"}])
def test_a_classifier_is_added_before_it_is_trained_and_never_after_the_last_epoch(make_trainer, settings):
    trainer = make_trainer(AUG, {**settings, "sigma": 0.1} if "variant" not in settings else settings)
    method, head = trainer.method, trainer.method.net.head
    counts = []
    step = method.step
    method.step = lambda batch: (counts.append(sum(head.bank(m).count for m in head.banks)), step(batch))[1]
    scored = []
    while trainer.epoch < 4:
        trainer.run_epoch()
        assert sum(head.bank(m).count for m in head.banks) == counts[-1]
        scored.append(counts[-1])
    assert scored[-1] > scored[0] == 2


def test_scores_are_as_computed_by_hand():
    # p of the true class: ln 3 -> 3/4 of two classes, -ln 3 -> 1/4, ln 9 -> 9/10
    each = torch.tensor([3.0, 1 / 3, 9.0]).log()[None, :, None] * torch.tensor([1.0, 0.0])
    label = torch.tensor([0])
    assert float(summed_probabilities(each, label)) == pytest.approx(0.75 + 0.25 + 0.9)
    assert float(probability_of_sum(each, label)) == pytest.approx(0.9)  # 3 * 1/3 * 9 = 9 to 1


@pytest.mark.parametrize(("score", "expected"), [("literal", 3 * 0.75), ("summed", 216 / 218)])
def test_the_score_of_an_epoch_is_the_mean_over_train(make_trainer, score, expected):
    trainer = make_trainer(AUG, {"score": score, "classifiers": {"audio": 3}, "assign": False})
    trainer.method.start_epoch(0)
    bank, output = trainer.method.net.head.bank("audio"), trainer.method.net.head.output
    with torch.no_grad():
        bank.weight.zero_()
        output.weight.zero_()
        output.bias.copy_(torch.tensor([6.0, 1.0, 1.0]).log())  # p = 3/4, 1/8, 1/8 in each classifier
    trainer.run.begin_epoch(0)
    for batch in trainer.run.train_batches(0):
        with torch.no_grad():
            u = trainer.method.net.encode(batch.inputs)["audio"]
            trainer.method.boosting_loss("audio", u, torch.zeros_like(batch.labels), {})
    trainer.method.end_epoch(0)
    assert trainer.run.means()["score/audio"] == pytest.approx(expected)


def test_variants_read_the_score_as_their_source_does():
    assert parse_settings(AUG.Config, {}, "aug").score == "literal"
    assert parse_settings(AUG.Config, {"variant": "released"}, "aug").score == "summed"


def checks(trainer, epochs: int) -> list[int]:
    return [epoch for epoch in range(epochs) if trainer.method.is_due(epoch, {"audio": 1.0, "video": 0.5})]


def test_checks_fall_where_the_published_schedule_has_them(make_trainer):
    released = make_trainer(AUG, {"variant": "released", "check_every": 20}, epochs=200)
    assert checks(released, 200) == [0, *range(19, 200, 20)]
    assert checks(make_trainer(AUG, {}, epochs=200), 200) == list(range(19, 200, 20))


def test_plateau_rule_waits_while_the_gap_closes(make_trainer):
    method = make_trainer(AUG, {"patience": 2}).method
    gaps = [0.5, 0.4, 0.3, 0.3, 0.3, 0.3, 0.3]
    due = [method.is_due(epoch, {"audio": 1.0, "video": 1.0 - gap}) for epoch, gap in enumerate(gaps)]
    assert due == [False, False, False, False, True, False, True]


@pytest.mark.parametrize("switch", ["residual", "overall", "maintenance"])
def test_each_term_can_stand_alone(make_trainer, switch):
    trainer = make_trainer(AUG, {"losses": [switch], "classifiers": {"audio": 3}, "assign": False})
    line, _ = trainer.run_epoch()
    terms = {name for name in line["train"] if name.partition("/")[0] in ("residual", "overall", "maintenance")}
    assert terms == {f"{switch}/audio"}


def test_fixed_allocation_never_grows(make_trainer):
    trainer = make_trainer(AUG, {**GROWING, "classifiers": {"video": 4}, "assign": False})
    train(trainer)
    assert [trainer.method.net.head.bank(m).count for m in ("audio", "video")] == [1, 4]


def test_history_names_classifiers_scores_and_losses(make_trainer):
    line, _ = make_trainer(AUG, {}).run_epoch()
    wanted = {f"{name}/{m}" for name in ("classifiers", "score", "loss") for m in ("audio", "video")}
    assert wanted <= set(line["train"])


@pytest.mark.parametrize(
    "values", [{"lambda_": 1.5}, {"lambda_": -0.1}, {"losses": []}, {"losses": ["other"]}, {"hidden": 0}]
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(UserError, match=next(iter(values))):
        parse_settings(AUG.Config, values, "method aug")


def test_variant_sets_the_switches_and_each_can_be_turned_back():
    released = parse_settings(AUG.Config, {"variant": "released"}, "aug")
    assert (released.register_new, released.score_test, released.alternate) == (False, "ratio", True)
    assert released.changed() == {"variant": "released"}
    mixed = parse_settings(AUG.Config, {"variant": "released", "register_new": True}, "aug")
    assert mixed.register_new
    assert mixed.changed() == {"variant": "released", "register_new": True}


def test_a_check_interval_longer_than_the_run_is_refused_before_anything_starts():
    sweep = Sweep(["aug[check_every=5]"], ["dialpad"], [0], recipe={"epochs": 4})
    with pytest.raises(UserError, match=r"check_every=5 in 4 epochs"):
        plan(sweep)
    assert plan(Sweep(["aug[check_every=5,assign=false]"], ["dialpad"], [0], recipe={"epochs": 4})).runs


def test_more_modalities_than_the_rule_covers_are_refused_with_a_reason():
    task = Blobs(Blobs.Config()).task
    four = TaskSpec({f"sensor{i}": task.modalities["audio"] for i in range(4)}, task.class_names)
    assert "two to three" in AUG.unsupported(AUG.Config(), four)
    assert "smell" in AUG.unsupported(AUG.Config(classifiers={"smell": 2}), task)


def test_output_layer_is_one_for_all(make_trainer):
    method: Method = make_trainer(AUG, {"classifiers": {"audio": 3}}).method
    assert isinstance(method.net.head, SharedOutputHead)
    assert sum("output" in name for name in method.state_dict()) == 2  # one weight, one bias


@pytest.mark.parametrize(("modalities", "expected"), [(2, [0.4, 0.6]), (3, [0.33, 0.33, 0.34])])
def test_released_scripts_weigh_two_modalities_and_three_so(trainer, modalities, expected):
    data = Blobs(Blobs.Config(num_modalities=modalities))
    released = trainer("aug", {"variant": "released"}, dataset=data).method
    assert list(released.net.head.weights) == expected
    chosen = trainer("aug", {"merge_alpha": 0.4}, dataset=data).method
    assert chosen.net.head.weights == pytest.approx([0.4, *[0.6 / (modalities - 1)] * (modalities - 1)])


def test_shares_of_confidence_follow_the_lines_of_the_released_code():
    total = [0.0, 0.0, 0.0]
    for step, batch in enumerate([(1.0, 2.0, 0.5), (0.2, 1.1, 1.9), (1.5, 0.3, 0.4)]):
        total = [before + one for before, one in zip(total, batch, strict=True)]
        mean = [b / (step + 1) + s * step / (step + 1) for s, b in zip(total, batch, strict=True)]
        expected = [mean[0] / (mean[1] + mean[2]), mean[1] / (mean[0] + mean[2]), mean[2] / (mean[0] + mean[1])]
        assert confidence_shares(torch.tensor(total), torch.tensor(batch), step).tolist() == pytest.approx(expected)


def test_the_gate_weighs_added_classifiers_alone():
    head = make_head((3, 1))
    head.gate = Gate(2)
    head.gate.shares.copy_(torch.tensor([0.2, 5.0]))
    u = {m: torch.randn(4, bank.weight.shape[1]) for m, bank in head.banks.items()}
    weights = head.gate.net(torch.tensor([[0.2], [5.0]]))[:, 0]
    each = {m: head.output(bank(u[m])) for m, bank in head.banks.items()}
    out = head(u)
    for place, m in enumerate(each):
        expected = each[m][:, 0] + weights[place] * each[m][:, 1:].sum(1)
        torch.testing.assert_close(out.unimodal[m], expected)


def test_the_gate_learns_at_a_tenth_of_the_rate_what_shares_call_for(trainer):
    run = trainer("aug", {"variant": "released", "gate": True}, epochs=8)
    rates = [group["lr"] for group in run.run.optimizers[0].param_groups]
    assert rates[1] == pytest.approx(rates[0] / 10)
    lines = [run.run_epoch()[0] for _ in range(8)]
    gate = run.method.net.head.gate
    assert all(0 < lines[-1]["train"][f"gate/{m}"] < 1 for m in ("audio", "video"))
    first, second = gate.shares.tolist()
    assert first == pytest.approx(1 / second, rel=1e-4)
    ahead, none = (
        {"audio": torch.tensor(3.0), "video": torch.tensor(1.0)},
        dict.fromkeys(("audio", "video"), torch.zeros(())),
    )
    start = None
    for _ in range(60):
        run.method.scores, run.method.steps = ahead, 0
        run.method.train_gate(gate, none, {})
        start = gate().tolist() if start is None else start
    end = gate().tolist()
    assert gate.shares.tolist() == pytest.approx([3.0, 1 / 3])
    assert end[0] < start[0]
    assert end[1] > start[1]


def test_presets_are_those_of_the_first_commit():
    assert AUG.presets == {name: {"lambda_": 0.2, "gate": True} for name in ("ksounds", "nvgesture")}


@pytest.mark.parametrize(
    ("scores", "expected"), [((0.4, 0.0), ["video"]), ((0.0, 0.4), ["audio"]), ((0.0, 0.0), [])]
)  # fmt: skip
def test_a_score_of_zero_lags_and_divides_nothing(scores, expected):
    assert lags_by_ratio(dict(zip(("audio", "video"), scores, strict=True)), 1.0, 0.01) == expected
