"""Nothing typed or on disk makes a parser or a reader raise anything but its own errors, or take all memory.

Each test draws inputs within bounds, the same ones every time. `BENCH_FUZZ=N` draws N times as many.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.bounded import MAX_NODES, parse_json, parse_yaml
from benchmark.errors import UserError
from benchmark.plan.experiment import read_experiment
from benchmark.plan.typed import MAX_GRID, MAX_SEEDS, parse_assignments, parse_bracketed, parse_seeds
from benchmark.protocol import Recipe, load_protocol
from benchmark.records import RunFolder, glance, read_embeddings, read_table, view
from benchmark.settings import parse_settings, parse_value

TIMES = int(os.environ.get("BENCH_FUZZ", "1"))
INPUTS = 40 * TIMES
"""Inputs that each test draws."""
QUIET = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
bounded = settings(max_examples=INPUTS, **QUIET)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip
marks = st.text("0123456789-,.=[]{}:&*!#'\"\\ \n\taeinfNT_", max_size=60)
typed = marks | st.text(max_size=40)


def tells(call, *arguments):
    """Return what a parser returns, or None where it says in its own words what is wrong."""
    try:
        return call(*arguments)
    except UserError as error:
        assert all(problem.where and problem.expected and problem.got for problem in error.problems)  # noqa: PT017  others are raised
        return None


@bounded
@given(typed)
def test_seeds(text):
    seeds = tells(parse_seeds, text)
    assert seeds is None or 0 < len(seeds) <= MAX_SEEDS


@bounded
@given(typed)
def test_names_with_settings(text):
    found = tells(parse_bracketed, text)
    assert found is None or 0 <= len(found[1]) <= MAX_GRID


@bounded
@given(st.lists(typed | st.builds("ogm.{}={}".format, typed, typed), max_size=3))
def test_assignments(texts):
    found = tells(parse_assignments, texts)
    assert found is None or isinstance(found, dict)


@bounded
@given(typed)
def test_values(text):
    tells(parse_value, text)


@bounded
@given(st.dictionaries(st.sampled_from(list(Recipe.model_fields)) | st.text(max_size=8), values, max_size=5))
def test_settings(content):
    found = tells(parse_settings, Recipe, content, "a recipe")
    assert found is None or isinstance(found, Recipe)


@bounded
@given(marks | values.map(lambda value: yaml.safe_dump(value, allow_unicode=True)) | st.text(max_size=60))
def test_yaml(text):
    with suppress(ValueError):
        parse_yaml(text)


@bounded
@given(typed | values.map(json.dumps))
def test_json(text):
    with suppress(ValueError):
        parse_json(text)


@bounded
@given(st.binary(max_size=80) | marks.map(str.encode))
def test_experiments_and_protocols(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(content)
    tells(read_experiment, path)
    tells(load_protocol, str(path))


# --- what was found to take all memory, or to end in a traceback ---------------------------------------------------

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS, "methods: &a [*a]", "seeds: 2001-13-45", "epochs: !!float x", f"epochs: {'1' * 5000}", "[" * 900,
        "{a: " * 900, "a: !!python/object/apply:os.system [true]", "? {a: b}\n: c", "!!binary a", "a: 1\na: 2",
        "!!timestamp x", "a: *nowhere", f"epochs: 0x{'f' * 5000}", "\0", "- " * 2000 + "x",
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_yaml_that_is_no_experiment_is_refused_in_a_line(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        read_experiment(tmp_path / "x.yaml")
    assert len(str(caught.value)) < 1500


def test_aliases_that_repeat_little_are_allowed():
    text = "a: &a [1, 2]\nb: *a\n"
    assert parse_yaml(text) == {"a": [1, 2], "b": [1, 2]}
    with pytest.raises(ValueError, match=str(MAX_NODES)):
        parse_yaml(LAUGHS)


def test_a_pipe_or_a_large_file_is_no_experiment(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with (tmp_path / "large.yaml").open("wb") as stream:
        stream.truncate(10**12)
    for name, words in (("pipe.yaml", "regular file"), ("large.yaml", "at most")):
        with pytest.raises(UserError, match=words):
            read_experiment(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["0-99999999999", "0-100000", f"0,{2**63}", "1" * 5000, ",".join(["0-99999"] * 2), "0-" + "9" * 5000]
)
def test_seeds_are_refused_with_their_bound(text):
    with pytest.raises(UserError, match="--seeds: expected"):
        parse_seeds(text)
    assert len(parse_seeds("0-99999")) == MAX_SEEDS


def test_grids_and_sweeps_are_refused_with_their_bound(bench_here, blobs):
    entries = ",".join(f"k{n}={','.join(map(str, range(10)))}" for n in range(9))
    with pytest.raises(UserError, match=f"at most {MAX_GRID}"):
        parse_bracketed(f"ogm[{entries}]")
    done = bench_here("run", "--methods", "concat,late_sum", "--datasets", blobs, "--seeds", "0-99999", "--dry-run")
    assert done.rc == 2
    assert "at most 100000 runs, got 200000" in done.said


@pytest.mark.parametrize("value", ["[" * 5000, "{" * 5000, "1" * 5000, "[" * 100 + "]" * 100, "9" * 400, "x" * 20_000])
def test_values_of_any_size_are_refused_and_raise_nothing_else(bench_here, blobs, value):
    done = bench_here("run", "--methods", "ogm", "--datasets", blobs, "--set", f"ogm.alpha={value}", "--dry-run")
    assert done.rc == 2
    assert "Traceback" not in done.said


# --- readers of runs -----------------------------------------------------------------------------------------------


@st.composite
def damage(draw):
    """Return a function that damages bytes: flips, cuts, repeats, or puts something else in their place."""
    kind = draw(st.sampled_from(["flip", "cut", "repeat", "insert", "replace"]))
    where, other = draw(st.floats(0, 1)), draw(st.binary(max_size=12) | marks.map(str.encode))

    def apply(content):
        at = min(int(where * len(content)), len(content) - 1)
        return {
            "flip": content[:at] + bytes([content[at] ^ (1 << len(other) % 8)]) + content[at + 1 :],
            "cut": content[:at],
            "repeat": content[:at] + content[at:] * 2,
            "insert": content[:at] + other + content[at:],
            "replace": other,
        }[kind]

    return apply


FILES = ("spec.yaml", "status.json", "record.json", "history.jsonl", "env.json")


@pytest.mark.parametrize("name", FILES)
def test_readers_of_runs(made_up, name):
    folder = made_up()
    folder.write("env.json", {"threads": 1})
    sound = (folder.path / name).read_bytes()

    @bounded
    @given(damage())
    def read(change):
        (folder.path / name).write_bytes(change(sound))
        found = view(folder)
        assert found.title
        assert isinstance(found.seed, int)
        assert not found.spec or found.selection
        _ = glance(folder), folder.is_done(), folder.read_threads(), found.history()

    read()


@pytest.mark.parametrize("name", FILES[:2])
def test_readers_of_other_values(made_up, name):
    """Sound files of the right form whose values are anything."""
    folder = made_up()
    load, dump = (yaml.safe_load, yaml.safe_dump) if name.endswith("yaml") else (json.loads, json.dumps)
    sound = load((folder.path / name).read_text())

    @bounded
    @given(st.sampled_from(sorted(sound)), values)
    def read(key, value):
        (folder.path / name).write_text(dump({**sound, key: value}))
        found = view(folder)
        assert found.title
        assert isinstance(found.seed, int)
        _ = glance(folder), folder.is_done(), found.method, found.dataset, found.status.eta

    read()


def parquet():
    buffer = BytesIO()
    logits = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6.0, dtype=np.float32)), 2)
    pq.write_table(pa.table({"rule": ["last"] * 3, "id": list("abc"), "label": [0, 1, 0], "fused": logits}), buffer)
    return buffer.getvalue()


def npz():
    buffer = BytesIO()
    np.savez(buffer, ids=np.array(["a", "b"]), labels=np.arange(2), audio=np.ones((2, 3), np.float32))
    return buffer.getvalue()


@pytest.mark.parametrize(("read", "sound"), [(read_table, parquet()), (read_embeddings, npz())])
def test_readers_of_arrays(tmp_path, read, sound):
    path = tmp_path / "x"

    @bounded
    @given(damage())
    def attempt(change):
        path.write_bytes(change(sound))
        with suppress(OSError, ValueError):
            found = read(path)
            assert len(found.labels)

    path.write_bytes(sound)
    assert len(read(path).labels)
    attempt()


def test_a_run_that_is_any_bytes_is_damaged(tmp_path):
    folder = RunFolder(tmp_path / "s0-0")
    folder.path.mkdir()

    @bounded
    @given(st.sampled_from(FILES), st.binary(max_size=200))
    def read(name, content):
        (folder.path / name).write_bytes(content)
        assert view(folder).problem

    read()
