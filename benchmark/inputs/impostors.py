"""Files that are not what their names say: what a download leaves in place of data when it did not bring them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HEAD = 512
"""Bytes from which an impostor is known."""


@dataclass(frozen=True)
class Impostor:
    """What a file is instead of data."""

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}, no data: {self.fix}"


LFS = Impostor("a Git LFS pointer", "run `git lfs pull` where it was cloned")
PAGE = Impostor("an HTML page", "the server sent a page instead of the file; get it again")
MESSAGE = Impostor("a server's message in XML", "the server refused; get it again")
APPLE = Impostor("an AppleDouble file of macOS", "it describes another file; delete it")
ANNEX = Impostor("a git-annex pointer", "run `git annex get` where it was cloned")

STARTS = (
    (b"version https://git-lfs.github.com/spec/", LFS),
    (b"<!doctype html", PAGE),
    (b"<html", PAGE),
    (b"<?xml version", MESSAGE),
    (b"\x00\x05\x16\x07", APPLE),
    (b"/annex/objects/", ANNEX),
)
"""How impostors begin, in lower case, after white space and a byte order mark."""


def impostor_of(head: bytes) -> Impostor | None:
    """Return what a file is instead of data, from its first `HEAD` bytes; None where it may be what it should be."""
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").lower()
    return next((impostor for start, impostor in STARTS if begin.startswith(start)), None)


def find_impostor(path: Path) -> Impostor | None:
    """Return what a file is instead of data. Raises `OSError` when it cannot be read."""
    with path.open("rb") as file:
        return impostor_of(file.read(HEAD))
