"""Sarcasm: the official filter, split and labels, and MMSD2.0's version of the same tweets."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark.datasets import sarcasm_words
from benchmark.datasets.sarcasm_words import SarcasmWords

from benchmark.check import check_dataset
from benchmark.encoders.words import WordMean
from benchmark.errors import UserError

DATA = Path(os.environ.get("BENCH_DATA", "nowhere"))
needs_data = pytest.mark.data("sarcasm")
needs_mmsd2 = pytest.mark.data("mmsd2")

LINES = {
    "text/train.txt": [
        ["1", "what a day emoji_15", 1],
        ["2", "such # irony here", 1],
        ["3", "see <url> now", 0],
        ["4", "an ironical , jokey day", 0],
        ["5", "it 's \u201cfine\u201d", 1],
    ],
    "text/valid2.txt": [["6", "a joke of hashtags", 0, 1]],
    "text/test2.txt": [["7", "by hand not", 1, 0], ["8", "both", 1, 1]],
    "extract/extract_all": [[str(i), *(f"w{i}{k}" for k in range(5))] for i in range(9)],
}
MMSD2 = {
    "train": [(1, "what a day", 0), (4, "an ironical day", 0), (5, "it is fine", 1)],
    "valid": [(6, "a joke", 1)],
    "test": [(7, "by hand", 0), (8, "both", 0)],
}


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sarcasm_words, "COUNTS", {"train": 3, "valid": 1, "test": 2})
    for name, rows in LINES.items():
        write(tmp_path / "sarcasm" / name, "\r\n".join(map(repr, rows)))
    for part, tweets in MMSD2.items():
        rows = [{"image_id": i, "text": text, "label": label} for i, text, label in tweets]
        write(tmp_path / "mmsd2" / f"{part}.json", json.dumps(rows))
    return tmp_path / "sarcasm"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def dataset_at(root, **config):
    return SarcasmWords(SarcasmWords.Config(**config), root)


def test_train_is_filtered_by_whole_words_and_the_others_take_the_label_by_hand(made_up):
    samples = dataset_at(made_up).load()
    assert samples.ids == ["1", "4", "5", "6", "7", "8"]
    assert samples.labels.tolist() == [1, 0, 1, 1, 0, 1]
    encoder = dataset_at(made_up).encoder("image_words")
    assert isinstance(encoder, WordMean)
    assert torch.equal(samples.inputs["image_words"][1], encoder.tokenize(["w40 w41 w42 w43 w44"], 8)[0])


def test_an_audit_gets_the_texts_as_written(made_up):
    texts = dataset_at(made_up).texts()
    assert texts["text"][:2] == ["what a day emoji_15", "an ironical , jokey day"]
    assert texts["image_words"][-1] == "w80 w81 w82 w83 w84"


def test_mmsd2_brings_its_text_and_its_labels(made_up):
    samples = dataset_at(made_up, text="mmsd2").load()
    assert samples.ids == ["1", "4", "5", "6", "7", "8"]
    assert samples.labels.tolist() == [0, 0, 1, 1, 0, 0]
    original = dataset_at(made_up).load()
    assert torch.equal(samples.inputs["image_words"], original.inputs["image_words"])
    assert not torch.equal(samples.inputs["text"], original.inputs["text"])
    assert dataset_at(made_up, text="mmsd2").fingerprint() != dataset_at(made_up).fingerprint()


def test_the_original_needs_no_mmsd2(made_up):
    for path in (made_up.parent / "mmsd2").iterdir():
        path.unlink()
    assert len(dataset_at(made_up).load()) == 6
    with pytest.raises(UserError, match=r"train\.json \(no such file.*text_json_final"):
        dataset_at(made_up, text="mmsd2").fingerprint()


def test_the_split_is_the_official_one(made_up):
    dataset = dataset_at(made_up)
    split = dataset.split(dataset.load(), 0.15)
    assert [part.tolist() for part in (split.train, split.valid, split.test)] == [[0, 1, 2], [3], [4, 5]]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("text/test2.txt", "'by hand not'", "__import__('os').getpid()", "test2.txt, line 1: expected a list of lit"),
        ("text/test2.txt", ", 0]", "]", "test2.txt, line 1: expected 4 fields"),
        ("text/test2.txt", ", 0]", ", 2]", "test2.txt, line 1: expected a label, got '2'"),
        ("text/test2.txt", "'7'", "'8'", "test2.txt, line 2: expected another id, got '8' again"),
        ("text/test2.txt", "'7'", "'6'", "test2.txt, line 1: expected another id, got '6' again"),
        ("text/train.txt", "'what a", "'sarcastic", "train.txt: expected 3 train tweets, got 2"),
        ("extract/extract_all", "['5', ", "['50', ", "train.txt, line 5: expected an id in .*extract_all, got '5'"),
        ("extract/extract_all", "['5', ", "['4', ", "extract_all, line 6: expected another id"),
    ],
)
def test_a_damaged_line_is_named(made_up, name, old, new, message):
    text = (made_up / name).read_text()
    assert old in text
    (made_up / name).write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        dataset_at(made_up).load()


def test_an_encoder_that_reads_no_text_is_refused(made_up):
    with pytest.raises(UserError, match="encoder mlp: expected an encoder of text"):
        dataset_at(made_up, encoders={"image_words": "mlp"}).load()


def test_missing_files_are_named_with_how_to_get_them(made_up):
    (made_up / "text" / "valid2.txt").unlink()
    with pytest.raises(UserError, match=r"text/valid2\.txt \(no such file.*headacheboy"):
        dataset_at(made_up).fingerprint()
    with pytest.raises(UserError, match="no data root"):
        dataset_at(None).fingerprint()


@needs_data
@needs_mmsd2
@pytest.mark.full
@pytest.mark.parametrize("name", ["sarcasm_words", "sarcasm_words[text=mmsd2]"])
def test_the_real_data_set_keeps_the_contract(name):
    assert not [result for result in check_dataset(name, DATA) if result.failed]


@needs_data
@pytest.mark.parametrize(
    ("version", "positives"),
    [("original", (8642, 959, 959)), pytest.param("mmsd2", (9576, 1042, 1037), marks=needs_mmsd2)],
)
def test_real_counts_are_the_published_ones(version, positives):
    dataset = dataset_at(DATA / "sarcasm", text=version)
    samples = dataset.load()
    split = dataset.split(samples, 0.15)
    parts = (split.train, split.valid, split.test)
    assert tuple(map(len, parts)) == (19816, 2410, 2409)
    assert tuple(int(samples.labels[torch.from_numpy(part)].sum()) for part in parts) == positives
    assert len({samples.ids[i] for part in parts for i in part}) == 24635
    rng = np.random.default_rng(0)
    texts = {}
    if version == "original":
        for name in ("train", "valid2", "test2"):
            with (DATA / "sarcasm" / "text" / f"{name}.txt").open(encoding="utf-8", errors="replace") as file:
                texts.update({row[0]: (row[1], row[-1]) for row in map(ast.literal_eval, filter(str.strip, file))})
    else:
        for name in ("train", "valid", "test"):
            rows = json.loads((DATA / "mmsd2" / f"{name}.json").read_text(encoding="utf-8"))
            texts.update({str(row["image_id"]): (row["text"], row["label"]) for row in rows})
    encoder = WordMean(**dataset.encoder("text").model_dump())
    for i in rng.choice(len(samples), 50, replace=False):
        text, label = texts[samples.ids[i]]
        assert label == samples.labels[i]
        assert torch.equal(samples.inputs["text"][i], encoder.tokenize([text], samples.inputs["text"].shape[1])[0])
