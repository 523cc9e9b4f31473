"""CREMA-D: 91 actors say 12 sentences in six emotions (Cao et al., 2014), in the split of OGM-GE.

Found under the data root:

    cremad/AudioWAV/1001_IEO_NEU_XX.wav               16 kHz; else the sound of the video
    cremad/Image-01-FPS/1001_IEO_NEU_XX/00000.jpg     one frame a second; else those of the video
    cremad/VideoFlash/1001_IEO_NEU_XX.flv
    cremad/annotations/{train,test}.csv               rows such as 1088_IOM_NEU_XX,NEU; or annotations/ogm/ or
                                                      data/CREMAD/ as OGM-GE has them, or the folder itself
    cremad/annotations/{my_train,val}.csv             or annotations/val/, or beside train.csv: how Diagnosing and
                                                      Re-learning (ECCV 2024) divide train; without them a share of
                                                      train validates

All 91 actors and every pair of actor and sentence of test are in train too: `split=actor` is the honest one.
Four clips of train are broken at the source: 1076_MTI_NEU_XX and 1064_TIE_SAD_XX (video), 1076_MTI_SAD_XX (no sound),
1064_IEO_DIS_MD (a minute long, all emotions). None is left out in advance; those that cannot be decoded are named.
Classes are in the order of their names; the literature's is NEU, HAP, SAD, FEA, DIS, ANG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from benchmark.data import Samples, Split, hold_out
from benchmark.errors import Problem
from benchmark.inputs.lists import Row, check_unique, raise_some, read_csv
from benchmark.seeds import seed_of

from ._audiovisual import AudioVisual, Entries

CLASSES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
ACTORS = tuple(str(number) for number in range(1001, 1092))
NUM_TEST_ACTORS = 18
LISTS = ("annotations", "annotations/ogm", "data/CREMAD", ".")
"""Folders where train.csv and test.csv may be."""
TRAIN, VALID, TEST = 6698, 744, 744
"""Clips of OGM-GE's train and test, and of the published validation split, which is part of train."""


class CremaD(AudioVisual):
    about = "CREMA-D (Cao et al. 2014), 7,442 clips of six emotions by 91 actors; ODbL 1.0"
    recipe = {"epochs": 100, "batch_size": 64, "optimizer": {"lr": 0.01}}
    audio_places = ("AudioWAV/{id}.wav", "VideoFlash/{id}.flv")
    video_places = ("Image-01-FPS/{id}", "VideoFlash/{id}.flv")
    id_pattern = r"\d{4}_[A-Z]{3}_[A-Z]{3}_[A-Z]{1,2}"
    advice = (
        "Get CREMA-D (github.com/CheyneyComputerScience/CREMA-D) and the lists of OGM-GE, and put AudioWAV/, "
        "VideoFlash/ or Image-01-FPS/, and annotations/{train,test}.csv into a folder cremad/ under --data-root or "
        "$BENCH_DATA."
    )

    class Config(AudioVisual.Config):
        split: Literal["official", "actor"] = "official"
        """`official`: OGM-GE's. `actor`: 18 actors are test, and others validate."""
        rate: int = Field(default=22050, ge=1000)
        """Samples of sound per second. The recordings have 16,000; OGM-GE and all after it resample to 22,050."""
        seconds: float = Field(default=3.0, gt=0)
        """Length that the sound is repeated or cut to: 3 in OGM-GE and AMSS, 20 in LFM and AUG."""
        hop: int = Field(default=353, ge=1)
        """Samples from one window to the next: 188 windows in 3 s, 1250 in 20 s."""
        frames: int = Field(default=3, ge=1)
        """Frames of a clip that the encoder reads: 1 in OGM-GE, AMSS, LFM and AUG, 2 in MMPareto, 3 in MLA. 877 clips
        have fewer than 3; some of theirs are read twice."""

    config: Config

    @property
    def class_names(self) -> Sequence[str]:
        return CLASSES

    @property
    def published(self) -> Mapping[str, int]:
        return (
            {"train": TRAIN - VALID, "valid": VALID, "test": TEST} if self._division else {"train": TRAIN, "test": TEST}
        )

    def group_of(self, name: str) -> str:
        return actor_of(name)

    def keys(self) -> Mapping[str, Sequence[str]]:
        names = [clip.id for clip in self.clips]
        return {"actor": [actor_of(name) for name in names], "actor and sentence": [name[:8] for name in names]}

    def read_lists(self) -> Entries:
        files = self.find_lists(*([f"{folder}/train.csv", f"{folder}/test.csv"] for folder in LISTS))
        train, test = (read_csv(path, ["id", "label"]) for path in files)
        mislabelled = [row for row in (*train, *test) if row["label"] not in row["id"].split("_")]
        raise_some([Problem(row.where, "the emotion in the clip's name", row["label"]) for row in mislabelled])
        if not self._division:
            return {"train": train, "test": test}
        held = divide(train, *(read_csv(path, ["id", "label"]) for path in self._division))
        return {
            "train": [row for row in train if row["id"] not in held],
            "valid": [row for row in train if row["id"] in held],
            "test": test,
        }

    @property
    def _division(self) -> list[Path]:
        """The two lists that divide train, if they are there."""
        folders = ["annotations/val", *LISTS] if self.root else []
        pairs = ([self.root / folder / name for name in ("my_train.csv", "val.csv")] for folder in folders if self.root)
        return next((pair for pair in pairs if all(path.is_file() for path in pair)), [])

    def split(self, samples: Samples, valid_share: float) -> Split:
        if self.config.split == "official":
            split = super().split(samples, valid_share)
            if valid_share:
                return split
            whole = np.sort(np.concatenate([split.train, split.valid]))  # the published validation is part of train
            return Split(whole, whole[:0], split.test)
        actors = [actor_of(name) for name in samples.ids]
        is_test = np.isin(actors, held_out_actors())
        train, valid = hold_out(np.flatnonzero(~is_test), samples.labels, valid_share, actors)
        return Split(train, valid, np.flatnonzero(is_test))


def actor_of(name: str) -> str:
    return name.partition("_")[0]


def held_out_actors() -> Sequence[str]:
    """Return the actors that are test under `split=actor`, chosen by a seeded rule."""
    return sorted(ACTORS, key=lambda actor: seed_of("cremad", "test actors", actor))[:NUM_TEST_ACTORS]


def divide(train: Sequence[Row], kept: Sequence[Row], held: Sequence[Row]) -> set[str]:
    """Return the clips of `held`. Raises `UserError` unless `kept` and `held` divide `train` between them."""
    rows = [*kept, *held]
    check_unique(rows, "id")
    names = {row["id"] for row in train}
    left = names - {row["id"] for row in rows}
    strange = [Problem(row.where, "a clip of train.csv", repr(row["id"])) for row in rows if row["id"] not in names]
    missing = [Problem("my_train.csv and val.csv", "every clip of train.csv", f"no {name}") for name in sorted(left)]
    raise_some([*strange, *missing])
    return {row["id"] for row in held}
