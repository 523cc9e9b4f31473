"""Text cleaning, against sentences done by hand."""

from __future__ import annotations

import pytest

from benchmark.inputs.tokens import english_words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RT @Bob_1: $T$ WON'T go!! #sad 24h http://t.co/a1", "rt t won t go sad http t co"),
        ("café naïve — it's 5pm, big_deal", "it s"),
        ("", ""),
        ("123 ... !!", ""),
    ],
)
def test_only_words_of_english_letters_stay_in_lower_case(text, expected):
    assert english_words(text, 50) == expected


def test_words_beyond_the_limit_are_dropped():
    assert english_words("a b c1 d e", 3) == "a b d"
