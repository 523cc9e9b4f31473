"""Kinetics-Sounds: two kinds of lists, and the names that Kinetics-400 gives to clips. Real lists where they are."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from benchmark.datasets._audiovisual import youtube_id
from benchmark.datasets.ksounds import CLASSES, KSounds, kinetics_name

from benchmark.errors import UserError

DATA = Path(os.environ.get("BENCH_DATA", "nowhere")) / "ksounds"
needs_data = pytest.mark.data("ksounds")


def open_set(root, **settings):
    return KSounds(KSounds.Config(**settings), root)


def write_lists(root, train, test, names):
    for name, text in zip(names, (train, test), strict=True):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


@needs_data
def test_the_real_lists_have_the_published_counts():
    entries = open_set(DATA).entries
    assert {part: len(rows) for part, rows in entries.items()} == {"train": 14799, "test": 2597}
    counts = {part: Counter(row["label"] for row in rows) for part, rows in entries.items()}
    assert {part: (len(c), min(c.values()), max(c.values())) for part, c in counts.items()} == {
        "train": (31, 197, 690), "test": (31, 63, 92),
    }  # fmt: skip
    videos = {part: {youtube_id(row["id"]) for row in rows} for part, rows in entries.items()}
    assert not videos["train"] & videos["test"]


@needs_data
def test_every_real_clip_has_a_name_of_kinetics():
    for rows in open_set(DATA).entries.values():
        names = [kinetics_name(row["id"]) for row in rows]
        assert all(re.fullmatch(r"[\w-]{11}_\d{6}_\d{6}", name) for name in names)
        assert len(set(names)) == len(names)


def test_a_clip_of_test_is_named_with_both_its_seconds():
    assert kinetics_name("-74csnCOiUs_0") == "-74csnCOiUs_000000_000010"
    assert kinetics_name("a_b-c_d_e_f_137") == "a_b-c_d_e_f_000137_000147"
    assert kinetics_name("--4-0ihtnBU_000058_000068") == "--4-0ihtnBU_000058_000068"


def test_clips_lie_in_the_folders_of_their_part(tmp_path):
    names = ("my_train.txt", "my_test.txt")
    write_lists(tmp_path, "--4-0ihtnBU_000058_000068,10,4\n", "-74csnCOiUs_7,10,14\n", names)
    for folder in ("train_wav", "train_img/Image-01-FPS", "test"):
        (tmp_path / folder).mkdir(parents=True)
    train, test = open_set(tmp_path, counts="any").clips
    assert (train.label, train.part, test.label, test.part) == (4, "train", 14, "test")
    assert train.files == {
        "audio": tmp_path / "train_wav" / "--4-0ihtnBU_000058_000068.wav",
        "video": tmp_path / "train_img" / "Image-01-FPS" / "--4-0ihtnBU_000058_000068",
    }
    assert set(test.files.values()) == {tmp_path / "test" / "-74csnCOiUs_000007_000017.mp4"}


def test_lists_with_names_give_classes_by_name(tmp_path):
    names = ("annotations/train.csv", "annotations/test.csv")
    text = "youtube_id,label\n--4-0ihtnBU_000058_000068,tickling\n-74csnCOiUs_000000_000010,bowling\n"
    write_lists(tmp_path, text, "label,youtube_id\nblowing nose,-00nar1nEPc_000033_000043\n", names)
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    dataset = open_set(tmp_path, lists="named")
    assert [dataset.class_names[clip.label] for clip in dataset.clips] == ["tickling", "bowling", "blowing nose"]
    assert len(CLASSES) == 31
    assert list(CLASSES) == sorted(CLASSES)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ("--4-0ihtnBU_000058_000068,10,31\n", r"line 1: expected a label, got '31'"),
        ("--4-0ihtnBU_000058_000068,10\n", r"line 1: expected 3 fields \(id, seconds, label\), got 2"),
        ("--4-0ihtnBU_58_68,10,3\n", r"line 1: expected a clip's name like .* got '--4-0ihtnBU_58_68'"),
        ("-74csnCOiUs_7,10,3\n", r"expected another id, got '-74csnCOiUs_7' again"),
    ],
)
def test_a_mistake_in_a_list_is_named(tmp_path, train, said):
    write_lists(tmp_path, train, "-74csnCOiUs_7,10,14\n", ("my_train.txt", "my_test.txt"))
    with pytest.raises(UserError, match=said):
        open_set(tmp_path, counts="any").entries  # noqa: B018


def test_a_missing_column_is_named(tmp_path):
    text = "youtube_id,labels\n--4-0ihtnBU_000058_000068,bowling\n"
    write_lists(tmp_path, text, text, ("annotations/train.csv", "annotations/test.csv"))
    with pytest.raises(UserError, match=r"expected a column 'label', got youtube_id, labels"):
        open_set(tmp_path, lists="named").entries  # noqa: B018
