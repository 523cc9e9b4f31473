"""MVSA-Single: tweets with a photograph, by sentiment (Niu et al., 2016), in the split of QMF and MLA.

Found under the data root:

    mvsa_single/train.jsonl      id, label, text, img; also dev.jsonl, test.jsonl
    mvsa_single/data/1234.jpg    the photograph that img names
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from benchmark.cache import cached_arrays, digest_files
from benchmark.data import Samples, Split, TaskSpec
from benchmark.encoders.small import ConvNet
from benchmark.encoders.words import WordMean
from benchmark.inputs.encoded import EncodedDataset
from benchmark.inputs.lists import (
    Row,
    check_counts,
    check_unique,
    find_files,
    label_indices,
    read_files,
    read_json_lines,
)
from benchmark.inputs.media import read_image
from benchmark.inputs.tokens import tokenize
from benchmark.inputs.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NUM_CROP_DRAWS,
    crop_frames,
    random_boxes,
    resize_frames,
)

COUNTS = {"train": 1555, "dev": 518, "test": 519}
CLASSES = ("negative", "neutral", "positive")
TEXT_TOKENS = 40
STORED, SIZE = 80, 64
"""Height and width of a photograph in the cache, and of what the encoder reads, in pixels."""
WHERE = "data set mvsa"
ADVICE = (
    "Get MVSA-Single from its authors (MCRLab) and {train,dev,test}.jsonl from QMF or MLA, and put them and data/ into "
    "a folder mvsa_single/ under --data-root or $BENCH_DATA."
)


class Mvsa(EncodedDataset):
    about = "MVSA-Single (Niu et al. 2016), 2,592 tweets with a photograph in three sentiments; tweets, research use"
    folder = "mvsa_single"
    recipe = {"epochs": 20, "batch_size": 64, "optimizer": {"lr": 0.05}}
    num_draws = NUM_CROP_DRAWS + 1
    default_encoders = {"text": WordMean(buckets=2**14), "image": ConvNet(width=16)}

    @property
    def task(self) -> TaskSpec:
        shapes: dict[str, tuple[int, ...]] = {"text": (TEXT_TOKENS,), "image": (3, SIZE, SIZE)}
        return TaskSpec({modality: self.modality(modality, shape) for modality, shape in shapes.items()}, CLASSES)

    def fingerprint(self) -> str:
        lists, photographs = self._find(self._rows())
        return digest_files([*lists, *photographs], lists[0].parent)

    @property
    def published(self) -> Mapping[str, int]:
        return {"train": COUNTS["train"], "valid": COUNTS["dev"], "test": COUNTS["test"]}

    def texts(self) -> Mapping[str, Sequence[str]]:
        return {"text": [row["text"] for row in self._rows()]}

    def load(self) -> Samples:
        rows = self._rows()
        _, photographs = self._find(rows)
        key = f"{self.fingerprint()}-{STORED}"
        arrays = cached_arrays("mvsa", key, lambda: {"image": read_photographs(photographs)})
        inputs = {
            "text": tokenize(self.encoder("text"), [row["text"] for row in rows], TEXT_TOKENS),
            "image": torch.from_numpy(arrays["image"]),
        }
        labels = torch.tensor(label_indices(rows, "label", CLASSES))
        return Samples(inputs, labels, [row["id"] for row in rows])

    def split(self, samples: Samples, valid_share: float) -> Split:
        return Split(*np.split(np.arange(len(samples)), np.cumsum(list(COUNTS.values()))[:-1]))

    def transform(self, inputs: Mapping[str, Tensor], draws: Tensor | None) -> dict[str, Tensor]:
        frames = inputs["image"][:, None]  # (B, 1, H, W, 3)
        if draws is None:
            image = resize_frames(frames, SIZE, IMAGENET_MEAN, IMAGENET_STD)
        else:
            boxes = random_boxes(draws[:, 1:], STORED, STORED)
            image = crop_frames(frames, boxes, draws[:, 0] < 0.5, SIZE, IMAGENET_MEAN, IMAGENET_STD)
        return {**inputs, "image": image[:, :, 0]}

    def _rows(self) -> list[Row]:
        """Return every sample: train, dev, test.

        Raises:
            UserError: with each malformed line, repeated id, or count that is not the published one.
        """
        lists = find_files(self.root, [f"{part}.jsonl" for part in COUNTS], WHERE, ADVICE)
        parts = {path.stem: read_json_lines(path, ["id", "label", "text", "img"]) for path in lists}
        check_counts(WHERE, COUNTS, {part: len(rows) for part, rows in parts.items()}, ADVICE)
        rows = [row for part in parts.values() for row in part]
        check_unique(rows, "id")
        return rows

    def _find(self, rows: list[Row]) -> tuple[list[Path], list[Path]]:
        """Return the lists, and the photograph of each row."""
        names = [f"{part}.jsonl" for part in COUNTS]
        files = find_files(self.root, [*names, *(row["img"] for row in rows)], WHERE, ADVICE)
        return files[: len(names)], files[len(names) :]


def read_photographs(paths: list[Path]) -> NDArray[np.uint8]:
    """Return all photographs, resized without regard to their shape, (N, STORED, STORED, 3)."""

    def read(path: Path) -> NDArray[np.uint8]:
        image = torch.from_numpy(read_image(path)).permute(2, 0, 1)[None]  # (1, 3, H, W)
        small = F.interpolate(image, (STORED, STORED), mode="bilinear", antialias=True)
        return small[0].permute(1, 2, 0).numpy()

    return np.stack(read_files(paths, read, WHERE))
