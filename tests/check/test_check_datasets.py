"""The contract tests of data sets, and the command that runs contract tests."""

from __future__ import annotations

import textwrap

import pytest

from benchmark.check import check_plugin

DATASET = """
import itertools
from dataclasses import replace
import numpy as np
import torch
from benchmark.data import Modality, Samples, Split, TaskSpec
from benchmark.check.synthetic import BlobEncoder, Blobs

COUNT = itertools.count()

class Broken(Blobs):
    pass
"""

BROKEN_DATASETS = {
    "says what it is": "about = ''",
    "knows its task without files": """
        @property
        def task(self):
            (self.root / "classes.txt").read_text()
    """,
    "samples are sound": """
        def load(self):
            return replace(super().load(), ids=["same"] * 150)
    """,
    "samples are sound #labels": """
        def load(self):
            return replace(super().load(), labels=torch.full((150,), 3))
    """,
    "loads the same twice": """
        def fingerprint(self):
            return str(next(COUNT))
    """,
    "loads the same twice #order": """
        def load(self):
            return super().load().subset(np.roll(np.arange(150), next(COUNT)))
    """,
    "splits are disjoint": """
        def split(self, samples, valid_share):
            return Split(np.arange(100), np.arange(90, 110), np.arange(110, 150))
    """,
    "splits are disjoint #empty": """
        def split(self, samples, valid_share):
            return Split(np.arange(100), np.arange(100, 150), np.arange(0))
    """,
    "transforms each sample by itself": """
        def transform(self, inputs, draws):
            return {m: x - x.mean(0) for m, x in inputs.items()}
    """,
    "encoders read it": """
        @property
        def task(self):
            def wrong():
                encoder = BlobEncoder()
                encoder.dim = 9
                return encoder
            return TaskSpec({m: Modality((6,), wrong) for m in ("audio", "video")}, super().task.class_names)
    """,
}


@pytest.mark.parametrize("case", BROKEN_DATASETS)
def test_a_broken_data_set_fails_the_contract_test_of_what_it_breaks(plugin, first_failure, case):
    body = textwrap.indent(textwrap.dedent(BROKEN_DATASETS[case]), "    ")
    assert first_failure(plugin("broken", DATASET + body), case.partition(" #")[0])


def test_a_sound_data_set_passes(blobs):
    results = list(check_plugin(blobs))
    assert results
    assert not [result for result in results if result.verdict != "ok"]


# --- the command ---------------------------------------------------------------------------------------------------


BROKEN = """
from benchmark.method import Method, Reference
from benchmark.model import concat_net

class Broken(Method):
    reference = Reference("test")

    def build_net(self, task):
        return concat_net(task)

    def predict(self, inputs):
        return {}
"""


@pytest.mark.full
def test_the_command_exits_with_3_and_names_the_test_that_failed(bench, plugin):
    done = bench("check", plugin("broken", BROKEN), "--json")
    assert done.rc == 3
    assert {"fail"} <= {result["verdict"] for result in done.json}
    assert any("predicts" in result["name"] for result in done.json if result["verdict"] == "fail")


@pytest.mark.full
def test_the_command_exits_with_0_for_a_sound_plugin(bench, blobs):
    done = bench("check", blobs)
    assert done.rc == 0
    assert "fail" not in done.said
