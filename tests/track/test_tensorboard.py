"""Runs mirrored to TensorBoard, read back by TensorBoard."""

from __future__ import annotations

import pytest

from benchmark.records import scan
from benchmark.track.content import scalars_of

pytest.importorskip("tensorboard", reason="TensorBoard is an extra")


@pytest.mark.full
def test_tensorboard_reads_every_number_table_and_figure(bench, home, sweep, out, only_run):
    done = bench(*sweep[:-1], "tensorboard,wandb")
    assert done.rc == 0, done.said
    assert "TensorBoard: 1 of 1 runs mirrored" in done.said
    assert "W&B: 1 of 1 runs written offline" in done.said
    assert_read_back(out, only_run())
    assert bench(*sweep[:-1], "tensorboard", "--force").rc == 0
    assert_read_back(out, only_run())


def assert_read_back(out, run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(out / ".tensorboard" / run.folder.path.relative_to(out)), {"images": 0})
    found.Reload()
    history = [scalars_of(line) for line in run.folder.read_history()]
    assert set(found.Tags()["scalars"]) == set(history[0])
    for name in history[0]:
        read = [(event.step, event.value) for event in found.Scalars(name)]
        assert read == [(step, pytest.approx(line[name], rel=1e-6)) for step, line in enumerate(history)]
    assert found.Tags()["images"] == ["figures/confusion"]
    texts = {name: found.Tensors(name)[0].tensor_proto.string_val[0].decode() for name in found.Tags()["tensors"]}
    assert f'"fingerprint": "{run.spec["fingerprint"]}"' in texts["config"]
    assert "| best_valid |" in texts["tables/scores"]
    assert next(scan(out)).status == run.status
