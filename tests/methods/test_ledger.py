"""The ledger: every method says what paper, released code and ours do, and the tests that it names are there."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache

import pytest

from benchmark.registry import METHODS
from benchmark.tables.ledger import account, rows, shown_by

NAMES = sorted(METHODS.known())


@cache
def functions_of(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", NAMES)
def test_every_method_accounts_for_itself_and_the_tests_that_it_names_exist(name, repo):
    plugin = METHODS.find(name)
    kind = plugin.load()
    parts = account(kind)
    assert list(parts) == ["Paper", "Released code", "Ours"]
    assert all(text.endswith(".") for text in parts.values())
    _, *named = shown_by(plugin)
    for file, _, test in (one.partition("::") for one in named):
        assert test in functions_of(repo / file), f"{file} has no {test}"
    assert kind.ledger.paper_test
    assert bool(kind.ledger.code_test) >= (kind.ledger.code == "verified on the same tensors")


@pytest.mark.parametrize("name", NAMES)
def test_code_and_paper_do_not_contradict_what_the_docstring_says_of_them(name):
    kind = METHODS.find(name).load()
    paper, released, _ = account(kind).values()
    none = released.startswith("No code")
    assert (kind.ledger.code == "no code") == none or name in {"unimodal", "umt"}  # scripts of others, or unpublished
    if kind.ledger.paper == "verified from text":
        assert "read in full" in paper
    if any(words in paper for words in ("not available", "Only the abstract", "as recalled", "could not be checked")):
        assert kind.ledger.paper in ("from abstract or memory", "reconstructed")
    if paper.startswith("No paper"):
        assert kind.ledger.paper == "no paper"


def test_papers_that_were_not_read_and_code_that_is_reproduced_are_not_mixed_up():
    found = {row.method: (row.code, row.known) for row in rows(METHODS.find(name) for name in NAMES)}
    unread = ("mmpareto", "agm", "smv", "opm", "di_mml", "relearning", "remix", "cml", "ogm", "mmcosine")
    assert {found[name] for name in unread} == {("verified on the same tensors", "from abstract or memory")}
    reproduced = ("mla", "reconboost", "lfm", "mnl", "inforeg")
    assert {found[name][0] for name in reproduced} == {"verified on the same tensors"}
    assert found["mses"][0] != "no code" != found["mslr"][0]
    assert Counter(known for _, known in found.values())["verified from text"] == 2  # AUG and PMR
