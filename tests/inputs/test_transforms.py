"""Transforms against librosa, Pillow and torchvision; a batch against its samples one by one."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop

from benchmark.inputs.transforms import (
    CROP_TRIES,
    FFT_CHUNK,
    IMAGENET_MEAN,
    IMAGENET_STD,
    NUM_CROP_DRAWS,
    crop_at_once,
    crop_frames,
    crop_time,
    log_spectrogram,
    random_boxes,
    resize_frames,
)


@pytest.fixture
def draw():
    return np.random.default_rng(0)


@pytest.fixture
def frames(draw):
    """Return three clips of two frames, (3, 2, 90, 120, 3): smooth, as photographs are."""
    small = draw.integers(0, 256, (6, 9, 12, 3), dtype=np.uint8)
    large = [np.array(Image.fromarray(image).resize((120, 90), Image.Resampling.BICUBIC)) for image in small]
    return torch.from_numpy(np.stack(large)).unflatten(0, (3, 2))


def standardised(pixels):
    """Normalise (H, W, 3) in [0, 255] as ToTensor and Normalize do; returns (3, H, W)."""
    return ((np.asarray(pixels, np.float64) / 255 - IMAGENET_MEAN) / IMAGENET_STD).transpose(2, 0, 1)


@pytest.mark.parametrize(("num_fft", "hop", "samples", "columns"), [(512, 353, 66150, 188), (256, 128, 80000, 626)])
def test_the_spectrogram_is_librosas(draw, num_fft, hop, samples, columns):
    time = np.arange(samples) / 16000
    waveform = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.05 * draw.standard_normal((2, samples))
    waveform = waveform.astype(np.float32)
    got = log_spectrogram(torch.from_numpy(waveform), num_fft, hop).numpy()
    assert got.shape == (2, 1, num_fft // 2 + 1, columns)
    for clip, ours in zip(waveform, got[:, 0], strict=True):
        magnitude = np.abs(librosa.stft(clip.astype(np.float64), n_fft=num_fft, hop_length=hop)) + 1e-7
        assert np.abs(np.exp(ours) - magnitude).max() < 1e-4
        loud = magnitude > 0.1  # single precision leaves less of the logarithm of what is next to nothing
        assert loud.mean() > 0.9
        assert np.abs(ours - np.log(magnitude))[loud].max() < 1e-4


def test_silence_has_a_finite_spectrogram():
    assert torch.allclose(log_spectrogram(torch.zeros(1, 1000), 64, 32), torch.tensor(1e-7).log())


@pytest.mark.parametrize("size", [1, FFT_CHUNK, 3 * FFT_CHUNK + 1])
def test_a_clips_spectrogram_is_the_same_bit_for_bit_in_any_batch(size):
    waveform = torch.randn(3 * FFT_CHUNK + 1, 2000, generator=torch.Generator().manual_seed(0))
    whole = log_spectrogram(waveform, 128, 50)
    parts = [log_spectrogram(part, 128, 50) for part in waveform.split(size)]
    assert torch.equal(torch.cat(parts), whole)


def test_whole_frames_are_resized_as_pillow_does(frames):
    got = resize_frames(frames, 56, IMAGENET_MEAN, IMAGENET_STD).numpy()
    assert got.shape == (3, 3, 2, 56, 56)
    for clip, ours in zip(frames.numpy(), got, strict=True):
        for time, frame in enumerate(clip):
            channels = [Image.fromarray(frame[..., c].astype(np.float32)).resize((56, 56), Image.Resampling.BILINEAR)
                        for c in range(3)]  # fmt: skip
            expected = standardised(np.stack([np.asarray(channel) for channel in channels], 2))
            assert np.abs(ours[:, time] - expected).max() < 1e-4
            rounded = standardised(Image.fromarray(frame).resize((56, 56), Image.Resampling.BILINEAR))
            assert np.abs(ours[:, time] - rounded).max() < 1.01 / 255 / min(IMAGENET_STD)  # Pillow rounds twice


def test_crops_are_what_pillow_cuts_and_resizes_to_one_step_of_a_byte(frames):
    boxes, flips = [(0, 0, 90, 120), (10, 20, 30, 40), (5, 70, 80, 50)], [False, True, False]
    got = crop_frames(frames, torch.tensor(boxes), torch.tensor(flips), 48, IMAGENET_MEAN, IMAGENET_STD).numpy()
    step = 1 / 255 / np.array(IMAGENET_STD)[:, None, None]
    for clip, (top, left, height, width), flip, ours in zip(frames.numpy(), boxes, flips, got, strict=True):
        for time, frame in enumerate(clip):
            image = Image.fromarray(frame).crop((left, top, left + width, top + height))
            expected = standardised(image.resize((48, 48), Image.Resampling.BILINEAR))
            apart = np.abs(ours[:, time] - (expected[..., ::-1] if flip else expected)) / step
            assert apart.max() < 1.001
            assert (apart > 1e-3).mean() < 0.1


def test_each_clip_of_a_batch_is_cropped_as_it_is_alone(frames):
    draws = torch.rand(3, NUM_CROP_DRAWS, generator=torch.Generator().manual_seed(0))
    boxes, flips = random_boxes(draws, 90, 120), torch.tensor([True, False, True])
    whole = crop_frames(frames, boxes, flips, 24, IMAGENET_MEAN, IMAGENET_STD)
    for i in range(3):
        box = random_boxes(draws[i : i + 1], 90, 120)
        alone = crop_frames(frames[i : i + 1], box, flips[i : i + 1], 24, IMAGENET_MEAN, IMAGENET_STD)
        assert torch.equal(alone[0], whole[i])
        assert torch.equal(resize_frames(frames[i : i + 1], 24, IMAGENET_MEAN, IMAGENET_STD)[0],
                           resize_frames(frames, 24, IMAGENET_MEAN, IMAGENET_STD)[i])  # fmt: skip


@pytest.mark.parametrize("size", [24, 224])
def test_crops_all_at_once_are_what_torch_cuts_and_resizes_one_by_one(frames, size):
    draws = torch.rand(3, NUM_CROP_DRAWS, generator=torch.Generator().manual_seed(0))
    boxes, flips = random_boxes(draws, 90, 120), torch.tensor([True, False, True])
    got = crop_at_once(frames, boxes, flips, size)
    for clip, (top, left, height, width), flip, ours in zip(frames, boxes.tolist(), flips, got, strict=True):
        part = clip[:, top : top + height, left : left + width].permute(0, 3, 1, 2).float()
        expected = F.interpolate(part, (size, size), mode="bilinear", antialias=True)
        torch.testing.assert_close(ours.transpose(0, 1), expected.flip(3) if flip else expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(360, 480), (240, 320), (480, 100)])
def test_boxes_lie_in_the_picture_and_follow_torchvisions_rule(height, width):
    draws = torch.rand(4000, NUM_CROP_DRAWS, generator=torch.Generator().manual_seed(0))
    ours = random_boxes(draws, height, width).double().numpy()
    assert (ours >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)], float)
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        one, two = np.quantile(ours, quantile, 0), np.quantile(theirs, quantile, 0)
        assert np.abs(one - two).max() < 0.04 * max(height, width)


def test_a_box_that_never_fits_is_the_middle_as_torchvision_takes_it():
    draws = torch.full((1, NUM_CROP_DRAWS), 0.999)
    draws[:, CROP_TRIES : 2 * CROP_TRIES] = 0.5
    expected = RandomResizedCrop.get_params(torch.empty(3, 40, 400), [0.999, 1.0], [3 / 4, 4 / 3])
    assert random_boxes(draws, 40, 400).tolist() == [list(expected)]


def test_time_is_cut_in_the_middle_or_where_the_draw_says():
    waveform = torch.arange(10.0).repeat(4, 1)
    assert crop_time(waveform, 4, None)[0].tolist() == [3, 4, 5, 6]
    cut = crop_time(waveform, 4, torch.tensor([0.0, 0.999, 0.5, 0.2]))
    assert cut[:, 0].tolist() == [0, 6, 3, 1]
    assert torch.equal(cut, cut[:, :1] + torch.arange(4))
