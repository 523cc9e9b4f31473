"""Sarcasm in tweets with photographs (MMSD; Cai et al., ACL 2019), with five words for each photograph instead of it.

The official samples and split. The words are what Cai et al. predicted from the photographs as their attributes; they
are published where the photographs are not. Found under the data root:

    sarcasm/text/train.txt          Python literals: ['id', 'text', label]; filtered here as Cai et al. do
    sarcasm/text/valid2.txt         ['id', 'text', label by hashtag, label by hand]; also test2.txt
    sarcasm/extract/extract_all     ['id', five words]
    mmsd2/train.json                MMSD2.0 (Qin et al., ACL 2023): image_id, text, label; also valid, test
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmark.cache import digest_files
from benchmark.data import Samples, Split, TaskSpec
from benchmark.encoders.words import WordMean
from benchmark.errors import Problem
from benchmark.inputs.encoded import EncodedDataset
from benchmark.inputs.lists import (
    Row,
    check_counts,
    check_unique,
    find_files,
    label_indices,
    raise_some,
    read_json,
    read_literals,
)
from benchmark.inputs.tokens import tokenize

COUNTS = {"train": 19816, "valid": 2410, "test": 2409}
FILES = {
    "original": {part: f"text/{name}.txt" for part, name in zip(COUNTS, ("train", "valid2", "test2"), strict=True)},
    "mmsd2": {part: f"{part}.json" for part in COUNTS},
}
IMAGE_WORDS = [f"word {i}" for i in range(1, 6)]
LEAKING_WORDS = frozenset(
    ("sarcasm", "sarcastic", "reposting", "<url>", "joke", "jokes", "humour", "humor", "irony", "ironic", "exgag")
)
"""Words that leak the label: Cai et al. drop tweets of train that have one."""
LENGTHS = {"text": 40, "image_words": 8}
"""Tokens of each modality."""
ADVICE = {
    "original": "Get text/ and extract/ of data-of-multimodal-sarcasm-detection (headacheboy) and put them into a "
    "folder sarcasm/ under --data-root or $BENCH_DATA.",
    "mmsd2": "Get {train,valid,test}.json from text_json_final/ of MMSD2.0 (JoeYing1019) and put them into a folder "
    "mmsd2/ beside sarcasm/.",
}


class SarcasmWords(EncodedDataset):
    about = "Multimodal sarcasm (Cai et al. 2019), 24,635 tweets and words for their photographs; tweets, research use"
    folder = "sarcasm"
    recipe = {"epochs": 5, "batch_size": 128, "optimizer": {"kind": "adam", "lr": 0.0007}}
    default_encoders = {"text": WordMean(), "image_words": WordMean(buckets=2**12)}

    class Config(EncodedDataset.Config):
        text: Literal["original", "mmsd2"] = "original"
        """`mmsd2`: MMSD2.0's text, without the hashtags and emoji that leak the label, with its revised labels."""

    config: Config

    @property
    def task(self) -> TaskSpec:
        modalities = {modality: self.modality(modality, (length,)) for modality, length in LENGTHS.items()}
        return TaskSpec(modalities, ["not sarcastic", "sarcastic"])

    def fingerprint(self) -> str:
        lists, words = self._find()
        return digest_files([*lists.values(), words], words.parents[2])

    @property
    def published(self) -> Mapping[str, int]:
        return COUNTS

    def texts(self) -> Mapping[str, Sequence[str]]:
        rows = self._rows()
        return {modality: [row[modality] for row in rows] for modality in LENGTHS}

    def load(self) -> Samples:
        rows = self._rows()
        inputs = {
            modality: tokenize(self.encoder(modality), [row[modality] for row in rows], length)
            for modality, length in LENGTHS.items()
        }
        labels = torch.tensor(label_indices(rows, "label", ["0", "1"]))
        return Samples(inputs, labels, [row["id"] for row in rows])

    def split(self, samples: Samples, valid_share: float) -> Split:
        return Split(*np.split(np.arange(len(samples)), np.cumsum(list(COUNTS.values()))[:-1]))

    def _rows(self) -> list[Row]:
        """Return every tweet with the words of its photograph: train, valid, test.

        Raises:
            UserError: with each malformed line, repeated id, id without words, or count that is not the published one.
        """
        lists, words = self._find()
        read = read_original if self.config.text == "original" else read_mmsd2
        rows = [row for part, path in lists.items() for row in read(path, part)]
        check_unique(rows, "id")
        words_of = read_image_words(words)
        lost = [row for row in rows if row["id"] not in words_of]
        raise_some([Problem(row.where, f"an id in {words}", repr(row["id"])) for row in lost])
        return [Row(row.where, {**row.values, "image_words": words_of[row["id"]]}) for row in rows]

    def _find(self) -> tuple[Mapping[str, Path], Path]:
        """Return the list of each part, and the words of the photographs."""
        version, where = self.config.text, "data set sarcasm_words"
        (words,) = find_files(self.root, ["extract/extract_all"], where, ADVICE["original"])
        root = words.parents[1] if version == "original" else words.parents[2] / version
        files = find_files(root, FILES[version].values(), where, ADVICE[version])
        return dict(zip(COUNTS, files, strict=True)), words


def read_original(path: Path, part: str) -> list[Row]:
    """Return the tweets of one part: train without words that leak the label, others with labels given by hand.

    Raises:
        UserError: with each malformed line, or a count that is not the published one.
    """
    labels = ["label"] if part == "train" else ["hashtag", "label"]
    rows = read_literals(path, ["id", "text", *labels], mixed=True)
    if part == "train":
        rows = [row for row in rows if LEAKING_WORDS.isdisjoint(row["text"].split())]
    return _counted(path, part, rows)


def read_mmsd2(path: Path, part: str) -> list[Row]:
    """Return the tweets of one part as MMSD2.0 has them. Raises as `read_original`."""
    rows = read_json(path, ["image_id", "text", "label"])
    return _counted(path, part, [Row(row.where, {**row.values, "id": row["image_id"]}) for row in rows])


def read_image_words(path: Path) -> dict[str, str]:
    """Return the words of every photograph by its id. Raises `UserError` with each malformed line or repeated id."""
    rows = read_literals(path, ["id", *IMAGE_WORDS], mixed=True)
    check_unique(rows, "id")
    return {row["id"]: " ".join(row[word] for word in IMAGE_WORDS) for row in rows}


def _counted(path: Path, part: str, rows: list[Row]) -> list[Row]:
    check_counts(str(path), {f"{part} tweets": COUNTS[part]}, {f"{part} tweets": len(rows)}, "Get the file again.")
    return rows
