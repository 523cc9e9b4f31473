"""What the audio-visual data sets share: where a clip's files are, and how they are decoded, stored and served.

Sound is repeated from its beginning until it fills the seconds wanted. Its spectrogram is stored, or where excerpts of
it are drawn, the sound itself. Pictures are stored at one frame a second, as bytes. Both come from files that were
extracted before, as the literature's loaders want them, or else from the video itself.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from benchmark.data import Rows, TaskSpec
from benchmark.encoders.resnet import ResNet
from benchmark.errors import Problem, UserError
from benchmark.inputs.clips import Clip, ClipDataset, Part, no_files
from benchmark.inputs.lists import Row, check_counts, check_unique, label_indices, raise_some
from benchmark.inputs.media import Frames, MediaError, picture_suffixes, read_audio, read_frames, read_image
from benchmark.inputs.raw import files_of
from benchmark.inputs.store import Arrays, Packed, Spread, Tiled, spread
from benchmark.inputs.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NUM_CROP_DRAWS,
    crop_frames,
    crop_time,
    log_spectrogram,
    random_boxes,
    resize_frames,
)

Entries = Mapping[Part, Sequence[Row]]
"""What the lists say of each part: rows with `id` and `label`, the name of a class."""


class AudioVisual(ClipDataset):
    """Clips with sound and pictures. Subclasses set what is declared here and implement `class_names`, `read_lists`.

    For training, a random resized crop and a random flip. One crop is common to all frames of a clip, so that they
    still belong together; the literature's loaders draw one for each frame.
    """

    num_draws = NUM_CROP_DRAWS + 2
    default_encoders = {"audio": ResNet(), "video": ResNet()}
    audio_places: ClassVar[Sequence[str]]
    """Where the sound of a clip may be, such as `AudioWAV/{id}.wav`; the first whose folder exists is taken."""
    video_places: ClassVar[Sequence[str]]
    """Likewise for the pictures: a folder of them for each clip, or the video."""
    id_pattern: ClassVar[str]
    """Pattern of a clip's name. It must not allow a name that leads out of its folder."""
    advice: ClassVar[str]
    """Where to get the files and how to arrange them."""

    class Config(ClipDataset.Config):
        rate: int = Field(ge=1000)
        """Samples of sound per second; resampled to it before storing."""
        seconds: float = Field(gt=0)
        """Length that the sound is repeated or cut to."""
        excerpt: float | None = Field(default=None, gt=0)
        """Seconds cut out of that: at random in training, in the middle for evaluation. None: all."""
        num_fft: int = Field(default=512, ge=16)
        """Length of the spectrogram's window, in samples."""
        hop: int = Field(ge=1)
        """Samples from one window to the next."""
        canvas: tuple[int, int] = (256, 340)
        """Height and width of a stored frame, in pixels. Frames of another size are resized as Pillow does (bilinear).
        Random crops are cut out of it: a larger one keeps more of small crops, and is slower to read."""
        frames: int = Field(ge=1)
        """Frames of a clip that the encoder reads."""
        frame_choice: Literal["spread", "first"] = "spread"
        """`spread`: the middles of as many equal parts of the clip. `first`: the first ones, which OGM-GE, AUG and
        others open whatever they draw (`image_samples[i]` where `image_samples[select_index[i]]` was meant)."""
        max_frames: int | None = Field(default=None, ge=1)
        """Frames of a clip that are stored, chosen by `frame_choice`. None: one for each second."""
        size: int = Field(default=224, ge=16)
        """Height and width of a frame that the encoder reads, in pixels."""
        counts: Literal["published", "any"] = "published"
        """How many clips the lists must name; `any` lets lists of your own pass."""

    config: Config

    def __init__(self, config: Config, root: Path | None = None) -> None:
        super().__init__(config, root)
        problems = []
        if config.excerpt is not None and config.excerpt > config.seconds:
            expected = f"at most the {config.seconds} s that the sound is brought to"
            problems.append(Problem(f"data set {self.name}, excerpt", expected, str(config.excerpt)))
        if config.max_frames is not None and config.frames > config.max_frames:
            advice = f"Give max_frames={config.frames}, and prepare the data set again."
            expected = f"at most the {config.max_frames} that are stored"
            problems.append(Problem(f"data set {self.name}, frames", expected, str(config.frames), advice))
        raise_some(problems)

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """The classes, in the order of their names."""

    @abstractmethod
    def read_lists(self) -> Entries:
        """Return what the official lists say. Raises `UserError` for lists that are missing or wrong."""

    @property
    def published(self) -> Mapping[str, int]:
        """How many clips of each part the official lists name; empty where that is not published."""
        return {}

    def group_of(self, name: str) -> str:
        """Return the actor of a clip, empty where unknown."""
        return ""

    def video_of(self, name: str) -> str:
        """Return the value of `{video}` in places: the name of the clip's video where it differs from the clip's."""
        return name

    @property
    def task(self) -> TaskSpec:
        config = self.config
        samples = round((config.excerpt or config.seconds) * config.rate)
        shapes = {
            "audio": (1, config.num_fft // 2 + 1, 1 + samples // config.hop),
            "video": (3, config.frames, config.size, config.size),
        }
        return TaskSpec({m: self.modality(m, shape) for m, shape in shapes.items()}, self.class_names)

    @property
    def entries(self) -> Entries:
        """The official lists, looked through for mistakes. Not kept: clips say it all in less memory."""
        entries = self.read_lists()
        rows = [row for part in entries.values() for row in part]
        strange = [row for row in rows if not re.fullmatch(self.id_pattern, row["id"], re.ASCII)]
        raise_some([Problem(row.where, f"a clip's name like {self.id_pattern}", repr(row["id"])) for row in strange])
        check_unique(rows, "id")
        label_indices(rows, "label", self.class_names)
        if self.config.counts == "published":
            got = {f"{part} clips": len(found) for part, found in entries.items()}
            advice = "Get the official lists again, or give counts=any to use lists of your own."
            expected = {f"{part} clips": count for part, count in self.published.items()}
            check_counts(f"lists of data set {self.name}", expected, got, advice)
        return entries

    @cached_property
    def clips(self) -> Sequence[Clip]:
        clips = []
        for part, rows in self.entries.items():
            labels = label_indices(rows, "label", self.class_names)
            places = {m: self._place(m, "test" if part == "test" else "train") for m in ("audio", "video")}
            for row, label in zip(rows, labels, strict=True):
                names = {"id": row["id"], "video": self.video_of(row["id"])}
                files = {modality: Path(place.format(**names)) for modality, place in places.items()}
                clips.append(Clip(row["id"], label, part, files, self.group_of(row["id"])))
        return clips

    def decoding(self) -> Mapping[str, Any]:
        config = self.config
        chosen = {} if config.max_frames is None else {"frame_choice": config.frame_choice}
        sound = {"seconds": config.seconds, "num_fft": config.num_fft, "hop": config.hop} if self._is_still else {}
        return {"rate": config.rate, **sound, "canvas": config.canvas, "max_frames": config.max_frames, **chosen}

    @property
    def _is_still(self) -> bool:
        """Whether the same part of a clip's sound is read every time, so that its spectrogram can be stored."""
        return self.config.excerpt is None

    def decode(self, clip: Clip) -> Arrays:
        with _naming(clip.files["audio"]):
            waveform = read_audio(clip.files["audio"], self.config.rate)
        with _naming(clip.files["video"]):
            frames = self._read_pictures(clip.files["video"])
        waveform = np.clip(waveform, -1, 1)  # resampling overshoots
        return {"audio": self._spectrogram(waveform) if self._is_still else waveform, "video": frames}

    def _spectrogram(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the spectrogram (1, frequencies, windows) of a sound that is repeated to the seconds wanted."""
        config = self.config
        filled = torch.from_numpy(np.resize(waveform, round(config.seconds * config.rate)))
        return log_spectrogram(filled[None], config.num_fft, config.hop)[0].numpy()

    def inputs(self, packed: Mapping[str, Packed], clips: Sequence[Clip]) -> Mapping[str, Tensor | Rows]:
        config = self.config
        sound = packed["audio"]
        return {
            "audio": Spread(sound, 1) if self._is_still else Tiled(sound, round(config.seconds * config.rate)),
            "video": Spread(packed["video"], config.frames, config.frame_choice == "first"),
        }

    def transform(self, inputs: Mapping[str, Tensor], draws: Tensor | None) -> dict[str, Tensor]:
        config, audio, frames = self.config, inputs["audio"], inputs["video"]
        if config.excerpt is not None:
            place = None if draws is None else draws[:, 0]
            excerpt = crop_time(audio, round(config.excerpt * config.rate), place)
            audio = log_spectrogram(excerpt, config.num_fft, config.hop)
        if draws is None:
            video = resize_frames(frames, config.size, IMAGENET_MEAN, IMAGENET_STD)
        else:
            boxes = random_boxes(draws[:, 2:], *frames.shape[2:4])
            video = crop_frames(frames, boxes, draws[:, 1] < 0.5, config.size, IMAGENET_MEAN, IMAGENET_STD)
        return {"audio": audio, "video": video}

    def find_lists(self, *choices: Sequence[str]) -> list[Path]:
        """Return the first choice of list files that are all there.

        Raises:
            UserError: when none is, with all choices.
        """
        for names in choices:
            if self.root is not None and all((self.root / name).is_file() for name in names):
                return [self.root / name for name in names]
        lists = ", or ".join(" and ".join(str(PurePath(name)) for name in names) for names in choices)
        if self.root is None or not self.root.is_dir():
            raise no_files(self, lists, self.advice)
        raise UserError(Problem(f"data set {self.name} in {self.root}", lists, "none of these", self.advice))

    def _place(self, modality: str, part: str) -> str:
        """Return where a modality's files are in a part of the data set: the first that exists, else the first."""
        choices = {"audio": self.audio_places, "video": self.video_places}[modality]
        places = [str((self.root or Path()) / place.replace("{part}", part)) for place in choices]
        return next((place for place in places if Path(place).parent.is_dir()), places[0])

    def _read_pictures(self, path: Path) -> NDArray[np.uint8]:
        """Return the frames to store (T, height, width, 3): pictures in the order of their names, or one a second of a
        video.
        """
        if not path.is_dir():
            whole = read_frames(path, Frames(step=None), self.config.canvas)
            kept: NDArray[np.uint8] = whole[self._stored(len(whole))]
            return kept
        known = picture_suffixes()
        files = [file for file in files_of(path) if file.suffix.lower() in known]
        if not files:
            raise MediaError("no pictures")
        frames = []
        for number in self._stored(len(files)):
            with _naming(files[number]):
                frames.append(resize(read_image(files[number]), self.config.canvas))
        return np.stack(frames)

    def _stored(self, length: int) -> NDArray[np.int64]:
        """Return which frames of a clip are stored."""
        limit = self.config.max_frames
        if limit is None or length <= limit:
            return np.arange(length)
        return spread(length, limit, self.config.frame_choice == "first")


def resize(frame: NDArray[np.uint8], canvas: tuple[int, int]) -> NDArray[np.uint8]:
    """Bring a picture (H, W, 3) to a height and width, as Pillow's bilinear filter does; as it is if it has them."""
    from PIL import Image

    if frame.shape[:2] == canvas:
        return frame
    return np.array(Image.fromarray(frame).resize(canvas[::-1], Image.Resampling.BILINEAR))


def youtube_id(name: str) -> str:
    """Return the video that a clip was cut from: its 11 characters begin the clip's name."""
    return name[:11]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put a file's name before the reason why it cannot be read."""
    try:
        yield
    except MediaError as error:
        raise MediaError(f"{path.name}: {error}") from error
