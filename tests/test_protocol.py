"""Protocols are data: they parse, they merge in order, their schedules hit the published epochs."""

from __future__ import annotations

import pytest
import torch

from benchmark.errors import UserError
from benchmark.protocol import Adam, Cosine, Protocol, Recipe, Sgd, Steps, load_protocol, protocol_names, read_yaml

BASE = {"epochs": 10, "batch_size": 16, "optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.5}}


def protocol(**changes) -> Protocol:
    return Protocol(**{"name": "mine", "about": "test", "recipe": BASE, **changes})


def test_the_three_protocols_are_there():
    assert {"unified", "aug2025", "ogm2022"} <= set(protocol_names())


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_parses_and_resolves_for_every_data_set_it_names(name):
    found = load_protocol(name)
    assert found.name == name
    assert found.about
    for dataset in (*found.datasets, "another"):
        assert isinstance(found.resolve(dataset, {}, {}), Recipe)


def test_the_command_line_wins_over_the_protocols_data_set_over_the_plugin_over_the_protocol():
    mine = protocol(datasets={"d": {"epochs": 30, "batch_size": 32}}, use_dataset_recipe=True)
    recommended = {"epochs": 20, "batch_size": 8, "valid_share": 0.3}
    recipe = mine.resolve("d", recommended, {"epochs": 40})
    assert (recipe.epochs, recipe.batch_size, recipe.valid_share) == (40, 32, 0.3)
    assert recipe.optimizer == Sgd(lr=0.1, momentum=0.5)
    assert mine.resolve("other", recommended, {}).epochs == 20


def test_a_protocol_that_does_not_ask_for_it_ignores_what_data_sets_recommend():
    assert protocol().resolve("d", {"epochs": 20}, {}).epochs == 10


def test_a_nested_change_keeps_the_rest_and_a_change_of_kind_replaces_it():
    assert protocol().resolve("d", {}, {"optimizer": {"lr": 0.5}}).optimizer == Sgd(lr=0.5, momentum=0.5)
    adam = {"optimizer": {"kind": "adam", "lr": 0.5}}
    assert protocol().resolve("d", {}, adam).optimizer == Adam(lr=0.5)


def test_resolving_changes_neither_the_protocol_nor_what_the_data_set_recommends():
    mine, recommended = protocol(use_dataset_recipe=True), {"optimizer": {"lr": 0.3}}
    before = mine.model_dump()
    mine.resolve("d", recommended, {"optimizer": {"lr": 0.5}})
    assert mine.model_dump() == before
    assert recommended == {"optimizer": {"lr": 0.3}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epoch": 3}, "Did you mean 'epochs'"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"batch_size": 1}, "greater than or equal to 2"),
        ({"optimizer": {"kind": "sgdd", "lr": 0.1}}, "sgdd"),
        ({"optimizer": {"kind": "adam", "lr": 0.1, "momentum": 0.9}}, "momentum"),
        ({"optimizer": {"lr": -1}}, "greater than 0"),
        ({"selection": "best_test"}, "oracle_test"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_in_words(change, words):
    with pytest.raises(UserError, match=words):
        protocol().resolve("d", {}, change)


# --- files ---------------------------------------------------------------------------------------------------------


def test_an_unknown_protocol_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'unified'"):
        load_protocol("unifed")


def test_a_protocol_may_be_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nabout: test\nrecipe: {epochs: 3, batch_size: 4, optimizer: {kind: sgd, lr: 0.1}}\n")
    assert load_protocol(str(path)).resolve("d", {}, {}).epochs == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nabout: b\nname: c\n", r"'name' is given twice.*line 3"),
        ("recipe:\n  epochs: 1\n  epochs: 2\n", r"'epochs' is given twice.*line 3"),
        ("name: [1, 2\nabout: x\n", r"line \d"),
        ("- a\n- b\n", "mapping.*list"),
        ("", "mapping"),
        ("? [a]\n: 1\n", "YAML"),
        ("name: !!python/object:os.system {}\n", "YAML"),
    ],
)
def test_yaml_that_is_malformed_or_repeats_a_key_is_refused_with_its_line(text, words):
    with pytest.raises(UserError, match=words):
        read_yaml(text, "protocol mine")


def test_a_file_that_is_missing_or_is_no_text_is_told(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        load_protocol("nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match=r"binary\.yaml"):
        load_protocol(str(tmp_path / "binary.yaml"))


# --- schedules and optimizers --------------------------------------------------------------------------------------


def drops(schedule, epochs):
    factors = [schedule.factor(epoch, epochs) for epoch in range(epochs)]
    return [epoch for epoch in range(1, epochs) if factors[epoch] != factors[epoch - 1]]


def test_steps_drop_at_their_epochs_counted_from_zero_and_early_moves_them():
    assert drops(Steps(every=70), 200) == [70, 140]
    assert drops(Steps(every=70, early=1), 200) == [69, 139]
    assert [Steps(every=70, early=1).factor(epoch, 200) for epoch in (0, 68)] == [1.0, 1.0]
    assert Steps(every=70, early=1).factor(199, 200) == pytest.approx(0.01)


def test_steps_equal_torchs_own_schedule():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.1)
    for epoch in range(10):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(Steps(every=3).factor(epoch, 10))
        optimizer.step()
        scheduler.step()


def test_cosine_starts_at_one_and_only_falls_and_stays_above_zero():
    factors = [Cosine().factor(epoch, 50) for epoch in range(50)]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert factors[25] == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.01


def test_optimizers_are_built_with_every_setting_and_overrides_win():
    weight = [torch.nn.Parameter(torch.zeros(1))]
    group = Sgd(lr=0.1, momentum=0.5, weight_decay=0.01).build(weight, lr=0.2).param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.2, 0.5, 0.01)
    assert type(Adam(lr=0.1).build(weight)) is torch.optim.Adam
    assert type(Adam(lr=0.1, decoupled=True).build(weight)) is torch.optim.AdamW
