"""Hashed words: what a word is, the same ids everywhere, and encoders that read words and not padding."""

from __future__ import annotations

import subprocess
import sys
import zlib

import pytest
import torch

from benchmark.encoders.small import FeatureTransformer, masked_mean
from benchmark.encoders.words import EMPTY, FIRST, PADDING, WordConv, WordEmbedding, WordMean, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The CAT, the cat!", ["the", "cat", ",", "the", "cat", "!"]),
        ("#Sarcasm @User don't 23rd 3,5", ["#sarcasm", "@user", "don't", "23rd", "3", ",", "5"]),
        ("<user> so <num> x<y", ["<user>", "so", "<num>", "x", "<", "y"]),
        ("😂😂 ❤️ ok👍🏽", ["😂", "😂", "❤", "ok", "👍", "🏽"]),
        ("Ça été naïve", ["ça", "été", "naïve"]),
        ("... # rock", [".", ".", ".", "#", "rock"]),
        ("\ufe0f \u200d \t\n", []),
        ("", []),
    ],
)
def test_what_a_word_is(text, words):
    assert split_words(text) == words


def test_ids_are_the_hashes_of_words_and_padding_is_zero():
    config = WordMean(buckets=1000)
    words = [FIRST + zlib.crc32(word) % 1000 for word in (b"the", b"cat")]
    assert config.tokenize(["The cat", "", "cat the the"], 3).tolist() == [
        [*words, PADDING],
        [EMPTY, PADDING, PADDING],
        [words[1], words[0], words[0]],
    ]


@pytest.mark.full
def test_ids_are_the_same_in_another_process():
    text = "so #funny 😂 don't"
    code = f"from benchmark.encoders.words import WordConv; print(WordConv().tokenize([{text!r}], 6).tolist())"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == str(WordConv().tokenize([text], 6).tolist())


def test_ids_stay_within_the_buckets_and_reach_them_all():
    ids = WordMean(buckets=7).tokenize([" ".join(map(str, range(200)))], 200)
    assert set(ids.flatten().tolist()) == set(range(FIRST, FIRST + 7))
    assert WordEmbedding(7, 4)(ids).shape == (1, 200, 4)


def test_embeddings_start_small_and_padding_stays_zero():
    torch.manual_seed(0)
    embedding = WordEmbedding(500, 16)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    embedded = embedding(torch.arange(FIRST + 500)[None])
    assert embedded[0, 1:].std().item() == pytest.approx(0.1, rel=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        (embedding(torch.tensor([[0, 5, 0]])) ** 2 + embedding(torch.tensor([[0, 5, 0]]))).sum().backward()
        optimizer.step()
    assert embedding(torch.tensor([[PADDING]])).eq(0).all()


def test_the_mean_is_over_words():
    encoder = WordMean(buckets=50, width=8).build((4,)).eval()
    ids = torch.tensor([[5, 9, 0, 0], [5, 9, 9, 7], [0, 0, 0, 0]])
    rows = [encoder.embedding(torch.tensor([row]))[0] for row in ([5, 9], [5, 9, 9, 7])]
    torch.testing.assert_close(encoder(ids), torch.stack([rows[0].mean(0), rows[1].mean(0), torch.zeros(8)]))


def test_a_masked_mean_ignores_whatever_is_masked():
    x = torch.tensor([[[1.0], [3.0], [float("nan")]]])
    assert masked_mean(x, torch.tensor([[True, True, False]])).item() == 2.0


def test_convolutions_take_the_maximum_over_windows_that_begin_at_words():
    torch.manual_seed(0)
    encoder = WordConv(buckets=50, width=8, filters=3).build((6,)).eval()
    ids = torch.tensor([[5, 9, 7, 0, 0, 0]])
    x = encoder.embedding(torch.tensor([[5, 9, 7, 0, 0, 0, 0]]))[0]
    expected = []
    for size, convolution in zip((3, 4, 5), encoder.convolutions, strict=True):
        windows = torch.stack([
            torch.einsum("td,fdt->f", x[start : start + size], convolution.weight) + convolution.bias
            for start in range(3)
        ])  # fmt: skip
        expected.append(windows.relu().amax(0))
    torch.testing.assert_close(encoder(ids)[0], torch.cat(expected))


def test_order_matters_to_convolutions_and_not_to_the_mean():
    ids = torch.tensor([[5, 9, 7, 8], [8, 7, 9, 5]])
    mean, conv = (kind(buckets=50).build((4,)).eval()(ids) for kind in (WordMean, WordConv))
    torch.testing.assert_close(mean[0], mean[1])
    assert not torch.allclose(conv[0], conv[1], atol=1e-4)


def test_frames_of_zeros_are_padding_wherever_they_stand():
    torch.manual_seed(0)
    encoder = FeatureTransformer().build((5, 6)).eval()
    x = torch.randn(2, 5, 6)
    x[0, :, :2], x[1, :, 4:] = 0.0, 0.0
    seen = encoder(x)
    with torch.no_grad():
        encoder.transformer.positions[0] += torch.randn(64)  # that frame is padding in the first sample alone
    again = encoder(x)
    torch.testing.assert_close(again[0], seen[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(again[1], seen[1], atol=1e-3)
    assert encoder(torch.zeros(1, 5, 6)).isfinite().all()


def test_layers_of_a_transformer_start_from_weights_of_their_own():
    first, second = FeatureTransformer().build((5, 6)).transformer.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)
