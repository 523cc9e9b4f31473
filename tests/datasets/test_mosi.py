"""MOSI: rows find their utterances, speakers stay on one side, test decides nothing about train."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark.datasets import mosi
from benchmark.datasets.mosi import WIDTHS, Mosi, video_of

from benchmark.check import check_dataset
from benchmark.errors import UserError

DATA = Path(os.environ.get("BENCH_DATA", "nowhere"))
needs_data = pytest.mark.data("mosi")

TRAIN_VIDEOS, TEST_VIDEOS = 8, 2
UTTERANCES = [
    (f"clip_{number:02d}_{i}", number, (number + i) % 2)
    for number in (3, 10, 1, 7, 2, 9, 4, 5, 8, 6)
    for i in (1, 2, 3)
]


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """Ten videos of three utterances; each utterance's features are its own number, another for each modality."""
    monkeypatch.setattr(mosi, "COUNTS", {"train": 3 * TRAIN_VIDEOS, "test": 3 * TEST_VIDEOS})
    monkeypatch.setattr(mosi, "NUM_VIDEOS", {"train": TRAIN_VIDEOS, "test": TEST_VIDEOS})
    root = tmp_path / "mosi"
    for modality, width in WIDTHS.items():
        (root / modality).mkdir(parents=True)
        for part in ("train", "test"):
            mine = [u for u in UTTERANCES if (u[1] <= TRAIN_VIDEOS) == (part == "train")]
            rows = [
                [*np.full(width, value_of(u[0], modality)), u[2]] for label in (1, 0) for u in mine if u[2] == label
            ]
            write(root / modality / f"{modality}_{part}0.csv", rows)
    write(root / "transcripts.csv", [(name, "SO, WELL", number, label) for name, number, label in UTTERANCES])
    return root


def value_of(utterance, modality):
    return sum(map(ord, utterance)) + 0.5 * int(utterance[-1]) * len(modality) ** 2


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)


def load(root):
    return Mosi(Mosi.Config(), root).load()


def edit(path, line, change):
    lines = path.read_text().split("\n")
    lines[line - 1] = change(lines[line - 1])
    path.write_text("\n".join(lines))


def test_features_go_to_their_utterances(made_up):
    samples = load(made_up)
    assert sorted(samples.ids) == sorted(name for name, _, _ in UTTERANCES)
    labels = {name: label for name, _, label in UTTERANCES}
    assert samples.labels.tolist() == [labels[name] for name in samples.ids]
    train = 3 * TRAIN_VIDEOS
    for modality, x in samples.inputs.items():
        raw = np.array([value_of(name, modality) for name in samples.ids])
        expected = (raw - raw[:train].mean()) / raw[:train].std(ddof=1)
        np.testing.assert_allclose(x.numpy(), np.repeat(expected[:, None], WIDTHS[modality], 1), rtol=1e-5, atol=1e-5)


def test_an_audit_gets_words_and_videos_in_the_order_of_the_samples(made_up):
    dataset = Mosi(Mosi.Config(), made_up)
    assert dataset.keys()["video"] == [video_of(name) for name in dataset.load().ids]
    assert dataset.texts()["text"] == ["SO, WELL"] * len(UTTERANCES)
    assert dataset.published == {"train": 3 * TRAIN_VIDEOS, "test": 3 * TEST_VIDEOS}


def test_no_video_is_on_two_sides(made_up):
    dataset = Mosi(Mosi.Config(), made_up)
    samples = dataset.load()
    split = dataset.split(samples, 0.25)
    videos = [{video_of(samples.ids[i]) for i in part} for part in (split.train, split.valid, split.test)]
    assert sum(map(len, videos)) == len(set.union(*videos)) == TRAIN_VIDEOS + TEST_VIDEOS
    assert videos[2] == {"clip_09", "clip_10"}


def test_test_rows_change_nothing_in_train(made_up):
    before = load(made_up)
    edit(made_up / "audio" / "audio_test0.csv", 2, lambda line: line.replace('"', '"9', 1))
    after = load(made_up)
    train = 3 * TRAIN_VIDEOS
    assert not torch.equal(before.inputs["audio"][train:], after.inputs["audio"][train:])
    for modality, x in before.inputs.items():
        assert torch.equal(x[:train], after.inputs[modality][:train])


def test_a_feature_that_never_varies_is_zero_and_stays_finite(made_up):
    for part in ("train", "test"):
        path = made_up / "video" / f"video_{part}0.csv"
        rows = list(csv.reader(path.open()))
        write(path, [["0.1", *row[1:]] for row in rows])
    x = load(made_up).inputs["video"]
    assert bool(torch.isfinite(x).all())
    assert float(x[:, 0].abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "audio/audio_train0.csv",
            lambda line: line.replace('"', '"x', 1),
            "audio_train0.csv, line 3: expected finite",
        ),
        ("text/text_test0.csv", lambda line: '"nan",' + line.partition(",")[2], "line 3: expected finite numbers"),
        ("text/text_test0.csv", lambda line: line.partition(",")[2], r"line 3: expected 101 fields .* got 100"),
        ("video/video_test0.csv", lambda line: "", r"expected 6 test utterances, got 5"),
        ("video/video_test0.csv", lambda line: line[:-3] + '"0"', r"mosi, video: expected the labels of transcripts"),
        ("transcripts.csv", lambda line: line.replace('_3"', '_2"'), r"transcripts.csv, line 3: expected another id"),
        ("transcripts.csv", lambda line: line[:-3] + '"2"', r"transcripts.csv, line 3: expected a label, got '2'"),
        ("transcripts.csv", lambda line: line.replace('"3"', '"94"'), r"line 3: expected a video, got '94'"),
        ("transcripts.csv", lambda line: line.replace('"3"', '"10"'), r"expected 24 train utterances, got 23"),
    ],
)
def test_a_damaged_line_is_named(made_up, file, change, message):
    edit(made_up / file, 3, change)
    with pytest.raises(UserError, match=message):
        load(made_up)


def test_missing_files_are_named_with_how_to_get_them(made_up):
    (made_up / "text" / "text_test0.csv").unlink()
    (made_up / "transcripts.csv").write_text("")
    with pytest.raises(UserError, match=r"text_test0\.csv \(no such.*transcripts\.csv \(an empty file\).*Get the MOSI"):
        Mosi(Mosi.Config(), made_up).fingerprint()
    with pytest.raises(UserError, match="no data root"):
        load(None)


@needs_data
def test_the_real_data_set_keeps_the_contract():
    assert not [result for result in check_dataset("mosi", DATA) if result.failed]


@needs_data
def test_real_rows_are_the_published_ones():
    """The first indices into the transcripts that were published with the features, and the raw numbers."""
    samples = load(DATA / "mosi")
    with (DATA / "mosi" / "transcripts.csv").open(encoding="utf-8", errors="replace", newline="") as file:
        names = [row[0] for row in csv.reader(file)]
    assert list(samples.ids[:10]) == [names[i] for i in (39, 41, 44, 45, 46, 51, 146, 147, 148, 149)]
    assert list(samples.ids[1447:1457]) == [names[i] for i in (0, 3, 4, 8, 9, 10, 11, 12, 15, 17)]
    assert np.bincount(samples.labels[:1447]).tolist() == [738, 709]
    assert np.bincount(samples.labels[1447:]).tolist() == [285, 467]
    for modality in WIDTHS:
        tables = [
            np.loadtxt(DATA / "mosi" / modality / f"{modality}_{part}0.csv", delimiter=",", quotechar='"')
            for part in ("train", "test")
        ]
        raw = np.concatenate(tables)
        assert raw[:, -1].tolist() == samples.labels.tolist()
        x = samples.inputs[modality].numpy()
        varies = raw[:1447, :-1].std(0) > 0
        expected = (raw[:, :-1] - raw[:1447, :-1].mean(0))[:, varies] / raw[:1447, :-1].std(0, ddof=1)[varies]
        np.testing.assert_allclose(x[:, varies], expected, rtol=1e-4, atol=1e-4)
