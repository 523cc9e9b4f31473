"""Archives of data sets, unpacked without letting any entry out of its folder.

Nothing is left to the archive libraries but to list and to decompress, since what their own guards let through differs
between releases of Python. Files are written first, into a folder in which there is no link yet; links come last, and
only those whose target is, step by step, a file or folder of the same archive.
"""

from __future__ import annotations

import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import Path
from typing import IO
from uuid import uuid4

from benchmark.errors import Problem, UserError
from benchmark.inputs.archive_formats import Entry, Kind, Parts, Tar, Zip
from benchmark.inputs.impostors import HEAD, impostor_of
from benchmark.inputs.lists import leads_out, raise_some

MAX_PATH = 4096
"""Bytes of the longest path that Linux opens."""
MAX_NAME = 255
CHUNK = 2**18

DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, LZMAError, struct.error, NotImplementedError,
    RuntimeError, ValueError, OverflowError, LookupError,
)  # fmt: skip
"""What readers raise on bytes that are no archive, cut or encrypted, beside `OSError` without a number."""
OTHERS = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "a file packed by zstd",
    b"PK\x07\x08": "a part of a split zip",
}


def unpack(archive: Path, folder: Path, encoding: str | None = None) -> None:
    """Unpack a zip or tar archive into a new folder: all of it or nothing.

    Every entry is looked at before anything is written. Owners, special permissions, times and devices are never
    restored; permissions are those of the user's umask.

    Args:
        archive: zip, or tar as it is or compressed by gzip, bzip2 or xz.
        folder: where to; must not exist.
        encoding: of a zip's names that do not say theirs. None: UTF-8 if all are, else GBK if all are, else code
            page 437, which the format prescribes.

    Raises:
        UserError: when the folder exists or cannot be written, the archive is damaged, encrypted or unpacks to more
            than `MAX_RATIO` times its size and `FREE_SIZE`, or an entry is absolute, has `..`, or is a link that does
            not end at a file or folder of the archive.
    """
    where = str(archive)
    if not archive.is_file():
        raise UserError(Problem(where, "a zip or tar archive", "a folder" if archive.is_dir() else "no such file"))
    if os.path.lexists(folder):
        raise UserError(Problem(f"folder of {archive}", "a folder that does not exist yet", str(folder)))
    staging = folder.parent / f".{folder.name}.{uuid4().hex[:8]}"
    try:
        with archive.open("rb") as file:
            is_zip = _is_zip(file, where)
            folder.parent.mkdir(parents=True, exist_ok=True)
            staging.mkdir()
            opened = Zip(file, where, encoding) if is_zip else Tar(file, where)
            _write(opened, staging)
        staging.rename(folder)
    except DAMAGED as error:
        raise _damaged(archive, error) from None
    except OSError as error:
        if error.errno is None:  # gzip, bzip2
            raise _damaged(archive, error) from None
        got = f"{(error.strerror or str(error)).lower()}: {error.filename or archive}"
        raise UserError(Problem(where, "an archive that can be read and a folder that can be written", got)) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _damaged(archive: Path, error: Exception) -> UserError:
    reason = f"{type(error).__name__}: {error}".split("\n")[0]
    return UserError(Problem(str(archive), "a whole zip or tar archive", reason, "Get it again."))


def _is_zip(file: IO[bytes], where: str) -> bool:
    """Return whether a file is a zip, else it may be a tar. Raises `UserError` for what is neither by its first bytes.

    A zip inside a tar must not make the tar a zip, so where a zip ends is asked last.
    """
    head = file.read(HEAD)
    file.seek(0)
    expected = "a zip or tar archive"
    if impostor := impostor_of(head):
        raise UserError(Problem(where, expected, str(impostor)))
    if other := next((what for start, what in OTHERS.items() if head.startswith(start)), None):
        raise UserError(Problem(where, expected, other, "Unpack it with its own program."))
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return True
    if head[257:262] == b"ustar" or head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")):
        return False
    found = zipfile.is_zipfile(file)
    file.seek(0)
    return found


def _write(opened: Zip | Tar, folder: Path) -> None:
    """Write all entries of an archive into an empty folder: files, then links."""
    entries = opened.entries
    if not entries:
        raise UserError(Problem(opened.where, "an archive with files", "an empty one", "Get it again."))
    tree = _Tree(opened.where, folder)
    for entry in entries:
        tree.add(entry)
    tree.check_links()
    tree.raise_any()
    needed, free = sum(entry.size for entry in entries), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(Problem(opened.where, f"{needed:,} bytes of room in {folder.parent}", f"{free:,}"))
    for parts in sorted(tree.folders):
        folder.joinpath(*parts).mkdir(exist_ok=True)
    for number, content in opened.contents():
        entry = entries[number]
        if tree.numbers[entry.parts] == number:  # of two files with one name the later one counts
            _write_file(folder.joinpath(*entry.parts), entry, content)
    for entry in tree.links:
        _make_link(folder, entry)


def _write_file(path: Path, entry: Entry, content: IO[bytes]) -> None:
    mode = 0o777 if entry.executable else 0o666
    left = entry.size
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
        while chunk := content.read(min(CHUNK, left)):
            file.write(chunk)
            left -= len(chunk)
    if left:
        raise EOFError(f"{entry.name} ends early")


def _make_link(folder: Path, entry: Entry) -> None:
    """Make a link and look where it leads, which a file system that ignores case may decide otherwise than names."""
    path = folder.joinpath(*entry.parts)
    if entry.kind is Kind.SYMLINK:
        path.symlink_to(entry.target)
    else:
        path.hardlink_to(folder.joinpath(*Entry(entry.target, Kind.FILE).parts))
    if not path.resolve(strict=True).is_relative_to(folder.resolve(strict=True)):
        raise ValueError(f"the link {entry.name!r} leads out of the folder")


@dataclass
class _Tree:
    """What an archive would make of an empty folder, by its names alone."""

    where: str
    folder: Path
    folders: set[Parts] = field(default_factory=set)
    numbers: dict[Parts, int] = field(default_factory=dict)
    """The number of the entry that makes each file or link."""
    links: list[Entry] = field(default_factory=list)
    _problems: list[Problem] = field(default_factory=list)
    _count: int = -1

    def add(self, entry: Entry) -> None:
        self._count += 1
        parts = entry.parts
        if leads_out(entry.name):
            self._refuse(f"the name {entry.name!r}", "Do not trust this archive.")
        elif self._is_long(parts):
            self._refuse(f"the name {entry.name[:80]!r}..., which is too long")
        elif entry.kind is Kind.OTHER:
            self._refuse(f"the link or device {entry.name!r}")
        elif entry.kind is Kind.FOLDER:
            self._add_folders(entry, parts)
        elif not parts:
            self._refuse(f"the name {entry.name!r}")
        else:
            self._add_folders(entry, parts[:-1])
            known = parts in self.numbers
            if parts in self.folders or (known and (entry.kind.is_link or self._is_link(parts))):
                self._refuse(f"two entries {entry.name!r} of different kinds", "Do not trust this archive.")
            self.numbers[parts] = self._count
            if entry.kind.is_link:
                self.links.append(entry)

    def _add_folders(self, entry: Entry, parts: Parts) -> None:
        for depth in range(len(parts), 0, -1):
            if parts[:depth] in self.folders:
                return
            if parts[:depth] in self.numbers:
                self._refuse(f"{entry.name!r} below a file or link of that name", "Do not trust this archive.")
            self.folders.add(parts[:depth])

    def _is_link(self, parts: Parts) -> bool:
        return any(link.parts == parts for link in self.links)

    def _is_long(self, parts: Parts) -> bool:
        length = len(os.fsencode(self.folder.joinpath(*parts).absolute()))
        return length >= MAX_PATH or any(len(os.fsencode(part)) > MAX_NAME for part in parts)

    def check_links(self) -> None:
        """Refuse links that do not end at a file or folder of this archive, or pass anything but folders of it."""
        linked = {link.parts for link in self.links}
        for link in self.links:
            end = self._follow(link, linked)
            if end is None or (end in self.folders and link.parts[: len(end)] == end):
                self._refuse(f"the link or device {link.name!r}", "A link may lead to a file or folder of the archive.")

    def _follow(self, link: Entry, linked: set[Parts]) -> Parts | None:
        """Return where a link ends, None where that is not a file or folder of the archive."""
        if not link.target or "\0" in link.target or link.target.startswith("/"):
            return None
        here = list(link.parts[:-1]) if link.kind is Kind.SYMLINK else []
        for step in Entry(link.target, link.kind).parts:
            if tuple(here) not in self.folders and here:
                return None
            if step == ".." and not here:
                return None
            if step == "..":
                here.pop()
            else:
                here.append(step)
        end = tuple(here)
        kept = end in self.numbers and end not in linked
        return end if kept or (end in self.folders and link.kind is Kind.SYMLINK) else None

    def _refuse(self, got: str, fix: str = "") -> None:
        self._problems.append(Problem(self.where, "entries inside the folder", got, fix))

    def raise_any(self) -> None:
        raise_some(self._problems)
