"""Published figures stand beside ours by the same rule; files are checked line by line."""

from __future__ import annotations

import csv
import io

import pytest
from benchmark.reports import published
from benchmark.reports.published import FIELDS, FOLDER, PublishedReport, beside, read_folder

from benchmark.errors import UserError
from benchmark.records import State
from benchmark.tables.table import FAILED, MISSING

LINE = {
    "paper": "A (2025)", "table": "Table 1", "dataset": "blobs", "method": "concat", "head": "fused",
    "metric": "accuracy", "value": "62.5", "selection": "oracle_test", "source": "page 7", "note": "",
}  # fmt: skip


@pytest.fixture
def figures(tmp_path):
    """Write a file of figures, each a change of `LINE`, and read it."""

    def write(*changes, name="a.csv", header=FIELDS):
        folder = tmp_path / "figures"
        folder.mkdir(exist_ok=True)
        stream = io.StringIO()
        writer = csv.DictWriter(stream, header)
        writer.writeheader()
        writer.writerows({**LINE, **change} for change in changes)
        (folder / name).write_text(stream.getvalue(), encoding="utf-8")
        return read_folder(folder)

    return write


def rows_of(comparisons, figures):
    """Return {row: {column: cell}} of the only table."""
    ((_, table),) = beside(comparisons, figures)
    names = [f"{column.group} {column.name}".strip() for column in table.columns]
    return {name: dict(zip(names, row, strict=True)) for name, row in table.rows}


def test_ours_by_the_papers_rule_stands_beside_ours_by_our_own(made_up, figures, tmp_path, comparison_of):
    for seed, accuracy in enumerate((0.5, 0.54)):
        made_up("concat", seed, accuracy=accuracy, oracle=accuracy + 0.1)
    (row,) = rows_of(comparison_of(tmp_path), figures({})).values()
    assert row["chosen by"].symbol == "oracle†"
    assert row["acc published"].values == (62.5,)
    assert row["acc ours, as they"].values == pytest.approx((60, 64))
    assert row["acc difference"].values == pytest.approx((-2.5, 1.5))
    assert row["acc ours, best valid"].values == pytest.approx((50, 54))


def test_metrics_of_one_method_share_a_row_and_heads_do_not(made_up, figures, tmp_path, comparison_of):
    made_up("concat", 0, accuracy=0.5)
    found = figures({}, {"metric": "map", "value": "70"}, {"head": "audio", "value": "40"})
    rows = rows_of(comparison_of(tmp_path), found)
    assert list(rows) == ["concat (A (2025), Table 1)", "concat, audio (A (2025), Table 1)"]
    both, audio = rows.values()
    assert (both["acc published"].values, both["mAP published"].values) == ((62.5,), (70.0,))
    assert both["mAP difference"].values == pytest.approx((-20,))
    assert audio["acc difference"].values == pytest.approx((10,))
    assert (audio["mAP published"].values, audio["mAP published"].symbol) == ((), MISSING)


def test_where_we_have_no_run_or_a_failed_one(made_up, figures, tmp_path, comparison_of):
    made_up("ogm", 0)
    made_up("bad", 0, state=State.FAILED, cause="killed")
    rows = rows_of(comparison_of(tmp_path), figures({"method": "nobody's"}, {"method": "bad"}))
    for row, symbol in zip(rows.values(), (MISSING, FAILED), strict=True):
        assert row["acc published"].values == (62.5,)
        assert {row[name].symbol for name in row if "ours" in name or "difference" in name} == {symbol}


def test_without_a_known_rule_there_is_no_difference(made_up, figures, tmp_path, comparison_of):
    made_up("concat", 0, accuracy=0.5)
    (row,) = rows_of(comparison_of(tmp_path), figures({"selection": "unknown"})).values()
    assert row["chosen by"].symbol == "unknown"
    assert row["acc difference"].values == row["acc ours, as they"].values == ()
    assert row["acc ours, best valid"].values == (50.0,)


def test_sources_and_notes_are_printed_once_each(made_up, figures, tmp_path, comparison_of):
    made_up("concat", 0)
    ((_, table),) = beside(comparison_of(tmp_path), figures({"note": "one seed"}, {"method": "ogm"}))
    assert table.notes.count("A (2025), Table 1: page 7.") == 1
    assert table.notes.count("concat (A (2025), Table 1): one seed.") == 1


def test_figures_of_other_data_sets_stay_out(made_up, figures, tmp_path, comparison_of, monkeypatch):
    made_up("concat", 0)
    assert not list(beside(comparison_of(tmp_path), figures({"dataset": "cremad"})))
    monkeypatch.setattr(published, "FOLDER", tmp_path / "figures")
    (text,) = [a.content.decode() for a in PublishedReport().build(comparison_of(tmp_path)) if a.name == "published.md"]
    assert "there are figures for: cremad" in text


def test_the_order_of_records_changes_no_byte(made_up, figures, tmp_path, comparison_of, monkeypatch):
    for method in ("concat", "ogm", "aug"):
        for seed in range(2):
            made_up(method, seed)
    figures({}, {"method": "ogm"})
    figures({"method": "aug"}, name="b.csv")
    monkeypatch.setattr(published, "FOLDER", tmp_path / "figures")
    built = [list(PublishedReport().build(comparison_of(tmp_path, shuffle))) for shuffle in (1, 2, 3)]
    assert built[0] == built[1] == built[2]
    assert len(built[0]) == 3


def test_a_method_run_with_other_settings_stands_in_only_if_it_is_the_only_one(
    made_up, figures, tmp_path, comparison_of
):
    def run(label):
        folder = made_up(label, 0, accuracy=0.5)
        spec = folder.read_spec()
        folder.write("spec.yaml", {**spec, "method": {**spec["method"], "name": "ogm"}})

    found = figures({"method": "ogm"})
    run("ogm[alpha=0.3]")
    ((_, table),) = beside(comparison_of(tmp_path), found)
    (row,) = rows_of(comparison_of(tmp_path), found).values()
    assert row["acc difference"].values == pytest.approx((-12.5,))
    assert "ogm: ours is ogm[alpha=0.3]." in table.notes
    run("ogm[alpha=0.9]")
    (row,) = rows_of(comparison_of(tmp_path), found).values()
    assert row["acc difference"].symbol == MISSING


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": "0.625x"}, "line 3: expected a value from 0 to 100, in per cent, got '0.625x'"),
        ({"value": "nan"}, "line 3: expected a value from 0 to 100"),
        ({"value": "101"}, "line 3: expected a value from 0 to 100"),
        ({"value": ""}, "line 3: expected a value from 0 to 100"),
        ({"metric": "acuracy"}, "line 3: expected a known metric, got 'acuracy'. Did you mean 'accuracy'?"),
        ({"selection": "best"}, "line 3: expected a known selection, got 'best'"),
        ({"source": ""}, "line 3: expected a source, got nothing"),
        ({}, "line 3: expected each cell of a paper once, got the cell of published figures, a.csv, line 2 again"),
    ],
    ids=str,
)
def test_a_bad_line_is_named_with_what_is_expected(figures, change, said):
    with pytest.raises(UserError) as error:
        figures({}, {"method": "ogm", **change} if change else {})
    (problem,) = str(error.value).splitlines()
    assert "a.csv" in problem
    assert said in problem


def test_every_bad_line_is_named_at_once(figures):
    with pytest.raises(UserError) as error:
        figures({"value": "x"}, {"metric": ""}, {"metric": "f1", "selection": "?"})
    assert len(error.value.problems) == 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"paper,table\n", r"a\.csv, line 1: expected the columns paper, .*, got paper, table"),
        (b"", r"a\.csv, line 1: expected the columns paper, .*, got nothing"),
        (",".join(FIELDS).encode() + b"\na,b,c\n\n", r"a\.csv, line 2: expected 10 values, got 3"),
        (b"\xff\xfe", r"a\.csv: expected a readable UTF-8 file"),
    ],
    ids=["header", "empty", "short", "bytes"],
)
def test_what_is_no_table_is_named(tmp_path, content, said):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_folder(tmp_path)


# --- the figures that come with the suite --------------------------------------------------------------------------


def test_our_files_can_be_read_and_every_figure_has_its_source():
    figures = read_folder(FOLDER)
    found = {(f.paper, f.dataset, f.method, f.head, f.metric): f.value for f in figures}
    assert found["AUG (NeurIPS 2025)", "cremad", "aug", "fused", "accuracy"] == 85.15
    assert found["LFM (NeurIPS 2024)", "ksounds", "mla", "fused", "map"] == 74.13
    assert found["LFM (NeurIPS 2024)", "nvgesture", "agm", "fused", "macro_f1"] == 82.82
    assert all(len(figure.source) > 10 for figure in figures)
    assert {path.suffix for path in FOLDER.iterdir()} == {".csv"}


def test_data_sets_and_methods_of_ours_are_named_as_we_name_them():
    from benchmark.registry import DATASETS

    assert {figure.dataset for figure in read_folder(FOLDER)} <= set(DATASETS.known())
