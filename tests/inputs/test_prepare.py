"""Preparation: the same bytes whatever the processes and interruptions, and nothing lost in silence."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch

from benchmark.errors import UserError
from benchmark.inputs.prepare import prepare
from benchmark.train.trainer import load_feeds


def contents(store):
    """Return {file: digest} of a store, without what names libraries and times."""
    files = [path for path in sorted(store.rglob("*")) if path.suffix in (".bin", ".parquet")]
    return {str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_number_of_processes_changes_no_byte(clips, cache):
    one = contents(prepare(clips(), 1, False).store)
    shutil.rmtree(cache)
    assert contents(prepare(clips(), 3, False).store) == one
    assert len(one) == 2 * 5 + 1  # two modalities, 40 clips in shards of 8, the index


def test_what_is_loaded_is_what_the_files_hold(clips):
    dataset = clips()
    prepare(dataset, 1, False)
    samples = dataset.load()
    assert list(samples.ids) == [clip.id for clip in dataset.clips]
    rows = np.array([31, 4, 4])
    inputs = samples.take(rows)
    for row, x, frame in zip(rows, inputs["audio"], inputs["video"], strict=True):
        arrays = dataset.decode(dataset.clips[row])
        assert np.array_equal(x, np.tile(arrays["audio"], 3)[:1000])
        assert np.array_equal(frame[0], arrays["video"][1]), "the middle one of three"
    part = samples.subset(np.array([7, 31]))
    assert torch.equal(part.take(np.array([1]))["audio"], inputs["audio"][:1])


def test_a_second_preparation_decodes_nothing_and_a_changed_file_only_its_shard(clips, raw):
    assert prepare(clips(), 1, False).num_decoded == 40
    before = clips().fingerprint()
    assert prepare(clips(), 1, False).num_decoded == 0
    shutil.copy(raw / "clip11.wav", raw / "clip03.wav")
    assert prepare(clips(), 1, False).num_decoded == 8
    assert clips().fingerprint() != before


def test_settings_that_change_the_arrays_have_a_store_of_their_own(clips):
    assert clips().store == clips(frames=1).store
    assert clips().store != clips(rate=4000).store


def test_a_set_that_is_not_prepared_says_which_command_prepares_it(clips, raw):
    with pytest.raises(UserError, match=rf"bench data prepare clips --root {raw.parent}"):
        clips().load()


def test_missing_and_damaged_clips_are_listed_with_their_reason_and_refused_unless_allowed(clips, raw):
    prepare(clips(), 1, False)
    before = clips().fingerprint()
    (raw / "clip05.wav").unlink()
    (raw / "clip06_1.png").write_bytes(b"")
    damaged = raw / "clip31.wav"
    damaged.write_bytes(damaged.read_bytes()[:300])
    done = prepare(clips(), 1, False)
    reasons = {clip["id"]: clip["reason"] for clip in done.failed}
    assert set(reasons) == {"clip05", "clip06", "clip31"}
    assert str(raw / "clip05.wav") in reasons["clip05"]
    assert [clip["class"] for clip in done.failed] == ["high", "low", "high"]
    with pytest.raises(UserError, match=r"3 missing or damaged, the first clip05.*--allow-missing"):
        clips().load()
    prepare(clips(), 1, True)
    samples = clips().load()
    assert len(samples) == 37
    assert not set(samples.ids) & set(reasons)
    assert clips().fingerprint() != before
    row = samples.ids.index("clip07")
    assert np.array_equal(samples.take(np.array([row]))["video"][0, 0], clips().decode(clips().clips[7])["video"][1])


def test_a_shard_that_was_cut_is_made_again(clips):
    store = prepare(clips(), 1, False).store
    before = contents(store)
    file = store / "00002" / "video.bin"
    file.write_bytes(file.read_bytes()[:-1])
    assert prepare(clips(), 1, False).num_decoded == 8
    assert contents(store) == before


def test_a_file_that_shrinks_under_a_reader_is_an_error_not_noise(clips):
    dataset = clips()
    store = prepare(dataset, 1, False).store
    samples = dataset.load()
    for file in store.rglob("audio.bin"):
        file.write_bytes(b"")
    with pytest.raises(OSError, match=r"audio\.bin ends early"):
        samples.take(np.arange(40))


@pytest.mark.full
def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_bytes(
    bench, start, wait_until, plugin_file, raw, cache
):
    slow = plugin_file.with_name("slow.py")
    slow.write_text(
        plugin_file.read_text().replace("frames = [read", "__import__('time').sleep(0.05)\n        frames = [read")
    )
    command = ("data", "prepare", slow, "--root", raw.parent, "--jobs", 2, "--json")
    shutil.copytree(raw, raw.parent / "slow")
    process = start(*command, env={"BENCH_CACHE": str(cache)})
    wait_until(lambda: list(cache.glob("prepared/*/0000*/index.json")), "a whole shard")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (store,) = cache.glob("prepared/*")
    assert not (store / "manifest.json").exists()
    again = bench(*command, env={"BENCH_CACHE": str(cache)})
    assert again.rc == 0, again.stderr
    assert 0 < again.json["num_decoded"] < 40
    assert not list(store.glob(".*"))
    resumed = contents(store)
    shutil.rmtree(cache)
    assert bench(*command, env={"BENCH_CACHE": str(cache)}).json["num_decoded"] == 40
    assert contents(store) == resumed


def test_readers_change_no_bit_of_an_epoch(clips):
    from benchmark.protocol import load_protocol
    from benchmark.training import Feed

    dataset = clips()
    prepare(dataset, 1, False)
    recipe = load_protocol("unified").resolve("clips", dataset.recipe, {})
    train = load_feeds(dataset, recipe, torch.device("cpu")).train
    samples = train._samples
    epochs = []
    for readers in (0, 1, 4):
        feed = Feed(dataset, samples, torch.device("cpu"), 8, readers)
        epochs.append([(batch.index, *batch.inputs.values()) for batch in feed.shuffled(3, 1)])
    for other in epochs[1:]:
        for one, two in zip(epochs[0], other, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(one, two, strict=True))


@pytest.mark.full
def test_a_run_from_the_command_line_on_prepared_clips(bench, plugin_file, raw, cache, tmp_path):
    environment = {"BENCH_CACHE": str(cache), "BENCH_DATA": str(raw.parent)}
    early = bench("run", "--methods", "concat", "--datasets", plugin_file, env=environment)
    assert early.rc == 2
    assert "bench data prepare clips" in early.said
    assert bench("data", "prepare", plugin_file, "--root", raw.parent, env=environment).rc == 0
    done = bench("run", "--methods", "concat", "--datasets", plugin_file, "--json", env=environment)
    assert done.rc == 0, done.stderr
    record = json.loads(next(tmp_path.glob("runs/**/record.json")).read_text())
    assert record["num_samples"]["test"] == 10
