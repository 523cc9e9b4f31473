"""The contract of an encoder's configuration: typed settings that build the network of one modality.

Shapes: B batch, C channels, T frames, L tokens, D features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from benchmark.errors import Problem, UserError
from benchmark.model import Encoder
from benchmark.settings import Settings


class EncoderConfig(Settings):
    """Which encoder reads a modality, and how its weights start. Chosen by the task, never by a method.

    Subclasses set `kind` to their name and `reads`, and implement `make`.
    """

    reads: ClassVar[Mapping[int, str]]
    """Shapes of one sample that the encoder reads, by their number of axes: {3: "an image (C, H, W)"}."""
    kind: str

    @abstractmethod
    def make(self, shape: tuple[int, ...]) -> Encoder:
        """Build the encoder for samples of a shape that `check` lets pass."""

    def build(self, shape: tuple[int, ...]) -> Encoder:
        """Build the encoder; random weights come from torch's global generator.

        Args:
            shape: of one sample, after `Dataset.transform`.

        Raises:
            UserError: when it cannot read that shape, or files are missing or do not fit.
        """
        self.check(shape)
        encoder = self.make(shape)
        encoder.pretrained = bool(self.weight_files())
        return encoder

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise `UserError` when the encoder cannot read samples of this shape. Opens no file."""
        if len(shape) not in self.reads:
            raise UserError(Problem(self.where, " or ".join(self.reads.values()), f"a sample of shape {shape}"))

    def weight_files(self) -> list[Path]:
        """Return the files whose content decides what the encoder computes before training; none from scratch.

        Raises:
            UserError: when one is missing.
        """
        return []

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"encoder {self.kind}"


class TextEncoderConfig(EncoderConfig):
    """An encoder of text: it reads token ids (L,) of its own tokens, and has no use for any other integers."""

    reads = {1: "token ids (L,)"}

    @abstractmethod
    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        """Return the token ids (N, length), int64, of texts cut and padded to `length`.

        Raises:
            UserError: when a file that this needs is missing.
        """
