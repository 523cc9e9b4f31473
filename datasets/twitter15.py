"""Twitter15: the sentiment of a tweet with a photograph towards one of the names in it (Yu and Jiang, IJCAI 2019).

The official samples and split, in TomBERT's layout, found under the data root:

    twitter15/train.tsv                     index, label, image, tweet with $T$ for the target, target; also dev, test
    twitter15/twitter2015_images/1234.jpg   the photograph that image names
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from benchmark.errors import Problem
from benchmark.inputs.clips import Clip, Part
from benchmark.inputs.lists import (
    Row,
    check_unique,
    find_files,
    label_indices,
    raise_some,
    read_lines,
)

from ._imagetext import ImageTextDataset, check_names

LISTS: dict[Part, str] = {"train": "train.tsv", "valid": "dev.tsv", "test": "test.tsv"}
IMAGES = "twitter2015_images"
COLUMNS = ("index", "label", "image", "text", "target")
LABELS = ("0", "1", "2")
"""As the lists have them, in the order of the class names."""
MARK = "$T$"
"""Placeholder of the target in a tweet."""
WHERE = "data set twitter15"
ADVICE = (
    "Get {train,dev,test}.tsv from absa_data/twitter2015/ of TomBERT (jefferyYu) and the photographs from the link on "
    f"its page, and put the lists and {IMAGES}/ into a folder twitter15/ under --data-root or $BENCH_DATA."
)


class Twitter15(ImageTextDataset):
    about = (
        "Twitter15 (Yu and Jiang 2019), 5,338 targets in tweets with a photograph, 3 sentiments; tweets, research use"
    )
    class_names = ("negative", "neutral", "positive")
    published = {
        "train": {"negative": 368, "neutral": 1883, "positive": 928},
        "valid": {"negative": 149, "neutral": 670, "positive": 303},
        "test": {"negative": 113, "neutral": 607, "positive": 317},
    }
    recipe = {"epochs": 30, "batch_size": 32, "optimizer": {"kind": "adam", "lr": 0.0005}}

    class Config(ImageTextDataset.Config):
        target: Literal["marked", "sentence", "dropped"] = "marked"
        """How the text tells what the sentiment is about. `marked`: the tweet with its target back in place, between
        two `$T$`. `sentence`: without the marks; of a tweet with several targets it is then not said which is meant,
        so that 253 of the 1,037 test samples have a twin with another label. `dropped`: `$T$` in the target's place,
        as AMSS and IGM feed it."""

    config: Config

    @cached_property
    def clips(self) -> Sequence[Clip]:
        paths = find_files(self.root, LISTS.values(), WHERE, ADVICE)
        parts = {part: read_tweets(path, part) for part, path in zip(LISTS, paths, strict=True)}
        self.check_published(parts, ADVICE)
        images = paths[0].parent / IMAGES
        return [
            Clip(
                row["id"], label, part, {"image": images / row["image"]}, facts={k: row[k] for k in ("text", "target")}
            )
            for part, rows in parts.items()
            for row, label in zip(rows, label_indices(rows, "label", LABELS), strict=True)
        ]

    def keys(self) -> Mapping[str, Sequence[str]]:
        return {"photograph": [clip.files["image"].name for clip in self.clips]}

    def sentence(self, clip: Clip) -> str:
        text, target = clip.facts["text"], clip.facts["target"]
        shown = {"sentence": target, "marked": f"{MARK} {target} {MARK}", "dropped": MARK}[self.config.target]
        return str(text).replace(MARK, shown)


def read_tweets(path: Path, part: Part) -> list[Row]:
    """Return the tweets of one list, each with an id of its own.

    The line of column names is passed over: that of the published test list has one name too few, and no quotes are
    meant as such.

    Raises:
        UserError: with each malformed line or repeated index, or when the column names are missing.
    """
    lines = read_lines(path)
    if not lines or not lines[0][1].startswith(COLUMNS[0]):
        got = repr(lines[0][1][:60]) if lines else "an empty file"
        raise_some([Problem(str(path), "a first line that names the columns, index first", got, ADVICE)])
    rows, problems = [], []
    for where, line in lines[1:]:
        fields = line.split("\t")
        if len(fields) != len(COLUMNS):
            problems.append(Problem(where, f"{len(COLUMNS)} fields ({', '.join(COLUMNS)})", f"{len(fields)}"))
            continue
        values = dict(zip(COLUMNS, fields, strict=True))
        if MARK not in values["text"]:
            problems.append(Problem(where, f"a tweet with {MARK}", repr(values["text"][:60])))
        rows.append(Row(where, {**values, "id": f"{part}-{values['index']}"}))
    raise_some(problems)
    check_unique(rows, "id")
    check_names(rows, "image")
    return rows
