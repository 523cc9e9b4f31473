"""What loaders of the field do to sound and pictures, batched on the run's device.

Everything random comes from uniform numbers in [0, 1) that the caller draws for each sample, so that a sample's result
depends on that sample alone. Shapes: B batch, T frames, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmark.data import to_device

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FFT_CHUNK = 4
"""Clips in one Fourier transform: few enough to stay in a CPU's cache, 1.6 times as fast there."""
CROP_SCALE, CROP_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
"""Area and width over height of a random crop, torchvision's RandomResizedCrop."""
CROP_TRIES = 10
NUM_CROP_DRAWS = 2 * CROP_TRIES + 2
"""Uniform numbers that one `random_boxes` wants."""


def log_spectrogram(waveform: Tensor, num_fft: int, hop: int) -> Tensor:
    """Return log(|STFT| + 1e-7) as librosa computes it (Hann window, centred, padded with zeros).

    Args:
        waveform: (B, samples), in [-1, 1].
        num_fft: length of a window, in samples.
        hop: samples from one window to the next.

    Returns:
        (B, 1, num_fft // 2 + 1, 1 + samples // hop).
    """
    window = torch.hann_window(num_fft, device=waveform.device)
    size = FFT_CHUNK if waveform.device.type == "cpu" else len(waveform)
    out = waveform.new_empty(len(waveform), 1, num_fft // 2 + 1, 1 + waveform.shape[1] // hop)
    for part, into in zip(waveform.split(size), out.split(size), strict=True):
        spectrum = torch.stft(part, num_fft, hop, window=window, pad_mode="constant", return_complex=True)
        squares = torch.view_as_real(spectrum).square_()  # torch's own abs takes four times as long
        torch.add(squares[..., 0], squares[..., 1], out=into[:, 0]).sqrt_().add_(1e-7).log_()
    return out


def crop_time(waveform: Tensor, length: int, draws: Tensor | None) -> Tensor:
    """Cut (B, samples) to `length` samples: at a random place by `draws` (B,), else in the middle."""
    spare = waveform.shape[1] - length
    if draws is None:
        return waveform[:, spare // 2 : spare // 2 + length]
    start = (draws * (spare + 1)).long()
    return waveform.gather(1, start[:, None] + torch.arange(length, device=waveform.device))


def random_boxes(draws: Tensor, height: int, width: int, scale: tuple[float, float] = CROP_SCALE) -> Tensor:
    """Draw a crop for each sample by the rule of torchvision's RandomResizedCrop.

    Args:
        draws: (B, NUM_CROP_DRAWS): area and shape of each try, then its position.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        scale: smallest and largest area of a crop, as shares of the picture's.

    Returns:
        (top, left, height, width) for each sample, (B, 4).
    """
    area, ratio = draws[:, :CROP_TRIES], draws[:, CROP_TRIES : 2 * CROP_TRIES]
    area = height * width * (scale[0] + (scale[1] - scale[0]) * area.double())
    low, high = map(math.log, CROP_RATIO)
    ratio = (low + (high - low) * ratio.double()).exp()
    wide, tall = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()  # (B, CROP_TRIES)
    fits = (wide <= width) & (tall <= height)
    first = fits.int().argmax(1, keepdim=True)
    wide, tall = wide.gather(1, first)[:, 0], tall.gather(1, first)[:, 0]
    none = ~fits.any(1)  # then as much of the middle as the ratio allows
    whole = (min(height, round(width / CROP_RATIO[0])), min(width, round(height * CROP_RATIO[1])))
    tall, wide = torch.where(none, whole[0], tall), torch.where(none, whole[1], wide)
    top = (draws[:, -2] * (height - tall + 1)).long()
    left = (draws[:, -1] * (width - wide + 1)).long()
    top, left = torch.where(none, (height - tall) // 2, top), torch.where(none, (width - wide) // 2, left)
    return torch.stack((top, left, tall, wide), 1)


def crop_frames(
    frames: Tensor, boxes: Tensor, flips: Tensor, size: int, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Cut one box out of all frames of a clip, resize it (bilinear, antialiased), flip and normalise.

    Args:
        frames: (B, T, H, W, C), uint8.
        boxes: (top, left, height, width) for each clip, (B, 4).
        flips: whether to mirror, for each clip (B,).
        size: height and width of the result.
        mean: of each channel, in [0, 1].
        std: of each channel, in [0, 1].

    Returns:
        (B, C, T, size, size), float32.
    """
    shift, scale = _scale(mean, std, frames.device)
    if frames.device.type != "cpu":
        return crop_at_once(frames, boxes, flips, size) * scale[:, None] - shift[:, None]
    out = _empty((len(frames), frames.shape[4], frames.shape[1], size, size))
    # clip by clip, since boxes differ; torch's kernel for bytes is several times as fast as gathering in one batch
    for clip, box, flip, into in zip(frames, boxes.tolist(), flips.tolist(), out, strict=True):
        top, left, height, width = box
        part = clip[:, top : top + height, left : left + width].permute(0, 3, 1, 2)  # (T, C, h, w)
        crop = F.interpolate(part, (size, size), mode="bilinear", antialias=True)  # (T, C, size, size)
        crop = crop.flip(3) if flip else crop
        for frame, whole in zip(crop, into.transpose(0, 1), strict=True):  # one by one they stay in a CPU's cache
            whole.copy_(frame).mul_(scale).sub_(shift)
    return out


def crop_at_once(frames: Tensor, boxes: Tensor, flips: Tensor, size: int) -> Tensor:
    """Do what `crop_frames` does for all clips at once and without rounding, as two matrix products: for a GPU.

    Whose host would otherwise wait to know the boxes, and start a dozen kernels for each clip.

    Returns:
        (B, C, T, size, size), float32, not yet normalised.
    """
    top, left, height, width = boxes.unbind(1)
    rows = resampling(top, height, size, frames.shape[2])
    columns = resampling(left, width, size, frames.shape[3])
    columns = torch.where(flips[:, None, None], columns.flip(1), columns)
    return torch.einsum("bwx,bthxc->bcthw", columns, torch.einsum("bhy,btyxc->bthxc", rows, frames.float()))


def resampling(start: Tensor, length: Tensor, size: int, total: int) -> Tensor:
    """Return what an antialiased bilinear filter takes of each pixel of a line to resize a part of it.

    Args:
        start: first pixel of the part (B,).
        length: pixels of the part (B,).
        size: pixels that the part is resized to.
        total: pixels of the line.

    Returns:
        (B, size, total), each row with the sum 1.
    """
    factor = (length / size)[:, None, None]
    centre = (torch.arange(size, device=start.device) + 0.5)[:, None] * factor
    place = torch.arange(total, device=start.device) - start[:, None, None]  # (B, 1, total)
    weight = (1 - (place + 0.5 - centre).abs() / factor.clamp_min(1)).clamp_min(0)
    weight = weight * ((place >= 0) & (place < length[:, None, None]))
    return weight / weight.sum(2, keepdim=True)


def resize_frames(frames: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Resize and normalise whole frames, without rounding: (B, T, H, W, C) uint8 -> (B, C, T, size, size)."""
    shift, scale = _scale(mean, std, frames.device)
    flat = frames.flatten(0, 1).permute(0, 3, 1, 2).float()  # (B * T, C, H, W)
    if flat.shape[2:] != (size, size):
        flat = F.interpolate(flat, (size, size), mode="bilinear", antialias=True)
    whole: Tensor = (flat * scale - shift).unflatten(0, frames.shape[:2]).transpose(1, 2)
    return whole


def _scale(mean: Sequence[float], std: Sequence[float], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what turns bytes into normalised values, `x * scale - shift`, each (C, 1, 1)."""
    mean_, std_ = (to_device(torch.tensor(values), device)[:, None, None] for values in (mean, std))
    return mean_ / std_, 1 / (255 * std_)


def _empty(shape: tuple[int, ...]) -> Tensor:
    """Return memory for a batch: numpy's, which asks for huge pages, and touching those takes half as long."""
    return torch.from_numpy(np.empty(shape, np.float32))
