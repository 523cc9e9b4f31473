"""What reports wrote into a folder, so that the files of earlier ones go and those of the user stay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.report import Artifact, write

NAME = "manifest.json"


@dataclass(frozen=True)
class Written:
    """What a report did to its folder."""

    paths: list[Path]
    removed: list[Path]
    """Files of an earlier report of the same document that this one no longer has."""
    kept: list[Path]
    """Such files that somebody has edited since: they stay, with old numbers."""


def write_document(document: Artifact, artifacts: Sequence[Artifact], folder: Path) -> Written:
    """Write a document with its tables and figures; remove what an earlier one of that name had and this one has not.

    Nothing goes that no report wrote, that another document in the folder includes, or that was edited since.
    """
    files, documents = _read(folder)
    earlier = documents.get(document.name, [])
    everything = [*artifacts, document]
    documents[document.name] = sorted({artifact.name for artifact in everything})
    needed = {name for names in documents.values() for name in names}
    removed, kept = [], []
    for name in sorted(set(earlier) - needed):
        path = folder / name
        if path.is_file() and _digest(path.read_bytes()) == files.get(name):
            path.unlink()
            removed.append(path)
        elif path.exists():
            kept.append(path)
    files |= {artifact.name: _digest(artifact.content) for artifact in everything}
    content = {"files": {name: files[name] for name in sorted(needed & files.keys())}, "documents": documents}
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    paths = write([*everything, Artifact(NAME, text.encode())], folder)
    return Written(paths, removed, kept)


def _read(folder: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return {file: digest of what was written} and {document: its files}, nothing where the list is damaged.

    Only plain names count: whatever a list says, nothing outside the folder is touched.
    """
    try:
        content: Any = json.loads((folder / NAME).read_text(encoding="utf-8"))
        files = {str(name): str(digest) for name, digest in content["files"].items() if _is_plain(name)}
        documents = {
            str(name): [str(one) for one in names if _is_plain(one)] for name, names in content["documents"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}, {}
    return files, documents


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
