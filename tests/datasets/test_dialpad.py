"""Dialpad: real tones at the standard frequencies, knobs that move one modality each, data alike in every run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.datasets.dialpad import CLIP_SAMPLES, SAMPLE_RATE, Dialpad, key_tones, log_spectrogram
from benchmark.datasets.dialpad3 import SEGMENTS, Dialpad3

from benchmark.check import check_dataset

PAIRS = {0: (941, 1336), 1: (697, 1209), 2: (697, 1336), 3: (697, 1477), 4: (770, 1209), 5: (770, 1336), 6: (770, 1477),
         7: (852, 1209), 8: (852, 1336), 9: (852, 1477)}  # fmt: skip
"""ITU-T Q.23, typed here a second time."""


@pytest.mark.parametrize("name", ["dialpad", "dialpad3"])
def test_keeps_the_contract(name):
    failed = [result for result in check_dataset(name, None) if result.failed]
    assert not failed


@pytest.mark.parametrize(("digit", "pair"), PAIRS.items())
def test_a_clean_tone_has_its_two_standard_frequencies(digit, pair):
    tone = key_tones(torch.full((20,), digit), 60.0, torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft(tone, 16 * CLIP_SAMPLES).abs().numpy()
    hertz = np.fft.rfftfreq(16 * CLIP_SAMPLES, 1 / SAMPLE_RATE)
    low, high = hertz < 1050, hertz >= 1050
    for clip in spectrum:
        found = (hertz[low][clip[low].argmax()], hertz[high][clip[high].argmax()])
        assert found == pytest.approx(pair, rel=0.025)  # detuned by up to 1.5 %, and short


def test_noise_has_the_power_that_snr_says():
    labels = torch.arange(10).repeat(40)
    clean, noisy = (key_tones(labels, snr, torch.Generator().manual_seed(0)) for snr in (60.0, 0.0))
    level = noisy.square().mean(1) / clean.square().mean(1)  # tone lasts a share of the clip, noise all of it
    silent = clean.abs() < 0.01 * clean.abs().amax(1, keepdim=True)
    share = 1 - silent.float().mean(1)
    assert float((level * share).mean()) == pytest.approx(float(share.mean() + 1), rel=0.1)


def test_spectrogram_follows_an_independent_calculation():
    waveform = key_tones(torch.arange(4), 0.0, torch.Generator().manual_seed(0))
    ours = log_spectrogram(waveform)[:, 0].numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    for clip, found in zip(waveform.numpy().astype(np.float64), ours, strict=True):
        padded = np.pad(clip, 128, mode="reflect")
        frames = np.stack([padded[start : start + 256] * window for start in range(0, CLIP_SAMPLES + 1, 80)], 1)
        log = np.log(np.maximum(np.abs(np.fft.rfft(frames, axis=0))[18:58], 1e-5))
        expected = (log - log.mean()) / log.std(ddof=1)
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_knob_moves_its_own_modality_only():
    plain = Dialpad(Dialpad.Config()).load()
    quiet = Dialpad(Dialpad.Config(snr=-20.0)).load()
    blurred = Dialpad(Dialpad.Config(corruption=0.5)).load()
    assert torch.equal(plain.inputs["image"], quiet.inputs["image"])
    assert not torch.equal(plain.inputs["audio"], quiet.inputs["audio"])
    assert torch.equal(plain.inputs["audio"], blurred.inputs["audio"])
    assert not torch.equal(plain.inputs["image"], blurred.inputs["image"])


def test_noise_is_the_same_whatever_the_run_seeded():
    torch.manual_seed(1)
    one = Dialpad3(Dialpad3.Config()).load()
    torch.manual_seed(2)
    other = Dialpad3(Dialpad3.Config()).load()
    assert all(torch.equal(x, other.inputs[m]) for m, x in one.inputs.items())


def test_the_third_modality_leaves_the_other_two_alone():
    pair, triple = Dialpad(Dialpad.Config()).load(), Dialpad3(Dialpad3.Config()).load()
    assert all(torch.equal(x, triple.inputs[m]) for m, x in pair.inputs.items())
    assert len(set(SEGMENTS)) == 10
