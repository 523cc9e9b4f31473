"""Kinetics-Sounds: 31 classes of Kinetics-400 that can be seen and heard (Arandjelovic & Zisserman, 2017).

Found under the data root; `train` and `test` in the same way:

    ksounds/train_wav/--4-0ihtnBU_000058_000068.wav                       else the sound of the video
    ksounds/train_img/Image-01-FPS/--4-0ihtnBU_000058_000068/00000.jpg    one frame a second; else those of the video
    ksounds/train/--4-0ihtnBU_000058_000068.mp4                           as Kinetics-400 names it
    ksounds/my_train.txt                                                  rows such as --4-0ihtnBU_000058_000068,10,4;
                                                                          or in annotations/ or data/KineticSound/
    ksounds/annotations/train.csv                                         under `lists=named`: youtube_id,label

OGM-GE's lists give classes by number, and it is not published which number is which class, so under `lists=ogm` they
are called class 00 to class 30. They name a clip of test by its first second (`-74csnCOiUs_0`), one of train by its
first and last. Neither lists have a validation part: a share of train validates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from benchmark.inputs.lists import Row, read_csv

from ._audiovisual import AudioVisual, Entries, youtube_id

CLASSES = (
    "blowing nose", "blowing out candles", "bowling", "chopping wood", "dribbling basketball", "laughing",
    "mowing lawn", "playing accordion", "playing bagpipes", "playing bass guitar", "playing clarinet", "playing drums",
    "playing guitar", "playing harmonica", "playing keyboard", "playing organ", "playing piano", "playing saxophone",
    "playing trombone", "playing trumpet", "playing violin", "playing xylophone", "ripping paper", "shoveling snow",
    "shuffling cards", "singing", "stomping grapes", "tap dancing", "tapping guitar", "tapping pen", "tickling",
)  # fmt: skip
NUMBERED = tuple(f"class {number:02d}" for number in range(len(CLASSES)))
LISTS = (".", "annotations", "data/KineticSound")
"""Folders where OGM-GE's lists may be."""
SECONDS = 10
"""Length of a clip."""


class KSounds(AudioVisual):
    about = (
        "Kinetics-Sounds (Arandjelovic & Zisserman 2017), 17,396 clips of 31 classes; lists CC BY 4.0, YouTube videos"
    )
    recipe = {"epochs": 80, "batch_size": 64, "optimizer": {"lr": 0.01}}
    audio_places = ("{part}_wav/{id}.wav", "{part}/{video}.mp4")
    video_places = ("{part}_img/Image-01-FPS/{id}", "{part}/{video}.mp4")
    id_pattern = r"[\w-]{11}_\d+(_\d{6})?"
    advice = (
        "Get the clips of Kinetics-400 (github.com/cvdfoundation/kinetics-dataset) and the lists of OGM-GE, and put "
        "my_{train,test}.txt and train/ and test/, or what was extracted from them, into a folder ksounds/ under "
        "--data-root or $BENCH_DATA."
    )

    class Config(AudioVisual.Config):
        lists: Literal["ogm", "named"] = "ogm"
        """`ogm`: my_{train,test}.txt of OGM-GE. `named`: annotations/{train,test}.csv with classes by name, as AMSS,
        IGM and BSS read them; theirs are not published."""
        rate: int = Field(default=35400, ge=1000)
        """Samples of sound per second: 35,400 in AMSS, IGM, BSS and AUG; 16,000 in ARL."""
        seconds: float = Field(default=10.0, gt=0)
        """Length that the sound is repeated or cut to."""
        hop: int = Field(default=353, ge=1)
        """Samples from one window to the next: 1003 windows in 10 s. At 16 kHz, a hop of 159 gives 1007."""
        frames: int = Field(default=3, ge=1)
        """Frames of a clip that the encoder reads."""

    config: Config

    @property
    def class_names(self) -> Sequence[str]:
        return NUMBERED if self.config.lists == "ogm" else CLASSES

    @property
    def published(self) -> Mapping[str, int]:
        return {"train": 14799, "test": 2597} if self.config.lists == "ogm" else {}

    def video_of(self, name: str) -> str:
        return kinetics_name(name)

    def keys(self) -> Mapping[str, Sequence[str]]:
        return {"video": [youtube_id(clip.id) for clip in self.clips]}

    def read_lists(self) -> Entries:
        if self.config.lists == "named":
            train, test = self.find_lists(["annotations/train.csv", "annotations/test.csv"])
            return {"train": _read_named(train), "test": _read_named(test)}
        train, test = self.find_lists(*([f"{folder}/my_train.txt", f"{folder}/my_test.txt"] for folder in LISTS))
        return {"train": _read_numbered(train), "test": _read_numbered(test)}


def kinetics_name(name: str) -> str:
    """Return the name of a clip with its first and its last second, as Kinetics-400 has it."""
    start = name.removeprefix(f"{youtube_id(name)}_")
    return f"{youtube_id(name)}_{int(start):06d}_{int(start) + SECONDS:06d}" if start.isdecimal() else name


def _read_numbered(path: Path) -> list[Row]:
    names = {str(number): name for number, name in enumerate(NUMBERED)}
    rows = read_csv(path, ["id", "seconds", "label"])
    return [Row(row.where, {"id": row["id"], "label": names.get(row["label"], row["label"])}) for row in rows]


def _read_named(path: Path) -> list[Row]:
    rows = read_csv(path, ["youtube_id", "label"], header=True)
    return [Row(row.where, {"id": row["youtube_id"], "label": row["label"]}) for row in rows]
