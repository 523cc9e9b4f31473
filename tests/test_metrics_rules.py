"""A metric or a rule is one entry: it then is in records, tables, CSV, pages and trackers; old records show a dash."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from benchmark.reports.comparison import ComparisonReport

from benchmark.metrics import METRICS, Metric
from benchmark.plan.sweep import Sweep, plan
from benchmark.records import RunFolder, State, view
from benchmark.report import compare
from benchmark.rules import RULES, Rule
from benchmark.site.pages import Pages
from benchmark.site.rows import summarise
from benchmark.site.run_page import gather
from benchmark.track.content import conclude
from benchmark.train.attempt import Attempt
from benchmark.train.execute import execute


def surprise(logits, labels):
    """A metric nobody has: how many samples get less than half of the softmax."""
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return float((chances[np.arange(len(labels)), labels] < 0.5).mean())


SURPRISE = Metric("surprise", "surp", "surprise", surprise, higher_is_better=False, each_epoch=False)
MIDDLE = Rule("middle", "the middle", "epoch 1", lambda one: (-abs(one.epoch - 1),))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def train(blobs, out, seed):
    """Train a run of three epochs and return it as read from disk."""
    spec = plan(Sweep(["concat"], [blobs], [seed], recipe={"epochs": 3, "batch_size": 16})).runs[0]
    assert execute(spec, Attempt(out)) is State.DONE
    return view(RunFolder(spec.folder(out)))


@pytest.fixture(scope="module")
def older(blobs, out):
    """A run made before the new metric and the new rule."""
    return train(blobs, out, 0)


@pytest.fixture(scope="module", autouse=True)
def new_entries(older):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METRICS, SURPRISE.name, SURPRISE)
        patch.setitem(RULES, MIDDLE.name, MIDDLE)
        yield


@pytest.fixture(scope="module")
def newer(new_entries, blobs, out):
    return train(blobs, out, 1)


def table(runs, prefix):
    artifacts = ComparisonReport().build(compare(runs)[0])
    content = next(one.content for one in artifacts if one.name.startswith(prefix) and one.name.endswith(".csv"))
    return list(csv.DictReader(io.StringIO(content.decode())))


def groups(rows):
    return {row["group"] for row in rows}


def test_a_new_metric_and_a_new_rule_are_in_tables_and_csv(older, newer):
    rows = table([older, newer], "fused")
    assert "fused test surp at epoch" in groups(rows)
    assert "the middle" in {row["column"] for row in rows}
    assert "own, the middle" in {row["column"] for row in table([older, newer], "unimodal")}
    (cell,) = [row for row in rows if (row["group"], row["column"]) == ("fused test surp at epoch", "the middle")]
    assert cell["n"] == "1", "the older run has none"
    assert 0 <= float(cell["mean"]) <= 100


def test_they_are_on_pages(newer, out):
    row = summarise(newer, out, [])
    page = gather(newer, row)
    assert "surp" in [metric.heading for metric in page.metrics]
    assert ("middle", 2) in page.chosen
    html = Pages().run(newer, row).decode()
    assert "surp" in html
    assert "(epoch: the middle, 2)" in html
    assert "the middle" in Pages().sweep([row]).decode()


def test_trackers_are_told(newer):
    told = conclude(newer)
    assert SURPRISE.name in told.tables["scores"].columns
    assert MIDDLE.name in [row[0] for row in told.tables["scores"].rows]
    assert 0 <= told.summary["middle/test/fused/surprise"] <= 1


def test_a_run_from_before_them_shows_a_dash(older, out):
    row = summarise(older, out, [])
    assert dict(gather(older, row).chosen)["middle"] is None
    assert "—" in Pages().run(older, row).decode()
    assert "fused test surp at epoch" not in groups(table([older], "fused")), "no column for what no run was scored by"
    assert conclude(older).tables["scores"].rows


def test_a_new_rule_may_select():
    from benchmark.protocol import Recipe
    from benchmark.settings import parse_settings

    values = {"epochs": 1, "batch_size": 2, "optimizer": {"kind": "sgd", "lr": 0.1}, "selection": "middle"}
    assert parse_settings(Recipe, values, "recipe").selection == "middle"
