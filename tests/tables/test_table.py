"""Tables say what they know: means, spreads, marks, and three different signs for three kinds of nothing."""

from __future__ import annotations

import csv
import io
import statistics

import pytest

from benchmark.tables.table import FAILED, MISSING, UNSUPPORTED, Cell, Column, Mark, Table, escape_latex

ACC = (Column("acc"),)


def table(*rows, columns=ACC, **rest) -> Table:
    return Table("caption", columns, [(name, [Cell(values) for values in cells]) for name, *cells in rows], **rest)


def marks(made: Table, column: int = 0) -> list[Mark]:
    return [row[column].mark for _, row in made.ranked().rows]


# --- numbers -------------------------------------------------------------------------------------------------------


def test_the_spread_is_the_standard_deviation_of_a_sample():
    values = (60.0, 62.0, 67.0)
    assert Cell(values).std == pytest.approx((sum((v - 63) ** 2 for v in values) / 2) ** 0.5)
    assert Cell(values).text(1, " ± ") == "63.0 ± 3.6"


def test_one_seed_has_no_spread_in_any_format():
    made = table(("concat", (60.0,)))
    for text in (made.to_latex(), made.to_markdown()):
        assert "60.0" in text
        assert "±" not in text
        assert r"\pm" not in text
    assert parsed(made)[0]["std"] == ""


# --- marks ---------------------------------------------------------------------------------------------------------


def test_the_best_and_the_second_are_marked():
    rows = [("a", (1.0,)), ("b", (3.0,)), ("c", (2.0,)), ("d", ())]
    assert marks(table(*rows)) == [Mark.NONE, Mark.BEST, Mark.SECOND, Mark.NONE]


def test_cells_that_print_alike_are_marked_alike():
    rows = [("a", (3.04,)), ("b", (3.01,)), ("c", (2.0,)), ("d", (2.04,)), ("e", (1.0,))]
    assert marks(table(*rows)) == [Mark.BEST, Mark.BEST, Mark.SECOND, Mark.SECOND, Mark.NONE]


@pytest.mark.parametrize("rows", [[("a", (1.0,))], [("a", (1.0,)), ("b", (1.0,))], [("a", (1.0,)), ("b", ())], []])
def test_nothing_is_marked_where_there_is_nothing_to_compare(rows):
    assert set(marks(table(*rows))) <= {Mark.NONE}


def test_a_column_that_is_not_ranked_is_not_marked():
    columns = (Column("acc"), Column("gap", rank=False))
    made = table(("a", (1.0,), (1.0,)), ("b", (2.0,), (2.0,)), columns=columns)
    assert marks(made, 0) == [Mark.SECOND, Mark.BEST]
    assert marks(made, 1) == [Mark.NONE, Mark.NONE]


def test_ranking_leaves_the_table_it_was_asked_of_alone():
    made = table(("a", (1.0,)), ("b", (2.0,)))
    made.ranked()
    assert {row[0].mark for _, row in made.rows} == {Mark.NONE}


def test_marks_show_in_latex_and_markdown():
    made = table(("a", (1.0, 2.0)), ("b", (3.0, 4.0))).ranked()
    assert r"$\mathbf{3.5 \pm 0.7}$" in made.to_latex()
    assert r"\underline{$1.5 \pm 0.7$}" in made.to_latex()
    assert "**3.5 ± 0.7**" in made.to_markdown()
    assert "<u>1.5 ± 0.7</u>" in made.to_markdown()


# --- formats -------------------------------------------------------------------------------------------------------


def parsed(made: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(made.to_csv())))


def test_missing_failed_and_unsupported_differ_in_every_format():
    rows = [(symbol, [Cell(symbol=symbol)]) for symbol in (MISSING, FAILED, UNSUPPORTED)]
    made = Table("caption", [Column("acc")], rows)
    latex = [line.split(" & ")[1] for line in made.to_latex().split("\n") if line.count(" & ") == 1][1:]
    markdown = [line.split("|")[2] for line in made.to_markdown().split("\n") if line.startswith("|")][2:]
    for cells in (latex, markdown, [row["symbol"] for row in parsed(made)]):
        assert len(cells) == len(set(cells)) == 3
    assert {row["mean"] for row in parsed(made)} == {""}


def test_csv_parses_back_to_every_number_in_full():
    values = (100 / 3, 200 / 3)
    names = ['m[a="x",b=1]', "line\nbreak", "plain"]
    made = table(*((name, values) for name in names), columns=(Column("acc, top-1", 'set "A"'),))
    rows = parsed(made)
    assert [row["method"] for row in rows] == names
    for row in rows:
        assert (row["group"], row["column"], row["n"], row["symbol"]) == ('set "A"', "acc, top-1", "2", "")
        assert float(row["mean"]) == statistics.fmean(values)
        assert float(row["std"]) == statistics.stdev(values)


@pytest.mark.parametrize("text", ["=1+1", "+x", "@SUM(A1)", "-2+3", "\t=1", "\r=1", " =1"])
def test_no_text_in_csv_is_a_formula_of_a_spreadsheet(text):
    made = table((text, (-1.5,)), columns=(Column(text, group=text),), corner=text)
    head, row = csv.reader(io.StringIO(made.to_csv(), newline=""))
    assert [head[0], *row[:3]] == ["'" + text.replace("\r", " ")] * 4
    assert float(row[3]) == -1.5, "numbers stay numbers"


@pytest.mark.parametrize("char", list("_&%#${}~^\\†"))
def test_latex_has_no_bare_special_character(char):
    escaped = escape_latex(f"a{char}b")
    assert escaped.startswith("a")
    assert escaped.endswith("b")
    assert escaped != f"a{char}b"
    if char in "_&%#${}":
        assert escaped == f"a\\{char}b"
    else:
        assert char not in escaped.replace("\\text", "").replace("\\dagger", "").replace("$^", "") or char == "\\"


def test_latex_escapes_names_groups_corner_and_columns():
    made = Table("50% of a_b", [Column("x_y", "g&h")], [("m_n{1}", [Cell((1.0,))])], corner="a#b")
    body = [line for line in made.to_latex().split("\n") if not line.startswith("%")]
    assert all(word in "\n".join(body) for word in (r"x\_y", r"g\&h", r"m\_n\{1\}", r"a\#b"))
    assert made.to_latex().startswith("% 50% of a_b")


def test_a_caption_or_note_of_several_lines_stays_a_comment_in_latex():
    latex = table(("a", (1.0,)), notes=["first\nsecond"]).to_latex()
    assert [line for line in latex.split("\n") if "second" in line] == ["% second"]


def test_every_row_of_a_format_has_as_many_cells_as_columns():
    columns = (Column("a", "one"), Column("b", "one"), Column("c"), Column("d", "two"))
    made = table(("m|n", (1.0,), (), (2.0,), (3.0,)), ("plain", (), (), (), ()), columns=columns)
    rows = [line for line in made.to_markdown().split("\n") if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {6}
    latex = made.to_latex()
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")].split("\n")
    assert {line.count(" & ") for line in body if line.endswith("\\\\")} == {4}
    spans = [int(part[0]) for part in latex.split(r"\multicolumn{")[1:]]
    assert sum(spans) == 4
    assert r"\cmidrule(lr){2-3}" in latex
    assert r"\cmidrule(lr){5-5}" in latex
