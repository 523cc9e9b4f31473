"""Killed at any of its writes, a run, an evaluation, a report or a preparation ends the next time as if never killed.

A sample of the writes; `BENCH_KILLS=all` takes every one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLING = Path(__file__).parent / "killing.py"
EVERY = {"run": 17, "evaluation": 5, "report": 37, "preparation": 13}
"""Writes from one that is tried to the next."""


def kill(operation, base, every, offset):
    line = [sys.executable, "-P", str(KILLING), operation, str(base), str(every), str(offset)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=env, timeout=None)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def base_of(tmp_path, load, repo, blobs, bench):
    """Make what an operation starts from."""

    def make(operation):
        base = tmp_path / "base"
        base.mkdir()
        if operation == "preparation":
            clips = load(repo / "tests" / "inputs" / "conftest.py")
            (base / "clips.py").write_text(clips.CLIPS)
            write_clips(base / "data")
        if operation in ("evaluation", "report"):
            options = ("--epochs", 2, "--batch-size", 16, "--out", base / "runs")
            assert bench("run", "--methods", "concat", "--datasets", blobs, *options).rc == 0
        return base

    return make


def write_clips(folder):
    """Write the raw files of 24 clips."""
    import numpy as np
    import soundfile
    from PIL import Image

    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(24):
        soundfile.write(folder / f"c{number:02d}.wav", draw.uniform(-0.3, 0.3, 900), 8000)
        for frame in range(3):
            pixels = draw.integers(0, 256, (24, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"c{number:02d}_{frame}.png")
    lines = [f"c{number:02d},{number % 2},{'test' if number >= 16 else 'train'}" for number in range(24)]
    (folder / "list.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.full
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("operation", EVERY)
def test_killed_at_any_write_it_ends_as_if_it_never_was(base_of, operation, record_property):
    every = 1 if os.environ.get("BENCH_KILLS") == "all" else EVERY[operation]
    found = kill(operation, base_of(operation), every, 0)
    record_property("killed", found["killed"])
    sys.stderr.write(f"{operation}: killed at {found['killed']} writes\n")
    assert found["killed"] > 2
    assert found["wrong"] == []
