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
SHIPPED = frozenset((".css", ".csv", ".html", ".js", ".json", ".md", ".py", ".typed", ".yaml"))
"""Suffixes of files that the package is made of. No others are copied: checkpoints, notebooks, secrets."""


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
    the code it keeps the commit and, as a diff, what differs from it. Only its owner may read it. Of a git repository
    it takes what is tracked, and new modules that are not ignored; from anywhere, no links and no hidden files.
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
    if target.exists() and target.stat().st_uid != os.getuid():  # closed to us, as all are to others
        target = folder / f"{target.name}-{os.getuid()}"
    if not target.exists():
        _write_tree(target, {**contents, VERSION_FILE: to_json(code_version()), DIFF_FILE: _diff()})
    return Snapshot(target, {source: str(target / name) for source, name in plugins.items()})


def _package_files() -> Iterator[tuple[str, Path]]:
    """Yield the files of the package by their path in an installed one, which has the plugin folders inside."""
    inside = {kind.package.rpartition(".")[2]: kind.folder for kind in (METHODS, DATASETS, REPORTS)}
    for place, folder in {"": PACKAGE, **inside}.items():
        known = _known_to_git(folder)
        for path in folder.rglob("*"):
            name = path.relative_to(folder)
            if path.suffix in SHIPPED and (known is None or path in known) and _is_plain(path, folder):
                yield str(Path("benchmark", place, name)), path


def _is_plain(path: Path, folder: Path) -> bool:
    """Return whether a file is one itself, and neither hidden nor reached through a link."""
    name = path.relative_to(folder)
    links = any((folder / part).is_symlink() for part in (name, *name.parents[:-1]))
    return path.is_file() and not links and not any(part.startswith((".", "__pycache__")) for part in name.parts)


def _known_to_git(folder: Path) -> set[Path] | None:
    """Return the files of a folder that are tracked, and new modules that are not ignored; None outside git."""
    tracked = _git("ls-files", "-z", "--", str(folder), top=folder)
    if not tracked:
        return None
    new = _git("ls-files", "-z", "--others", "--exclude-standard", "--", str(folder), top=folder) or ""
    names = [*tracked.split("\0"), *(name for name in new.split("\0") if name.endswith(".py"))]
    return {folder / name for name in names if name}


def _write_tree(target: Path, contents: Mapping[str, bytes]) -> None:
    """Write files so that the folder appears whole or not at all; another process may be writing the same one.

    As the temporary folder, it is open to nobody else.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        for name, content in contents.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            with (temporary / name).open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        temporary.rename(target)
    except OSError:
        if not target.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _diff() -> bytes:
    return (_git("diff", "HEAD") or "").encode()


def _git(*arguments: str, top: Path | None = None) -> str | None:
    """Ask git about the tree that the code runs from; None outside a repository."""
    command = ["git", "-C", str(top or PACKAGE), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
