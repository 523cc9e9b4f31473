"""Small encoders of text. Words are hashed into a fixed number of ids, so that no vocabulary is fitted to any data.

Shapes: B batch, L tokens, D width.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.encoders.config import TextEncoderConfig
from benchmark.encoders.small import Dropout, PooledTransformer, masked_mean
from benchmark.model import Encoder, draw_weights

TOKEN = re.compile(r"<\w+>|[#@]?\w+(?:['’]\w+)*|[^\w\s\ufe0f\u200d]")
"""A placeholder such as <user>, a word, number, hashtag or mention, or a single other sign such as an emoji."""
SIZES = (3, 4, 5)
"""Words that a filter of `WordConv` sees; Kim's."""
PADDING, EMPTY, FIRST = 0, 1, 2
"""Id of padding, id of a text without words, id of the first bucket."""
START = 0.1
"""Standard deviation of embeddings at the start."""


def split_words(text: str) -> list[str]:
    """Return a text's tokens in lower case: words, numbers, hashtags and mentions whole, other signs one by one."""
    return TOKEN.findall(text.lower())


class HashedWords(TextEncoderConfig):
    """A small encoder of text, over words hashed into buckets by CRC-32: the same ids on every machine."""

    buckets: int = Field(default=2**15, ge=1)
    """Number of ids that words share."""
    width: int = Field(default=64, ge=4, multiple_of=4)
    """Width of a word's embedding."""
    dropout: Dropout

    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        ids = torch.full((len(texts), length), PADDING)
        for row, text in zip(ids, texts, strict=True):
            found = [FIRST + zlib.crc32(word.encode()) % self.buckets for word in split_words(text)[:length]]
            found = found or [EMPTY]
            row[: len(found)] = torch.tensor(found)
        return ids


class WordEmbedding(nn.Module):
    """Embeddings of token ids: (B, L) -> (B, L, D), zero for padding.

    They are kept divided by sqrt(D) and multiplied by it when read, as in Vaswani et al. (NeurIPS 2017): a word is in
    few samples, and learns too slowly at a learning rate that suits the encoders of other modalities otherwise.
    """

    def __init__(self, buckets: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(FIRST + buckets, width, padding_idx=PADDING)
        self.scale = math.sqrt(width)
        with torch.no_grad():
            self.table.weight *= START / self.scale

    def forward(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.table(ids)
        return embedded * self.scale


class WordMean(HashedWords):
    """The mean of the words' embeddings (fastText; Joulin et al., EACL 2017)."""

    kind: Literal["word_mean"] = "word_mean"
    dropout: Dropout = 0.3
    """On whole words, so that no word alone carries the class, and on the features."""

    def make(self, shape: tuple[int, ...]) -> WordMeanEncoder:
        return WordMeanEncoder(self)


class WordMeanEncoder(Encoder):
    """Features of token ids (B, L): the mean embedding."""

    def __init__(self, config: WordMean) -> None:
        super().__init__()
        self.embedding = WordEmbedding(config.buckets, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.dim = config.width

    def forward(self, ids: Tensor) -> Tensor:
        features: Tensor = self.dropout(masked_mean(self.embedding(ids), ids != PADDING))
        return features


class WordConv(HashedWords):
    """Convolutions over words with the maximum over the text (Kim, EMNLP 2014)."""

    kind: Literal["word_conv"] = "word_conv"
    dropout: Dropout = 0.5
    """On the features; Kim's."""
    filters: int = Field(default=64, ge=1)
    """Filters of each size; three times as many features come out. Kim has 100."""

    def make(self, shape: tuple[int, ...]) -> WordConvEncoder:
        return WordConvEncoder(self)


class WordConvEncoder(Encoder):
    """Features of token ids (B, L). A window begins at every word, and sees zeros past the end of the text."""

    def __init__(self, config: WordConv) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(config.width, config.filters, size) for size in SIZES)
        self.dropout = nn.Dropout(config.dropout)
        self.dim = len(SIZES) * config.filters
        draw_weights(self)
        self.embedding = WordEmbedding(config.buckets, config.width)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids).transpose(1, 2)  # (B, D, L)
        real = (ids != PADDING).unsqueeze(1)
        pooled = []
        for size, convolution in zip(SIZES, self.convolutions, strict=True):
            windows = convolution(F.pad(x, (0, size - 1)))  # (B, filters, L)
            pooled.append((windows.relu() * real).amax(2))
        features: Tensor = self.dropout(torch.cat(pooled, 1))
        return features


class WordTransformer(HashedWords):
    """A transformer over words, with the mean over the text."""

    kind: Literal["word_transformer"] = "word_transformer"
    layers: int = Field(default=2, ge=1)
    dropout: Dropout = 0.2

    def make(self, shape: tuple[int, ...]) -> WordTransformerEncoder:
        return WordTransformerEncoder(self, shape[0])


class WordTransformerEncoder(Encoder):
    """Features of token ids (B, L)."""

    def __init__(self, config: WordTransformer, length: int) -> None:
        super().__init__()
        self.embedding = WordEmbedding(config.buckets, config.width)
        self.transformer = PooledTransformer(length, config.width, config.layers, config.dropout)
        self.dim = config.width

    def forward(self, ids: Tensor) -> Tensor:
        features: Tensor = self.transformer(self.embedding(ids), ids != PADDING)
        return features
