"""Twitter15: the official lists, how a text names its target, photographs as an independent loader has them."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark.datasets._imagetext import PIXELS
from benchmark.datasets.twitter15 import Twitter15
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from benchmark.check import check_dataset
from benchmark.errors import UserError
from benchmark.inputs.prepare import prepare
from benchmark.inputs.transforms import random_boxes

DATA = Path(os.environ.get("BENCH_DATA", "nowhere"))
needs_data = pytest.mark.data("twitter15")
needs_photographs = pytest.mark.data("mvsa_single")

TRAIN = "index\t#1 Label\t#2 ImageID\t#3 String\t#3 String"
TEST = "index\t#1 ImageID\t#2 String\t#2 String"  # a name too few, as published
SIZES = ((90, 61), (48, 200), (300, 256), (224, 224))


def row(number, label, image, text='I like $T$ "a lot # NBA 24h', target="Lydia Ko"):
    return f"{number}\t{label}\t{image}\t{text}\t{target}"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def made_up(tmp_path):
    """Twelve samples of train and three each of the others, in TomBERT's layout; photographs of noise."""
    root = tmp_path / "twitter15"
    (root / "twitter2015_images").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for i in range(6):
        width, height = SIZES[i % len(SIZES)]
        noise = draw.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(root / "twitter2015_images" / f"{i}.jpg")
    for name, header, count in (("train", TRAIN, 12), ("dev", TRAIN, 3), ("test", TEST, 3)):
        lines = [header, *(row(i + 1, i % 3, f"{i % 6}.jpg", f"word{i % 3} $T$ says") for i in range(count))]
        (root / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return root


def dataset_at(root, **config):
    return Twitter15(Twitter15.Config(counts="any", **config), root)


def prepared(root, **config):
    dataset = dataset_at(root, **config)
    done = prepare(dataset, 1, False)
    assert not done.failed
    return dataset


@needs_data
def test_the_official_lists_have_the_published_counts_and_share_no_photograph():
    dataset = Twitter15(Twitter15.Config(), DATA / "twitter15")
    names = dataset.task.class_names
    found = {part: dict.fromkeys(names, 0) for part in dataset.published}
    images = defaultdict(set)
    for clip in dataset.clips:
        found[clip.part][names[clip.label]] += 1
        images[clip.part].add(clip.files["image"].name)
    assert found == dataset.published
    assert {part: len(names) for part, names in images.items()} == {"train": 2101, "valid": 727, "test": 674}
    assert len(set.union(*images.values())) == 2101 + 727 + 674
    assert list(names) == sorted(names)


@needs_data
@pytest.mark.parametrize(("target", "expected"), [("sentence", 253), ("marked", 0), ("dropped", 0)])
def test_a_sentence_alone_does_not_say_which_target_is_meant_and_marks_do(target, expected):
    dataset = Twitter15(Twitter15.Config(target=target), DATA / "twitter15")
    labels = defaultdict(list)
    for clip in dataset.clips:
        if clip.part == "test":
            labels[dataset.sentence(clip), clip.files["image"].name].append(clip.label)
    assert sum(len(shared) for shared in labels.values() if len(set(shared)) > 1) == expected


@needs_data
def test_without_photographs_every_clip_is_listed_as_missing():
    done = prepare(Twitter15(Twitter15.Config(), DATA / "twitter15"), 1, False)
    assert len(done.failed) == done.num_clips == 5338
    assert "twitter2015_images/1860693.jpg" in done.failed[0]["reason"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, 'I like $T$ Lydia Ko $T$ "a lot # NBA 24h'),
        ({"target": "sentence"}, 'I like Lydia Ko "a lot # NBA 24h'),
        ({"target": "dropped"}, 'I like $T$ "a lot # NBA 24h'),
        ({"target": "sentence", "words": "english"}, "i like lydia ko a lot nba"),
        ({"target": "dropped", "words": "english"}, "i like t a lot nba"),
    ],
)
def test_texts_become_tokens_of_what_the_options_say(made_up, config, expected):
    (made_up / "train.tsv").write_text("\n".join([TRAIN, row(1, 0, "0.jpg"), row(2, 1, "1.jpg")]))
    dataset = prepared(made_up, **config)
    ids = dataset.load().inputs["text"]
    assert ids.shape == (8, 64)
    assert torch.equal(ids[0], dataset.encoder("text").tokenize([expected], 64)[0])
    assert ids[0].count_nonzero() == len(dataset.encoder("text").tokenize([expected], 64)[0].nonzero()) > 5


def test_options_of_the_text_need_no_second_store(made_up):
    prepared(made_up)
    other = dataset_at(made_up, target="dropped", words="english", tokens=8, pixels="clip")
    assert other.load().inputs["text"].shape == (18, 8)


def test_ids_and_parts_follow_the_official_lists(made_up):
    dataset = prepared(made_up)
    samples = dataset.load()
    assert samples.ids[:2] == ["train-1", "train-2"]
    assert samples.ids[12] == "valid-1"
    split = dataset.split(samples, 0.15)
    parts = [[samples.ids[i].partition("-")[0] for i in part] for part in (split.train, split.valid, split.test)]
    assert parts == [["train"] * 12, ["valid"] * 3, ["test"] * 3]
    assert samples.labels.tolist() == [0, 1, 2] * 6


@pytest.mark.parametrize("pixels", ["imagenet", "clip"])
def test_evaluation_sees_the_photograph_as_pillow_has_it(made_up, pixels):
    dataset = prepared(made_up, pixels=pixels)
    image = dataset.transform(dataset.load().take(np.arange(6)), None)["image"]
    mean, std = (np.array(values)[:, None, None] for values in PIXELS[pixels])
    for i in range(6):
        whole = Image.open(made_up / "twitter2015_images" / f"{i}.jpg").convert("RGB")
        canvas = whole.resize((256, 256), Image.Resampling.BICUBIC)
        channels = [band.convert("F").resize((224, 224), Image.Resampling.BILINEAR) for band in canvas.split()]
        expected = (np.stack(channels) / 255 - mean) / std
        np.testing.assert_allclose(image[i], expected, atol=1e-4)


def test_training_sees_a_crop_of_at_least_half_mirrored_by_the_first_draw(made_up):
    dataset = prepared(made_up)
    inputs = dataset.load().take(np.arange(6))
    draws = torch.rand(6, dataset.num_draws, generator=torch.Generator().manual_seed(3))
    draws[:3, 0], draws[3:, 0] = 0.2, 0.7
    image = dataset.transform(inputs, draws)["image"]
    mean, std = (np.array(values)[:, None, None] for values in PIXELS["imagenet"])
    for i, (top, left, height, width) in enumerate(random_boxes(draws[:, 1:], 256, 256, (0.5, 1.0))):
        crop = inputs["image"][i, 0, top : top + height, left : left + width].numpy()
        crop = Image.fromarray(crop).resize((224, 224), Image.Resampling.BILINEAR)
        if i < 3:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        expected = (np.asarray(crop).transpose(2, 0, 1) / 255 - mean) / std
        assert np.abs(image[i].numpy() - expected).max() < 1.5 / 255 / std.min()  # both round to bytes


def test_crops_are_distributed_as_torchvisions():
    count = 4000
    torch.manual_seed(0)
    picture = torch.zeros(3, 256, 256)
    theirs = np.array([RandomResizedCrop.get_params(picture, (0.5, 1.0), (3 / 4, 4 / 3)) for _ in range(count)])
    ours = random_boxes(torch.rand(count, Twitter15.num_draws - 1), 256, 256, (0.5, 1.0)).numpy()
    assert (ours[:, 2] * ours[:, 3]).min() > 0.49 * 256**2
    for column in range(4):
        quantiles = [np.quantile(boxes[:, column], (0.1, 0.3, 0.5, 0.7, 0.9)) for boxes in (ours, theirs)]
        np.testing.assert_allclose(*quantiles, atol=6)


def test_it_keeps_the_contract_of_a_data_set(made_up):
    prepared(made_up)
    results = list(check_dataset("twitter15[counts=any]", made_up.parent))
    assert not [result for result in results if result.failed]
    assert len(results) > 5


def test_concat_trains_two_epochs_on_it(made_up, trainer):
    dataset = prepared(made_up, encoders={"image": "conv", "text": "word_mean"})
    train = trainer(dataset=dataset, epochs=2, batch_size=6, optimizer={"kind": "adam", "lr": 0.01})
    before = [parameter.detach().clone() for parameter in train.method.net.parameters()]
    scores = [train.run_epoch()[0] for _ in range(2)]
    assert np.isfinite([epoch["train"]["loss"] for epoch in scores]).all()
    changed = [not torch.equal(*pair) for pair in zip(before, train.method.net.parameters(), strict=True)]
    assert all(changed)


@needs_photographs
def test_real_photographs_are_prepared(made_up):
    photographs = sorted((DATA / "mvsa_single" / "data").glob("*.jpg"))[:6]
    for i, photograph in enumerate(photographs):
        place = made_up / "twitter2015_images" / f"{i}.jpg"
        place.unlink()
        place.symlink_to(photograph)
    dataset = prepared(made_up)
    image = dataset.transform(dataset.load().take(np.arange(6)), None)["image"]
    assert image.std((1, 2, 3)).min() > 0.2
    assert len({float(x) for x in image.mean((1, 2, 3))}) == 6


def test_a_mark_at_the_beginning_carriage_returns_and_blank_lines_change_nothing(made_up):
    before = dataset_at(made_up).clips
    text = (made_up / "train.tsv").read_text()
    (made_up / "train.tsv").write_bytes(b"\xef\xbb\xbf" + (text.replace("\n", "\r\n") + "\r\n").encode())
    assert dataset_at(made_up).clips == before


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([TRAIN, "1\t0\t0.jpg\tno target $T$"], r"train\.tsv, line 2: expected 5 fields .*, got 4"),
        ([TRAIN, row(1, 0, "0.jpg"), row(1, 0, "1.jpg")], r"line 3: expected another id, got 'train-1' again"),
        ([TRAIN, row(1, 7, "0.jpg")], r"line 2: expected a label, got '7'"),
        ([TRAIN, row(1, 0, "../0.jpg")], r"line 2: expected the name of a file, without folders, got '\.\./0\.jpg'"),
        ([TRAIN, row(1, 0, "/etc/passwd")], r"line 2: expected the name of a file"),
        ([TRAIN, row(1, 0, "0.jpg", "no mark")], r"line 2: expected a tweet with \$T\$, got 'no mark'"),
        ([row(1, 0, "0.jpg")], r"train\.tsv: expected a first line that names the columns"),
        ([], r"train\.tsv"),
    ],
)
def test_mistakes_of_a_list_are_named_with_their_line(made_up, lines, message):
    (made_up / "train.tsv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=message):
        _ = dataset_at(made_up).clips


def test_other_counts_than_the_published_are_refused_unless_allowed(made_up):
    with pytest.raises(UserError, match=r"expected 3,179 train tweets, got 12") as raised:
        _ = Twitter15(Twitter15.Config(), made_up).clips
    assert len(raised.value.problems) == 3
    assert len(dataset_at(made_up).clips) == 18


def test_missing_lists_are_named_with_where_to_get_them(tmp_path):
    for root in (None, tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=r"Get \{train,dev,test\}\.tsv from .*TomBERT.*twitter2015_images/"):
            _ = dataset_at(root).clips


def test_damaged_photographs_are_named_and_the_others_kept(made_up):
    images = made_up / "twitter2015_images"
    (images / "0.jpg").write_bytes(b"")
    (images / "1.jpg").unlink()
    (images / "2.jpg").write_bytes((images / "2.jpg").read_bytes()[:400])
    (images / "3.jpg").unlink()
    (images / "3.jpg").symlink_to("3.jpg")
    dataset = dataset_at(made_up)
    reasons = {clip["id"]: clip["reason"] for clip in prepare(dataset, 1, False).failed}
    assert set(reasons) == {f"train-{i}" for i in (1, 2, 3, 4, 7, 8, 9, 10)} | {
        f"{part}-{i}" for part in ("valid", "test") for i in (1, 2, 3)
    }
    assert "empty" in reasons["train-1"]
    assert "1.jpg" in reasons["train-2"]
    (images / "3.jpg").unlink()
    for number in (1, 2, 3):
        Image.new("RGB", (8, 8)).save(images / f"{number}.jpg")
    dataset = dataset_at(made_up)
    failed = {clip["id"] for clip in prepare(dataset, 1, True).failed}
    assert failed < set(reasons)
    assert list(dataset.load().ids) == [clip.id for clip in dataset.clips if clip.id not in failed]
