"""Noisy inputs: strengths that mean what they say, the same noise for everybody, scores of a plain forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmark.check.synthetic import Blobs
from benchmark.data import Samples
from benchmark.records import ALL
from benchmark.robustness.missing_modalities import Moments, moments_of
from benchmark.robustness.noisy_inputs import STRENGTHS, Noise, NoisyFeed, measure, spread, tokens_of

NAMES = ["audio", "video", "text"]


def noise_of(feeds):
    return Noise("blobs", moments_of(feeds.train), tokens_of(feeds.train))


class Tokens(Blobs):
    """Blobs whose video is the place of each feature among ten levels, an int64: tokens 10 * place + level."""

    def load(self) -> Samples:
        samples = super().load()
        levels = torch.bucketize(samples.inputs["video"], torch.linspace(-2, 2, 9))
        places = 10 * torch.arange(levels.shape[1])
        return Samples({**samples.inputs, "video": places + levels}, samples.labels, samples.ids)


@pytest.fixture
def numbers():
    """Noise for two modalities of known spread, 0.5 and 3, and test inputs of zeros."""
    moments = {"audio": Moments(torch.zeros(400), torch.full((400,), 0.5)),
               "video": Moments(torch.zeros(20, 20), torch.full((20, 20), 3.0))}  # fmt: skip
    return Noise("blobs", moments, {}), {"audio": torch.zeros(50, 400), "video": torch.zeros(50, 20, 20)}


@pytest.mark.parametrize("strength", [s for s in STRENGTHS if s])
def test_noise_is_as_strong_as_its_strength_times_the_spread(numbers, strength):
    noise, clean = numbers
    for modality, expected in (("audio", 0.5), ("video", 3.0)):
        added = noise.on(modality, clean[modality], torch.arange(50), strength)
        assert float(added.std()) == pytest.approx(strength * expected, rel=0.03)  # 20,000 draws: six deviations
        assert abs(float(added.mean())) < 0.05 * strength * expected


def test_the_spread_is_the_root_of_the_mean_variance_of_the_elements():
    x = np.random.default_rng(0).normal(size=(40, 6)) * np.arange(1, 7) + 100
    moments = Moments(torch.from_numpy(x.mean(0)).float(), torch.from_numpy(x.std(0)).float())
    assert spread(moments) == pytest.approx(np.sqrt(((x - x.mean(0)) ** 2).mean()), rel=1e-6)


def test_a_higher_strength_is_the_same_noise_louder_whatever_the_batch_and_the_global_seed(numbers):
    noise, clean = numbers
    torch.manual_seed(1)
    one = noise.on("audio", clean["audio"], torch.arange(50), 1.0)
    torch.manual_seed(2)
    assert torch.allclose(noise.on("audio", clean["audio"], torch.arange(50), 4.0), 4 * one)
    few = noise.on("audio", clean["audio"][:2], torch.tensor([7, 3]), 1.0)
    assert torch.equal(few, one[[7, 3]])
    other = Noise("others", noise.moments, {}).on("audio", clean["audio"], torch.arange(50), 1.0)
    assert not torch.allclose(other, one, atol=0.1)


@pytest.mark.parametrize(("strength", "share"), [(0.5, 0.2), (1.0, 0.5), (2.0, 0.8)])
def test_tokens_are_replaced_with_the_share_of_noise_in_the_variance_by_those_of_the_same_place(strength, share):
    train = torch.stack([torch.arange(40) + 100, torch.arange(40) + 200])  # place p holds 100 + p or 200 + p
    noise = Noise("blobs", {}, {"text": train})
    x = torch.zeros(500, 40, dtype=torch.int64)
    noisy = noise.on("text", x, torch.arange(500), strength)
    assert noisy.dtype == torch.int64
    hit = noisy != 0
    assert float(hit.float().mean()) == pytest.approx(share, abs=0.02)  # 20,000 draws: over five deviations
    places = torch.arange(40).expand_as(noisy)
    assert torch.equal(noisy[hit] % 100, places[hit])
    assert float((noisy[hit] < 200).float().mean()) == pytest.approx(0.5, abs=0.03)


def test_what_is_replaced_at_a_strength_stays_replaced_at_a_higher_one():
    noise = Noise("blobs", {}, {"text": torch.ones(3, 40, dtype=torch.int64)})
    x = torch.zeros(20, 40, dtype=torch.int64)
    weak, strong = (noise.on("text", x, torch.arange(20), strength) for strength in (0.5, 2.0))
    assert bool((strong >= weak).all())
    assert bool((strong > weak).any())


def test_a_noisy_feed_disturbs_the_modalities_that_are_named_and_no_others(trainer, whole):
    feeds = trainer().feeds
    feeds.test.batch_size = 20
    noisy = NoisyFeed(feeds.test, noise_of(feeds), {"video": 1.0})
    assert [len(inputs["audio"]) for inputs in noisy.in_order()] == [20, 20, 10]
    clean = whole(feeds.test)
    assert torch.equal(whole(noisy)["audio"], clean["audio"])
    assert not bool((whole(noisy)["video"] == clean["video"]).any())


@pytest.mark.parametrize("data", [Blobs, Tokens])
def test_scores_are_those_of_a_forward_pass_over_noisy_inputs(trainer, whole, data):
    if data is Tokens:
        subject = trainer(dataset=Blobs(Blobs.Config(num_modalities=3, noise=1.5)))
        tokens = Tokens(Blobs.Config(num_modalities=3, noise=1.5))
        raw = trainer(dataset=tokens).feeds
        embed = subject.method.predict
        subject.method.predict = lambda inputs: embed({**inputs, "video": (inputs["video"] % 10).float() / 2 - 2})
        feeds = raw
    else:
        subject = trainer(dataset=Blobs(Blobs.Config(num_modalities=3, noise=1.5)))
        feeds = subject.feeds
    model, noise = subject.method.eval(), noise_of(feeds)
    assert set(noise.tokens) == ({"video"} if data is Tokens else set())
    rows = measure(model, feeds, noise).rows
    assert len(rows) == (3 + 1) * len(STRENGTHS)
    everyone = torch.arange(50)
    for row in rows:
        inputs = dict(whole(feeds.test))
        for modality in NAMES if row.modality == ALL else [row.modality]:
            if row.strength:
                inputs[modality] = noise.on(modality, inputs[modality], everyone, row.strength)
        with torch.no_grad():
            guess = model.predict(inputs)["fused"].argmax(1)
        assert row.accuracy == float((guess == feeds.test.labels).double().mean())


def test_measuring_changes_neither_the_inputs_nor_the_method(trainer, whole):
    subject = trainer("concat")
    subject.run_epoch()
    inputs = {m: x.clone() for m, x in whole(subject.feeds.test).items()}
    noise = noise_of(subject.feeds)
    first = measure(subject.method, subject.feeds, noise)
    assert measure(subject.method, subject.feeds, noise) == first
    assert subject.method.training
    assert all(torch.equal(x, inputs[m]) for m, x in whole(subject.feeds.test).items())
