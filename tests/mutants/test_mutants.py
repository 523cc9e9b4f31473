"""What is listed for mutants is there, and a mutant is run in place of its module."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPO = HERE.parents[1]
SOURCE = """from typing import TYPE_CHECKING

if TYPE_CHECKING:
    One = int | str

ZERO = 0


def total(a: int | None = 1) -> int | None:
    return a + 2


class Sum:
    three = 3
"""


@pytest.fixture(scope="module")
def mutants(load):
    return load(HERE / "mutants.py")


def test_every_module_and_its_tests_are_there(mutants):
    for module in mutants.read_areas():
        for path in (module.path, *module.tests):
            assert (REPO / path).exists(), path


def test_every_file_of_methods_with_a_function_is_in_the_area_of_methods(mutants):
    listed = {Path(module.path) for module in mutants.read_areas() if module.area == "methods"}
    files = {path.relative_to(REPO) for path in (REPO / "methods").glob("*.py")}
    missing = {path for path in files - listed if "\ndef " in (REPO / path).read_text(encoding="utf-8")}
    assert missing - {Path("methods/__init__.py")} == set()


def test_a_decision_is_about_a_line_that_is_there(mutants):
    for one in mutants.read_decisions():
        lines = (REPO / one.module).read_text(encoding="utf-8").splitlines() if one.module else [one.before]
        assert one.before in [line.strip() for line in lines], f"{one.module}: {one.before}"
        assert one.before != one.after
        assert one.why


def test_a_decision_holds_for_its_module_or_for_its_change_in_any(mutants):
    def made(before, after):
        return mutants.Mutant("area", "a.py", "f", 1, "change", before, after)

    own = mutants.Decision("x = 1", "x = 2", "why", "a.py")
    assert own.is_about(made("x = 1", "x = 2"))
    assert not own.is_about(made("x = 1", "x = 0"))
    assert not mutants.Decision("x = 1", "x = 2", "why", "b.py").is_about(made("x = 1", "x = 2"))
    everywhere = mutants.Decision("strict=True", "strict=False", "why")
    assert everywhere.is_about(made("zip(a, b, strict=True)", "zip(a, b, strict=False)"))
    assert not everywhere.is_about(made("zip(a, b, strict=True, c=True)", "zip(a, b, strict=True, c=False)"))


@pytest.mark.parametrize(("only_functions", "lines"), [(False, [6, 9, 10, 14]), (True, [9, 10])])
def test_annotations_are_left_out_and_classes_where_asked(mutants, only_functions, lines):
    places = mutants.Places(mutants.Module("area", "methods/a.py", (), only_functions), SOURCE)
    wanted = {4: (4, 10), 6: (6, 7), 9: (9, 26), 10: (10, 11), 14: (14, 12)}
    assert [line for line, position in wanted.items() if places.wanted(position)] == lines
    assert not places.wanted((9, 15)), "an annotation"
    assert not places.wanted((9, 36)), "what a function returns"


def test_names_are_those_that_are_imported(mutants):
    paths = ("methods/ogm.py", "benchmark/shares.py", "benchmark/records/__init__.py")
    names = [mutants.Module("area", path, ()).name for path in paths]
    assert names == ["benchmark.methods.ogm", "benchmark.shares", "benchmark.records"]


def test_a_mutant_is_imported_in_place_of_its_module(mutants, monkeypatch):
    import benchmark.shares

    path = benchmark.shares.__file__
    loader = mutants.MutantLoader("benchmark.shares", path, "answer = 42\n")
    monkeypatch.setattr(mutants.sys, "meta_path", [mutants.MutantFinder(loader), *mutants.sys.meta_path])
    monkeypatch.delitem(mutants.sys.modules, "benchmark.shares")
    monkeypatch.setattr(benchmark, "shares", benchmark.shares)
    assert not loader.used
    assert mutants.importlib.import_module("benchmark.shares").answer == 42
    assert loader.used


def test_the_score_is_of_what_can_be_killed(mutants):
    outcomes = ["killed", "hung", "killed", "equivalent", "survived"]
    found = [mutants.Mutant("area", "m.py", "f", 1, "change", "a", "b", outcome) for outcome in outcomes]
    assert mutants.table(found).splitlines()[-1] == "| area | **all** | 5 | 1 | 3 | 1 | 75 % |"
    assert [mutants.outcome_of(code) for code in (0, 1, 2, 99, None)] == [
        "survived", "killed", "killed", "unreached", "hung"
    ]  # fmt: skip
