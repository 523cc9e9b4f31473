"""Spoken and handwritten digits: pairs of one digit, and no voice and no image on both sides of a split."""

from __future__ import annotations

import os
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark.datasets import avdigits
from benchmark.datasets.avdigits import CLIP, SPEAKERS, STORED, AVDigits, pair, recording_names, speaker_of

from benchmark.check import check_dataset
from benchmark.errors import UserError

DATA = Path(os.environ.get("BENCH_DATA", "nowhere"))
needs_data = pytest.mark.data("fsdd")
LENGTHS = (STORED - 1001, STORED, STORED + 801)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """Six recordings of each digit and speaker, of noise, shorter and longer than what is kept."""
    monkeypatch.setattr(avdigits, "NUM_INDICES", 6)
    rng = np.random.default_rng(0)
    root = tmp_path / "fsdd"
    (root / "recordings").mkdir(parents=True)
    for i, name in enumerate(recording_names()):
        write_wav(root / "recordings" / f"{name}.wav", rng.integers(-(2**15), 2**15, LENGTHS[i % 3], dtype=np.int16))
    return root


def write_wav(path, waveform):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(waveform.astype("<i2").tobytes())


def read_wav(path):
    with wave.open(str(path), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def dataset_at(root, **config):
    return AVDigits(AVDigits.Config(**config), root)


def keys_of(images):
    return [image.numpy().tobytes() for image in images]


def test_recordings_are_kept_sample_for_sample_around_their_middle(made_up):
    samples = dataset_at(made_up).load()
    for i, name in enumerate(samples.ids[:6]):
        raw, kept = read_wav(made_up / "recordings" / f"{name}.wav"), samples.inputs["audio"][i].numpy()
        if len(raw) < STORED:
            start = (STORED - len(raw)) // 2
            np.testing.assert_array_equal(kept[start : start + len(raw)], raw)
            assert not kept[:start].any()
            assert not kept[start + len(raw) :].any()
        else:
            start = (len(raw) - STORED) // 2
            assert any(np.array_equal(kept, raw[at : at + STORED]) for at in (start, start + 1))


def test_labels_images_and_recordings_are_of_one_digit(made_up):
    from sklearn.datasets import load_digits

    digits = load_digits()
    digit_of = {
        image.astype(np.float32).tobytes(): digit
        for image, digit in zip(digits.images / 16, digits.target, strict=True)
    }
    samples = dataset_at(made_up).load()
    assert [digit_of[key] for key in keys_of(samples.inputs["image"][:, 0])] == samples.labels.tolist()
    assert [int(name[0]) for name in samples.ids] == samples.labels.tolist()


def test_pairs_share_the_images_out_and_use_them_evenly():
    image_digits = np.repeat([0, 1], [30, 17])
    digits = [0] * 60 + [1] * 40
    owners = (["ann"] * 20 + ["bob"] * 40) + (["bob"] * 10 + ["cyd"] * 30)
    images = pair(digits, owners, image_digits)
    assert (image_digits[images] == digits).all()
    assert set(images) == set(range(47))
    for first in ("ann", "bob", "cyd"):
        mine = {image for image, owner in zip(images, owners, strict=True) if owner == first}
        others = {image for image, owner in zip(images, owners, strict=True) if owner != first}
        assert not mine & others
    for digit in (0, 1):
        for owner in ("ann", "bob", "cyd"):
            uses = Counter(i for i, d, o in zip(images, digits, owners, strict=True) if (d, o) == (digit, owner))
            assert not uses or max(uses.values()) - min(uses.values()) <= 1
    assert (pair(digits, owners, image_digits) == images).all()


def test_no_voice_and_no_image_is_on_two_sides_and_everyone_is_tested_twice(made_up):
    tested = Counter()
    for rotation in range(6):
        dataset = dataset_at(made_up, rotation=rotation)
        samples = dataset.load()
        split = dataset.split(samples, 0.15)
        parts = [split.train, split.valid, split.test]
        voices = [{speaker_of(samples.ids[i]) for i in part} for part in parts]
        images = [set(keys_of(samples.inputs["image"][torch.from_numpy(part)])) for part in parts]
        assert [len(voice) for voice in voices] == [3, 1, 2]
        assert len(set.union(*voices)) == 6
        assert sum(map(len, images)) == len(set.union(*images))
        tested.update(voices[2])
        if rotation == 0:
            assert voices[2] == {"george", "jackson"}
    assert tested == dict.fromkeys(SPEAKERS, 2)


def test_the_published_split_tests_the_first_five_recordings(made_up):
    dataset = dataset_at(made_up, split="index")
    samples = dataset.load()
    split = dataset.split(samples, 0.15)
    parts = [split.train, split.valid, split.test]
    indices = [{int(samples.ids[i].split("_")[2]) for i in part} for part in parts]
    assert indices[2] == {0, 1, 2, 3, 4}
    assert indices[0] | indices[1] == {5}
    images = [set(keys_of(samples.inputs["image"][torch.from_numpy(part)])) for part in parts]
    assert sum(map(len, images)) == len(set.union(*images))


def test_the_encoder_sees_standardised_spectrograms_of_a_moving_window():
    dataset = dataset_at(None)
    time = torch.arange(STORED) / 8000
    tone = (8000 * torch.sin(2 * torch.pi * 1000 * time)).to(torch.int16)
    inputs = {"image": torch.zeros(3, 1, 8, 8), "audio": torch.stack([tone, torch.zeros_like(tone), tone])}
    inputs["audio"][2, : STORED - CLIP] = 0
    for draws in (None, torch.tensor([[0.0], [0.5], [0.999]])):
        audio = dataset.transform(inputs, draws)["audio"]
        assert tuple(audio.shape[1:]) == dataset.task.modalities["audio"].shape
        assert bool(torch.isfinite(audio).all())
        assert int(audio[0, 0, :, 30].argmax()) == 1000 * avdigits.NUM_FFT // 8000
        torch.testing.assert_close(audio.mean((1, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        audio[2], dataset.transform({**inputs, "audio": inputs["audio"][:, STORED - CLIP :]}, None)["audio"][2]
    )


@pytest.mark.parametrize("split", ["speaker", "index"])
def test_an_audit_gets_the_speaker_and_the_image_of_each_sample(made_up, split):
    dataset = dataset_at(made_up, split=split)
    samples, keys = dataset.load(), dataset.keys()
    assert keys["speaker"] == [name.split("_")[1] for name in samples.ids]
    alike = dict(zip(keys["image"], keys_of(samples.inputs["image"]), strict=True))
    assert [alike[image] for image in keys["image"]] == keys_of(samples.inputs["image"])


def test_every_damaged_recording_is_named(made_up):
    folder = made_up / "recordings"
    (folder / "1_theo_3.wav").write_bytes((folder / "1_theo_3.wav").read_bytes()[:3000])
    (folder / "2_lucas_0.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError) as caught:
        dataset_at(made_up).load()
    assert [Path(p.expected.split()[-1]).name for p in caught.value.problems] == ["1_theo_3.wav", "2_lucas_0.wav"]


def test_missing_recordings_are_counted_with_how_to_get_them(made_up):
    for index in range(6):
        (made_up / "recordings" / f"4_theo_{index}.wav").unlink()
    (made_up / "recordings" / "5_theo_0.wav").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"expected 360 readable files.*4_theo_0\.wav \(no such.*and 2 others\. Get the F"
    ):
        dataset_at(made_up).fingerprint()


@needs_data
@pytest.mark.full
@pytest.mark.parametrize("name", ["avdigits", "avdigits[split=index]"])
def test_the_real_data_set_keeps_the_contract(name):
    assert not [result for result in check_dataset(name, DATA) if result.failed]


@needs_data
def test_real_recordings_are_what_a_plain_reader_sees():
    samples = dataset_at(DATA / "fsdd").load()
    assert len(samples) == 3000
    assert np.bincount(samples.labels).tolist() == [300] * 10
    assert len(set(keys_of(samples.inputs["image"]))) > 1790  # nearly all of the 1,797, a few of which are alike
    for i in np.random.default_rng(0).choice(3000, 20, replace=False):
        raw, kept = read_wav(DATA / "fsdd" / "recordings" / f"{samples.ids[i]}.wav"), samples.inputs["audio"][i].numpy()
        assert raw.astype(np.int64).sum() == kept.astype(np.int64).sum() or len(raw) > STORED
        assert np.abs(kept).max() <= np.abs(raw).max()
