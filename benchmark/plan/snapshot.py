"""The code of a run: which version it is, and a copy that edits after submission cannot change. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.records import to_json
from benchmark.registry import DATASETS, METHODS, REPORTS

PACKAGE = Path(__file__).parents[1]
VERSION_FILE = "version.json"
DIFF_FILE = "changes.diff"


def code_version() -> dict[str, Any]:
    """Return the commit that this code is from, and which files differ from it; None where git does not know."""
    noted = PACKAGE.parent / VERSION_FILE
    if noted.exists():
        version: dict[str, Any] = json.loads(noted.read_text(encoding="utf-8"))
        return version
    return {"git": _git("rev-parse", "HEAD"), "git_changes": _git("status", "--porcelain")}


@dataclass(frozen=True)
class Snapshot:
    """A copy of the package and of plugin files, named by a digest of their content."""

    path: Path
    plugins: Mapping[str, str]
    """Where the copy of each plugin file is, by the path of the original."""


def take_snapshot(folder: Path, plugin_files: Iterable[str]) -> Snapshot:
    """Copy the code of the suite and of plugin files into `folder/<digest>`, unless that copy exists.

    The copy has the layout of an installed package, so a process whose PYTHONPATH starts with it runs from it. Beside
    the code it keeps the commit and, as a diff, what differs from it.
    """
    files = dict(sorted(_package_files()))
    plugins = {}
    for source in sorted(set(plugin_files)):
        name = f"plugins/{hashlib.sha256(source.encode()).hexdigest()[:8]}/{Path(source).name}"
        files[name], plugins[source] = Path(source), name
    contents = {name: path.read_bytes() for name, path in files.items()}
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    target = folder / digest.hexdigest()[:16]
    if not target.exists():
        _write_tree(target, {**contents, VERSION_FILE: to_json(code_version()), DIFF_FILE: _diff()})
    return Snapshot(target, {source: str(target / name) for source, name in plugins.items()})


def _package_files() -> Iterator[tuple[str, Path]]:
    """Yield the files of the package by their path in an installed one, which has the plugin folders inside."""
    inside = {kind.package.rpartition(".")[2]: kind.folder for kind in (METHODS, DATASETS, REPORTS)}
    for place, folder in {"": PACKAGE, **inside}.items():
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(Path("benchmark", place, path.relative_to(folder))), path


def _write_tree(target: Path, contents: Mapping[str, bytes]) -> None:
    """Write files so that the folder appears whole or not at all; another process may be writing the same one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        for name, content in contents.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            with (temporary / name).open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        temporary.chmod(0o755)
        temporary.rename(target)
    except OSError:
        if not target.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _diff() -> bytes:
    return (_git("diff", "HEAD") or "").encode()


def _git(*arguments: str) -> str | None:
    """Ask git about the tree that the code runs from; None outside a repository."""
    command = ["git", "-C", str(PACKAGE), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
