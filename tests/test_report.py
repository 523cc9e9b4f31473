"""Reports: the same bytes in any order of runs, and no table that mixes what cannot be compared."""

from __future__ import annotations

import csv
import io
import random

import pytest
import yaml

from benchmark.records import State, scan
from benchmark.registry import REPORTS
from benchmark.report import compare, slug, write


@pytest.fixture
def compared(tmp_path):
    """Compare every made-up run of the test."""
    return lambda: compare(scan(tmp_path / "runs"))


def built(name, runs):
    report = REPORTS.find(name).load()()
    return {artifact.name: artifact.content for artifact in report.build(compare(runs)[0])}


def fused(files):
    """Return the rows of the only table of fused accuracy, as {method: {column: row of the CSV}}."""
    (name,) = [name for name in files if name.startswith("fused-") and name.endswith(".csv")]
    table = {}
    for row in csv.DictReader(io.StringIO(files[name].decode())):
        table.setdefault(row["method"], {})[row["column"]] = row
    return table


NEEDS_SEVERAL_PROTOCOLS = {"protocols"}
"""Reports that these runs are too few for; their own tests shuffle more."""


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(REPORTS.known()))
def test_the_order_in_which_runs_are_found_changes_no_byte_of_any_report(finished, name):
    runs = list(scan(finished))
    shuffled = runs[:]
    random.Random(0).shuffle(shuffled)
    assert [run.folder for run in shuffled] != [run.folder for run in runs]
    first = built(name, runs)
    assert first or name in NEEDS_SEVERAL_PROTOCOLS
    assert built(name, shuffled) == first
    assert built(name, runs) == first, "and building twice changes none either"


@pytest.mark.full
def test_every_figure_comes_as_png_svg_and_pdf(finished):
    files = built("curves", list(scan(finished)))
    assert {name.rpartition(".")[2] for name in files} == {"png", "svg", "pdf"}
    magic = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for name, content in files.items():
        assert content.startswith(magic[name.rpartition(".")[2]])


def test_every_table_comes_as_latex_markdown_and_csv(finished):
    files = built("comparison", list(scan(finished)))
    stems = {name.rpartition(".")[0] for name in files}
    assert set(files) == {f"{stem}.{suffix}" for stem in stems for suffix in ("tex", "md", "csv")}


@pytest.mark.full
def test_reports_read_records_and_change_nothing_under_the_runs(finished):
    def snapshot():
        return {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}

    before = snapshot()
    for name in REPORTS.known():
        built(name, list(scan(finished)))
    assert snapshot() == before


# --- what stands in a table ----------------------------------------------------------------------------------------


def test_a_mean_is_over_the_seeds_of_its_method_and_optimism_is_oracle_minus_valid(made_up, tmp_path):
    for seed, accuracy in enumerate((0.5, 0.6, 0.7)):
        made_up("concat", seed, accuracy, oracle=accuracy + 0.05)
    made_up("ogm", 0, 0.9)
    table = fused(built("comparison", scan(tmp_path / "runs")))
    assert float(table["concat"]["best valid"]["mean"]) == pytest.approx(60)
    assert float(table["concat"]["best valid"]["std"]) == pytest.approx(10)
    assert float(table["concat"]["optimism"]["mean"]) == pytest.approx(5)
    assert (table["ogm"]["best valid"]["n"], table["ogm"]["best valid"]["std"]) == ("1", "")


def test_failed_and_unfinished_runs_differ_and_are_named_with_their_cause(made_up, tmp_path):
    made_up("concat", 0, 0.5)
    made_up("broken", 0, state=State.FAILED, cause="killed (signal 9)")
    made_up("waiting", 0, state=State.PLANNED)
    files = built("comparison", scan(tmp_path / "runs"))
    table = fused(files)
    assert table["broken"]["best valid"]["symbol"] == "✗"
    assert table["waiting"]["best valid"]["symbol"] == "—"
    (markdown,) = [text.decode() for name, text in files.items() if name.startswith("fused-") and name.endswith("md")]
    assert "killed (signal 9)" in markdown
    assert "waiting, seed 0 (planned)" in markdown


def test_a_method_with_some_failed_seeds_shows_the_others_and_says_which_failed(made_up, tmp_path):
    made_up("concat", 0, 0.5)
    made_up("concat", 1, state=State.FAILED, cause="killed")
    files = built("comparison", scan(tmp_path / "runs"))
    assert fused(files)["concat"]["best valid"]["n"] == "1"
    assert all("concat, seed 1: killed" in text.decode() for name, text in files.items() if name.endswith("md"))


def test_a_choice_on_test_wears_a_dagger(made_up, tmp_path):
    made_up(selection="oracle_test", protocol="ogm2022")
    files = built("comparison", scan(tmp_path / "runs"))
    assert "†" in files["comparison.md"].decode().split("\n")[2]
    assert r"$^\dagger$" in files["comparison.tex"].decode()


def test_damaged_runs_are_told_and_the_others_are_compared(made_up, compared):
    damaged, _ = made_up("concat", 0), made_up("concat", 1)
    (damaged.path / "record.json").write_text("{")
    (comparison,), problems = compared()
    assert [run.seed for run in comparison.runs if run.record] == [1]
    (problem,) = problems
    assert str(damaged.path) in problem
    assert "record.json" in problem


# --- what may stand together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [{"protocol": "ogm2022"}, {"dataset": "other"}, {"epochs": 7}, {"batch_size": 3}, {"selection": "last"}],
    ids=str,
)
def test_runs_of_another_protocol_recipe_or_data_set_stand_in_another_comparison(made_up, compared, other):
    made_up("concat", 0)
    made_up("ogm", 0, **other)
    comparisons, _ = compared()
    assert sorted(comparison.methods for comparison in comparisons) == [["concat"], ["ogm"]]
    assert len({comparison.title for comparison in comparisons}) == 2
    assert len({slug(comparison.title) for comparison in comparisons}) == 2, "or one file would overwrite the other"


def test_methods_and_seeds_of_one_setting_stand_together(made_up, compared):
    for method in ("ogm", "concat"):
        for seed in (1, 0):
            made_up(method, seed)
    (comparison,), problems = compared()
    assert not problems
    assert comparison.methods == ["concat", "ogm"]
    assert [run.seed for run in comparison.of("ogm")] == [0, 1]
    assert comparison.stale == 0


def test_of_runs_that_differ_in_code_alone_the_newest_finished_one_stays(made_up, compared):
    made_up("concat", 0, 0.1, updated=1.0, code="old")
    newest = made_up("concat", 0, 0.2, updated=3.0, code="new")
    made_up("concat", 0, 0.3, updated=2.0, code="middle")
    made_up("concat", 0, state=State.FAILED, updated=9.0, code="newest, but failed")
    (comparison,), _ = compared()
    assert [run.folder for run in comparison.runs] == [newest]
    assert comparison.stale == 3


def versioned(folder, method=1, numerics=1):
    """Rewrite a run's spec to be of other versions."""
    spec = yaml.safe_load((folder.path / "spec.yaml").read_text())
    content = {**spec, "numerics": numerics, "method": {**spec["method"], "version": method}}
    (folder.path / "spec.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_a_table_holds_one_version_of_a_method_the_latest_finished_one(made_up, tmp_path):
    versioned(made_up("concat", 0, 0.1), method=1)
    versioned(made_up("concat", 1, 0.1), method=1)
    second = versioned(made_up("concat", 0, 0.2), method=2)
    going_on = versioned(made_up("concat", 2, state=State.FAILED), method=3)
    (comparison,), _ = compare(scan(tmp_path / "runs"))
    assert [run.folder.path for run in comparison.runs] == [second.path, going_on.path]
    assert comparison.stale == 1
    assert any("of older code: concat, seed 1 (version 1;" in line for line in comparison.left_out())


def test_numbers_of_several_versions_of_the_core_never_stand_in_one_table_and_old_ones_say_so(made_up, tmp_path):
    versioned(made_up("concat", 0), numerics=0)
    versioned(made_up("concat", 1), numerics=1)
    versioned(made_up("concat", 2), numerics=99)
    comparisons, _ = compare(scan(tmp_path / "runs"))
    said = {one.runs[0].seed: " ".join(one.left_out()) for one in comparisons}
    assert "before numbers had versions" in said[0]
    assert "Made by" not in said[1]
    assert "version 99 of the core's numbers" in said[2]
    assert len({one.title for one in comparisons}) == 3


# --- files ---------------------------------------------------------------------------------------------------------


def test_artifacts_are_written_where_they_are_said_to_be(finished, tmp_path):
    report = REPORTS.find("comparison").load()()
    artifacts = list(report.build(compare(scan(finished))[0]))
    paths = write(artifacts, tmp_path / "new" / "folder")
    assert [path.read_bytes() for path in paths] == [artifact.content for artifact in artifacts]


def test_a_title_makes_a_file_name_without_surprises():
    name = slug("d[split=speaker], unified (7 epochs, #1a2b)/../x")
    assert "/" not in name
    assert " " not in name
    assert "split=speaker" in name


def test_the_command_lists_every_file_that_it_wrote(bench, finished, tmp_path):
    done = bench("report", "comparison", "--out", finished, "--to", "report", "--json")
    assert done.rc == 0
    assert {tmp_path / path for path in done.json["files"]} == set((tmp_path / "report").iterdir())
    assert done.json["problems"] == []
