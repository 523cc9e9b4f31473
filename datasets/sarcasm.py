"""Sarcasm in tweets with photographs (MMSD; Cai et al., ACL 2019).

The official samples and split, found under the data root:

    sarcasm/text/train.txt               Python literals: ['id', 'text', label]; filtered here as Cai et al. do
    sarcasm/text/valid2.txt              ['id', 'text', label by hashtag, label by hand]; also test2.txt
    sarcasm/image_data/1234.jpg          the photographs; dataset_image/ or images/ will do too
    mmsd2/train.json                     with text=mmsd2: image_id, text, label; also valid, test
    sarcasm/annotations/train_data.json  with text=njustkmg: image, text, label; also test_data, perhaps valid_data
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal, Self

from pydantic import model_validator

from benchmark.inputs.clips import Clip, Part
from benchmark.inputs.lists import (
    Row,
    check_unique,
    find_files,
    label_indices,
    read_json,
    read_literals,
)

from ._imagetext import ImageTextDataset, check_names
from .sarcasm_words import ADVICE as MMSD2_ADVICE
from .sarcasm_words import COUNTS, FILES, LEAKING_WORDS

PARTS: tuple[Part, ...] = ("train", "valid", "test")
LISTS: Mapping[str, Mapping[str, str]] = {
    **FILES,
    "njustkmg": {part: f"annotations/{part}_data.json" for part in PARTS},
}
ID = {"mmsd2": "image_id", "njustkmg": "image"}
"""Key of a tweet's id, or of the file named by it."""
IMAGES = ("image_data", "dataset_image", "images")
"""Names of the folder of photographs: where several are there, the first is read."""
WHERE = "data set sarcasm"
ADVICE = {
    "original": "Get text/ of data-of-multimodal-sarcasm-detection (headacheboy) and the photographs from the link on "
    f"its page, and put text/ and {IMAGES[0]}/ into a folder sarcasm/ under --data-root or $BENCH_DATA.",
    "mmsd2": MMSD2_ADVICE["mmsd2"],
    "njustkmg": "Put train_data.json and test_data.json, as the code of AMSS and IGM reads them, and the photographs "
    f"into sarcasm/annotations/ and sarcasm/{IMAGES[0]}/ under --data-root or $BENCH_DATA.",
}


class Sarcasm(ImageTextDataset):
    about = "Multimodal sarcasm (Cai et al. 2019), 24,635 tweets with a photograph; tweets, research use"
    class_names = ("not sarcastic", "sarcastic")
    published = COUNTS
    recipe = {"epochs": 15, "batch_size": 64, "optimizer": {"kind": "adam", "lr": 0.0005}}

    class Config(ImageTextDataset.Config):
        text: Literal["original", "mmsd2", "njustkmg"] = "original"
        """Whose lists are read. `mmsd2`: MMSD2.0 (ACL 2023), without the hashtags and emoji that leak the label,
        with its revised labels. `njustkmg`: the JSON of AMSS and IGM; where it has no valid_data.json, validation is
        held out from train."""
        labels: Literal["human", "hashtag"] = "human"
        """Labels of the original validation and test lists: by hand, or by the hashtag of the tweet as in train. They
        differ on 87 and 144 tweets."""

        @model_validator(mode="after")
        def _labels_are_there(self) -> Self:
            if self.labels == "hashtag" and self.text != "original":
                raise ValueError(f"labels=human with text={self.text}, which has one label for each tweet")
            return self

    config: Config

    @cached_property
    def clips(self) -> Sequence[Clip]:
        parts = {part: self._read(path, part) for part, path in self._lists().items()}
        self.check_published(parts, ADVICE[self.config.text])
        rows = [row for rows in parts.values() for row in rows]
        check_unique(rows, "id")
        check_names(rows, "id")
        images = self._images()
        return [
            Clip(row["id"], label, part, {"image": images / f"{row['id']}.jpg"}, facts={"text": row["text"]})
            for part, rows in parts.items()
            for row, label in zip(rows, label_indices(rows, "label", ("0", "1")), strict=True)
        ]

    def sentence(self, clip: Clip) -> str:
        return str(clip.facts["text"])

    def _lists(self) -> dict[Part, Path]:
        """Return the list of each part. Raises `UserError` when one is missing that must be there."""
        version = self.config.text
        root = self.root.parent / "mmsd2" if self.root and version == "mmsd2" else self.root
        names = {part: LISTS[version][part] for part in PARTS}
        if version == "njustkmg" and root and not (root / names["valid"]).exists():
            del names["valid"]
        return dict(zip(names, find_files(root, names.values(), WHERE, ADVICE[version]), strict=True))

    def _read(self, path: Path, part: Part) -> list[Row]:
        """Return the tweets of a list, {id, text, label}. Raises `UserError` with each malformed entry."""
        version = self.config.text
        if version == "original":
            return read_original(path, part, self.config.labels)
        rows = read_json(path, [ID[version], "text", "label"])
        return [Row(row.where, {**row.values, "id": PurePosixPath(row[ID[version]]).stem}) for row in rows]

    def _images(self) -> Path:
        assert self.root is not None
        folders = [self.root / name for name in IMAGES]
        return next((folder for folder in folders if folder.is_dir()), folders[0])


def read_original(path: Path, part: Part, labels: Literal["human", "hashtag"]) -> list[Row]:
    """Return the tweets of one list of Cai et al., of train those without a word that leaks the label.

    Raises:
        UserError: with each malformed line.
    """
    if part == "train":
        rows = read_literals(path, ["id", "text", "label"], mixed=True)
        return [row for row in rows if LEAKING_WORDS.isdisjoint(row["text"].split())]
    columns = {"human": ["hashtag", "label"], "hashtag": ["label", "human"]}[labels]
    return read_literals(path, ["id", "text", *columns], mixed=True)
