"""A model loaded from a run answers as it did when it was trained."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

import benchmark as mb
from benchmark.errors import UserError
from benchmark.seeds import seed_everything


@pytest.fixture(scope="module")
def runs(finished):
    return mb.load(finished)


@pytest.fixture(scope="module")
def model(runs):
    return mb.load_model(runs.filter(method="concat", seed=1)[0])


@pytest.fixture(scope="module")
def samples(model):
    return model.dataset.load()


def test_it_predicts_the_logits_on_record(model, samples, runs):
    answers = runs.filter(method="concat", seed=1).predictions("best_valid").query("head == 'fused'")
    rows = np.array([list(samples.ids).index(name) for name in answers["sample"]])
    logits = model.predict(samples.take(rows))["fused"]
    torch.testing.assert_close(logits, torch.from_numpy(np.stack(list(answers.logits))), rtol=0, atol=1e-6)
    assert model.classify(samples.take(rows)) == [model.class_names[k] for k in answers.predicted]


def test_each_sample_is_answered_by_itself_whatever_its_type(model, samples):
    inputs = samples.take(np.arange(6))
    whole = model.predict(inputs)["fused"]
    single = [model.predict({m: x[i : i + 1].numpy() for m, x in inputs.items()})["fused"] for i in range(6)]
    torch.testing.assert_close(torch.cat(single), whole, rtol=0, atol=1e-6)


def test_features_have_the_encoders_width_and_no_gradient(model, samples):
    features = model.encode(samples.take(np.arange(3)))
    assert {m: tuple(u.shape) for m, u in features.items()} == dict.fromkeys(model.task.modalities, (3, 8))
    assert not any(u.requires_grad for u in features.values())
    assert not model.method.training


def test_bad_inputs_are_all_told(model, samples):
    inputs = samples.take(np.arange(3))
    with pytest.raises(UserError) as caught:
        model.predict({"audoi": inputs["audio"]})
    assert len(caught.value.problems) == 3
    assert "audio" in str(caught.value.problems[2])
    with pytest.raises(UserError, match="same number of samples"):
        model.predict({**inputs, "audio": inputs["audio"][:2]})


def test_a_run_that_is_not_finished_is_refused(made_up, tmp_path):
    from benchmark.records import State

    folder = made_up("concat", state=State.FAILED)
    with pytest.raises(UserError, match="finished run"):
        mb.load_model(folder.path)


def test_loading_a_model_leaves_the_randomness_of_the_users_program_alone(runs):
    def draws():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_everything("mine")
    expected = draws()
    seed_everything("mine")
    mb.load_model(runs[0])
    assert draws() == expected
