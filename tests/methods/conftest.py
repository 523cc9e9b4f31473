"""Trainers whose schedule drops within the run, so that rates can be told apart."""

from __future__ import annotations

from functools import partial

import pytest


@pytest.fixture
def make_trainer(trainer):
    """Make a trainer of a method: `make_trainer(AUG, {"tau": 0.0})`."""

    def make(kind, settings, epochs=4, **options):
        return partial(trainer, schedule={"kind": "steps", "every": 2})(kind, settings, epochs=epochs, **options)

    return make
