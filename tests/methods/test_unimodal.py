"""Unimodal: one run for each modality, and none for others."""

from __future__ import annotations

from benchmark.methods.unimodal import Unimodal

from benchmark.check.synthetic import Blobs


def test_bare_name_stands_for_each_modality_in_turn():
    assert Unimodal.expand(Blobs(Blobs.Config(num_modalities=3)).task) == [
        {"modality": "audio"},
        {"modality": "video"},
        {"modality": "text"},
    ]


def test_it_has_the_encoder_of_its_modality_alone(make_trainer):
    method = make_trainer(Unimodal, {"modality": "video"}).method
    batch = next(method.run.train_batches(0))
    assert list(method.net.encoders) == ["video"]
    method.eval()
    logits = method.predict(batch.inputs)
    assert (logits["fused"] == logits["video"]).all()


def test_unimodal_refuses_a_modality_that_is_not_there():
    reason = Unimodal.unsupported(Unimodal.Config(modality="smell"), Blobs(Blobs.Config()).task)
    assert "smell" in reason
    assert "audio, video" in reason
