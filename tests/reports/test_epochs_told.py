"""Whatever a report writes says how many epochs stand behind it, and what else is not the protocol's."""

from __future__ import annotations

import pytest
import yaml

from benchmark.records import scan
from benchmark.registry import REPORTS
from benchmark.report import compare
from benchmark.site.rows import summarise


@pytest.fixture
def runs(tmp_path, builder):
    """Finished runs of three methods, two data sets and two protocols, whose batch size is not the protocols'."""
    for protocol in ("unified", "ogm2022"):
        for dataset in ("blobs", "cremad"):
            for place, method in enumerate(("concat", "ogm", "aug")):
                spec = builder.spec_of(method, dataset, 0, protocol=protocol, epochs=7, batch_size=32)
                path = tmp_path / dataset / method / f"s0-{protocol}"
                builder.write_full_run(path, {**spec, "replaced": {"batch_size": 64, "epochs": 25}}, 0.5 + 0.1 * place)
    return list(scan(tmp_path))


@pytest.mark.parametrize("name", sorted(REPORTS.known()))
def test_every_table_and_figure_names_its_epochs_and_what_else_was_changed(runs, name):
    comparisons, _ = compare(runs)
    report = REPORTS.find(name).load()()
    shown = [(one.caption, *one.notes) for one in report.build(comparisons) if one.caption]
    shown += [(table.caption, *table.notes) for table in report.tables(comparisons)]
    assert shown
    for texts in shown:
        assert "7 epochs" in " ".join(texts)
        assert "batch_size=32" in " ".join(texts)


def test_the_pages_name_them(runs, tmp_path):
    assert {summarise(run, tmp_path, []).protocol for run in runs} == {
        "unified, 7 epochs, batch_size=32 (64)", "ogm2022, 7 epochs, batch_size=32 (64)"
    }  # fmt: skip


def test_a_note_gives_the_recipe_and_the_protocols_own_values(runs):
    note = next(line for line in compare(runs)[0][0].left_out() if "batches" in line)
    assert "7 epochs, batches of 32" in note
    assert "whose own in brackets: batch_size=32 (64), epochs=7 (25)." in note


def test_the_plan_notes_what_it_replaces_and_the_id_does_not_depend_on_it():
    from benchmark.plan.sweep import Sweep, plan

    sweep = Sweep(["concat"], ["dialpad"], [0], settings=["protocol.optimizer.lr=0.5"], recipe={"epochs": 3})
    (run,) = plan(sweep).runs
    assert set(run.replaced) == {"epochs", "optimizer.lr"}
    assert yaml.safe_load(run.to_yaml())["replaced"] == run.replaced
    assert run.model_copy(update={"replaced": {}}).id == run.id
    (plain,) = plan(Sweep(["concat"], ["dialpad"], [0])).runs
    assert plain.replaced == {}
