"""The ledger: a row for each method, in any format, whatever its sentences contain."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from benchmark.cli import app
from benchmark.registry import METHODS
from benchmark.tables.ledger import NO_ROW, rows, to_csv, to_latex, to_markdown

METHOD = """
{docstring}
from benchmark.method import Ledger, Method, Reference
from benchmark.model import concat_net

class Mine(Method):
    {about}
    reference = Reference("A | title", "VENUE", 2031, "owner/repo @ 1234567 : train.py")
    {ledger}

    def build_net(self, task):
        return concat_net(task)
"""
DOCSTRING = """'''Mine: a bonus.

Paper: alpha is 50 % &
more

Released code: uses a_b

Ours: as the paper
'''"""
LEDGER = """ledger = Ledger(
        "verified on the same tensors", "verified from text", code_test="test_a", paper_test="test_more.py::test_b"
    )"""


@pytest.fixture
def row_of(plugin):
    """Return the row of a made-up method: `row_of(ledger, docstring)`."""

    def make(ledger=LEDGER, docstring=DOCSTRING, about=""):
        text = METHOD.format(ledger=ledger, docstring=docstring, about=about)
        return rows([METHODS.find(plugin("mine", text))])[0]

    return make


def test_a_row_has_the_source_the_three_parts_of_the_docstring_the_tests_and_the_status(row_of):
    row = row_of()
    assert row.paper == "A | title (VENUE 2031). alpha is 50 % & more"
    assert row.released == "owner/repo @ 1234567 : train.py. uses a_b"
    assert (row.method, row.ours) == ("mine", "as the paper")
    assert (row.code, row.known) == ("verified on the same tensors", "verified from text")
    assert row.tests == "bench check mine, tests/methods/test_mine.py::test_a, test_more.py::test_b"


def test_of_a_method_that_declares_nothing_nothing_is_said(row_of):
    row = row_of("", "")
    assert (row.ours, row.code, row.known, row.tests) == (NO_ROW, NO_ROW, NO_ROW, "bench check mine")
    assert row.paper.endswith(f" {NO_ROW}")


def test_the_parts_may_stand_in_the_docstring_of_the_class(row_of):
    row = row_of(docstring='"""Mine: a bonus."""', about=DOCSTRING.replace("\n", "\n    "))
    assert (row.ours, row.code) == ("as the paper", "verified on the same tensors")


def test_every_format_keeps_every_cell_whatever_it_contains(row_of):
    row = row_of()
    assert list(csv.reader(io.StringIO(to_csv([row]))))[1] == list(row.__dict__.values())
    markdown = to_markdown([row]).splitlines()
    assert len(markdown) == 3
    assert markdown[2].replace("\\|", "").count("|") == len(row.__dict__) + 1
    assert r"50 \% \& more" in to_latex([row])
    assert r"a\_b" in to_latex([row])


def test_no_cell_is_a_formula_of_a_spreadsheet(row_of):
    row = replace(row_of(), ours="=1+1")
    assert "'=1+1" in next(csv.reader(io.StringIO(to_csv([row]).split("\n", 1)[1])))


def test_the_command_prints_and_writes_a_row_for_each_method(tmp_path):
    result = CliRunner().invoke(app, ["ledger", "--json", "--to", str(tmp_path)])
    assert result.exit_code == 0
    assert [row["method"] for row in json.loads(result.stdout)] == sorted(METHODS.known())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.csv", "ledger.md", "ledger.tex"]
