"""CREMA-D: its lists, the published validation part, and a split that keeps actors apart. Real lists where they are."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark.datasets.cremad import ACTORS, CLASSES, CremaD, actor_of, divide, held_out_actors

from benchmark.data import Samples
from benchmark.errors import UserError
from benchmark.inputs.lists import Row

DATA = Path(os.environ.get("BENCH_DATA", "nowhere")) / "cremad"
needs_data = pytest.mark.data("cremad")
BROKEN = {"1076_MTI_NEU_XX", "1076_MTI_SAD_XX", "1064_TIE_SAD_XX", "1064_IEO_DIS_MD"}
LISTED = (
    "1001_IEO_ANG_HI,ANG\n1001_IEO_HAP_LO,HAP\n1002_TSI_ANG_XX,ANG\n1002_TSI_HAP_XX,HAP\n",
    "1003_DFA_ANG_XX,ANG\n1003_DFA_HAP_X,HAP\n",
)


def open_set(root, **settings):
    return CremaD(CremaD.Config(**settings), root)


def write_lists(root, train=LISTED[0], test=LISTED[1], folder="annotations"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in (("train", train), ("test", test)):
        (root / folder / f"{name}.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def histogram(rows):
    return Counter(row["label"] for row in rows)


@pytest.fixture
def with_media(tmp_path):
    """The real lists beside empty folders of media."""
    (tmp_path / "annotations").symlink_to(DATA / "annotations")
    for folder in ("AudioWAV", "Image-01-FPS"):
        (tmp_path / folder).mkdir()
    return tmp_path


@needs_data
def test_the_real_lists_have_the_published_counts_and_histograms():
    entries = open_set(DATA).entries
    assert {part: len(rows) for part, rows in entries.items()} == {"train": 5954, "valid": 744, "test": 744}
    together = histogram(entries["train"]) + histogram(entries["valid"])
    assert together == {"NEU": 973, "HAP": 1148, "SAD": 1131, "FEA": 1138, "DIS": 1142, "ANG": 1166}
    assert histogram(entries["test"]) == {"NEU": 114, "HAP": 123, "SAD": 140, "FEA": 133, "DIS": 129, "ANG": 105}
    assert histogram(entries["valid"]) == histogram(entries["test"])


@needs_data
def test_the_real_split_shares_actors_and_sentences_and_has_its_broken_clips_in_train():
    entries = open_set(DATA).entries
    known = [row["id"] for part in ("train", "valid") for row in entries[part]]
    test = [row["id"] for row in entries["test"]]
    assert {actor_of(name) for name in known} == {actor_of(name) for name in test} == set(ACTORS)
    assert {name[:8] for name in test} <= {name[:8] for name in known}
    assert set(known) >= BROKEN


@needs_data
def test_without_the_published_division_train_is_whole(tmp_path):
    (tmp_path / "annotations").symlink_to(DATA / "annotations" / "ogm")
    entries = open_set(tmp_path).entries
    assert {part: len(rows) for part, rows in entries.items()} == {"train": 6698, "test": 744}


@needs_data
@pytest.mark.parametrize("split", ["official", "actor"])
def test_a_real_split_is_disjoint_and_has_every_class_everywhere(with_media, split):
    dataset = open_set(with_media, split=split)
    clips = dataset.clips
    samples = Samples({}, torch.tensor([clip.label for clip in clips]), [clip.id for clip in clips])
    found = dataset.split(samples, 0.15)
    parts = {part: getattr(found, part) for part in ("train", "valid", "test")}
    assert sorted(np.concatenate(list(parts.values()))) == list(range(7442))
    assert all(len(set(samples.labels[torch.from_numpy(part)].tolist())) == 6 for part in parts.values())
    if split == "official":
        assert [len(part) for part in parts.values()] == [5954, 744, 744]
        return
    actors = {name: {actor_of(samples.ids[i]) for i in part} for name, part in parts.items()}
    assert len(set.union(*actors.values())) == sum(map(len, actors.values())) == 91
    assert actors["test"] == set(held_out_actors())
    assert 0.15 < len(parts["test"]) / 7442 < 0.25
    assert 0.10 < len(parts["valid"]) / len(clips) < 0.15


@needs_data
def test_the_split_changes_neither_the_clips_nor_the_store(with_media):
    assert open_set(with_media).store == open_set(with_media, split="actor", frames=1).store
    for other in ({"rate": 16000}, {"seconds": 20}, {"canvas": (360, 480)}):
        assert open_set(with_media).store != open_set(with_media, **other).store


@pytest.mark.parametrize("folder", ["annotations", "annotations/ogm", "data/CREMAD", "."])
def test_lists_are_found_where_the_code_bases_have_them(tmp_path, folder):
    root = write_lists(tmp_path, folder=folder)
    assert [len(rows) for rows in open_set(root, counts="any").entries.values()] == [4, 2]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_and_other_line_ends_change_nothing(tmp_path, mark):
    write_lists(tmp_path / "plain")
    write_lists(tmp_path / "marked", mark + LISTED[0].replace("\n", "\r\n").encode())
    plain, marked = ([row.values for row in open_set(tmp_path / name, counts="any").entries["train"]]
                     for name in ("plain", "marked"))  # fmt: skip
    assert plain == marked


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ("1001_IEO_ANG_HI\n" + LISTED[0], r"line 1: expected 2 fields \(id, label\), got 1"),
        (LISTED[0] + "1001_IEO_ANG_HI,ANG\n", r"line 5: expected another id, got '1001_IEO_ANG_HI' again"),
        (LISTED[0] + "1003_DFA_ANG_XX,ANG\n", r"expected another id, got '1003_DFA_ANG_XX' again, after .*line 5"),
        (LISTED[0] + "1004_DFA_AGN_XX,AGN\n", r"line 5: expected a label, got 'AGN'.*ANG"),
        (LISTED[0] + "1004_DFA_ANG_XX,HAP\n", r"line 5: expected the emotion in the clip's name, got HAP"),
        (LISTED[0] + "../1004_DFA_ANG_XX,ANG\n", r"line 5: expected a clip's name like .*, got '../1004_DFA_ANG_XX'"),
        (LISTED[0] + '"1004_DFA_ANG_XX,ANG\n', r"line 5.*quotes"),
        (b"\xff\xfe", r"train\.csv, line 1: expected UTF-8"),
        ("", r"train\.csv: expected at least one entry"),
    ],
)
def test_a_mistake_in_a_list_is_named(tmp_path, train, said):
    with pytest.raises(UserError, match=said):
        open_set(write_lists(tmp_path, train), counts="any").clips  # noqa: B018


def test_lists_of_another_size_are_refused_unless_allowed(tmp_path):
    root = write_lists(tmp_path)
    with pytest.raises(UserError, match=r"(?s)expected 6,698 train clips, got 4.*counts=any.*744 test clips, got 2"):
        open_set(root).entries  # noqa: B018


def test_missing_lists_and_missing_media_say_what_would_do(tmp_path):
    with pytest.raises(
        UserError, match=r"(?s)annotations/train\.csv and annotations/test\.csv, or .*no data root.*OGM-GE"
    ):
        open_set(None).entries  # noqa: B018
    with pytest.raises(UserError, match=r"data/CREMAD/train\.csv and .*none of these"):
        open_set(tmp_path).entries  # noqa: B018
    write_lists(tmp_path)
    clip = open_set(tmp_path, counts="any").clips[0]
    places = {"audio": f"AudioWAV/{clip.id}.wav", "video": f"Image-01-FPS/{clip.id}"}
    assert clip.files == {modality: tmp_path / place for modality, place in places.items()}
    (tmp_path / "VideoFlash").mkdir()
    clip = open_set(tmp_path, counts="any").clips[0]
    assert set(clip.files.values()) == {tmp_path / "VideoFlash" / f"{clip.id}.flv"}


def rows(*names):
    return [Row(f"list, line {i}", {"id": name, "label": ""}) for i, name in enumerate(names, 1)]


def test_the_validation_lists_must_divide_train():
    assert divide(rows("a", "b", "c"), rows("a", "b"), rows("c")) == {"c"}
    with pytest.raises(UserError, match=r"every clip of train\.csv, got no b"):
        divide(rows("a", "b", "c"), rows("a"), rows("c"))
    with pytest.raises(UserError, match=r"line 2: expected a clip of train\.csv, got 'd'"):
        divide(rows("a", "b", "c"), rows("a", "b"), rows("c", "d"))
    with pytest.raises(UserError, match="'a' again"):
        divide(rows("a", "b", "c"), rows("a", "b"), rows("c", "a"))


def test_with_no_share_the_published_validation_part_trains_again(tmp_path):
    write_lists(tmp_path)
    first, *rest = LISTED[0].splitlines(keepends=True)
    for name, text in (("my_train", "".join(rest)), ("val", first)):
        (tmp_path / "annotations" / f"{name}.csv").write_text(text)
    for folder in ("AudioWAV", "Image-01-FPS"):
        (tmp_path / folder).mkdir()
    dataset = open_set(tmp_path, counts="any")
    samples = Samples({}, torch.tensor([clip.label for clip in dataset.clips]), [clip.id for clip in dataset.clips])
    sizes = {share: [len(part) for part in vars(dataset.split(samples, share)).values()] for share in (0.15, 0.0)}
    assert sizes == {0.15: [3, 1, 2], 0.0: [4, 0, 2]}


def test_classes_are_in_the_order_of_their_names():
    assert list(CLASSES) == sorted(CLASSES)
    assert list(CremaD(CremaD.Config()).task.class_names) == list(CLASSES)
