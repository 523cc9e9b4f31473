"""What a snapshot of the code takes along, and who may read it."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from benchmark.plan import snapshot
from benchmark.plan.snapshot import take_snapshot


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Return a package with a `.env`, a checkpoint, links, secrets and an ignored folder beside its modules."""
    package = tmp_path / "repo" / "benchmark"
    files = ["core.py", "protocols/unified.yaml", "site/site.css", "new.py", ".env", "last.pt", "ignored/key.yaml",
             "secrets.json", ".cache/a.py", "__pycache__/core.py", "notes.ipynb"]  # fmt: skip
    for name in files:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(f"# {name}\n")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "id.py").write_text("secret")
    (package / "linked.py").symlink_to(tmp_path / "private" / "id.py")
    (package / "folder").symlink_to(tmp_path / "private")
    monkeypatch.setattr(snapshot, "PACKAGE", package)
    for kind in ("METHODS", "DATASETS", "REPORTS"):
        monkeypatch.setattr(snapshot, kind, type("Kind", (), {"package": "benchmark.none", "folder": package / "none"}))
    return package


def taken(path):
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()} - {"version.json", "changes.diff"}


def test_no_link_checkpoint_or_hidden_file_is_copied(tree, tmp_path):
    files = taken(take_snapshot(tmp_path / "out", []).path)
    names = ("core.py", "protocols/unified.yaml", "site/site.css", "new.py", "ignored/key.yaml", "secrets.json")
    assert files == {f"benchmark/{name}" for name in names}


def test_of_a_repository_only_what_is_tracked_and_new_modules_are_copied(tree, tmp_path):
    (tree.parent / ".gitignore").write_text("ignored/\n")
    for arguments in (["init", "-q"], ["add", "benchmark/core.py", "benchmark/protocols", "benchmark/site"]):
        subprocess.run(["git", "-C", str(tree.parent), *arguments], check=True)
    files = taken(take_snapshot(tmp_path / "out", []).path)
    names = ("core.py", "protocols/unified.yaml", "site/site.css", "new.py")
    assert files == {f"benchmark/{name}" for name in names}


def test_only_its_owner_may_read_it(tree, tmp_path):
    path = take_snapshot(tmp_path / "out", []).path
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_another_user_takes_a_snapshot_of_his_own(tree, tmp_path, monkeypatch):
    first = take_snapshot(tmp_path / "out", []).path
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    second = take_snapshot(tmp_path / "out", []).path
    assert second != first
    assert taken(second) == taken(first)


def test_the_package_as_it_is_is_copied_whole(tmp_path, repo):
    """Whatever a wheel ships is there: a file of another suffix would be missing on the nodes only."""
    files = taken(take_snapshot(tmp_path / "out", []).path)
    listed = subprocess.run(["git", "-C", str(repo), "ls-files", "benchmark", "methods", "datasets", "reports"],
                            capture_output=True, text=True, check=False).stdout.split()  # fmt: skip
    if not listed:
        pytest.skip("no repository")
    expected = {name if name.startswith("benchmark/") else f"benchmark/{name}" for name in listed}
    assert expected <= files
