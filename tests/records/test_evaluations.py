"""What `bench evaluate` leaves: what is written is read, and what is damaged or of another run or version is not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmark.records import EVALUATIONS, MissingScores, NoiseScore, NoiseScores, RateScore, RunFolder, SubsetScore

RATE = RateScore(accuracy=0.5, macro_f1=0.25, modality="audio", rate=0.1, fill="zero")
FOUND = [
    MissingScores(
        [RATE, replace(RATE, rate=0)], [SubsetScore(1.0, 1, ("audio", "video"), "zero"), SubsetScore(0, 0, (), "mean")]
    ),
    NoiseScores([NoiseScore(accuracy=0.5, macro_f1=0.25, modality="all", strength=2.0)]),
]


@pytest.mark.parametrize("found", FOUND, ids=lambda found: found.FILE)
def test_what_is_written_is_read_for_its_run_alone(tmp_path, found):
    folder = RunFolder(tmp_path)
    assert type(found).read(folder, "x") is None
    found.write(folder, "x")
    assert type(found).read(folder, "x") == found
    assert type(found).read(folder, "y") is None


@pytest.mark.parametrize("found", FOUND, ids=lambda found: found.FILE)
def test_a_row_that_lacks_a_value_or_has_one_of_another_kind_spoils_the_file_and_a_new_value_does_not(tmp_path, found):
    folder, path = RunFolder(tmp_path), tmp_path / found.FILE

    def reads(part, row):
        path.write_text(json.dumps({**content, part: [row]}))
        return type(found).read(folder, "x") is not None

    found.write(folder, "x")
    content = json.loads(path.read_text())
    for part in found.PARTS:
        whole = content[part][0]
        assert reads(part, whole)
        assert reads(part, whole | {"added later": 1})
        for name in whole:
            assert not reads(part, {key: value for key, value in whole.items() if key != name}), name
            for wrong in (None, {}, True, [1]):
                assert not reads(part, whole | {name: wrong}), (name, wrong)


def test_every_kind_has_a_file_of_its_own_and_a_field_for_each_of_its_lists():
    assert len({kind.FILE for kind in EVALUATIONS}) == len(EVALUATIONS) == len(FOUND)
    for found in FOUND:
        assert set(vars(found)) == set(found.PARTS)


def test_untouched_inputs_are_those_at_rate_and_strength_zero():
    assert [row.rate for row in FOUND[0].untouched()] == [0]
    assert FOUND[1].untouched() == []
