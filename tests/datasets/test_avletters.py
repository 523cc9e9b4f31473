"""AVLetters: its own formats, splits that keep speakers apart, errors that name the file. Real data where it is."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark.datasets.avletters import (
    SPEAKERS,
    AVLetters,
    clip_files,
    clip_names,
    read_htk,
    read_lips,
    speaker_of,
    warp_space,
    warp_time,
)
from scipy.io import savemat

from benchmark.check import check_dataset
from benchmark.errors import UserError

DATA = Path(os.environ.get("BENCH_DATA", "nowhere"))
needs_data = pytest.mark.data("avletters")


def write_clip(root: Path, name: str, frames: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Write a clip in the official layout and return its coefficients and pictures."""
    mfcc_file, lips_file = clip_files(root, name)
    for file in (mfcc_file, lips_file):
        file.parent.mkdir(parents=True, exist_ok=True)
    mfcc = rng.normal(size=(2 * frames, 26)).astype(">f4")
    mfcc_file.write_bytes(struct.pack(">iihh", len(mfcc), 200_000, 104, 838) + mfcc.tobytes())
    lips = rng.integers(0, 256, (60, 80, frames), dtype=np.uint8)
    savemat(lips_file, {"vid": lips.reshape(4800, frames, order="F")})
    return mfcc, lips


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """A whole data set in the official layout, of noise."""
    root = tmp_path_factory.mktemp("data") / "avletters"
    rng = np.random.default_rng(0)
    for name in clip_names():
        write_clip(root, name, 12 + len(name), rng)
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


def test_readers_give_back_what_was_written(tmp_path):
    mfcc, lips = write_clip(tmp_path, "A1_Anya", 15, np.random.default_rng(0))
    np.testing.assert_array_equal(read_htk(clip_files(tmp_path, "A1_Anya")[0]).numpy(), mfcc.T.astype(np.float32))
    pictures = read_lips(clip_files(tmp_path, "A1_Anya")[1]).numpy()
    np.testing.assert_allclose(pictures, lips.transpose(2, 0, 1) / 255, atol=1e-6)


@pytest.mark.parametrize("cut", [0, 5, 12, -4])
def test_a_cut_mfcc_file_is_named(tmp_path, cut):
    write_clip(tmp_path, "A1_Anya", 15, np.random.default_rng(0))
    file = clip_files(tmp_path, "A1_Anya")[0]
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"A1_Anya\.mfcc: expected an HTK file"):
        read_htk(file)


@pytest.mark.parametrize("content", [b"", b"not a matrix", None])
def test_a_damaged_lip_file_is_named(tmp_path, content):
    write_clip(tmp_path, "A1_Anya", 15, np.random.default_rng(0))
    file = clip_files(tmp_path, "A1_Anya")[1]
    file.write_bytes(file.read_bytes()[:300] if content is None else content)
    with pytest.raises(UserError, match=r"A1_Anya-lips\.mat: expected a MATLAB file"):
        read_lips(file)


def test_missing_files_are_counted_with_the_layout_and_how_to_get_them(tmp_path):
    with pytest.raises(UserError, match=r"no data root.*Get AVLetters from its authors.*--data-root"):
        AVLetters(AVLetters.Config(), None).load()
    write_clip(tmp_path, "A1_Anya", 15, np.random.default_rng(0))
    with pytest.raises(UserError, match=r"expected Lips/A1_Anya-lips\.mat.*1558 missing"):
        AVLetters(AVLetters.Config(), tmp_path).fingerprint()


def test_fingerprint_follows_content_not_place(made_up, tmp_path):
    first = AVLetters(AVLetters.Config(), made_up).fingerprint()
    moved = tmp_path / "moved"
    moved.symlink_to(made_up)
    assert AVLetters(AVLetters.Config(), moved).fingerprint() == first
    file = clip_files(made_up, "B2_Yi")[0]
    content = file.read_bytes()
    try:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert AVLetters(AVLetters.Config(), made_up).fingerprint() != first
    finally:
        file.write_bytes(content)


def test_cached_and_fresh_samples_are_equal(made_up, monkeypatch, tmp_path):
    first = AVLetters(AVLetters.Config(), made_up).load()
    cached = AVLetters(AVLetters.Config(), made_up).load()
    monkeypatch.setenv("BENCH_CACHE", "/dev/null/nowhere")
    uncached = AVLetters(AVLetters.Config(), made_up).load()
    for modality, x in first.inputs.items():
        assert torch.equal(x, cached.inputs[modality])
        assert torch.equal(x, uncached.inputs[modality])


def test_every_speaker_is_test_in_three_rotations_and_never_shared(made_up):
    times = dict.fromkeys(SPEAKERS, 0)
    for rotation in range(10):
        dataset = AVLetters(AVLetters.Config(split="speaker", rotation=rotation), made_up)
        samples = dataset.load()
        split = dataset.split(samples, 0.15)
        who = {part: {speaker_of(samples.ids[i]) for i in getattr(split, part)} for part in ("train", "valid", "test")}
        assert len(who["train"] | who["valid"] | who["test"]) == sum(map(len, who.values()))
        for speaker in who["test"]:
            times[speaker] += 1
        if rotation == 0:
            assert who["test"] == {"Steve", "Verity", "Yi"}
    assert set(times.values()) == {3}


def test_repetition_split_tests_the_third_and_validates_every_letter(made_up):
    dataset = AVLetters(AVLetters.Config(), made_up)
    samples = dataset.load()
    split = dataset.split(samples, 0.15)
    assert {samples.ids[i][1] for i in split.test} == {"3"}
    assert len(split.test) == 260
    assert np.bincount(samples.labels[torch.from_numpy(split.valid)]).tolist() == [3] * 26


def test_augmentation_of_no_size_changes_nothing_and_moves_as_told():
    clip, none = torch.randn(3, 4, 20), torch.zeros(3)
    torch.testing.assert_close(warp_time(clip, none, none), clip)
    later = warp_time(clip, none, torch.full((3,), 0.1))
    torch.testing.assert_close(later[..., :18], clip[..., 2:])
    frames = torch.randn(3, 5, 24, 32)
    torch.testing.assert_close(warp_space(frames, none, none, none), frames, atol=1e-4, rtol=1e-4)
    right = warp_space(frames, torch.full((3,), 2 / 32), none, none)
    torch.testing.assert_close(right[..., :-2], frames[..., 2:], atol=1e-4, rtol=1e-4)


@needs_data
@pytest.mark.parametrize("name", ["avletters", "avletters[split=speaker]"])
def test_the_real_data_set_keeps_the_contract(name):
    failed = [result for result in check_dataset(name, DATA) if result.failed]
    assert not failed


@needs_data
def test_real_pictures_are_lips_the_right_way_round():
    """A face from below the nose: rows vary less than columns where the mouth is, and the mean is mid-grey."""
    pictures = read_lips(clip_files(DATA / "avletters", "A1_Anya")[1])
    assert tuple(pictures.shape[1:]) == (60, 80)
    neighbours = (pictures.diff(dim=1).abs().mean(), pictures.diff(dim=2).abs().mean())
    assert max(neighbours) < 0.05  # a wrong order of axes makes neighbours jump
