"""The copy of the code that jobs run from: named by its content, whole, and taken once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import benchmark
from benchmark.plan import snapshot
from benchmark.plan.snapshot import DIFF_FILE, VERSION_FILE, code_version, take_snapshot


@pytest.fixture
def few_files(monkeypatch, tmp_path):
    """A package of two files."""
    for name, text in (("a.py", "one = 1\n"), ("b.py", "two = 2\n")):
        (tmp_path / name).write_text(text)
    files = [(f"benchmark/{name}", tmp_path / name) for name in ("b.py", "a.py")]
    monkeypatch.setattr(snapshot, "_package_files", lambda: iter(files))
    return tmp_path


def test_a_copy_is_named_by_what_is_in_it_and_is_taken_once(few_files, tmp_path):
    first = take_snapshot(tmp_path / "copies", [])
    (first.path / "benchmark" / "a.py").write_text("somebody was here")
    assert take_snapshot(tmp_path / "copies", []) == first
    assert (first.path / "benchmark" / "a.py").read_text() == "somebody was here"
    (few_files / "a.py").write_text("one = 11\n")
    second = take_snapshot(tmp_path / "copies", [])
    assert second.path != first.path
    assert (second.path / "benchmark" / "a.py").read_text() == "one = 11\n"
    assert {path.name for path in (tmp_path / "copies").iterdir()} == {first.path.name, second.path.name}


def test_a_file_that_is_only_renamed_is_another_copy(few_files, tmp_path, monkeypatch):
    first = take_snapshot(tmp_path / "copies", [])
    monkeypatch.setattr(snapshot, "_package_files", lambda: iter([("benchmark/c.py", few_files / "a.py")]))
    assert take_snapshot(tmp_path / "copies", []).path != first.path


def test_plugin_files_are_copied_beside_the_package_each_in_a_folder_of_its_own(few_files, tmp_path):
    sources = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "mine.py").write_text(f"place = {place!r}\n")
        sources.append(str(tmp_path / place / "mine.py"))
    taken = take_snapshot(tmp_path / "copies", [*sources, sources[0]])
    assert set(taken.plugins) == set(sources)
    for source, copy in taken.plugins.items():
        assert copy.startswith(str(taken.path / "plugins"))
        assert Path(copy).read_text() == Path(source).read_text()


def test_a_copy_says_which_commit_it_is_of(few_files, tmp_path):
    taken = take_snapshot(tmp_path / "copies", [])
    assert json.loads((taken.path / VERSION_FILE).read_text()) == code_version()
    assert (taken.path / DIFF_FILE).exists()
    assert set(code_version()) == {"git", "git_changes"}


def test_outside_a_repository_the_commit_is_unknown(monkeypatch, tmp_path):
    (tmp_path / "benchmark").mkdir()
    monkeypatch.setattr(snapshot, "PACKAGE", tmp_path / "benchmark")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert code_version() == {"git": None, "git_changes": None}
    (tmp_path / VERSION_FILE).write_text('{"git": "noted"}')
    assert code_version() == {"git": "noted"}


def test_a_copy_that_cannot_be_written_leaves_nothing(few_files, tmp_path, monkeypatch):
    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(snapshot.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        take_snapshot(tmp_path / "copies", [])
    assert list((tmp_path / "copies").iterdir()) == []


@pytest.mark.full
def test_a_process_runs_from_the_copy(tmp_path):
    taken = take_snapshot(tmp_path / "copies", [])
    code = "import benchmark, benchmark.methods; print(benchmark.__file__, benchmark.methods.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env={"PYTHONPATH": str(taken.path)}, capture_output=True, text=True,
        check=True, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert all(path.startswith(str(taken.path)) for path in done.stdout.split())
    assert not benchmark.__file__.startswith(str(taken.path))
