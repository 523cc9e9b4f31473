"""Tweets with a photograph: what the data sets of image and text have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from benchmark.data import Rows, TaskSpec
from benchmark.encoders.resnet import ResNet
from benchmark.encoders.words import WordTransformer
from benchmark.errors import Problem
from benchmark.inputs.clips import Clip, ClipDataset, Part
from benchmark.inputs.lists import Row, check_counts, leads_out, raise_some
from benchmark.inputs.media import read_image
from benchmark.inputs.store import Arrays, Packed, Spread
from benchmark.inputs.tokens import english_words, tokenize
from benchmark.inputs.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NUM_CROP_DRAWS,
    crop_frames,
    random_boxes,
    resize_frames,
)

STORED, SIZE = 256, 224
"""Height and width of a photograph in the store, and of what the encoder reads, in pixels."""
CROP_AREA = (0.5, 1.0)
"""Share of the photograph that a training crop shows; IGM's (IJCAI 2025)."""
MAX_WORDS = 50
"""Words that IGM reads of a tweet."""
PIXELS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Mean and standard deviation of each channel."""


class ImageTextDataset(ClipDataset):
    """Samples with one file, `image`, and the fact `text`.

    Photographs are stored as squares, whatever their shape. A training crop is drawn from that square as IGM draws it
    from the photograph, then mirrored half of the time; IGM's RandAugment is left out. Evaluation sees the whole
    square.

    The default encoders train from scratch, so that a data set runs wherever its files are, and no number depends on a
    download. The literature's are pretrained, `encoders={"image": {"kind": "resnet", "depth": 50, "weights":
    "IMAGENET1K_V1"}, "text": "bert"}`, and want its small learning rate too, as protocol aug2025 has them both.
    """

    class_names: ClassVar[Sequence[str]]
    num_draws = NUM_CROP_DRAWS + 1
    default_encoders = {"image": ResNet(depth=18), "text": WordTransformer()}

    class Config(ClipDataset.Config):
        counts: Literal["published", "any"] = "published"
        """`any`: let lists pass that hold other numbers of samples than the published ones."""
        words: Literal["all", "english"] = "all"
        """`english`: only the words of English letters, in lower case and 50 of them, as IGM (IJCAI 2025) feeds
        Twitter15."""
        tokens: int = Field(default=64, ge=1)
        """Tokens of a text, the encoder's own; TomBERT's (IJCAI 2019)."""
        pixels: Literal["imagenet", "clip"] = "imagenet"
        """Constants that normalise pixels. `clip`: those of CLIP, which IGM feeds to a ResNet of ImageNet as well."""

    config: Config

    @abstractmethod
    def sentence(self, clip: Clip) -> str:
        """Return the text of a sample as it is read under the config, before `words` applies."""

    @property
    def task(self) -> TaskSpec:
        shapes: dict[str, tuple[int, ...]] = {"image": (3, SIZE, SIZE), "text": (self.config.tokens,)}
        return TaskSpec({m: self.modality(m, shape) for m, shape in shapes.items()}, self.class_names)

    def texts(self) -> Mapping[str, Sequence[str]]:
        return {"text": [self.sentence(clip) for clip in self.clips]}

    def check_published(self, parts: Mapping[Part, Sequence[Row]], advice: str) -> None:
        """Raise `UserError` where lists hold other numbers of samples than published, unless the config allows it."""
        if self.config.counts == "published":
            published = {f"{part} tweets": total(self.published[part]) for part in parts}
            found = {f"{part} tweets": len(rows) for part, rows in parts.items()}
            check_counts(f"lists of data set {self.name}", published, found, advice)

    def decode(self, clip: Clip) -> Arrays:
        return {"image": square(read_image(clip.files["image"]))[None]}

    def inputs(self, packed: Mapping[str, Packed], clips: Sequence[Clip]) -> Mapping[str, Tensor | Rows]:
        texts = [self.sentence(clip) for clip in clips]
        if self.config.words == "english":
            texts = [english_words(text, MAX_WORDS) for text in texts]
        tokens = tokenize(self.encoder("text"), texts, self.config.tokens)
        return {"image": Spread(packed["image"], 1), "text": tokens}

    def transform(self, inputs: Mapping[str, Tensor], draws: Tensor | None) -> dict[str, Tensor]:
        frames, constants = inputs["image"], PIXELS[self.config.pixels]  # (B, 1, H, W, 3)
        if draws is None:
            image = resize_frames(frames, SIZE, *constants)
        else:
            boxes = random_boxes(draws[:, 1:], STORED, STORED, CROP_AREA)
            image = crop_frames(frames, boxes, draws[:, 0] < 0.5, SIZE, *constants)
        return {**inputs, "image": image[:, :, 0]}


def square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize an image (H, W, 3) without regard to its shape, by Pillow's bicubic filter: (STORED, STORED, 3)."""
    from PIL import Image

    return np.array(Image.fromarray(image).resize((STORED, STORED), Image.Resampling.BICUBIC))


def total(published: int | Mapping[str, int]) -> int:
    """Return the number of samples of a part, published as it is or by class."""
    return published if isinstance(published, int) else sum(published.values())


def check_names(rows: Sequence[Row], column: str) -> None:
    """Raise `UserError` with each row whose value is not the plain name of a file."""
    wrong = [row for row in rows if leads_out(row[column]) or "/" in row[column] or not row[column].strip(". ")]
    raise_some([Problem(row.where, "the name of a file, without folders", repr(row[column])) for row in wrong])
