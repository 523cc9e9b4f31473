"""Training on another device: the same numbers, nothing left behind on the CPU, a host that never waits in a step."""

from __future__ import annotations

import json
import runpy

import numpy as np
import pytest
import torch

from benchmark.check.synthetic import Blobs
from benchmark.data import Dataset, Rows, Samples
from benchmark.inputs.transforms import IMAGENET_STD
from benchmark.protocol import Recipe
from benchmark.registry import METHODS
from benchmark.settings import parse_settings
from benchmark.train.trainer import Trainer, build_method, load_feeds
from benchmark.training import Feed

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=4, batch_size=16, optimizer={"kind": "sgd", "lr": 0.05})
OTHER_KERNELS = {"ml_lstm": "torch has an LSTM of its own for a CPU"}
"""Methods that a CPU computes otherwise, to rounding."""
FRAMES = {"cremad": (3, 256, 340, 3), "mvsa": (256, 256, 3), "twitter15": (1, 256, 256, 3)}
"""Shape of the pictures that a transform gets."""


@pytest.fixture(scope="module")
def waits_expected(repo):
    return runpy.run_path(str(repo / "tests" / "gpu" / "waiting.py"))["WAITS"]


def subjects():
    found = []
    for name in sorted(METHODS.known()):
        kind = METHODS.find(name).load()
        for number, variant in enumerate(kind.variants):
            found.append(pytest.param(name, variant, id=f"{name}-{number}"))
    return found


def trainer_of(name, variant, device):
    """Return a trainer on three modalities if the method is defined there, else on two."""
    kind = METHODS.find(name).load()
    for count in (3, 2):
        dataset = Blobs(Blobs.Config(num_modalities=count))
        config = parse_settings(kind.Config, {**kind.expand(dataset.task)[0], **variant}, name)
        if kind.unsupported(config, dataset.task) is None:
            method = build_method(kind, config, dataset.task, RECIPE, 0, device)
            return Trainer(method, load_feeds(dataset, RECIPE, device), RECIPE, 0, device)
    pytest.fail("defined neither for two nor for three modalities")


def history(trainer):
    return [json.dumps(trainer.run_epoch()[0], sort_keys=True) for _ in range(RECIPE.epochs)]


def numbers(tree):
    """Return all numbers of a parsed history, in order."""
    if isinstance(tree, dict | list):
        return [x for item in (tree.values() if isinstance(tree, dict) else tree) for x in numbers(item)]
    return [tree]


def watch_steps(trainer, pretence):
    """Return a list that fills with where the host waits in steps."""
    step, found = trainer.method.step, []

    def watched(batch):
        before = len(pretence.waits)
        scalars = step(batch)
        found.extend(pretence.waits[before:])
        return scalars

    trainer.method.step = watched
    return found


@pytest.mark.full
@pytest.mark.parametrize(("name", "variant"), subjects())
def test_a_method_trains_on_another_device_to_the_same_bits_and_its_steps_never_make_the_host_wait(
    pretend, waits_expected, name, variant
):
    expected = history(trainer_of(name, variant, CPU))
    with pretend.Pretence().open() as pretence:
        trainer = trainer_of(name, variant, pretend.DEVICE)
        waits = watch_steps(trainer, pretence)
        got = history(trainer)
        if name in OTHER_KERNELS:
            np.testing.assert_allclose(*(numbers(list(map(json.loads, lines))) for lines in (got, expected)), rtol=1e-3)
        else:
            assert got == expected
        kept = [*trainer.method.parameters(), *trainer.method.buffers()]
        assert all(isinstance(tensor, pretend.Elsewhere) for tensor in kept)
    assert bool(waits) == (name in waits_expected), sorted(set(waits))


class OnDisk(Rows):
    """Rows that are read when asked for."""

    def __init__(self, whole):
        self.whole = whole

    def __len__(self):
        return len(self.whole)

    def take(self, index):
        return self.whole[torch.from_numpy(index)]

    def subset(self, index):
        return OnDisk(self.take(index))


@pytest.mark.parametrize("dataset", [Blobs(Blobs.Config()), type("Plain", (Blobs,), {"num_draws": 0})(Blobs.Config())])
def test_batches_are_served_on_the_device_without_waiting(pretend, dataset: Dataset):
    samples = dataset.load()
    inputs = {"audio": OnDisk(samples.inputs["audio"]), "video": samples.inputs["video"]}
    with pretend.Pretence().open() as pretence:
        feed = Feed(dataset, Samples(inputs, samples.labels, samples.ids), pretend.DEVICE, 16)
        next(feed.in_order())  # what is kept is transformed once
        pretence.waits.clear()
        for batch in feed.shuffled(0):
            assert all(isinstance(x, pretend.Elsewhere) for x in (*batch.inputs.values(), batch.labels, batch.index))
        assert not pretence.waits


@pytest.mark.parametrize("name", ["cremad", "mvsa", "twitter15"])
def test_pictures_are_cropped_on_the_device_without_waiting(pretend, name):
    from benchmark.registry import DATASETS

    kind = DATASETS.find(name).load()
    dataset = kind(kind.Config(), None)
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (4, *FRAMES[name]), generator=draw, dtype=torch.uint8)
    inputs = {"audio": torch.randn(4, 1, 257, 188, generator=draw), "video": pixels, "image": pixels}
    draws = torch.rand(4, dataset.num_draws, generator=draw)
    expected = dataset.transform(inputs, draws)
    with pretend.Pretence().open() as pretence:
        there = {m: x.to(pretend.DEVICE) for m, x in inputs.items()}
        given = draws.to(pretend.DEVICE)
        pretence.waits.clear()
        got = dataset.transform(there, given)
        assert not pretence.waits
    pictures = "video" if name == "cremad" else "image"
    apart = (got[pictures].held - expected[pictures]).abs().max() * min(IMAGENET_STD) * 255
    assert apart < 1.01  # levels: the CPU's kernel rounds


def test_the_pretended_device_refuses_what_a_gpu_refuses_and_notes_what_makes_its_host_wait(pretend):
    here = torch.arange(4.0)
    with pretend.Pretence().open() as pretence:
        there = here.to(pretend.DEVICE, non_blocking=True)
        assert (2 * there + 1).device == pretend.DEVICE
        assert there[2:].sum().device == pretend.DEVICE
        assert not pretence.waits
        for mixed in (lambda: there + here, lambda: there @ here, lambda: here[there.long()]):
            with pytest.raises(RuntimeError):
                mixed()
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(2, device=pretend.DEVICE, generator=torch.Generator())
        with pytest.raises(TypeError):
            np.asarray(there)
        waiting = (
            lambda: float(there[0]),
            lambda: bool(there.sum() > 1),
            there.tolist,
            there.cpu,
            lambda: there[there > 1],
            lambda: there[torch.tensor([0, 1])],
            there.unique,
            lambda: torch.tensor([1.0, 2.0], device=pretend.DEVICE),
        )
        for call in waiting:
            pretence.waits.clear()
            call()
            assert pretence.waits, call
