"""A row of a table is of one code: the newest by default, what is of older code is named with the command for it."""

from __future__ import annotations

import json
import shlex
from statistics import fmean

import pytest
import yaml

import benchmark as mb
from benchmark.codes import Code
from benchmark.records import scan
from benchmark.registry import REPORTS
from benchmark.report import compare

OLD, NEW = "0123456789ab", "ba9876543210"


@pytest.fixture
def compared(tmp_path):
    """Return the only comparison of the made-up runs."""

    def give():
        (comparison,), _ = compare(scan(tmp_path / "runs"))
        return comparison

    return give


def edit(folder, **changes):
    """Change what a run's spec says of its method."""
    path = folder.path / "spec.yaml"
    spec = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**spec, "method": {**spec["method"], **changes}}))
    return folder


def test_seeds_of_two_codes_are_not_averaged_and_the_older_ones_are_named_with_their_command(made_up, compared):
    for seed in (0, 1):
        edit(made_up("mine", seed, 0.9, updated=1.0), code=OLD, source="/there/mine.py")
    edit(made_up("mine", 2, 0.2, updated=2.0), code=NEW, source="/there/mine.py")
    comparison = compared()
    assert [run.seed for run in comparison.of("mine") if run.record] == [2]
    said = " ".join(comparison.left_out())
    assert "of older code: mine, seeds 0, 1 (code 012345; the row is of code ba9876)" in said
    assert "bench run --methods /there/mine.py --datasets blobs --seeds 0,1 " in said


def test_settings_of_older_code_than_the_method_itself_are_marked_and_have_no_difference_to_it(made_up, compared):
    edit(made_up("ogm", 0, 0.9), version=3)
    edit(made_up("ogm[alpha=0]", 0, 0.8, name="ogm"), version=2)
    edit(made_up("concat", 0, 0.5), version=1)
    comparison = compared()
    marked = "ogm[alpha=0] (older: version 2)"
    assert comparison.methods == ["concat", "ogm", marked]
    (table,) = REPORTS.find("ablation").load()().tables([comparison])
    place = [column.name for column in table.columns].index("Δ")
    assert [cells[place].values for name, cells in table.rows if name == marked] == [()]
    assert any("bench run" in note and "ogm[alpha=0]" in note for note in table.notes)
    assert all("older" in str(artifact.content) for artifact in REPORTS.find("ablation").load()().build([comparison]))


def test_a_method_made_of_others_is_not_of_older_code_because_another_of_its_settings_is_newer(made_up, compared):
    config = {"local": "concat"}
    edit(made_up("federated", 0, 0.9), version=1, config=config)
    edit(made_up("federated[local=ogm]", 0, 0.9, name="federated"), version=2, config={"local": "ogm"})
    assert compared().methods == ["federated", "federated[local=ogm]"]


def test_a_repeated_seed_needs_no_command(made_up, compared):
    edit(made_up("mine", 0, 0.9, updated=1.0), code=OLD)
    edit(made_up("mine", 0, 0.2, updated=2.0), code=NEW)
    said = " ".join(compared().left_out())
    assert "bench run" not in said
    assert "1 older run of the same settings and seeds left out" in said


def test_a_frame_holds_one_code_of_each_setting_unless_all_are_asked_for(made_up, tmp_path):
    edit(made_up("mine", 0, 0.9, updated=1.0), code=OLD)
    edit(made_up("mine", 1, 0.2, updated=2.0), code=NEW)
    runs = mb.load(tmp_path / "runs")
    frame = runs.to_frame().query("rule == 'best_valid' and head == 'fused' and metric == 'accuracy'")
    assert list(frame.value) == [0.2]
    assert set(runs.history().seed) == {1}
    both = runs.to_frame(older=True)
    assert both.groupby("code").seed.unique().map(list).to_dict() == {f"1.1.1 code {OLD[:6]}": [0],
                                                                     f"1.1.1 code {NEW[:6]}": [1]}  # fmt: skip
    assert set(both.epochs) == {2}


@pytest.mark.parametrize(("what", "values"), [("threads", (1, 4)), ("device", ("cpu", "cuda:0"))])
def test_a_row_of_two_machines_says_so(made_up, compared, what, values):
    for seed, value in enumerate((values[0], values[0], values[1])):
        (made_up("concat", seed).path / "env.json").write_text(json.dumps({what: value}))
    assert f"Mixed in one row: concat, {what} {values[0]} (seeds 0, 1), {values[1]} (seed 2)." in compared().left_out()


def test_a_row_of_two_versions_of_torch_says_so(made_up, compared):
    for seed in (0, 1):
        path = made_up("concat", seed).path / "spec.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "torch": f"2.{seed}"}))
    assert "Mixed in one row: concat, torch 2.0 (seed 0), 2.1 (seed 1)." in compared().left_out()


def test_what_an_older_core_or_data_set_made_stands_apart_and_is_not_ranked(made_up, tmp_path):
    for version in (1, 2):
        for method in ("concat", "ogm"):
            path = made_up(method, version).path / "spec.yaml"
            spec = yaml.safe_load(path.read_text())
            path.write_text(yaml.safe_dump({**spec, "dataset": {**spec["dataset"], "version": version}}))
    comparisons, _ = compare(scan(tmp_path / "runs"))
    assert [one.superseded for one in sorted(comparisons, key=lambda one: Code.of(one.runs[0]).versions)] == [
        True,
        False,
    ]
    assert len({one.stem for one in comparisons}) == 2


@pytest.mark.full
def test_a_plugin_edited_between_two_seeds_makes_no_row_of_two_codes(bench, tmp_path, blobs):
    """The public report of seeds of two codes, whole: train, edit, train, report."""
    mine = tmp_path / "mine.py"
    text = "from benchmark.methods.concat import Concat\nclass Mine(Concat):\n    shift = 0.0\n"
    mine.write_text(text)
    options = ("--methods", "./mine.py", "--datasets", blobs, "--epochs", 1, "--out", "results", "--on", "inline")
    assert bench("run", *options, "--seeds", "0-1").rc == 0
    mine.write_text(text.replace("0.0", "1.0"))
    assert bench("run", *options, "--seeds", 2).rc == 0
    done = bench("report", "comparison", "--out", "results", "--to", "r")
    assert "mine, seeds 0, 1 (code" in done.said
    command = next(line for line in done.stdout.splitlines() if "bench run" in line).partition("bench run ")[2]
    planned = bench("run", *shlex.split(command), "--dry-run", "--json")
    seeds = [run["run"].rpartition(" s")[2] for run in planned.json["runs"]]
    assert seeds == ["0", "1"]
    frame = mb.load(tmp_path / "results").to_frame()
    assert set(frame.seed) == {2}
    assert fmean(frame.epochs) == 1
    assert command.endswith("--out results")
