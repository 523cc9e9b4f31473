"""Text as the literature feeds it to its encoders, and as token ids."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor

from benchmark.encoders.config import EncoderConfig, TextEncoderConfig
from benchmark.errors import Problem, UserError

LETTERS = re.compile(r"\b[A-Za-z]+\b")


def english_words(text: str, limit: int) -> str:
    """Return the first `limit` words made of English letters alone, in lower case.

    What IGM (IJCAI 2025, `clean_str` and `pre_caption`) keeps of a tweet: no digits, emoji, links or punctuation, and
    no word that touches a digit or an underscore. Twitter15's target mark `$T$` becomes the word "t".
    """
    return " ".join(LETTERS.findall(text)[:limit]).lower()


def tokenize(encoder: EncoderConfig, texts: Sequence[str], length: int) -> Tensor:
    """Return the encoder's token ids (N, length) of texts, cut and padded.

    Raises:
        UserError: when it is no encoder of text.
    """
    if not isinstance(encoder, TextEncoderConfig):
        raise UserError(Problem(encoder.where, "an encoder of text", f"kind {encoder.kind}", "Try word_mean or bert."))
    return encoder.tokenize(texts, length)
