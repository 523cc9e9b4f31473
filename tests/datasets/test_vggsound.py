"""VGGSound: 309 classes, two forms of its lists, two layouts of its files. The real test list where it is."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

import pytest
from benchmark.datasets.vggsound import CLASSES, VggSound

from benchmark.errors import UserError

DATA = Path(os.environ.get("BENCH_DATA", "nowhere")) / "vggsound"
needs_data = pytest.mark.data("vggsound")
WHOLE = '---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,"bird chirping, tweeting",train\n'


def open_set(root, **settings):
    return VggSound(VggSound.Config(counts="any", **settings), root)


def ids(entries):
    return {part: [(row["id"], row["label"]) for row in rows] for part, rows in entries.items()}


@needs_data
def test_the_real_test_list_has_the_published_counts(tmp_path):
    (tmp_path / "test.csv").symlink_to(DATA / "test.csv")
    (tmp_path / "train.csv").write_text("0123456789a_000001.mp4,people marching\n")
    counts = Counter(row["label"] for row in open_set(tmp_path).entries["test"])
    assert counts.total() == VggSound(VggSound.Config()).published["test"] == 15446
    assert set(counts) == set(CLASSES)
    assert set(counts.values()) == {49, 50}


@needs_data
def test_the_real_classes_add_up_to_the_published_count():
    with (DATA / "stat.csv").open(encoding="utf-8-sig", newline="") as file:
        counts = {name: int(count) for name, count, _ in csv.reader(file)}
    assert sorted(counts) == list(CLASSES)
    assert sum(counts.values()) == sum(VggSound(VggSound.Config()).published.values())


def test_both_forms_of_the_lists_say_the_same(tmp_path):
    whole, pair = tmp_path / "whole", tmp_path / "pair"
    for root in (whole, pair):
        (root / "data").mkdir(parents=True)
    (whole / "vggsound.csv").write_text(WHOLE)
    (pair / "data" / "train.csv").write_text('--0PQM4-hqg_000030.mp4,"bird chirping, tweeting"\n')
    (pair / "data" / "test.csv").write_text("---g-f_I2yQ_000001.mp4,people marching\n")
    expected = {
        "train": [("--0PQM4-hqg_000030", "bird chirping, tweeting")],
        "test": [("---g-f_I2yQ_000001", "people marching")],
    }
    assert ids(open_set(whole).entries) == ids(open_set(pair).entries) == expected


@pytest.mark.parametrize(
    ("folders", "audio", "video"),
    [
        (["video"], "video/{}.mp4", "video/{}.mp4"),
        (["video", "AudioWAV", "Image-01-FPS"], "AudioWAV/{}.wav", "Image-01-FPS/{}"),
        (
            [f"{part}-{rest}" for part in ("train", "test") for rest in
             (f"audios/{part}-set", f"videos/{part}-set", f"videos/{part}-set-img/Image-01-FPS")],
            "{part}-audios/{part}-set/{}.wav", "{part}-videos/{part}-set-img/Image-01-FPS/{}.mp4",
        ),
    ],
)  # fmt: skip
def test_layouts(tmp_path, folders, audio, video):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "vggsound.csv").write_text(WHOLE)
    for clip in open_set(tmp_path).clips:
        assert clip.files["audio"] == tmp_path / audio.format(clip.id, part=clip.part)
        assert clip.files["video"] == tmp_path / video.format(clip.id, part=clip.part)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("---g-f_I2yQ,1,people marching,valid\n", r"line 3: expected a part, got 'valid'"),
        ("---g-f_I2yQ,one,people marching,test\n", r"line 3: expected a clip's name like .*'---g-f_I2yQ_000one'"),
        ("---g-f_I2yQ,2,people matching,test\n", r"line 3: expected a label, got 'people matching'.*people marching"),
        ("---g-f_I2yQ,2,bird chirping, tweeting,test\n", r"line 3: expected 4 fields .*got 5"),
        ("---g-f_I2yQ,01,people marching,test\n", r"line 3: expected another id"),
    ],
)
def test_a_mistake_in_a_list_is_named(tmp_path, lines, said):
    (tmp_path / "vggsound.csv").write_text(WHOLE + lines)
    with pytest.raises(UserError, match=said):
        open_set(tmp_path).entries  # noqa: B018


def test_no_more_frames_can_be_read_than_are_stored():
    with pytest.raises(UserError, match=r"frames: expected at most the 3 that are stored, got 8\. Give max_frames=8"):
        open_set(None, frames=8)
