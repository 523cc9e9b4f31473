"""The check of a GPU itself, tried on a CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).with_name("check.py")
NOT_FOR_TRAINING = ("av", "soundfile", "soxr", "submitit", "wandb", "plotly", "scikit_posthocs")
"""Packages that a machine that only trains may lack."""
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocker())
"""


def check(out, *options, env=None, limit=300):
    command = [sys.executable, str(CHECK), "--out", str(out), "--device", "cpu", "--quick", *options]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=limit, check=False)


def parts_of(out):
    parts = json.loads((out / "gpu.json").read_text(encoding="utf-8"))["parts"]
    return {name: {**part, "findings": {one["name"]: one for one in part["findings"]}} for name, part in parts.items()}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def blocked(tmp_path):
    """Return an environment in which Python finds none of the packages that training does without."""
    folder = tmp_path / "blocker"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKER.format(names=NOT_FOR_TRAINING), encoding="utf-8")
    return {"PYTHONPATH": str(folder)}


@pytest.mark.full
def test_the_first_parts_find_nothing_wrong_on_a_cpu(tmp_path, blocked):
    done = check(tmp_path, "--only", "methods,cpu,resumed,waits,loading", env=blocked)
    assert done.returncode == 0, done.stdout + (tmp_path / "gpu.md").read_text()
    parts = parts_of(tmp_path)
    assert {part["state"] for part in parts.values()} == {"done"}
    assert parts["methods"]["findings"]["runs done"]["value"] == "2 of 2"
    assert parts["cpu"]["findings"]["furthest"]["value"] == 0.0
    assert parts["resumed"]["findings"]["the same bits"]["ok"]
    assert parts["loading"]["findings"]["1 frame: training out of the store"]["value"] > 0
    assert "runs done | 2 of 2" in (tmp_path / "gpu.md").read_text()


@pytest.mark.full
@pytest.mark.parametrize("options", [("--on", "inline"), ("--jobs", "1")])
def test_training_needs_no_package_for_media_clusters_or_pages(bench, blocked, options):
    done = bench("run", "--methods", "concat", "--datasets", "dialpad", "--epochs", "1", *options, env=blocked)
    assert done.rc == 0, done.said
    assert done.stdout.count("blocked") == 0


def test_the_blocker_blocks(bench, blocked):
    code = "import soxr"
    environment = {**os.environ, **blocked}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, check=False)
    assert b"soxr is blocked" in done.stderr


def test_a_part_that_hangs_or_crashes_loses_no_other_and_what_it_noted_stays(tmp_path, monkeypatch):
    check = load(CHECK)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = ("hang", "crash", "fail", "find", "work")
    monkeypatch.setattr(check, "PARTS", tuple(check.Part(name, f"faults:{name}", 4.0, name) for name in names))
    assert check.check(check.parse(["--out", str(tmp_path), "--device", "cpu"])) == 1
    parts = parts_of(tmp_path)
    expected = ["timed out", "ended with code -11", "ended with code 1", "done", "done"]
    assert [part["state"] for part in parts.values()] == expected
    assert all(part["findings"]["noted"]["value"] == 1.0 for part in parts.values())
    assert "ValueError: on purpose" in parts["fail"]["said"]
    monkeypatch.setattr(check, "PARTS", check.PARTS[-1:])
    assert check.check(check.parse(["--out", str(tmp_path), "--device", "cpu"])) == 0


def test_no_part_starts_when_the_time_is_up(tmp_path, monkeypatch):
    check = load(CHECK)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(check, "PARTS", (check.Part("work", "faults:work", 4.0, "works"),))
    assert check.check(check.parse(["--out", str(tmp_path), "--device", "cpu", "--minutes", "0.01"])) == 1
    assert parts_of(tmp_path)["work"]["state"] == "no time left"


def test_limits_add_up_to_what_is_promised():
    check = load(CHECK)
    assert sum(part.seconds for part in check.PARTS) <= 1.3 * 60 * check.MINUTES  # few parts need their whole limit
