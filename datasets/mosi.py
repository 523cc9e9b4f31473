"""CMU-MOSI: spoken opinions on films, as features of words, voice and picture (Zadeh et al., 2016).

Utterance features of Poria et al. (ACL 2017), found under the data root as declare-lab publishes them:

    mosi/text/text_train0.csv     also text_test0, and audio/ and video/ alike: quoted numbers, the last is the label
    mosi/transcripts.csv          utterance, its words, number of its video, label

The features carry no ids. Rows are the positive utterances and then the negative ones, each in the order of the
transcripts, and videos 1 to 62 are train: so say the indices beside an earlier copy of the text features (bc-LSTM,
`text_train.csv`, all 2,199 of them), and the labels agree.

Text and video features come from networks that saw the labels of train. A linear classifier on videos held out of
train reaches 0.98 with text and 0.91 with video, on test 0.76 and 0.52: validation accuracy, held out from train, says
little about test, and the difference is part of what a method has to live with here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmark.cache import cached_arrays, digest_files
from benchmark.data import Samples, Split, TaskSpec, hold_out
from benchmark.encoders.small import Mlp
from benchmark.errors import Problem, UserError
from benchmark.inputs.encoded import EncodedDataset
from benchmark.inputs.lists import (
    Row,
    check_counts,
    check_unique,
    find_files,
    label_indices,
    raise_some,
    read_csv,
)

WIDTHS = {"text": 100, "audio": 73, "video": 100}
COUNTS = {"train": 1447, "test": 752}
NUM_VIDEOS = {"train": 62, "test": 31}
ADVICE = (
    "Get the MOSI features of bc-LSTM from declare-lab's multimodal-deep-learning and put text/, audio/, video/ and "
    "transcripts.csv into a folder mosi/ under --data-root or $BENCH_DATA."
)


class Mosi(EncodedDataset):
    about = "CMU-MOSI (Zadeh et al. 2016), 2,199 opinions from 93 video reviews, three sets of features; research use"
    recipe = {"epochs": 20, "batch_size": 64, "optimizer": {"lr": 0.01}}
    default_encoders = {modality: Mlp() for modality in WIDTHS}

    @property
    def task(self) -> TaskSpec:
        modalities = {modality: self.modality(modality, (width,)) for modality, width in WIDTHS.items()}
        return TaskSpec(modalities, ["negative", "positive"])

    def fingerprint(self) -> str:
        files = self._find()
        return digest_files(files, files[-1].parent)

    @property
    def published(self) -> Mapping[str, int]:
        return COUNTS

    def texts(self) -> Mapping[str, Sequence[str]]:
        return {"text": [row["words"] for row in self._rows()]}

    def keys(self) -> Mapping[str, Sequence[str]]:
        return {"video": [video_of(row["id"]) for row in self._rows()]}

    def load(self) -> Samples:
        *features, _ = self._find()
        rows = self._rows()
        arrays = cached_arrays("mosi", self.fingerprint(), lambda: read_features(features))
        labels = np.array([int(row["label"]) for row in rows])
        inputs = {}
        for modality in WIDTHS:
            table = np.concatenate([arrays[f"{modality}_{part}"] for part in COUNTS])
            if not np.array_equal(table[:, -1], labels):
                got = f"other labels in {(table[:, -1] != labels).sum():,} rows"
                raise UserError(Problem(f"data set mosi, {modality}", "the labels of transcripts.csv", got, ADVICE))
            x = torch.from_numpy(table[:, :-1])
            train = x[: COUNTS["train"]]
            std = train.std(0)
            inputs[modality] = ((x - train.mean(0)) / torch.where(std > 1e-9, std, 1)).float()
        return Samples(inputs, torch.from_numpy(labels), [row["id"] for row in rows])

    def split(self, samples: Samples, valid_share: float) -> Split:
        known, test = np.split(np.arange(len(samples)), [COUNTS["train"]])
        train, valid = hold_out(known, samples.labels, valid_share, [video_of(name) for name in samples.ids])
        return Split(train, valid, test)

    def _rows(self) -> list[Row]:
        """Return the utterances in the order of the feature files: train, test, the positive ones of each first."""
        parts = read_transcripts(self._find()[-1])
        return [row for part in COUNTS for row in sorted(parts[part], key=lambda row: row["label"] == "0")]

    def _find(self) -> list[Path]:
        """Return the feature files and then the transcripts."""
        names = [f"{modality}/{modality}_{part}0.csv" for modality in WIDTHS for part in COUNTS]
        return find_files(self.root, [*names, "transcripts.csv"], "data set mosi", ADVICE)


def video_of(utterance: str) -> str:
    return utterance.rpartition("_")[0]


def read_transcripts(path: Path) -> dict[str, list[Row]]:
    """Return the utterances of each part, in the order of the file.

    Raises:
        UserError: with each malformed line, or counts that are not the published ones.
    """
    rows = read_csv(path, ["id", "words", "video", "label"], mixed=True)
    check_unique(rows, "id")
    label_indices(rows, "label", ["0", "1"])
    videos = label_indices(rows, "video", [str(number + 1) for number in range(sum(NUM_VIDEOS.values()))])
    parts: dict[str, list[Row]] = {"train": [], "test": []}
    for row, video in zip(rows, videos, strict=True):
        parts["train" if video < NUM_VIDEOS["train"] else "test"].append(row)
    check_counts(str(path), _named(COUNTS), _named({part: len(found) for part, found in parts.items()}), ADVICE)
    return parts


def read_features(paths: Sequence[Path]) -> dict[str, NDArray[np.float64]]:
    """Return each file's table (N, D + 1), the last column the label, as {modality_part: table}.

    Raises:
        UserError: with each malformed line, or counts that are not the published ones.
    """
    tables = {}
    for path in paths:
        modality, _, part = path.stem.removesuffix("0").partition("_")
        columns = [*(f"feature {i}" for i in range(1, WIDTHS[modality] + 1)), "label"]
        rows = read_csv(path, columns)
        check_counts(str(path), _named({part: COUNTS[part]}), _named({part: len(rows)}), ADVICE)
        tables[f"{modality}_{part}"] = np.array(read_numbers(rows))
    return tables


def read_numbers(rows: Sequence[Row]) -> list[list[float]]:
    """Return every value of every row as a number. Raises `UserError` with each that is none, or not finite."""
    numbers, problems = [], []
    for row in rows:
        try:
            numbers.append([float(value) for value in row.values.values()])
            if not np.isfinite(numbers[-1]).all():
                raise ValueError("a value that is not finite")
        except ValueError as error:
            problems.append(Problem(row.where, "finite numbers", str(error)))
    raise_some(problems)
    return numbers


def _named(counts: dict[str, int]) -> dict[str, int]:
    return {f"{part} utterances": count for part, count in counts.items()}
