"""Loading: data that no run can be trained on are refused by all who load, with the samples' names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmark.check.synthetic import Blobs
from benchmark.data import Split
from benchmark.errors import UserError
from benchmark.loading import absent_classes, constant_features, load_parts
from benchmark.training import NonFiniteLoss


class Faulty(Blobs):
    """Blobs whose samples and parts a test may change."""

    samples = staticmethod(lambda samples: samples)
    parts = staticmethod(lambda split: split)

    def load(self):
        return self.samples(super().load())

    def split(self, samples, valid_share):
        return self.parts(super().split(samples, valid_share))


@pytest.fixture
def faulty():
    return Faulty(Faulty.Config())


def with_labels(change):
    def make(samples):
        labels = samples.labels.clone()
        return replace(samples, labels=change(labels))

    return make


def put(value, *rows):
    def change(x):
        x[list(rows)] = value
        return x

    return change


def with_ids(samples):
    return replace(samples, ids=[*samples.ids[:-1], "blob3"])


def with_nan(value):
    return lambda samples: replace(samples, inputs={**samples.inputs, "video": put(value, 7)(samples.inputs["video"])})


FAULTY_SAMPLES = {
    "ignored labels": (
        with_labels(put(-100, 5)),
        "labels: expected class indices from 0 to 2, got 1 others: -100 of blob5",
    ),
    "labels beyond the classes": (with_labels(put(3, 5, 9)), "got 2 others: 3 of blob5, 3 of blob9"),
    "labels that are no integers": (
        with_labels(torch.Tensor.float),
        r"torch.int64 \(150,\), got torch.float32 \(150,\)",
    ),
    "labels one-hot": (with_labels(torch.nn.functional.one_hot), r"got torch.int64 \(150, 3\)"),
    "labels in a list": (with_labels(torch.Tensor.tolist), "labels: expected .* got list"),
    "repeated ids": (with_ids, "ids: expected an id of its own for each sample, got 1 that repeat: blob3"),
    "NaN": (with_nan(torch.nan), "video: expected finite numbers, got NaN or infinity in 1 samples: blob7"),
    "infinity": (with_nan(-torch.inf), "video: expected finite numbers, got NaN or infinity in 1 samples: blob7"),
    "a modality too few": (
        lambda samples: replace(samples, inputs={"audio": samples.inputs["audio"]}),
        "inputs: expected modalities audio, video, got audio",
    ),
    "inputs too few": (
        lambda samples: replace(samples, inputs={m: x[:149] for m, x in samples.inputs.items()}),
        "audio: expected an input for each of 150 ids, got 149",
    ),
}

FAULTY_PARTS = {
    "overlap": (
        lambda s: replace(s, test=np.append(s.test, s.train[0])),
        "split: .* got 1 more often: .* \\(train, test\\)",
    ),
    "a sample twice": (
        lambda s: replace(s, train=np.append(s.train, s.train[0])),
        "1 more often: .* \\(train twice\\)",
    ),
    "no validation": (lambda s: replace(s, valid=s.valid[:0]), "valid: expected a sample or more, got none"),
    "no test": (lambda s: replace(s, test=s.test[:0]), "test: expected a sample or more, got none"),
    "no train": (lambda s: replace(s, train=s.train[:0]), "train: expected a sample or more, got none"),
    "one class": (
        lambda s: replace(s, train=s.train[s.train % 3 == 0]),
        "train: expected two classes or more, got only class 0",
    ),
    "beyond the samples": (
        lambda s: replace(s, test=s.test + 1),
        "test: expected positions from 0 to 149, got int64, 101 to 150",
    ),
    "a mask": (lambda s: replace(s, test=np.arange(150) >= 100), "test: expected positions from 0 to 149, got bool"),
}


@pytest.mark.parametrize("case", FAULTY_SAMPLES)
def test_samples_that_no_run_can_be_trained_on_are_refused_by_name(faulty, trainer, case):
    faulty.samples, message = FAULTY_SAMPLES[case]
    for load in (lambda: load_parts(faulty, 0.15), lambda: trainer(dataset=faulty)):
        with pytest.raises(UserError, match=message):
            load()


@pytest.mark.parametrize("case", FAULTY_PARTS)
def test_parts_that_no_run_can_be_trained_on_are_refused_by_name(faulty, trainer, case):
    faulty.parts, message = FAULTY_PARTS[case]
    for load in (lambda: load_parts(faulty, 0.15), lambda: trainer(dataset=faulty)):
        with pytest.raises(UserError, match=message):
            load()


def test_a_protocol_without_validation_needs_none(faulty):
    faulty.split = lambda samples, valid_share: Split(np.arange(100), np.arange(0), np.arange(100, 150))
    assert len(load_parts(faulty, 0.0)[1].valid) == 0
    with pytest.raises(UserError, match="valid: expected a sample or more, got none"):
        load_parts(faulty, 0.15)


def test_a_class_too_small_to_be_divided_is_named(faulty):
    faulty.samples = with_labels(lambda labels: put(1, 0)(torch.zeros_like(labels)))
    with pytest.raises(UserError, match=r"each class to hold out a share of 0\.15, got a single one of class 1\."):
        load_parts(faulty, 0.15)


def test_all_faults_are_told_at_once(faulty):
    faulty.samples = lambda samples: with_ids(with_nan(torch.nan)(with_labels(put(-1, 0))(samples)))
    with pytest.raises(UserError) as refused:
        load_parts(faulty, 0.15)
    assert [problem.where for problem in refused.value.problems] == [
        "data set faulty, video", "data set faulty, ids", "data set faulty, labels"
    ]  # fmt: skip


def test_a_plan_refuses_them_before_anything_starts(bench_here, plugin):
    source = """
        from dataclasses import replace
        from benchmark.check.synthetic import Blobs

        class Mine(Blobs):
            def load(self):
                samples = super().load()
                samples.labels[4] = -100
                return samples
    """
    done = bench_here("run", "--methods", "concat", "--datasets", plugin("mine", source), "--dry-run")
    assert done.rc == 2
    assert "-100 of blob4" in done.said


def test_a_nan_that_the_transform_makes_is_told_with_its_samples(faulty, trainer):
    def transform(inputs, draws):
        audio = inputs["audio"]
        return {**inputs, "audio": audio / (audio[:, :1] != first)}  # 0 / 0 and x / 0 in one sample

    first = faulty.load().inputs["audio"][int(faulty.split(faulty.load(), 0.15).train[2]), 0]
    name = f"blob{faulty.split(faulty.load(), 0.15).train[2]}"
    faulty.transform = transform
    with pytest.raises(NonFiniteLoss, match=f"epoch 0, step .*audio: NaN or infinity in {name}$"):
        trainer(dataset=faulty).run_epoch()


def test_absent_classes_and_constant_features_are_found(faulty):
    samples, split = load_parts(faulty, 0.15)
    assert absent_classes(faulty, samples, split) == {}
    assert constant_features(samples, split) == {}
    lacking = replace(split, valid=split.valid[split.valid % 3 != 1])
    assert absent_classes(faulty, samples, lacking) == {"valid": ["class 1"]}
    samples.inputs["audio"][split.train, 2] = 0.0
    samples.inputs["video"][split.train] = 1.0
    assert constant_features(samples, split) == {
        "audio": "1 of 6 features constant in train: 2", "video": "the same in every training sample"
    }  # fmt: skip
