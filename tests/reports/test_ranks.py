"""Ranks, tests and the critical difference agree with scipy and with Demšar's worked example."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from benchmark.reports.ranks import RanksReport, draw, nemenyi, rank, rankings, table_of
from scipy import stats

from benchmark.records import State
from benchmark.tables.table import Mark


def made_scores(num_datasets, num_methods, seed=0, slope=0.3):
    generator = np.random.default_rng(seed)
    return {
        f"d{row}": {f"m{column:02d}": generator.normal() + slope * column for column in range(num_methods)}
        for row in range(num_datasets)
    }


def matrix(scores, methods):
    return np.array([[found[method] for method in methods] for found in scores.values()])


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_p_values_are_those_of_scipy(seed):
    scores = made_scores(6, 5, seed)
    ranking = rank("p", scores)
    values = matrix(scores, ranking.methods)
    expected = np.array([stats.rankdata(-row) for row in values])
    assert (ranking.ranks == expected).all()
    assert ranking.p == pytest.approx(stats.friedmanchisquare(*values.T).pvalue)
    distance = np.abs(ranking.mean[:, None] - ranking.mean) / np.sqrt(5 * 6 / (6 * 6))
    by_hand = stats.studentized_range.sf(distance * np.sqrt(2), 5, np.inf)
    assert nemenyi(ranking).to_numpy() == pytest.approx(by_hand, abs=1e-6)
    apart = np.abs(ranking.mean[:, None] - ranking.mean) > ranking.critical_difference
    assert (apart == (by_hand < 0.05)).all()


def test_the_critical_difference_is_that_of_the_published_table():
    # Demšar 2006, table 5: q at 0.05 is 2.569 for four methods; 14 data sets as in his example give 1.25
    assert rank("p", made_scores(14, 4)).critical_difference == pytest.approx(1.25, abs=0.005)


def test_ties_share_the_mean_of_their_ranks():
    scores = {name: {"a": 0.9, "b": 0.7, "c": 0.7, "d": 0.1} for name in ("x", "y")}
    ranking = rank("p", scores)
    assert dict(zip(ranking.methods, ranking.mean, strict=True)) == {"a": 1, "b": 2.5, "c": 2.5, "d": 4}


def test_bold_are_the_best_and_those_within_the_critical_difference():
    ranking = rank("p", {f"d{number}": {f"m{k}": float(-k) for k in range(6)} for number in range(5)})
    bold = {name for name, row in table_of(ranking).rows if row[0].mark is Mark.BEST}
    assert bold == {name for name, mean in zip(ranking.methods, ranking.mean, strict=True) if mean <= 1 + 3.372}
    assert ranking.critical_difference == pytest.approx(3.372, abs=0.001)
    assert bold == {"m0", "m1", "m2", "m3"}


def test_without_a_difference_nobody_is_bold():
    ranking = rank("p", {"x": {"a": 3, "b": 2, "c": 1}, "y": {"a": 1, "b": 2, "c": 3}})
    assert ranking.p == pytest.approx(1.0)
    assert {row[0].mark for _, row in table_of(ranking).rows} == {Mark.NONE}
    assert any("no method is told from another" in note for note in ranking.notes)


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ({}, "data sets with results are needed, got 0"),
        ({"x": {}}, "data sets with results are needed, got 0"),
        ({"x": {"a": 1, "b": 2, "c": 3}}, "data sets with results are needed, got 1"),
        ({"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 2}}, "are needed, got 2"),
        ({"x": {"a": 1, "b": 2, "c": 3}, "y": {"d": 1}}, "are needed, got 0"),
        ({"x": {"a": 1, "b": 1, "c": 1}, "y": {"a": 2, "b": 2, "c": 2}}, "every method ties"),
    ],
)
def test_where_no_test_is_possible_the_table_says_why(scores, reason):
    ranking = rank("p", scores)
    table = table_of(ranking)
    assert ranking.p is None
    assert any("No test of ranks" in note and reason in note for note in table.notes)
    assert table.to_latex()


def test_methods_that_did_not_finish_everywhere_are_named_and_not_ranked():
    scores = made_scores(3, 4)
    del scores["d1"]["m02"]
    ranking = rank("p", scores)
    assert sorted(ranking.methods) == ["m00", "m01", "m03"]
    assert ranking.ranks.max() == 3
    assert any("not finished on every data set: m02" in note for note in ranking.notes)


def write_runs(made_up, methods=("a", "b", "c"), datasets=("one", "two"), **options):
    for number, dataset in enumerate(datasets):
        for position, method in enumerate(methods):
            for seed in range(2):
                accuracy = 0.5 + 0.1 * position + 0.01 * seed + 0.02 * number
                made_up(method, seed, accuracy=accuracy, dataset=dataset, **options)


def test_protocols_are_ranked_apart(made_up, tmp_path, comparison_of):
    write_runs(made_up)
    write_runs(made_up, methods=("c", "a", "b"), protocol="ogm2022", selection="oracle_test")
    found = {ranking.title: ranking.methods for ranking in rankings(comparison_of(tmp_path))}
    assert found == {"ogm2022, oracle_test": ["b", "a", "c"], "unified, best_valid": ["c", "b", "a"]}


def test_a_data_set_under_two_recipes_of_a_protocol_does_not_count_twice(made_up, tmp_path, comparison_of):
    write_runs(made_up, datasets=("one", "two", "three"))
    write_runs(made_up, datasets=("three",), epochs=9)
    (ranking,) = rankings(comparison_of(tmp_path))
    assert ranking.datasets == ["one", "two"]
    assert any("several recipes of this protocol: three" in note for note in ranking.notes)


def test_a_failed_run_takes_its_method_out_only_if_no_seed_is_left(made_up, tmp_path, comparison_of):
    write_runs(made_up, methods=("a", "b", "c", "d"))
    made_up("half", 0, dataset="one")
    made_up("half", 0, dataset="two", state=State.FAILED, cause="killed")
    made_up("a", 5, dataset="two", state=State.FAILED, cause="killed")
    (ranking,) = rankings(comparison_of(tmp_path))
    assert ranking.methods == ["d", "c", "b", "a"]


def test_table_and_figure_are_the_same_bytes_in_any_order_of_records(made_up, tmp_path, comparison_of):
    write_runs(made_up, methods=[f"m{number}" for number in range(7)], datasets=("one", "two", "three"))
    built = [list(RanksReport().build(comparison_of(tmp_path, shuffle))) for shuffle in (1, 2, 3)]
    assert built[0] == built[1] == built[2]
    assert {artifact.name.rpartition(".")[2] for artifact in built[0]} >= {"tex", "md", "csv", "png", "svg"}


DIGEST = """
import hashlib, io
from benchmark.report import render_figure
from benchmark.reports.ranks import draw, rank
scores = {f"d{row}": {f"m{k:02d}": (k * 7 + row * 3) % 11 + k for k in range(16)} for row in range(9)}
print(*(hashlib.sha256(artifact.content).hexdigest() for artifact in render_figure(draw(rank("p", scores)), "stem")))
"""


@pytest.mark.full
def test_the_figure_does_not_depend_on_the_hashes_of_a_process():
    digests = {
        subprocess.run(
            [sys.executable, "-P", "-c", DIGEST],
            env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True, timeout=120,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(digests) == 1


def test_names_of_any_length_and_kind_are_drawn():
    names = ["x" * 300, "$a_b^{c", "aug[lambda_=0.5,sigma=1.0]", "%&#~\\"]
    ranking = rank("$unified", {f"d{row}": {name: 1.0 * k for k, name in enumerate(names)} for row in range(3)})
    figure = draw(ranking)
    figure.canvas.draw()
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert len(labels) == 4
    assert all(len(label) < 60 for label in labels)
    assert any(label.startswith(" $a_b^{c (") for label in labels)
