"""AVLetters: ten speakers say the 26 letters three times each; MFCC audio and lip video (Matthews et al., 2002).

Read in its own layout, found under the data root:

    avletters/Lips/A1_Anya-lips.mat           MATLAB, `vid` uint8 (4800, T): 60 x 80 lip images, column-major
    avletters/Audio/mfcc/Clean/A1_Anya.mfcc   HTK, big-endian: 26 coefficients every 20 ms
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.cache import cached_arrays, digest_files
from benchmark.data import Dataset, Modality, Samples, Split, TaskSpec, hold_out
from benchmark.errors import Problem, UserError, nearest
from benchmark.model import Encoder, conv_block, scaled

SPEAKERS = ("Anya", "Bill", "Faye", "John", "Kate", "Nicola", "Stephen", "Steve", "Verity", "Yi")
REPETITIONS = (1, 2, 3)
NAME = re.compile(r"([A-Z])([123])_(\w+)")
HTK_HEADER = struct.Struct(">iihh")
"""Frames, period in 100 ns, bytes of a frame, kind of parameter."""
COEFFICIENTS = 26
AUDIO_FRAMES = 48
VIDEO_FRAMES, HEIGHT, WIDTH = 20, 24, 32
TEMPO, TIME_SHIFT, SPACE_SHIFT, ZOOM = 0.1, 0.09, 0.08, 0.08
"""Largest augmentation, each a share of the clip's length or size."""


class AVLetters(Dataset):
    about = "AVLetters (Matthews et al. 2002), 780 clips of 26 letters by 10 speakers; research use"
    recipe = {"epochs": 60, "batch_size": 32, "optimizer": {"lr": 0.02}}
    num_draws = 5

    class Config(Dataset.Config):
        split: Literal["repetition", "speaker"] = "repetition"
        """`repetition`: each speaker's third repetition is test. `speaker`: three speakers are, and others validate."""
        rotation: int = Field(default=0, ge=0, le=9)
        """Which three speakers are test under `speaker`; 0 is Steve, Verity and Yi, 1 is Verity, Yi and Anya ..."""
        width: dict[str, Annotated[float, Field(gt=0)]] = {}
        """Factor on the channels of a modality's encoder, 1 where not named; for capacity controls."""

    config: Config

    def __init__(self, config: Config, root: Path | None = None) -> None:
        super().__init__(config, root)
        if unknown := sorted(set(config.width) - {"audio", "video"}):
            got, advice = ", ".join(map(repr, unknown)), nearest(unknown[0], ("audio", "video"))
            raise UserError(Problem("data set avletters, width", "a modality", got, advice))

    @property
    def task(self) -> TaskSpec:
        width = self.config.width
        modalities = {
            "audio": Modality((COEFFICIENTS, AUDIO_FRAMES), partial(AudioEncoder, width.get("audio", 1.0))),
            "video": Modality((VIDEO_FRAMES, HEIGHT, WIDTH), partial(VideoEncoder, width.get("video", 1.0))),
        }
        return TaskSpec(modalities, list(ascii_uppercase))

    @property
    def published(self) -> Mapping[str, int]:
        return {"train": 520, "test": 260} if self.config.split == "repetition" else {}

    def keys(self) -> Mapping[str, Sequence[str]]:
        return {"speaker": [speaker_of(name) for name in clip_names()]}

    def fingerprint(self) -> str:
        root = self._find()
        return digest_files([file for name in clip_names() for file in clip_files(root, name)], root)

    def load(self) -> Samples:
        root, names = self._find(), clip_names()
        key = f"{self.fingerprint()}-{AUDIO_FRAMES}-{VIDEO_FRAMES}x{HEIGHT}x{WIDTH}"
        arrays = cached_arrays("avletters", key, lambda: read_clips(root, names))
        known = torch.from_numpy(np.flatnonzero(~self._is_test(names)))
        audio, video = torch.from_numpy(arrays["audio"]), torch.from_numpy(arrays["video"])
        # standardised by what is not test: each coefficient, and each pixel's mean
        audio = (audio - audio[known].mean((0, 2))[:, None]) / audio[known].std((0, 2))[:, None]
        video = (video - video[known].mean((0, 1))) / (video[known] - video[known].mean((0, 1))).std()
        labels = torch.tensor([ascii_uppercase.index(name[0]) for name in names])
        return Samples({"audio": audio, "video": video}, labels, names)

    def split(self, samples: Samples, valid_share: float) -> Split:
        is_test = self._is_test(list(samples.ids))
        groups = [speaker_of(name) for name in samples.ids] if self.config.split == "speaker" else None
        train, valid = hold_out(np.flatnonzero(~is_test), samples.labels, valid_share, groups)
        return Split(train, valid, np.flatnonzero(is_test))

    def transform(self, inputs: Mapping[str, Tensor], draws: Tensor | None) -> dict[str, Tensor]:
        if draws is None:
            return dict(inputs)
        tempo, shift, right, down, zoom = (2 * draws - 1).unbind(1)  # one tempo and shift for sound and picture
        video = warp_time(inputs["video"].flatten(2).transpose(1, 2), TEMPO * tempo, TIME_SHIFT * shift)
        video = video.transpose(1, 2).unflatten(2, (HEIGHT, WIDTH))
        return {
            "audio": warp_time(inputs["audio"], TEMPO * tempo, TIME_SHIFT * shift),
            "video": warp_space(video, SPACE_SHIFT * right, SPACE_SHIFT * down, ZOOM * zoom),
        }

    def _is_test(self, names: list[str]) -> NDArray[np.bool_]:
        if self.config.split == "repetition":
            return np.array([name[1] == "3" for name in names])
        test = {SPEAKERS[(7 + self.config.rotation + i) % len(SPEAKERS)] for i in range(3)}
        return np.array([speaker_of(name) in test for name in names])

    def _find(self) -> Path:
        """Return the data set's folder.

        Raises:
            UserError: when it is not there, or clips are missing.
        """
        advice = (
            "Get AVLetters from its authors (University of East Anglia) and put Lips/ and Audio/mfcc/Clean/ into "
            "a folder avletters/ under --data-root or $BENCH_DATA."
        )
        layout = "Lips/A1_Anya-lips.mat and Audio/mfcc/Clean/A1_Anya.mfcc, and so on, 780 of each"
        if self.root is None or not self.root.is_dir():
            got = "no data root" if self.root is None else f"no folder {self.root}"
            raise UserError(Problem("data set avletters", layout, got, advice))
        missing = [file for name in clip_names() for file in clip_files(self.root, name) if not file.is_file()]
        if missing:
            got = f"{len(missing)} missing, the first {missing[0].relative_to(self.root)}"
            raise UserError(Problem(f"data set avletters in {self.root}", layout, got, advice))
        return self.root


def clip_names() -> list[str]:
    """Return the 780 names such as `A1_Anya`: letter, repetition, speaker."""
    return [
        f"{letter}{repetition}_{who}" for letter in ascii_uppercase for repetition in REPETITIONS for who in SPEAKERS
    ]


def speaker_of(name: str) -> str:
    return name.partition("_")[2]


def clip_files(root: Path, name: str) -> tuple[Path, Path]:
    """Return a clip's audio file and video file."""
    return root / "Audio" / "mfcc" / "Clean" / f"{name}.mfcc", root / "Lips" / f"{name}-lips.mat"


def read_clips(root: Path, names: list[str]) -> dict[str, NDArray[np.float32]]:
    """Read every clip and bring it to a fixed length: audio (N, 26, 48), video (N, 20, 24, 32) in [0, 1]."""
    audio, video = [], []
    for name in names:
        mfcc_file, lips_file = clip_files(root, name)
        audio.append(resample(read_htk(mfcc_file)[None], AUDIO_FRAMES)[0])
        lips = F.interpolate(read_lips(lips_file)[None], size=(HEIGHT, WIDTH), mode="area")[0]
        pixels = resample(lips.flatten(1).T[None], VIDEO_FRAMES)[0]  # (768, 20)
        video.append(pixels.T.unflatten(1, (HEIGHT, WIDTH)))
    return {"audio": torch.stack(audio).numpy(), "video": torch.stack(video).contiguous().numpy()}


def read_htk(path: Path) -> Tensor:
    """Read an HTK parameter file into (coefficients, T).

    Raises:
        UserError: when the file is shorter or longer than its header says, or has other coefficients.
    """
    raw = path.read_bytes()
    frames, _, size, _ = HTK_HEADER.unpack_from(raw) if len(raw) >= HTK_HEADER.size else (0, 0, 0, 0)
    if size != 4 * COEFFICIENTS or frames < 1 or len(raw) != HTK_HEADER.size + frames * size:
        expected = (
            f"an HTK file of {COEFFICIENTS} floats a frame, {HTK_HEADER.size} + {frames} * {4 * COEFFICIENTS} bytes"
        )
        raise UserError(Problem(str(path), expected, f"{len(raw)} bytes, {size} a frame", "Get the file again."))
    values = np.frombuffer(raw, ">f4", offset=HTK_HEADER.size).reshape(frames, COEFFICIENTS)
    return torch.from_numpy(values.astype(np.float32).T.copy())


def read_lips(path: Path) -> Tensor:
    """Read a lip video into (T, 60, 80), in [0, 1].

    Raises:
        UserError: when the file is damaged or holds something else.
    """
    from scipy.io import loadmat

    try:
        frames = loadmat(path)["vid"].reshape(60, 80, -1, order="F")
    except Exception as error:  # noqa: BLE001  a damaged MATLAB file raises whatever its bytes lead to
        got = f"{type(error).__name__}: {error}".split("\n")[0]
        raise UserError(Problem(str(path), "a MATLAB file with vid (4800, T)", got, "Get the file again.")) from None
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(2, 0, 1))).float() / 255


def resample(clip: Tensor, frames: int) -> Tensor:
    """Bring (B, C, T) to `frames` frames by linear interpolation."""
    return F.interpolate(clip, size=frames, mode="linear", align_corners=True)


def warp_time(clip: Tensor, tempo: Tensor, shift: Tensor) -> Tensor:
    """Stretch and shift each clip (B, C, T) in time about its middle by shares of its length (B,); ends are held."""
    length = clip.shape[2]
    time = torch.arange(length, device=clip.device) - (length - 1) / 2  # (T,)
    position = time * (1 + tempo[:, None]) + shift[:, None] * length + (length - 1) / 2
    position = position.clamp(0, length - 1)
    left = position.floor().long().clamp_max(length - 2)
    weight = (position - left)[:, None].expand_as(clip)
    index = left[:, None].expand_as(clip)
    return torch.lerp(clip.gather(2, index), clip.gather(2, index + 1), weight)


def warp_space(frames: Tensor, right: Tensor, down: Tensor, zoom: Tensor) -> Tensor:
    """Move and scale the pictures (B, T, H, W) of each clip, all frames alike, by shares of their size, (B,) each."""
    zero, scale = torch.zeros_like(zoom), 1 + zoom
    rows = (torch.stack((scale, zero, 2 * right), 1), torch.stack((zero, scale, 2 * down), 1))
    grid = F.affine_grid(torch.stack(rows, 1), list(frames.shape), align_corners=False)
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=False)


class AudioEncoder(Encoder):
    """Convolutions over time with the coefficients as channels: (B, 26, 48) -> (B, 128 * factor)."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        middle, self.dim = scaled(64, factor), scaled(128, factor)
        self.layers = nn.Sequential(
            conv_block(nn.Conv1d, COEFFICIENTS, middle, kernel=5),
            conv_block(nn.Conv1d, middle, middle, stride=2),
            conv_block(nn.Conv1d, middle, self.dim, stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x).mean(2)
        return features


class VideoEncoder(Encoder):
    """A network over each picture, then one over time: (B, 20, 24, 32) -> (B, 128 * factor)."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        first, second, middle = scaled(8, factor), scaled(16, factor), scaled(64, factor)
        self.dim = scaled(128, factor)
        self.space = nn.Sequential(
            conv_block(nn.Conv2d, 1, first, stride=2),
            conv_block(nn.Conv2d, first, second, stride=2),
            conv_block(nn.Conv2d, second, second, stride=2),
            nn.Flatten(),
        )
        self.time = nn.Sequential(
            conv_block(nn.Conv1d, second * (HEIGHT // 8) * (WIDTH // 8), middle),
            conv_block(nn.Conv1d, middle, middle, stride=2),
            conv_block(nn.Conv1d, middle, self.dim, stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        pictures = self.space(x.flatten(0, 1)[:, None])  # (B * T, 192 * factor)
        features: Tensor = self.time(pictures.unflatten(0, x.shape[:2]).transpose(1, 2)).mean(2)
        return features
