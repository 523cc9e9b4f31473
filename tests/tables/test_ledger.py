"""The ledger: a row for each method, in any format, whatever its sentences contain."""

from __future__ import annotations

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from benchmark.cli import app
from benchmark.registry import METHODS
from benchmark.tables.ledger import NO_ROW, rows, to_csv, to_latex, to_markdown

METHOD = """
from benchmark.method import Ledger, Method, Reference
from benchmark.model import concat_net

class Mine(Method):
    reference = Reference("A | title", "VENUE", 2031, "owner/repo @ 1234567 : train.py")
    {ledger}

    def build_net(self, task):
        return concat_net(task)
"""
LEDGER = 'ledger = Ledger("alpha is 50 % & more", "uses a_b", "as the paper", "verified")'


@pytest.fixture
def row_of(plugin):
    """Return the row of a made-up method: `row_of(body)`."""
    return lambda ledger: rows([METHODS.find(plugin("mine", METHOD.format(ledger=ledger)))])[0]


def test_a_row_has_the_source_the_three_sentences_and_the_status(row_of):
    row = row_of(LEDGER)
    assert row.paper == "A | title (VENUE 2031). alpha is 50 % & more"
    assert row.released == "owner/repo @ 1234567 : train.py. uses a_b"
    assert (row.method, row.ours, row.status) == ("mine", "as the paper", "verified")


def test_a_method_that_declares_nothing_counts_as_one_that_cannot_be_verified(row_of):
    row = row_of("")
    assert (row.ours, row.status) == (NO_ROW, "cannot be verified")


def test_every_format_keeps_every_cell_whatever_it_contains(row_of):
    row = row_of(LEDGER)
    assert list(csv.reader(io.StringIO(to_csv([row]))))[1] == list(row.__dict__.values())
    markdown = to_markdown([row]).splitlines()
    assert len(markdown) == 3
    assert markdown[2].replace("\\|", "").count("|") == len(row.__dict__) + 1
    assert r"50 \% \& more" in to_latex([row])
    assert r"a\_b" in to_latex([row])


def test_the_command_prints_and_writes_a_row_for_each_method(tmp_path):
    result = CliRunner().invoke(app, ["ledger", "--json", "--to", str(tmp_path)])
    assert result.exit_code == 0
    assert [row["method"] for row in json.loads(result.stdout)] == sorted(METHODS.known())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.csv", "ledger.md", "ledger.tex"]


def test_every_method_is_tested_by_name():
    found = rows(METHODS.find(name) for name in sorted(METHODS.known()))
    assert not [row.method for row in found if ".py" not in row.tests]
