"""Sarcasm: the official filter, split and labels, other versions of its lists, photographs wherever they lie."""

from __future__ import annotations

import ast
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark.datasets.sarcasm import Sarcasm
from PIL import Image

from benchmark.check import check_dataset
from benchmark.errors import UserError
from benchmark.inputs.prepare import prepare
from benchmark.settings import parse_settings

DATA = Path(os.environ.get("BENCH_DATA", "nowhere"))
needs_data = pytest.mark.data("sarcasm")
needs_mmsd2 = pytest.mark.data("mmsd2")
needs_photographs = pytest.mark.data("mvsa_single")

LINES = {
    "train": [[str(i), f"word{i % 2} on day {i}", i % 2] for i in range(10)] + [["90", "such # irony", 1]],
    "valid2": [["20", "a joke", 0, 1], ["21", "it 's “fine”", 1, 0], ["22", "so", 0, 0]],
    "test2": [["30", "by hand", 1, 0], ["31", "both", 1, 1], ["32", "none", 0, 0]],
}
IDS = [*(str(i) for i in range(10)), "20", "21", "22", "30", "31", "32"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def made_up(tmp_path):
    """Sixteen samples after the filter, in the official layout; each photograph is of one colour."""
    root = tmp_path / "sarcasm"
    (root / "text").mkdir(parents=True)
    (root / "image_data").mkdir()
    for name, rows in LINES.items():
        (root / "text" / f"{name}.txt").write_text("\r\n".join(map(repr, rows)), encoding="utf-8")
    for name in IDS:
        picture = Image.new("RGB", (40 + int(name), 60), (8 * int(name), 255 - 8 * int(name), 128))
        picture.save(root / "image_data" / f"{name}.jpg", quality=95)
    return root


def dataset_at(root, **config):
    return Sarcasm(Sarcasm.Config(counts="any", **config), root)


def prepared(root, **config):
    dataset = dataset_at(root, **config)
    assert not prepare(dataset, 1, False).failed
    return dataset


def counts_of(dataset):
    return dict(Counter((clip.part, clip.label) for clip in dataset.clips))


@needs_data
def test_the_official_lists_have_the_published_counts_and_labels():
    root = DATA / "sarcasm"
    dataset = Sarcasm(Sarcasm.Config(), root)
    assert counts_of(dataset) == {
        ("train", 0): 11174, ("train", 1): 8642,
        ("valid", 0): 1451, ("valid", 1): 959,
        ("test", 0): 1450, ("test", 1): 959,
    }  # fmt: skip
    hashtag = Sarcasm(Sarcasm.Config(labels="hashtag"), root).clips
    pairs = list(zip(dataset.clips, hashtag, strict=True))
    differing = Counter(one.part for one, other in pairs if one.label != other.label)
    assert differing == {"valid": 87, "test": 144}
    assert all(one.id == other.id for one, other in pairs)


@needs_data
def test_the_filter_keeps_what_an_independent_reading_keeps():
    words = "sarcasm sarcastic reposting <url> joke jokes humour humor irony ironic exgag"
    stop = set(words.split())
    lines = (DATA / "sarcasm" / "text" / "train.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [entry[0] for line in lines if line.strip() and not stop & set((entry := ast.literal_eval(line))[1].split())]
    clips = Sarcasm(Sarcasm.Config(), DATA / "sarcasm").clips
    assert [clip.id for clip in clips if clip.part == "train"] == kept


@needs_data
@needs_mmsd2
def test_mmsd2_has_the_same_tweets_in_the_same_parts():
    original, cleaned = (Sarcasm(Sarcasm.Config(text=text), DATA / "sarcasm") for text in ("original", "mmsd2"))
    parts = [{clip.id: clip.part for clip in dataset.clips} for dataset in (original, cleaned)]
    assert parts[0] == parts[1]
    hashtags = [sum("# " in text for text in dataset.texts()["text"]) for dataset in (original, cleaned)]
    assert hashtags[0] > 5000
    assert hashtags[1] < hashtags[0] / 4


def test_train_is_filtered_and_the_others_take_the_label_that_is_asked_for(made_up):
    human, hashtag = dataset_at(made_up), dataset_at(made_up, labels="hashtag")
    assert [clip.id for clip in human.clips] == IDS
    assert [clip.label for clip in human.clips][10:] == [1, 0, 0, 0, 1, 0]
    assert [clip.label for clip in hashtag.clips][10:] == [0, 1, 0, 1, 1, 0]
    assert [clip.label for clip in human.clips][:10] == [clip.label for clip in hashtag.clips][:10]


def test_samples_are_texts_with_the_photograph_of_their_id(made_up):
    dataset = prepared(made_up)
    samples = dataset.load()
    assert samples.ids == IDS
    pixels = samples.take(np.arange(len(IDS)))["image"].float().mean((1, 2, 3))
    np.testing.assert_allclose(pixels, [(8 * int(i), 255 - 8 * int(i), 128) for i in IDS], atol=3)
    encoder = dataset.encoder("text")
    assert torch.equal(samples.inputs["text"][11], encoder.tokenize(["it 's “fine”"], 64)[0])
    split = dataset.split(samples, 0.15)
    assert [len(split.train), len(split.valid), len(split.test)] == [10, 3, 3]


@pytest.mark.parametrize("folder", ["dataset_image", "images"])
def test_photographs_may_lie_in_folders_of_other_names(made_up, folder):
    (made_up / "image_data").rename(made_up / folder)
    assert len(prepared(made_up).load()) == 16


def test_mmsd2_is_read_beside_the_official_folder(made_up):
    beside = made_up.parent / "mmsd2"
    beside.mkdir()
    for part, ids in (("train", range(10)), ("valid", (20, 21, 22)), ("test", (30, 31, 32))):
        entries = [{"image_id": i, "text": f"clean {i}", "label": 1 - i % 2} for i in ids]
        (beside / f"{part}.json").write_text(json.dumps(entries))
    dataset = prepared(made_up, text="mmsd2")
    samples = dataset.load()
    assert samples.ids == IDS
    assert samples.labels.tolist() == [1 - int(i) % 2 for i in IDS]
    assert dataset.texts()["text"][10] == "clean 20"
    assert prepared(made_up).fingerprint() != dataset.fingerprint()


def test_the_json_of_igm_is_read_and_validation_carved_where_it_has_none(made_up):
    (made_up / "annotations").mkdir()
    for part, ids in (("train", range(10)), ("test", (30, 31, 32))):
        entries = [{"image": f"images/{i}.jpg", "text": f"tweet {i}", "label": i % 2} for i in ids]
        (made_up / "annotations" / f"{part}_data.json").write_text(json.dumps(entries))
    dataset = prepared(made_up, text="njustkmg")
    samples = dataset.load()
    assert samples.ids == [*(str(i) for i in range(10)), "30", "31", "32"]
    split = dataset.split(samples, 0.2)
    assert [len(split.train), len(split.valid), len(split.test)] == [8, 2, 3]
    entries = [{"image": "20.jpg", "text": "tweet", "label": 0}]
    (made_up / "annotations" / "valid_data.json").write_text(json.dumps(entries))
    assert [clip.id for clip in dataset_at(made_up, text="njustkmg").clips if clip.part == "valid"] == ["20"]


def test_labels_by_hashtag_are_refused_where_there_are_none():
    with pytest.raises(UserError, match="expected labels=human with text=mmsd2"):
        parse_settings(Sarcasm.Config, {"text": "mmsd2", "labels": "hashtag"}, "data set sarcasm")


def test_it_keeps_the_contract_of_a_data_set(made_up):
    prepared(made_up)
    results = list(check_dataset("sarcasm[counts=any]", made_up.parent))
    assert not [result for result in results if result.failed]
    assert len(results) > 5


def test_concat_trains_two_epochs_on_it(made_up, trainer):
    dataset = prepared(made_up, encoders={"image": "conv", "text": "word_mean"})
    train = trainer(dataset=dataset, epochs=2, batch_size=5, optimizer={"kind": "adam", "lr": 0.01})
    before = [parameter.detach().clone() for parameter in train.method.net.parameters()]
    scores = [train.run_epoch()[0] for _ in range(2)]
    assert np.isfinite([epoch["train"]["loss"] for epoch in scores]).all()
    changed = [not torch.equal(*pair) for pair in zip(before, train.method.net.parameters(), strict=True)]
    assert all(changed)


@needs_data
@needs_photographs
def test_real_tweets_with_real_photographs_under_their_names(tmp_path):
    root = tmp_path / "sarcasm"
    (root / "text").mkdir(parents=True)
    (root / "images").mkdir()
    photographs = iter(sorted((DATA / "mvsa_single" / "data").glob("*.jpg")))
    for name, count in (("train", 30), ("valid2", 4), ("test2", 4)):
        whole = (DATA / "sarcasm" / "text" / f"{name}.txt").read_bytes()
        (root / "text" / f"{name}.txt").write_bytes(b"\r\n".join(whole.split(b"\r\n")[:count]))
    dataset = dataset_at(root)
    for clip in dataset.clips:
        clip.files["image"].symlink_to(next(photographs))
    assert len(dataset.clips) > 10
    assert not prepare(dataset, 2, False).failed
    inputs = dataset.transform(dataset.load().take(np.arange(10)), None)
    assert inputs["image"].std((1, 2, 3)).min() > 0.2
    assert inputs["text"].count_nonzero(1).min() > 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("['1', 'cut off', 1", r"train\.txt, line 1: expected a list of literals"),
        ("__import__('os').getcwd()", r"line 1: expected a list of literals"),
        ("['1', 'two labels', 1, 0]", r"line 1: expected 3 fields"),
        ("['1', 'no such class', 3]", r"line 1: expected a label, got '3'"),
        ("['20', 'again', 1]", r"valid2\.txt, line 1: expected another id, got '20' again"),
        ("['../../1', 'out', 1]", r"line 1: expected the name of a file, without folders"),
    ],
)
def test_mistakes_of_a_list_are_named_with_their_line(made_up, line, message):
    (made_up / "text" / "train.txt").write_text(line)
    with pytest.raises(UserError, match=message):
        _ = dataset_at(made_up).clips


def test_other_counts_than_the_published_are_refused_unless_allowed(made_up):
    with pytest.raises(UserError, match=r"expected 19,816 train tweets, got 10") as raised:
        _ = Sarcasm(Sarcasm.Config(), made_up).clips
    assert len(raised.value.problems) == 3


@pytest.mark.parametrize(("text", "advice"), [("original", "headacheboy"), ("mmsd2", "MMSD2"), ("njustkmg", "IGM")])
def test_missing_lists_are_named_with_where_to_get_them(tmp_path, text, advice):
    for root in (None, tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=advice):
            _ = dataset_at(root, text=text).clips
