"""What every method inherits: how many modalities it takes, what its settings refuse, and the released variant."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from benchmark.check.synthetic import Blobs
from benchmark.method import Method, Reference, Variants
from benchmark.model import concat_net
from benchmark.registry import METHODS
from benchmark.settings import parse_settings


def task(count):
    return Blobs(Blobs.Config(num_modalities=count)).task


class Plain(Method):
    reference = Reference("made up")

    class Config(Variants):
        released: ClassVar[dict[str, Any]] = {"alpha": 0.5, "rule": "released"}

        alpha: float = 0.1
        rule: str = "paper"

        def unsupported(self, task):
            return task.unknown("audio", None, self.rule if self.rule == "smell" else None)

    def build_net(self, task):
        return concat_net(task)


@pytest.mark.parametrize(
    ("span", "reasons"),
    [
        ((1, None), (None, None, None)),
        ((2, None), ("defined for two or more modalities", None, None)),
        ((2, 2), ("defined for two modalities", None, "defined for two modalities")),
        ((2, 3), ("defined for two to three modalities", None, None)),
    ],
)
def test_the_declared_number_of_modalities_is_what_a_method_supports(monkeypatch, span, reasons):
    monkeypatch.setattr(Plain, "modalities", span)
    assert tuple(Plain.unsupported(Plain.Config(), task(count)) for count in (1, 2, 3)) == reasons


def test_settings_name_the_modalities_that_a_task_lacks_and_those_that_it_has():
    assert Plain.unsupported(Plain.Config(rule="smell"), task(2)) == "no modality 'smell'; there are audio, video"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (0.1, "paper")),
        ({"variant": "released"}, (0.5, "released")),
        ({"variant": "released", "alpha": 0.2}, (0.2, "released")),
        ({"alpha": 0.5}, (0.5, "paper")),
    ],
)
def test_the_released_variant_sets_what_it_declares_where_nothing_else_is_given(given, expected):
    config = parse_settings(Plain.Config, given, "test")
    assert (config.alpha, config.rule) == expected
    assert parse_settings(Plain.Config, config.changed(), "test") == config


@pytest.mark.parametrize("name", sorted(METHODS.known()))
def test_what_the_released_variant_of_a_method_sets_are_settings_of_it_that_differ(name):
    config = METHODS.find(name).load().Config
    for setting, value in getattr(config, "released", {}).items():
        assert config.model_fields[setting].default != value


def test_a_method_of_0_1_that_refuses_settings_is_told_where_that_belongs_now():
    with pytest.raises(TypeError, match=r"Old\.Config since 0\.2\.0"):
        type("Old", (Method,), {"refuse": classmethod(lambda cls, config, epochs: None)})
