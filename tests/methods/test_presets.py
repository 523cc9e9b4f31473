"""Presets name data sets that there are, and settings that the method takes there."""

from __future__ import annotations

import pytest

from benchmark.registry import DATASETS, METHODS
from benchmark.settings import parse_settings

PRESETS = [(name, data) for name in sorted(METHODS.known()) for data in METHODS.find(name).load().presets]


@pytest.mark.parametrize(("name", "data"), PRESETS)
def test_a_preset_is_of_a_known_data_set_and_fits_it(name, data):
    kind = METHODS.find(name).load()
    assert data in DATASETS.known()
    settings = parse_settings(kind.Config, kind.presets[data], name)
    dataset = DATASETS.find(data).load()
    assert kind.unsupported(settings, dataset(dataset.Config(), None).task) is None


def test_reconboost_on_cremad_has_the_weight_of_its_script():
    assert METHODS.find("reconboost").load().presets["cremad"] == {"lambda_": 0.2, "weight": 5.0}
