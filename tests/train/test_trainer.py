"""The trainer: equal seeds give equal bits, resuming is exact, test stays unseen while training, rules choose."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import same_state
from benchmark.method import Method, Reference
from benchmark.model import concat_net
from benchmark.records import Epoch
from benchmark.rules import BEST_VALID, LAST, ORACLE_TEST, RULES
from benchmark.train.ownership import UnownedParameters
from benchmark.training import NonFiniteGradient, NonFiniteLoss


def train(trainer, epochs=None):
    """Train and return the lines of the history."""
    end = trainer.recipe.epochs if epochs is None else epochs
    lines = []
    while trainer.epoch < end:
        lines.append(trainer.run_epoch()[0])
    return lines


class Plain(Method):
    reference = Reference("test")

    def build_net(self, task):
        return concat_net(task)


@pytest.mark.parametrize("method", ["concat", "ogm"])
def test_the_same_seed_gives_the_same_history_and_weights_bit_for_bit(trainer, method):
    one, other = trainer(method), trainer(method)
    assert json.dumps(train(one)) == json.dumps(train(other))
    assert same_state(one.state()["method"], other.state()["method"])


def test_another_seed_gives_another_history(trainer):
    assert train(trainer(seed=0)) != train(trainer(seed=1))


def test_what_ran_before_in_the_process_changes_nothing(trainer):
    expected = train(trainer())
    torch.rand(7)
    train(trainer("ogm", seed=5), 1)
    assert train(trainer()) == expected


def test_encoders_start_equal_in_every_method_and_differ_between_seeds_and_modalities(trainer):
    def encoders(method, seed=0, config=None):
        return trainer(method, config, seed).method.net.encoders

    first, other_method = encoders("concat"), encoders("late_sum")
    alone = encoders("unimodal", config={"modality": "video"})
    other_seed = encoders("concat", seed=1)
    assert same_state(first.state_dict(), other_method.state_dict())
    assert same_state(first["video"].state_dict(), alone["video"].state_dict())
    for name in ("audio", "video"):
        assert not same_state(first[name].state_dict(), other_seed[name].state_dict())
    assert not same_state(first["audio"].state_dict(), first["video"].state_dict())


@pytest.mark.parametrize("cut", [1, 2])
def test_a_trainer_loaded_from_a_state_goes_on_bit_for_bit(trainer, cut):
    whole, first, second = trainer("ogm"), trainer("ogm"), trainer("ogm")
    expected = train(whole)
    train(first, cut)
    second.load_state(copy.deepcopy(first.state()))
    assert train(second) == expected[cut:]
    assert same_state(second.state()["method"], whole.state()["method"])
    assert same_state(second.state()["optimizers"][0], whole.state()["optimizers"][0])
    assert second.choices == whole.choices


def test_an_extra_evaluation_changes_neither_history_nor_state(trainer):
    quiet, looked_at = trainer(), trainer()
    lines = []
    while looked_at.epoch < looked_at.recipe.epochs:
        lines += train(looked_at, looked_at.epoch + 1)
        before = copy.deepcopy(looked_at.state())
        looked_at.evaluate()
        assert same_state(before, looked_at.state())
    assert train(quiet) == lines


def test_test_samples_are_read_while_evaluating_and_never_while_training(trainer):
    subject = trainer()
    phase = ["training"]
    read = []

    class Guarded:
        def __init__(self, feed):
            self.feed = feed

        def __getattr__(self, name):
            assert phase[0] != "training", f"test.{name} was read while training"
            read.append(name)
            return getattr(self.feed, name)

    subject.feeds = replace(subject.feeds, test=Guarded(subject.feeds.test))
    evaluate = subject.evaluate

    def evaluating():
        phase[0] = "evaluating"
        try:
            return evaluate()
        finally:
            phase[0] = "training"

    subject.evaluate = evaluating
    train(subject)
    assert read, "evaluation must have read test through the guard"


def test_the_three_splits_hold_different_samples(trainer, whole):
    feeds = trainer(dataset=Blobs(Blobs.Config(noise=1.0))).feeds
    rows = [tuple(row.tolist()) for feed in (feeds.train, feeds.valid, feeds.test) for row in whole(feed)["audio"]]
    assert len(set(rows)) == len(rows) == 150


# --- batches of a method's own -------------------------------------------------------------------------------------


class Twice(Plain):
    def batches(self, epoch):
        for salt in (0, 1):
            yield from self.run.train_batches(epoch, salt)


def test_a_method_may_say_what_its_steps_train_on_and_is_counted_for_it(trainer):
    plain, twice = trainer(Plain), trainer(Twice)
    assert [line["samples"] for line in train(twice, 2)] == [2 * line["samples"] for line in train(plain, 2)]


# --- failures ------------------------------------------------------------------------------------------------------


class Nan(Plain):
    def start_epoch(self, epoch):
        self.step_in_epoch = -1
        self.epoch = epoch

    def loss(self, out, batch):
        self.step_in_epoch += 1
        bad = (self.epoch, self.step_in_epoch) == (1, 2)
        return super().loss(out, batch) * (float("nan") if bad else 1.0)


class CrashAfterNan(Nan):
    def step(self, batch):
        assert torch.isfinite(self.net.head.bias).all(), "a consequence"
        return super().step(batch)


@pytest.mark.parametrize("method", [Nan, CrashAfterNan])
def test_a_loss_that_is_not_finite_names_its_epoch_and_step_before_any_consequence(trainer, method):
    subject = trainer(method)
    train(subject, 1)
    with pytest.raises(NonFiniteLoss, match="epoch 1, step 2"):
        subject.run_epoch()


class NanGradient(Plain):
    def edit_gradients(self, out, batch):
        bad = torch.where(self.run._step == 3, float("nan"), 1.0)
        self.net.head.bias.grad.mul_(bad)


def test_a_gradient_edited_into_nan_is_told_though_it_is_of_the_last_step(trainer):
    subject = trainer(NanGradient, batch_size=25)  # four steps
    with pytest.raises(NonFiniteGradient, match="epoch 0, step 3"):
        subject.run_epoch()


class Unowned(Plain):
    def attach(self, run):
        self.run = run
        self.optimizer = run.optimizer(self.net.encoders.parameters())


class Frozen(Unowned):
    def attach(self, run):
        super().attach(run)
        self.net.head.requires_grad_(False)


def test_parameters_without_an_optimizer_are_named_with_what_to_do(trainer):
    with pytest.raises(UnownedParameters, match=r"net\.head\.bias.*run\.optimizer.*requires_grad_"):
        trainer(Unowned).run_epoch()


def test_frozen_parameters_need_no_optimizer_and_stay(trainer):
    subject = trainer(Frozen)
    before = copy.deepcopy(subject.method.net.head.state_dict())
    train(subject, 1)
    assert same_state(before, subject.method.net.head.state_dict())


# --- selection -----------------------------------------------------------------------------------------------------


def line(epoch, valid, loss, test):
    head = {"fused": {"accuracy": valid, "loss": loss}}
    return {"epoch": epoch, "valid": head, "test": {"fused": {"accuracy": test, "loss": 0.0}}}


def chosen(rule, lines):
    best = None
    for one in lines:
        if best is None or rule.key(Epoch(one)) > rule.key(Epoch(best)):
            best = one
    return best["epoch"]


LINES = [line(0, 0.6, 0.9, 0.7), line(1, 0.8, 0.5, 0.6), line(2, 0.8, 0.4, 0.5), line(3, 0.8, 0.4, 0.7)]


def test_best_valid_breaks_ties_by_lower_loss_and_then_takes_the_first():
    assert chosen(BEST_VALID, LINES) == 2


def test_last_is_the_last_and_oracle_the_first_best_on_test():
    assert chosen(LAST, LINES) == 3
    assert chosen(ORACLE_TEST, LINES) == 0


def test_only_the_oracle_looks_at_test():
    assert [rule.name for rule in RULES.values() if not rule.honest] == ["oracle_test"]
    for rule in RULES.values():
        other = [{**one, "test": {"fused": {"accuracy": -one["test"]["fused"]["accuracy"]}}} for one in LINES]
        assert (chosen(rule, LINES) == chosen(rule, other)) is rule.honest


def test_the_trainer_keeps_what_the_rules_choose_from_the_history(trainer):
    subject = trainer(epochs=6)
    history = train(subject)
    for rule in RULES.values():
        assert subject.choices[rule.name].epoch == chosen(rule, history)


def test_training_without_test_scores_would_choose_the_same_honest_epochs(trainer):
    subject, blind = trainer(epochs=4), trainer(epochs=4)
    blind.feeds = replace(blind.feeds, test=blind.feeds.valid)
    train(subject)
    train(blind)
    for rule in (BEST_VALID, LAST):
        assert subject.choices[rule.name] == blind.choices[rule.name]
