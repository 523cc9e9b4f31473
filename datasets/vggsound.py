"""VGGSound: ten seconds of YouTube videos, 309 classes of sounds whose source is in sight (Chen et al., 2020).

Found under the data root; `train` and `test` in the same way:

    vggsound/video/---g-f_I2yQ_000001.mp4                    YouTube's id and the second where the clip begins; or as
                                                             OGM-GE has it, train-videos/train-set/
    vggsound/AudioWAV/---g-f_I2yQ_000001.wav                 or train-audios/train-set/; else the sound of the video
    vggsound/Image-01-FPS/---g-f_I2yQ_000001/00000.jpg       one frame a second; or, as OGM-GE has it,
                                                             train-videos/train-set-img/Image-01-FPS/<name>.mp4/; else
                                                             those of the video
    vggsound/vggsound.csv                                    rows such as ---g-f_I2yQ,1,people marching,test; or
                                                             train.csv and test.csv with rows such as
                                                             ---g-f_I2yQ_000001.mp4,people marching; or either in data/

Videos vanish from YouTube: papers of this field use about 168,618 and 13,954 clips. What is missing is named by
`bench data prepare` and must be allowed (`--allow-missing`). No validation part is published, so a share of train
validates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from benchmark.inputs.clips import Part
from benchmark.inputs.lists import Row, label_indices, read_csv

from ._audiovisual import AudioVisual, Entries, youtube_id
from ._vggsound_classes import CLASSES


class VggSound(AudioVisual):
    about = "VGGSound (Chen et al. 2020), 199,176 YouTube clips of 309 classes; lists CC BY 4.0"
    recipe = {"epochs": 50, "batch_size": 64, "optimizer": {"lr": 0.01}}
    audio_places = (
        "AudioWAV/{id}.wav",
        "{part}-audios/{part}-set/{id}.wav",
        "video/{id}.mp4",
        "{part}-videos/{part}-set/{id}.mp4",
    )
    video_places = (
        "Image-01-FPS/{id}",
        "{part}-videos/{part}-set-img/Image-01-FPS/{id}.mp4",
        "video/{id}.mp4",
        "{part}-videos/{part}-set/{id}.mp4",
    )
    id_pattern = r"[\w-]{11}_\d{6}"
    advice = (
        "Get VGGSound (robots.ox.ac.uk/~vgg/data/vggsound), its list and its videos, and put vggsound.csv and video/ "
        "into a folder vggsound/ under --data-root or $BENCH_DATA."
    )

    class Config(AudioVisual.Config):
        rate: int = Field(default=16000, ge=1000)
        """Samples of sound per second: 16,000 with VGGSound's authors and OGM-GE, 35,400 in BSS."""
        seconds: float = Field(default=10.0, gt=0)
        """Length that the sound is repeated or cut to: 10, or 20 in BSS. OGM-GE then takes an excerpt of 5."""
        hop: int = Field(default=159, ge=1)
        """Samples from one window to the next; 159 with VGGSound's authors, whose windows of 512 overlap by 353. OGM-GE
        takes 128, and windows of 256."""
        frames: int = Field(default=3, ge=1)
        """Frames of a clip that the encoder reads: 3 in OGM-GE, 1 in BSS."""
        max_frames: int | None = Field(default=3, ge=1)
        """Frames of a clip that are stored, chosen by `frame_choice`: three of all clips take 156 GB. None: one for
        each second."""

    config: Config

    @property
    def class_names(self) -> Sequence[str]:
        return CLASSES

    @property
    def published(self) -> Mapping[str, int]:
        return {"train": 183730, "test": 15446}

    def keys(self) -> Mapping[str, Sequence[str]]:
        return {"video": [youtube_id(clip.id) for clip in self.clips]}

    def read_lists(self) -> Entries:
        folders = (".", "annotations", "data", "data/VGGSound")
        whole = [[f"{folder}/vggsound.csv"] for folder in folders]
        pairs = [[f"{folder}/train.csv", f"{folder}/test.csv"] for folder in folders]
        files = self.find_lists(*whole, *pairs)
        if len(files) == 1:
            return _read_whole(files[0])
        train, test = map(_read_part, files)
        return {"train": train, "test": test}


def _read_whole(path: Path) -> Entries:
    """Read a list of all clips, with their part in the last column."""
    rows = read_csv(path, ["video", "start", "label", "part"])
    label_indices(rows, "part", ["train", "test"])  # refuses other words
    parts: dict[Part, list[Row]] = {"train": [], "test": []}
    for row in rows:
        part: Part = "test" if row["part"] == "test" else "train"
        parts[part].append(_named(row, f"{row['video']}_{row['start'].zfill(6)}"))
    return parts


def _read_part(path: Path) -> list[Row]:
    return [_named(row, row["file"].removesuffix(".mp4")) for row in read_csv(path, ["file", "label"])]


def _named(row: Row, name: str) -> Row:
    return Row(row.where, {"id": name, "label": row["label"]})
