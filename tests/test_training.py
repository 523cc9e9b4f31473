"""Feeds serve every sample once in an order of their own; a run schedules, watches and averages for its method."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from benchmark.check.synthetic import Blobs
from benchmark.method import Method, Reference
from benchmark.model import concat_net
from benchmark.protocol import Constant, Cosine, Recipe, Sgd, Steps
from benchmark.training import Feed, NonFiniteGradient, NonFiniteLoss, Run, batch_sizes

CPU = torch.device("cpu")


@pytest.fixture
def feed():
    """Make a feed of all 150 blobs."""

    def make(batch_size=16, dataset=None, count=150):
        data = dataset or Blobs(Blobs.Config())
        samples = data.load()
        return Feed(data, samples.subset(torch.arange(count).numpy()), CPU, batch_size)

    return make


@pytest.fixture
def run(feed):
    def make(batch_size=16, schedule=None, seed=0, count=150, **recipe):
        chosen = Recipe(
            epochs=10, batch_size=batch_size, optimizer=Sgd(lr=0.1), schedule=schedule or Constant(), **recipe
        )
        return Run(feed(batch_size, count=count), None, chosen, seed, CPU, 3)

    return make


def order(batches):
    return torch.cat([batch.index for batch in batches]).tolist()


def by_sample(batches):
    """Return {sample: its input}, to compare what each sample became in whatever order."""
    return {int(i): x for batch in batches for i, x in zip(batch.index, batch.inputs["audio"], strict=True)}


# --- feeds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 7, 16, 149, 150, 200])
def test_an_epoch_serves_every_sample_exactly_once_with_its_own_label_and_input(feed, whole, size):
    subject = feed(size)
    plain = whole(subject)
    batches = list(subject.shuffled(0, 0))
    assert sorted(order(batches)) == list(range(150))
    for batch in batches:
        assert torch.equal(batch.labels, subject.labels[batch.index])
        scale = batch.inputs["audio"] / plain["audio"][batch.index]
        assert (scale - scale[:, :1]).abs().max() < 1e-4, "jitter scales a sample, so the ratio is one number"


def test_the_order_is_a_function_of_seed_epoch_and_salt_alone(run):
    first = order(run().train_batches(0))
    torch.manual_seed(1)
    other = run()
    list(other.train_batches(5))
    assert order(other.train_batches(0)) == first
    assert first != sorted(first)
    different = [run(seed=1).train_batches(0), other.train_batches(1), other.train_batches(0, salt=1)]
    assert len({tuple(order(batches)) for batches in different} | {tuple(first)}) == 4


def test_serving_batches_leaves_the_global_generators_alone(run):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(run().train_batches(0))
    assert torch.equal(torch.rand(1), expected)


def test_what_augmentation_makes_of_a_sample_does_not_depend_on_the_batch_size(feed):
    small, large = (by_sample(feed(size).shuffled(0, 1)) for size in (4, 64))
    assert all(torch.equal(small[i], large[i]) for i in range(150))


def test_augmentation_differs_between_epochs_and_is_off_in_order(feed):
    subject = feed()
    one, two = (by_sample(subject.shuffled(0, epoch)) for epoch in (0, 1))
    assert not torch.equal(one[0], two[0])
    in_order = torch.cat([inputs["audio"] for inputs in subject.in_order()])
    assert torch.equal(in_order, Blobs(Blobs.Config()).load().inputs["audio"])


def test_what_is_kept_is_bit_for_bit_what_would_be_transformed_again(feed, whole, monkeypatch):
    kept = whole(feed())
    monkeypatch.setattr("benchmark.training.KEPT_BYTES", 0)
    again = whole(feed())
    assert all(torch.equal(kept[m], again[m]) for m in kept)


@pytest.mark.parametrize(
    ("count", "size", "drop_last", "sizes"),
    [
        (10, 5, False, [5, 5]), (12, 5, False, [5, 5, 2]), (11, 5, False, [5, 6]), (12, 5, True, [5, 5]),
        (11, 5, True, [5, 6]), (3, 5, False, [3]), (3, 5, True, [3]), (1, 5, False, [1]),
    ],
)  # fmt: skip
def test_batch_sizes_lose_nothing_they_should_keep_and_leave_no_batch_of_one(count, size, drop_last, sizes):
    assert batch_sizes(count, size, drop_last) == sizes


def test_steps_per_epoch_is_the_number_of_batches(run):
    for count in (150, 145, 17):
        for drop_last in (False, True):
            subject = run(count=count, drop_last=drop_last)
            assert len(list(subject.train_batches(0))) == subject.steps_per_epoch


def test_training_samples_in_order_come_once_each_and_unaugmented(run, feed, whole):
    batches = list(run().train_in_order())
    assert order(batches) == list(range(150))
    assert torch.equal(torch.cat([batch.inputs["video"] for batch in batches]), whole(feed())["video"])


def test_chosen_samples_are_those_of_the_pass_in_order_less_all_others(run):
    subject, rows = run(count=100), torch.tensor([2, 3, 17, 64, 65, 66, 99])
    served = list(subject.train_at(rows))
    assert order(served) == rows.tolist()
    whole = {int(batch.index[0]) // 16: batch for batch in subject.train_in_order()}
    assert [int(batch.index[0]) // 16 for batch in served] == [0, 1, 4, 6]
    for batch in served:
        home = whole[int(batch.index[0]) // 16]
        kept = torch.isin(home.index, rows)
        assert torch.equal(batch.labels, home.labels[kept])
        assert torch.equal(batch.inputs["audio"], home.inputs["audio"][kept])
    assert subject.samples_served == 0
    assert not list(subject.train_at(rows[:0]))


def test_of_what_is_on_disk_only_the_chosen_samples_are_read(run, monkeypatch):
    monkeypatch.setattr("benchmark.training.KEPT_BYTES", 0)
    subject, read = run(count=100), []
    fetch = subject._train._fetch
    monkeypatch.setattr(subject._train, "_fetch", lambda rows: (read.append(rows), fetch(rows))[1])
    rows = torch.tensor([5, 40, 41, 90])
    list(subject.train_at(rows))
    assert set(torch.cat(read).tolist()) <= {0, *rows.tolist()}, "the first tells how large all would be"


def test_what_a_method_trains_on_counts_and_what_it_only_reads_does_not(run):
    subject = run(count=40)
    batches = list(subject.train_batches(0, count=False))
    assert subject.samples_served == 0
    assert order(batches) == order(subject.train_batches(0))
    assert subject.samples_served == 40
    assert subject.subset(torch.arange(10)).counted(batches[0]) is batches[0]
    assert subject.samples_served == 40 + len(batches[0].labels)
    with pytest.raises(AttributeError):
        subject.samples_served = 0


# --- schedules and ownership ---------------------------------------------------------------------------------------


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize("schedule", [Constant(), Steps(every=2), Steps(every=3, early=1), Cosine()])
def test_parameters_added_later_have_the_current_rate_and_follow_the_schedule(run, schedule):
    subject = run(schedule=schedule)
    optimizer = subject.optimizer(nn.Linear(1, 1).parameters())
    other = subject.optimizer(nn.Linear(1, 1).parameters(), lr=1.0)
    for epoch in range(10):
        subject.begin_epoch(epoch)
        subject.add_parameters(optimizer, nn.Linear(1, 1).parameters())
        factor = schedule.factor(epoch, 10)
        assert rates(optimizer) == [0.1 * factor] * (epoch + 2)
        assert rates(other) == [1.0 * factor]


def test_parameters_added_with_a_rate_of_their_own_follow_the_schedule_from_it(run):
    subject = run(schedule=Steps(every=1))
    optimizer = subject.optimizer(nn.Linear(1, 1).parameters())
    subject.begin_epoch(1)
    subject.add_parameters(optimizer, nn.Linear(1, 1).parameters(), lr=0.4)
    for epoch in (1, 2):
        subject.begin_epoch(epoch)
        factor = Steps(every=1).factor(epoch, 10)
        assert rates(optimizer) == [0.1 * factor, 0.4 * factor]


def test_a_probe_optimizer_has_the_recipe_and_is_neither_scheduled_nor_counted(run):
    subject = run(schedule=Steps(every=1))
    layer = nn.Linear(1, 1)
    optimizer = subject.probe_optimizer(layer.parameters())
    subject.begin_epoch(5)
    assert rates(optimizer) == [0.1]
    assert subject.unowned(layer) == ["weight", "bias"]


def test_unowned_parameters_are_named_unless_frozen(run):
    subject = run()
    net = nn.ModuleDict({"owned": nn.Linear(1, 1), "lost": nn.Linear(1, 1), "frozen": nn.Linear(1, 1)})
    subject.optimizer(net["owned"].parameters())
    net["frozen"].requires_grad_(False)
    assert subject.unowned(net) == ["lost.weight", "lost.bias"]


# --- watching ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_the_first_loss_that_is_not_finite_is_told_with_epoch_and_step(run, bad):
    subject = run()
    weight = nn.Parameter(torch.ones(()))
    subject.begin_epoch(4)
    for value in (1.0, 1.0, bad, 1.0, bad):
        subject.backward(weight * value)
        subject.end_step({}, 2)
    with pytest.raises(NonFiniteLoss, match="epoch 4, step 2"):
        subject.check_finite()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("made", ["optimizer", "probe_optimizer"])
def test_the_first_gradient_that_is_not_finite_is_told_with_epoch_and_step(run, bad, made):
    subject = run()
    weight, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(()))
    part = subject.subset(torch.arange(2))
    optimizer = getattr(part, made)([weight, other])
    subject.begin_epoch(4)
    for value in (1.0, 1.0, bad, 1.0, bad):
        optimizer.zero_grad()
        subject.backward(weight.sum() * 0 + 1)
        weight.grad[1] = value  # an edit between backward and step; `other` has no gradient
        optimizer.step()
        subject.end_step({}, 2)
    with pytest.raises(NonFiniteGradient, match=r"epoch 4, step 2.*loss was finite"):
        subject.check_finite()


def test_of_a_loss_and_its_gradients_the_loss_is_told(run):
    subject = run()
    weight = nn.Parameter(torch.ones(()))
    optimizer = subject.optimizer([weight])
    subject.backward(weight * float("nan"))
    optimizer.step()
    with pytest.raises(NonFiniteLoss, match="step 0"):
        subject.check_finite()


def test_finite_losses_pass(run):
    subject = run()
    subject.begin_epoch(0)
    subject.backward(nn.Parameter(torch.ones(())) * 2)
    subject.check_finite()


def test_means_are_weighted_by_the_batch_and_forgotten_each_epoch(run):
    subject = run()
    subject.begin_epoch(0)
    subject.end_step({"loss": torch.tensor(1.0)}, 30)
    subject.end_step({"loss": torch.tensor(4.0)}, 10)
    subject.log(ratio=1.0)
    subject.log(ratio=torch.tensor(4.0))
    assert subject.means() == {"loss": 1.75, "ratio": 2.5}
    subject.begin_epoch(1)
    assert subject.means() == {}


# --- what a method may not have ------------------------------------------------------------------------------------


class HoldsOut(Method):
    reference = Reference("test")
    held_out_share = 0.2

    def build_net(self, task):
        return concat_net(task)


@pytest.fixture
def rows_of(whole):
    return lambda *feeds: [{tuple(row.tolist()) for row in whole(feed)["audio"]} for feed in feeds]


def test_the_held_out_share_is_disjoint_from_train_and_stratified(trainer, rows_of):
    subject = trainer(HoldsOut, batch_size=8)
    kept, held, everything = rows_of(subject.run._train, subject.run._held_out, subject.feeds.train)
    assert kept.isdisjoint(held)
    assert kept | held == everything
    assert len(held) == pytest.approx(0.2 * len(everything), abs=1)
    counts = torch.cat([batch.labels for batch in subject.run.held_out_batches(0)]).bincount()
    assert counts.sum() == len(held)
    assert counts.max() - counts.min() <= 1
    assert subject.run.num_train == len(kept)


def test_asking_for_a_held_out_share_that_is_not_there_says_how_to_get_one(run):
    with pytest.raises(RuntimeError, match="held_out_share"):
        next(iter(run().held_out_batches(0)))


@pytest.mark.parametrize("method", ["concat", HoldsOut])
def test_no_path_leads_from_a_run_to_validation_or_test(trainer, method):
    subject = trainer(method)
    subject.run_epoch()
    feeds = (subject.feeds.valid, subject.feeds.test)
    hidden = {id(x) for feed in feeds for x in (feed, feed.labels, feed._kept, *feed._kept.values())}
    stack, seen = [subject.run], set()
    while stack:
        item = stack.pop()
        if id(item) in seen or isinstance(item, type) or type(item).__name__ in ("module", "function", "frame"):
            continue
        seen.add(id(item))
        assert id(item) not in hidden
        stack.extend(gc.get_referents(item))
    assert len(seen) > 50, "the walk must have gone somewhere"


# --- subsets -------------------------------------------------------------------------------------------------------


def test_a_subset_serves_its_samples_alone_by_position_and_the_run_counts_them(run):
    subject = run(count=40)
    rows = torch.tensor([3, 5, 8, 13, 21, 34])
    part = subject.subset(rows)
    batches = list(part.train_batches(0))
    assert (part.num_train, part.steps_per_epoch) == (6, 1)
    assert sorted(order(batches)) == list(range(6))
    assert torch.equal(part.train_labels, subject.train_labels[rows])
    whole = torch.cat([batch.inputs["audio"] for batch in subject.train_in_order()])
    assert torch.equal(torch.cat([batch.inputs["audio"] for batch in part.train_in_order()]), whole[rows])
    assert subject.samples_served == 6


def test_a_subset_of_all_serves_what_the_run_serves(run):
    subject = run(count=40)
    served = [list(which.train_batches(2)) for which in (subject, subject.subset(torch.arange(40)))]
    for one, other in zip(*served, strict=True):
        assert torch.equal(one.index, other.index)
        assert torch.equal(one.inputs["audio"], other.inputs["audio"])


def test_a_subset_shares_rates_scalars_and_the_watch_for_nan(run):
    subject = run(schedule=Steps(every=2), count=40)
    part = subject.subset(torch.arange(10)).subset(torch.arange(4))
    optimizer = part.optimizer([nn.Parameter(torch.ones(2))])
    assert subject.optimizers == [optimizer]
    subject.begin_epoch(2)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    part.add_parameters(optimizer, [nn.Parameter(torch.ones(2))])
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.01)
    part.log(seen=3.0)
    assert subject.means() == {"seen": 3.0}
    subject.end_step({}, 4)
    part.backward(torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(NonFiniteLoss, match="epoch 2, step 1"):
        subject.check_finite()
