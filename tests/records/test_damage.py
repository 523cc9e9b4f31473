"""One damaged run stops nothing: whatever its files hold, each command says so and goes on with the others."""

from __future__ import annotations

import json
import os
import random
import time
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from benchmark.records import RunFolder, State, Status, arrays, glance, machine, read_embeddings, read_table, scan, view
from benchmark.records.files import AHEAD

DEEP = "[" * 100_000


def bomb():
    """Return YAML of a few hundred bytes that holds ten billion words."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join(lines)


def changed(folder, name, **changes):
    path = folder.path / name
    load, dump = (yaml.safe_load, yaml.safe_dump) if name.endswith("yaml") else (json.loads, json.dumps)
    content = load(path.read_text())
    for key, value in changes.items():
        *parents, leaf = key.split("__")
        inner = content
        for parent in parents:
            inner = inner[parent]
        inner[leaf] = value
    path.write_text(dump(content))


def written(name, text):
    return lambda folder: (folder.path / name).write_text(text)


def pipe(name):
    def make(folder):
        (folder.path / name).unlink(missing_ok=True)
        os.mkfifo(folder.path / name)

    return make


def a_folder(name):
    def make(folder):
        (folder.path / name).unlink()
        (folder.path / name).mkdir()

    return make


def with_values(name, **changes):
    return lambda folder: changed(folder, name, **changes)


DAMAGE = {
    "spec is a pipe": pipe("spec.yaml"),
    "spec nests deeply": written("spec.yaml", DEEP),
    "spec is a bomb": written("spec.yaml", bomb()),
    "spec contains itself": written("spec.yaml", "a: &a [*a]"),
    "spec has no such date": written("spec.yaml", "seed: 2001-13-45"),
    "spec with a number as method": with_values("spec.yaml", method=3),
    "spec with a list as label": with_values("spec.yaml", method__label=["a"]),
    "spec with a word as seed": with_values("spec.yaml", seed="zero"),
    "spec with a word as version": with_values("spec.yaml", method__version="new"),
    "spec with a word as recipe": with_values("spec.yaml", recipe="fast"),
    "status is a folder": a_folder("status.json"),
    "status is a pipe": pipe("status.json"),
    "status nests deeply": written("status.json", DEEP),
    "status with a word as epoch": with_values("status.json", epoch="three"),
    "status with a list as cause": with_values("status.json", cause=[1]),
    "status with a number as method": with_values("status.json", method=7),
    "status with a list as sizes": with_values("status.json", sizes=[1]),
    "status with a huge number": written("status.json", '{"state": "done", "epoch": 1' + "0" * 5000 + "}"),
    "record is a folder": a_folder("record.json"),
    "record is a pipe": pipe("record.json"),
    "record nests deeply": written("record.json", DEEP),
    "record with a word as seconds": with_values("record.json", seconds__total="long"),
    "record with a list as rules": with_values("record.json", rules=[1]),
    "record with a file of no name": with_values("record.json", files={"\0": 5}),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_whatever_one_run_holds_status_and_report_show_the_others(made_up, bench_here, tmp_path, case):
    damaged, sound = made_up(seed=0), made_up(seed=1)
    DAMAGE[case](damaged)
    views = {found.folder.path: found for found in scan(tmp_path / "runs")}
    assert views[damaged.path].problem
    assert "\n" not in views[damaged.path].problem
    assert views[sound.path].record
    assert not damaged.is_done()
    _ = views[damaged.path].title, damaged.last_status(), damaged.read_history(), glance(damaged)
    done = bench_here("status", "--json", "--out", "runs")
    rows = {row["folder"]: row for row in done.json}
    assert rows[f"runs/{sound.path.relative_to(tmp_path / 'runs')}"]["state"] == "done"
    if not case.startswith("spec"):  # the status has its own words, and is what a glance reads
        assert rows[f"runs/{damaged.path.relative_to(tmp_path / 'runs')}"]["state"] == "damaged"
        assert done.rc == 3


def test_reports_evaluation_and_pages_go_on_beside_every_kind_of_damage(made_up, bench_here, tmp_path):
    sound = made_up(seed=999)
    for seed, damage in enumerate(DAMAGE.values()):
        damage(made_up(seed=seed))
    done = bench_here("report", "comparison", "--out", "runs", "--to", "report", "--html")
    assert done.rc == 0, done.said
    assert done.said.count("warning: skipped") == len(DAMAGE)
    assert sound.path.name not in done.said
    done = bench_here("evaluate", "--out", "runs", "--json")
    assert done.rc == 3
    assert len(done.json) == len(DAMAGE) + 1
    assert all(row["cause"] for row in done.json)


@pytest.mark.parametrize("name", ["spec.yaml", "status.json", "record.json", "history.jsonl"])
def test_no_flipped_bit_of_a_run_raises(made_up, name):
    folder = made_up()
    sound = (folder.path / name).read_bytes()
    draw = random.Random(name)
    for _ in range(150):
        content = bytearray(sound)
        bit = draw.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        (folder.path / name).write_bytes(bytes(content))
        found = view(folder)
        _ = found.title, found.method, found.dataset, found.seed, found.problem, glance(folder), folder.is_done()
        if found.spec:
            assert found.selection


@pytest.mark.parametrize("what", ["label", "seed", "recipe"])
def test_a_finished_run_whose_spec_says_something_else_is_not_done(made_up, what):
    folder = made_up()
    folder.write_record(folder.read_record())
    assert folder.is_done()
    changed(folder, "spec.yaml", method__source="/moved/mine.py")
    assert folder.is_done()
    changes = {"label": {"method__label": "better"}, "seed": {"seed": 7}, "recipe": {"recipe__epochs": 99}}
    changed(folder, "spec.yaml", **changes[what])
    assert not folder.is_done()
    assert "not what the run was trained with" in view(folder).problem


def test_a_heartbeat_from_the_future_is_not_awaited_for_ever(tmp_path):
    folder = RunFolder(tmp_path)
    folder.beat()
    status = Status(State.RUNNING, host=f"not-{machine()}", heartbeat=10.0)
    assert folder.is_beating(status)
    now = time.time()
    os.utime(tmp_path / ".heartbeat", (now, now + 0.5 * AHEAD))
    assert folder.is_beating(status)
    os.utime(tmp_path / ".heartbeat", (now, now + 3 * AHEAD))
    assert not folder.is_beating(status)
    (tmp_path / ".heartbeat").unlink()
    assert not folder.is_beating(replace(status, updated=now + 3 * AHEAD))


# --- tables and arrays ---------------------------------------------------------------------------------------------


@pytest.fixture
def table():
    logits = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6.0, dtype=np.float32)), 2)
    return {"rule": ["last"] * 3, "id": list("abc"), "label": [0, 1, 0], "fused": logits}


@pytest.mark.parametrize(
    "changes",
    [{"label": [0, None, 1]}, {"label": [0.5, 1.0, 0.0]}, {"id": ["a", None, "c"]}, {"fused": [[0.0, 1.0]] * 3}],
)
def test_predictions_with_holes_or_of_other_kinds_are_damaged(tmp_path, table, changes):
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    assert len(read_table(tmp_path / "x.parquet").labels) == 3
    pq.write_table(pa.table({**table, **changes}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="expected"):
        read_table(tmp_path / "x.parquet")


def test_predictions_without_rows_or_in_a_pipe_are_damaged(tmp_path, table):
    pq.write_table(pa.table(table).slice(0, 0), tmp_path / "x.parquet")
    os.mkfifo(tmp_path / "pipe")
    for read, name in ((read_table, "x.parquet"), (read_table, "pipe"), (read_embeddings, "pipe")):
        with pytest.raises(ValueError, match=r"\w"):
            read(tmp_path / name)


def test_embeddings_of_other_shapes_are_damaged(tmp_path):
    sound = {"ids": np.array(["a", "b"]), "labels": np.arange(2), "audio": np.ones((2, 3), np.float32)}
    np.savez(tmp_path / "x.npz", **sound)
    assert read_embeddings(tmp_path / "x.npz").features["audio"].shape == (2, 3)
    for change in ({"labels": np.arange(3)}, {"audio": np.ones(2)}, {"ids": np.array("a")}):
        np.savez(tmp_path / "x.npz", **{**sound, **change})
        with pytest.raises(ValueError, match="expected"):
            read_embeddings(tmp_path / "x.npz")


def lists(rows, width):
    return pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(rows * width, np.float32)), width)


BOMBS = {
    "a text of 1 MB, ten thousand times": lambda: {
        "id": pa.DictionaryArray.from_arrays(pa.array([0] * 10_000), ["x" * 2**20]),
        "rule": ["last"] * 10_000, "label": [0] * 10_000, "fused": lists(10_000, 2),
    },
    "many rows": lambda: {
        "id": ["a"] * 10**6, "rule": ["last"] * 10**6, "label": [0] * 10**6, "fused": lists(10**6, 2),
    },
    "many classes": lambda: {"id": ["a"], "rule": ["last"], "label": [0], "fused": lists(1, 10**7)},
    "texts as logits": lambda: {
        "id": ["a"], "rule": ["last"], "label": [0], "fused": pa.FixedSizeListArray.from_arrays(["x" * 2**20] * 99, 99)
    },
}  # fmt: skip


@pytest.mark.parametrize("case", BOMBS)
def test_predictions_that_are_huge_when_read_are_damaged(tmp_path, monkeypatch, case):
    pq.write_table(pa.table(BOMBS[case]()), tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < 2 * 2**20
    monkeypatch.setattr(arrays, "MOST", 16 * 2**20, raising=False)
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)  # it counts what is taken from now on
    pa.set_memory_pool(pool)
    try:
        with pytest.raises(ValueError, match="expected"):
            read_table(tmp_path / "x.parquet")
    finally:
        pa.set_memory_pool(usual)
    assert pool.max_memory() < 8 * 2**20


def zeros(path, shape, stored, kind="<f4"):
    """Write an npz whose one array says it has a shape, and holds that many bytes, all zero."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("audio.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
        stream.write(bytes(stored))


@pytest.mark.parametrize(
    ("shape", "stored", "kind"),
    [((2**24,), 2**26, "<f4"), ((10**12,), 64, "<f4"), ((10**12,), 64, "<U0"), ((10**6, 10**12), 0, "<f8")],
)
def test_embeddings_that_are_huge_when_read_are_damaged(tmp_path, monkeypatch, shape, stored, kind):
    zeros(tmp_path / "x.npz", shape, stored, kind)
    assert (tmp_path / "x.npz").stat().st_size < 2**17
    monkeypatch.setattr(arrays, "MOST", 2**25, raising=False)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"expected (at most|<?[fUS\w]+ of shape)"):
            read_embeddings(tmp_path / "x.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


# --- folders -------------------------------------------------------------------------------------------------------


def test_links_to_folders_above_and_in_circles_are_told_and_not_followed(made_up, tmp_path):
    sound = made_up()
    out = tmp_path / "runs"
    (out / "everything").symlink_to("/")
    (out / "blobs" / "self").symlink_to(out)
    (out / "blobs" / "circle").symlink_to("circle")
    found = {run.folder.path: run for run in scan(out)}
    assert found[sound.path].record
    assert {path for path in found if path != sound.path} == {out / "everything", out / "blobs" / "self"}
    assert all("link to a folder above" in run.problem for path, run in found.items() if path != sound.path)
    elsewhere = tmp_path / "elsewhere"
    sound.path.parents[1].rename(elsewhere)
    (out / "blobs").symlink_to(elsewhere)  # what somebody has moved to a larger disk
    assert [run.folder.path for run in scan(out) if run.record] == [sound.path]


def test_a_folder_that_may_not_be_read_is_told_and_hides_nothing(made_up, tmp_path, monkeypatch):
    shut, sound = made_up("ogm"), made_up("concat")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "ogm" not in str(path) and real(path, mode))  # root may do all
    found = {run.folder.path: run for run in scan(tmp_path / "runs")}
    assert found[sound.path].record
    assert found[shut.path.parent].problem == "cannot be read (permission denied)"
