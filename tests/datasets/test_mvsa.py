"""MVSA-Single: its lists and photographs, damaged ones named, and what the encoder sees."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark.datasets import mvsa
from benchmark.datasets.mvsa import CLASSES, SIZE, STORED, Mvsa
from PIL import Image

from benchmark.check import check_dataset
from benchmark.errors import UserError
from benchmark.inputs.transforms import IMAGENET_MEAN, IMAGENET_STD

DATA = Path(os.environ.get("BENCH_DATA", "nowhere"))
needs_data = pytest.mark.data("mvsa_single")
COUNTS = {"train": 6, "dev": 3, "test": 3}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """Twelve samples in the official layout; each photograph is of one colour."""
    monkeypatch.setattr(mvsa, "COUNTS", COUNTS)
    root = tmp_path / "mvsa_single"
    (root / "data").mkdir(parents=True)
    number = 0
    for part, count in COUNTS.items():
        lines = []
        for _ in range(count):
            name = f"data/{number}.jpg"
            Image.new("RGB", (90 + number, 130), colour_of(number)).save(root / name, quality=95)
            label = CLASSES[number % 3]
            lines.append(json.dumps({"id": str(number), "label": label, "text": f"Tweet {number}, http", "img": name}))
            number += 1
        (root / f"{part}.jsonl").write_text("\r\n".join(lines))
    return root


def colour_of(number):
    return (20 * number, 255 - 20 * number, 128)


def dataset_at(root):
    return Mvsa(Mvsa.Config(), root)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_samples_are_the_lists_in_order_with_their_photographs(made_up):
    dataset = dataset_at(made_up)
    samples = dataset.load()
    assert samples.ids == [str(i) for i in range(12)]
    assert samples.labels.tolist() == [i % 3 for i in range(12)]
    assert samples.inputs["image"].dtype == torch.uint8
    seen = samples.inputs["image"].float().mean((1, 2))
    np.testing.assert_allclose(seen, [colour_of(i) for i in range(12)], atol=3)
    assert dataset.texts()["text"] == [f"Tweet {i}, http" for i in range(12)]
    split = dataset.split(samples, 0.15)
    assert [part.tolist() for part in (split.train, split.valid, split.test)] == [
        [0, 1, 2, 3, 4, 5], [6, 7, 8], [9, 10, 11],
    ]  # fmt: skip


def test_the_encoder_sees_normalised_colours_cropped_or_not(made_up):
    dataset = dataset_at(made_up)
    inputs = dataset.load().inputs
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    expected = (np.array([colour_of(i) for i in range(12)]) / 255 - mean) / std
    draws = torch.rand(12, dataset.num_draws, generator=torch.Generator().manual_seed(0))
    for given in (None, draws):
        image = dataset.transform(inputs, given)["image"]
        assert image.shape == (12, 3, SIZE, SIZE)
        np.testing.assert_allclose(image.mean((2, 3)), expected, atol=0.06)


def test_the_first_draw_mirrors_and_the_others_crop():
    dataset = dataset_at(None)
    image = torch.randint(256, (2, STORED, STORED, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    inputs = {"text": torch.ones(2, 40, dtype=torch.int64), "image": image}
    draws = torch.rand(1, dataset.num_draws, generator=torch.Generator().manual_seed(1)).repeat(3, 1)
    draws[:, 0] = torch.tensor([0.2, 0.8, 0.8])
    draws[2, 1:] = 1 - draws[2, 1:]
    rows = {name: x[:1].repeat(3, *[1] * (x.ndim - 1)) for name, x in inputs.items()}
    mirrored, straight, elsewhere = dataset.transform(rows, draws)["image"]
    torch.testing.assert_close(mirrored, straight.flip(2))
    assert not torch.allclose(straight, elsewhere, atol=0.1)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("dev.jsonl", '"img": "data/7.jpg"', '"img": "../7.jpg"', r"files inside .*got '\.\./7\.jpg'"),
        ("dev.jsonl", '"img": "data/7.jpg"', '"img": "/etc/passwd"', r"files inside .*got '/etc/passwd'"),
        ("dev.jsonl", '"img": "data/7.jpg"', '"img": "data/77.jpg"', r"data/77\.jpg \(no such file"),
        ("dev.jsonl", '"label": "neutral"', '"label": "neutrl"', r"dev\.jsonl, line 2: .*'neutrl'\. Did you mean 'neu"),
        ("dev.jsonl", '"label": "neutral"', '"lable": "neutral"', r"dev\.jsonl, line 2: .*Did you mean 'lable'"),
        ("dev.jsonl", '"id": "7"', '"id": "8"', r"dev\.jsonl, line 3: expected another id, got '8' again"),
        ("test.jsonl", '"id": "9"', '"id": "8"', r"test\.jsonl, line 1: expected another id"),
        ("test.jsonl", "}\n", "\n", r"test\.jsonl, line 1: expected a JSON object"),
    ],
)
def test_a_damaged_list_is_named(made_up, file, old, new, message):
    edit(made_up / file, old, new)
    with pytest.raises(UserError, match=message):
        dataset_at(made_up).load()


def test_a_list_that_lacks_samples_is_named(made_up):
    (made_up / "dev.jsonl").write_text((made_up / "dev.jsonl").read_text().partition("\n")[0])
    with pytest.raises(UserError, match="expected 3 dev, got 1"):
        dataset_at(made_up).load()


def test_every_damaged_photograph_is_named(made_up):
    for number, content in ((2, b"GIF"), (5, (made_up / "data" / "5.jpg").read_bytes()[:400])):
        (made_up / "data" / f"{number}.jpg").write_bytes(content)
    with pytest.raises(UserError) as caught:
        dataset_at(made_up).load()
    assert [Path(p.expected.split()[-1]).name for p in caught.value.problems] == ["2.jpg", "5.jpg"]
    (made_up / "data" / "3.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"data/3\.jpg \(an empty file\)"):
        dataset_at(made_up).load()


def test_missing_files_are_named_with_how_to_get_them(made_up):
    (made_up / "dev.jsonl").unlink()
    with pytest.raises(UserError, match=r"dev\.jsonl \(no such file.*Get MVSA-Single"):
        dataset_at(made_up).fingerprint()
    with pytest.raises(UserError, match="no data root"):
        dataset_at(None).load()


def test_the_fingerprint_follows_photographs_and_lists(made_up):
    seen = {dataset_at(made_up).fingerprint()}
    Image.new("RGB", (50, 50), "red").save(made_up / "data" / "0.jpg")
    seen.add(dataset_at(made_up).fingerprint())
    edit(made_up / "train.jsonl", "Tweet 0", "Other")
    seen.add(dataset_at(made_up).fingerprint())
    assert len(seen) == 3


@needs_data
@pytest.mark.full
def test_the_real_data_set_keeps_the_contract():
    assert not [result for result in check_dataset("mvsa", DATA) if result.failed]


@needs_data
def test_real_samples_are_what_plain_readers_see():
    root = DATA / "mvsa_single"
    dataset = dataset_at(root)
    samples = dataset.load()
    split = dataset.split(samples, 0.15)
    parts = (split.train, split.valid, split.test)
    assert tuple(map(len, parts)) == (1555, 518, 519)
    counts = [np.bincount(samples.labels[torch.from_numpy(part)]).tolist() for part in parts]
    assert counts == [[422, 282, 851], [141, 95, 282], [161, 93, 265]]
    assert len(set(samples.ids)) == 2592
    rows = {}
    for part in ("train", "dev", "test"):
        with (root / f"{part}.jsonl").open(encoding="utf-8") as file:
            rows.update({row["id"]: row for row in map(json.loads, file)})
    for i in np.random.default_rng(0).choice(len(samples), 20, replace=False):
        row = rows[samples.ids[i]]
        assert CLASSES[samples.labels[i]] == row["label"]
        with Image.open(root / row["img"]) as image:
            resized = np.array(image.convert("RGB").resize((STORED, STORED), Image.Resampling.BILINEAR))
        difference = np.abs(resized.astype(int) - samples.inputs["image"][i].numpy())
        assert difference.max() <= 2
