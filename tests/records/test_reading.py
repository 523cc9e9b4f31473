"""What is read of runs: scores by split and head, logits by rule, folders old and new, heartbeats, glances."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark.records import (
    Embeddings,
    Predictions,
    Record,
    RecordError,
    RuleResult,
    RunFolder,
    Samples,
    Seconds,
    State,
    Status,
    read_embeddings,
    read_table,
    view,
    views,
    write_embeddings,
    write_predictions,
)
from benchmark.records import files as record_files
from benchmark.records.files import machine, old_run_paths, run_path
from benchmark.records.record import parse

RESULT = RuleResult(
    3,
    valid={"fused": {"accuracy": 0.5, "loss": 2.0}, "audio": {"accuracy": 0.25}},
    test={"fused": {"accuracy": 0.75}, "audio": {"accuracy": 0.125}},
    probe={"audio": 0.6},
)
RECORD = Record(
    "id", {"last": RESULT, "oracle_test": RuleResult(1, {}, {})}, ("audio", "video"), ("a", "b"), Samples(5, 4, 3), 17,
    flops=2.5, seconds=Seconds(1.0, 2.0, 4.0), memory={"process": 99}, files={"f": 1},
)  # fmt: skip


# --- the record ----------------------------------------------------------------------------------------------------


def test_a_score_is_that_of_its_rule_head_metric_and_split():
    assert RECORD.score("last") == 0.75
    assert RECORD.score("last", split="valid") == 0.5
    assert RECORD.score("last", "audio") == 0.125
    assert RECORD.score("last", "audio", split="valid") == 0.25
    assert RECORD.score("last", metric="loss", split="valid") == 2.0
    assert RECORD.score("last", metric="loss") is None
    assert RECORD.score("last", "text") is None
    assert RECORD.score("best_valid") is None


def test_a_probe_is_that_of_its_rule_and_modality():
    assert RECORD.probe("last", "audio") == 0.6
    assert RECORD.probe("last", "video") is None
    assert RECORD.probe("oracle_test", "audio") is None
    assert RECORD.probe("best_valid", "audio") is None


def test_a_record_is_what_it_was_when_it_is_parsed_from_what_is_written():
    plain = RECORD.plain()
    assert parse(plain) == RECORD
    assert "probe" not in plain["rules"]["oracle_test"]
    bare = parse({"files": {}, "rules": {}})
    assert bare == Record("", {})
    assert bare.num_samples == Samples(0, 0, 0)
    assert bare.seconds == Seconds(0.0, 0.0, 0.0)
    assert (bare.num_parameters, bare.flops) == (0, None)
    assert RECORD.summary() == {
        "num_samples": {"train": 5, "valid": 4, "test": 3}, "num_parameters": 17, "flops": 2.5,
        "seconds": {"train": 1.0, "evaluate": 2.0, "total": 4.0}, **plain["rules"],
    }  # fmt: skip


@pytest.mark.parametrize("bad", [True, "1", None, [1]])
@pytest.mark.parametrize("key", ["num_parameters", "files", "memory"])
def test_a_number_that_is_none_is_damage(bad, key):
    with pytest.raises(RecordError, match="truncated or damaged"):
        parse({**RECORD.plain(), key: bad if key == "num_parameters" else {"x": bad}})


@pytest.mark.parametrize("missing", ["files", "rules"])
def test_a_record_without_files_or_rules_is_cut(missing):
    with pytest.raises(RecordError, match="no files or rules"):
        parse({key: value for key, value in RECORD.plain().items() if key != missing})


# --- the status ----------------------------------------------------------------------------------------------------


def test_time_left_is_the_pace_times_the_epochs_left():
    status = Status(epoch=3, epochs=10, first_epoch=1, started=100.0, updated=150.0)
    assert (status.pace, status.eta) == (25.0, 175.0)
    assert replace(status, first_epoch=3).pace is None
    assert replace(status, first_epoch=3).eta is None


def test_a_run_is_given_up_after_more_attempts_without_progress_than_allowed():
    assert [Status(stalled=number).gave_up(2) for number in range(5)] == [False, False, False, True, True]


def test_a_heartbeat_of_another_machine_is_fresh_for_six_beats(tmp_path):
    folder, now = RunFolder(tmp_path), time.time()
    status = Status(State.RUNNING, host="elsewhere", heartbeat=100.0, updated=now - 590)
    assert folder.is_beating(status)
    assert not folder.is_beating(replace(status, updated=now - 610))
    assert not folder.is_beating(replace(status, host=machine()))
    assert not folder.is_beating(replace(status, state=State.INTERRUPTED))
    folder.beat()
    assert folder.is_beating(replace(status, updated=now - 610)), "the file counts, not the status"
    os.utime(tmp_path / ".heartbeat", (now - 610, now - 610))
    assert not folder.is_beating(status)
    assert not folder.is_alive(status)


def test_a_machine_is_called_what_the_scheduler_calls_it(monkeypatch):
    monkeypatch.setattr(record_files.socket, "gethostname", lambda: "own")
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    assert machine() == "node7"
    monkeypatch.delenv("SLURMD_NODENAME")
    assert machine() == "own"


# --- folders -------------------------------------------------------------------------------------------------------


def test_a_run_has_a_shard_of_two_digits_unless_it_is_from_before_there_were_shards(tmp_path):
    new = run_path(tmp_path, "data", "method", 3, "abcdef")
    assert new == tmp_path / "data" / "method" / "ab" / "s3-abcdef"
    old = tmp_path / "data" / "method" / "s3-abcdef"
    old.mkdir(parents=True)
    assert run_path(tmp_path, "data", "method", 3, "abcdef") == old
    assert run_path(tmp_path, "data", "method", 4, "abcdef").parent.name == "ab"


def test_runs_from_before_versions_are_those_of_the_seed_with_ten_digits(tmp_path):
    ten, twelve = "0123456789", "0123456789ab"
    for name in (f"s1-{ten}", f"01/s1-{twelve}", f"01/s1-{ten}", f"01/s11-{ten}", f"longer/s1-{ten}"):
        (tmp_path / name).mkdir(parents=True)
    assert old_run_paths(tmp_path, 1) == [tmp_path / "01" / f"s1-{ten}", tmp_path / f"s1-{ten}"]


def test_runs_are_found_with_and_without_shards_and_only_where_there_is_a_spec(made_up, tmp_path):
    made = made_up()
    old, parent = tmp_path / "runs" / "blobs" / "concat" / "s9-old", made.path.parent
    old.mkdir()
    (old / "spec.yaml").write_text("")
    sharded = parent / "ab" / "s8-new"
    for path in (sharded, parent / "ab" / "other-1", parent / "ab" / "s1", parent / ".cache" / "s7-hidden"):
        path.mkdir(parents=True)
        (path / "spec.yaml").write_text("")
    (parent / "s6-empty").mkdir()
    (parent / "s5-file").write_text("")
    assert [one.folder.path for one in views.scan(tmp_path / "runs")] == sorted([made.path, old, sharded])


def test_bytes_are_those_of_the_files_that_are_there(tmp_path):
    (tmp_path / "one").write_bytes(b"123")
    assert RunFolder(tmp_path).size_of("one", "two") == {"one": 3, "two": 0}


def test_a_request_to_cancel_holds_until_it_is_taken_back(tmp_path):
    folder = RunFolder(tmp_path / "new" / "run")
    folder.ask_to_cancel()
    folder.ask_to_cancel()
    assert folder.is_to_be_cancelled()
    folder.allow()
    folder.allow()
    assert not folder.is_to_be_cancelled()


@pytest.mark.parametrize(
    ("content", "threads"), [('{"threads": 4}', 4), ('{"threads": "4"}', None), ("{}", None), ("{", None)]
)
def test_threads_are_known_where_they_are_on_record(tmp_path, content, threads):
    assert RunFolder(tmp_path).read_threads() is None
    (tmp_path / "env.json").write_text(content)
    assert RunFolder(tmp_path).read_threads() == threads


def test_a_damaged_line_of_the_history_ends_it(made_up):
    folder = made_up()
    with (folder.path / "history.jsonl").open("ab") as stream:
        stream.write(b'{"epoch"\n{"epoch": 3}\n')
    assert [line["epoch"] for line in folder.read_history()] == [0, 1]


@pytest.mark.parametrize("line", [b"\n", b"1,2\n"])
def test_a_line_of_the_history_that_is_not_one_value_ends_it(made_up, line):
    folder = made_up()
    with (folder.path / "history.jsonl").open("ab") as stream:
        stream.write(line + b'{"epoch": 3}\n')
    assert [one["epoch"] for one in folder.read_history()] == [0, 1]


@pytest.mark.parametrize("key", ["method", "dataset", "fingerprint", "split", "protocol", "recipe", "seed", "torch"])
def test_a_spec_without_one_of_its_fields_is_cut(made_up, key):
    folder = made_up()
    spec = folder.read_spec()
    folder.write("spec.yaml", {name: value for name, value in spec.items() if name != key})
    with pytest.raises(RecordError, match=rf"no {key}\)"):
        folder.read_spec()


def test_a_spec_needs_the_version_of_the_core_or_the_digest_that_was_before_it(made_up):
    folder = made_up()
    spec = folder.read_spec()
    without = {name: value for name, value in spec.items() if name != "numerics"}
    folder.write("spec.yaml", without)
    with pytest.raises(RecordError, match=r"no numerics\)"):
        folder.read_spec()
    folder.write("spec.yaml", {**without, "core": "digest"})
    assert folder.read_spec()["seed"] == spec["seed"]


# --- glances -------------------------------------------------------------------------------------------------------


def test_a_glance_reads_the_status_alone_while_the_files_have_their_sizes(made_up):
    folder = made_up()
    described = replace(
        folder.read_status(), dataset="blobs", method="concat", seed=4, sizes=folder.size_of("spec.yaml", "record.json")
    )
    folder.write_status(described)
    found = views.glance(folder)
    assert (found.spec, found.record, found.problem) == ({}, None, "")
    assert (found.dataset, found.method, found.seed, found.title) == ("blobs", "concat", 4, "blobs concat s4")
    (folder.path / "record.json").write_text("{}")
    assert "record.json" in views.glance(folder).problem
    folder.write_status(replace(described, sizes={}))
    assert views.glance(folder).spec, "sizes were not noted, so everything is read"
    (folder.path / "status.json").write_text("{")
    assert "status.json" in views.glance(folder).problem


def test_a_run_that_says_it_runs_and_does_not_is_interrupted_with_its_cause(made_up):
    folder = made_up(state=State.RUNNING)
    status = replace(folder.read_status(), host=machine())
    seen = views.as_seen(folder, status)
    assert (seen.state, seen.cause) == (State.INTERRUPTED, f"its process on {machine()} is gone")
    assert views.as_seen(folder, replace(status, cause="known")).cause == "known"
    for state in set(State) - {State.RUNNING}:
        assert views.as_seen(folder, replace(status, state=state)).state is state
    with folder.lock():
        assert views.as_seen(folder, status) is status


def test_what_a_view_says_of_a_finished_run(made_up):
    found = view(made_up("concat", 2, accuracy=0.5, oracle=0.75))
    assert (found.method, found.dataset, found.seed, found.selection) == ("concat", "blobs", 2, "best_valid")
    assert (found.score("best_valid"), found.score("oracle_test"), found.score("none")) == (0.5, 0.75, None)
    assert found.probe("audio") == 0.5
    assert [epoch.epoch for epoch in found.history()] == [0, 1]
    last = found.history()[1]
    assert last.score("valid", "audio", "loss") == last.measured("valid", "audio", "loss") == 1.0
    assert [last.measured(*names) for names in (("valid", "text", "loss"), ("held out", "audio", "loss"))] == [
        None,
        None,
    ]
    assert last.scores("held out") == {}
    unknown = views.RunView(found.folder)
    assert (unknown.title, unknown.score("last"), unknown.probe("audio")) == (found.folder.path.name, None, None)


# --- arrays --------------------------------------------------------------------------------------------------------


def test_logits_of_each_rule_are_read_as_they_were_written(tmp_path):
    path, labels, ids = tmp_path / "predictions.parquet", np.array([0, 1]), ["x", "y"]
    first = {"fused": np.arange(6, dtype=np.float32).reshape(2, 3), "audio": np.zeros((2, 3), np.float32)}
    second = {head: values + 10 for head, values in first.items()}
    write_predictions(path, [Predictions("last", ids, labels, first), Predictions("best", ids[::-1], labels, second)])
    table = read_table(path)
    assert table.rules == ["last", "best"]
    for rule, expected, names in (("last", first, ids), ("best", second, ids[::-1])):
        found = table.of(rule)
        assert (list(found.ids), found.labels.tolist(), list(found.logits)) == (names, [0, 1], ["fused", "audio"])
        for head, values in expected.items():
            assert (found.logits[head] == values).all()
    assert list(table.of("none").ids) == []
    one = view(RunFolder(tmp_path))
    assert (one.logits("last")["fused"] == first["fused"]).all()
    with pytest.raises(ValueError, match="expected logits of rule none, got none"):
        one.predictions("none")


def test_predictions_that_are_no_table_of_logits_are_refused(tmp_path):
    path = tmp_path / "predictions.parquet"
    with pytest.raises(OSError, match="predictions"):
        read_table(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"\w"):
        read_table(path)
    pq.write_table(pa.table({"rule": ["last"], "id": ["x"], "label": [0], "fused": [[1.0, 2.0]]}), path)
    with pytest.raises(ValueError, match="expected lists of one length, got list"):
        read_table(path)


def test_embeddings_are_read_as_they_were_written(tmp_path):
    path, audio = tmp_path / "embeddings.npz", np.arange(4, dtype=np.float32).reshape(2, 2)
    write_embeddings(path, Embeddings(["x", "y"], np.array([1, 0]), {"audio": audio}))
    found = read_embeddings(path)
    assert (found.ids, found.labels.tolist(), list(found.features)) == (["x", "y"], [1, 0], ["audio"])
    assert (found.features["audio"] == audio).all()
    assert view(RunFolder(tmp_path)).embeddings().ids == ["x", "y"]


@pytest.mark.parametrize("missing", ["ids", "labels"])
def test_embeddings_without_ids_or_labels_are_refused(tmp_path, missing):
    arrays = {"ids": np.array(["x"]), "labels": np.array([0]), "audio": np.zeros((1, 2))}
    np.savez(tmp_path / "embeddings.npz", **{name: values for name, values in arrays.items() if name != missing})
    with pytest.raises(ValueError, match=f"expected an array {missing}, got none"):
        read_embeddings(tmp_path / "embeddings.npz")


def test_a_status_is_written_whole(tmp_path):
    status = Status(State.DONE, ends=("a", "b"), sizes={"spec.yaml": 3}, job="1_2", gpu="0", stalled=1)
    RunFolder(tmp_path).write_status(status)
    found = RunFolder(tmp_path).read_status()
    assert asdict(found) == asdict(status)
    assert isinstance(found.ends, tuple)


def test_a_run_that_never_started_has_counted_nothing():
    fresh = asdict(Status())
    assert (fresh.pop("state"), fresh.pop("heartbeat")) == (State.PLANNED, 10.0)
    assert not any(fresh.values())
