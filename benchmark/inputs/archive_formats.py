"""The entries of zip and tar archives, and how much an archive may unpack to."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import IO, Any, Literal, NoReturn

from benchmark.errors import Problem, UserError
from benchmark.inputs.lists import leads_out

MAX_RATIO = 200
"""How many times its own size an archive may unpack to, once that is more than `FREE_SIZE`."""
FREE_SIZE = 2**30
"""Bytes that an archive of any size may unpack to."""
MAX_ENTRIES = 5_000_000
MAX_HEADER = 2**20
"""Bytes that one read of tar's headers may ask for: names and attributes, never contents."""
UNPACKS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
ENCRYPTED, UTF8 = 0x1, 0x800
"""Flags of an entry of a zip."""

Parts = tuple[str, ...]


class Kind(Enum):
    """What an entry makes."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "link"
    HARDLINK = "hard link"
    OTHER = "device or pipe"

    @property
    def is_link(self) -> bool:
        return self in (Kind.SYMLINK, Kind.HARDLINK)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an archive."""

    name: str
    kind: Kind
    size: int = 0
    """Bytes it unpacks to."""
    target: str = ""
    """Of a link: from its folder if symbolic, else from the top of the archive."""
    executable: bool = False

    @property
    def parts(self) -> Parts:
        return tuple(part for part in self.name.split("/") if part not in ("", "."))


@dataclass
class Budget:
    """How much an archive may unpack to."""

    where: str
    packed: int
    """Bytes of the archive."""

    @property
    def limit(self) -> int:
        return max(FREE_SIZE, MAX_RATIO * self.packed)

    def check(self, entries: int, size: int) -> None:
        """Raise `UserError` where so many entries or bytes are too many."""
        if size > self.limit:
            expected = (
                f"at most {self.limit:,} bytes from {self.packed:,} ({MAX_RATIO} times, or 1 GiB if that is more)"
            )
            self._refuse(expected, f"{size:,} bytes or more")
        if entries > MAX_ENTRIES:
            self._refuse(f"at most {MAX_ENTRIES:,} entries", "more")

    def _refuse(self, expected: str, got: str) -> NoReturn:
        raise UserError(Problem(self.where, expected, got, "Do not trust this archive."))


class Zip:
    """The entries of a zip."""

    def __init__(self, file: IO[bytes], where: str, encoding: str | None) -> None:
        self.where = where
        self._opened = zipfile.ZipFile(file)
        chosen = encoding or _encoding_of(self._opened.infolist())
        if chosen:
            file.seek(0)
            try:
                self._opened = zipfile.ZipFile(file, metadata_encoding=chosen)
            except (UnicodeDecodeError, LookupError) as error:
                raise UserError(Problem(where, f"names in the encoding {chosen}", str(error))) from None
        self._infos = self._opened.infolist()
        budget = Budget(where, os.fstat(file.fileno()).st_size)
        budget.check(len(self._infos), sum(info.file_size for info in self._infos))
        self._refuse_unreadable()
        backslashes = not any("/" in info.filename for info in self._infos)
        self.entries = [self._entry(info, backslashes) for info in self._infos]

    def _refuse_unreadable(self) -> None:
        for info in self._infos:
            if info.flag_bits & ENCRYPTED:
                got = f"{info.filename!r}, which needs a password"
                raise UserError(Problem(self.where, "a zip that is not encrypted", got, "Unpack it by hand."))
            if info.compress_type not in UNPACKS:
                got = f"{info.filename!r} by method {info.compress_type}"
                expected = "entries packed by deflate, bzip2 or lzma, or not at all"
                raise UserError(Problem(self.where, expected, got, "Unpack it with its own program."))

    def _entry(self, info: zipfile.ZipInfo, backslashes: bool) -> Entry:
        mode = info.external_attr >> 16
        name = info.filename
        if backslashes and not leads_out(name):  # packed by a program for Windows
            name = name.replace("\\", "/")
        if name.endswith("/"):
            return Entry(name, Kind.FOLDER)
        if stat.S_ISLNK(mode):  # few zips have them, and their targets are contents
            return Entry(info.filename, Kind.OTHER)
        return Entry(name, Kind.FILE, info.file_size, executable=bool(mode & stat.S_IXUSR))

    def contents(self) -> Iterator[tuple[int, IO[bytes]]]:
        """Yield the number and contents of each file."""
        for number, (entry, info) in enumerate(zip(self.entries, self._infos, strict=True)):
            if entry.kind is Kind.FILE:
                with self._opened.open(info) as content:
                    yield number, content


def _encoding_of(infos: Iterable[zipfile.ZipInfo]) -> str | None:
    """Return the encoding that all names share which do not say theirs; None where they are ASCII, or nothing fits."""
    names = [info.orig_filename.encode("cp437") for info in infos if not info.flag_bits & UTF8]
    if all(name.isascii() for name in names):
        return None
    for encoding in ("utf-8", "gbk"):
        try:
            for name in names:
                name.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return None


class Tar:
    """The entries of a tar, compressed or not."""

    def __init__(self, file: IO[bytes], where: str) -> None:
        self.where = where
        self._file = file
        self._budget = Budget(where, os.fstat(file.fileno()).st_size)
        self.entries = [self._entry(member) for member, _ in self._members()]

    def _members(self) -> Iterator[tuple[tarfile.TarInfo, Any]]:
        count, size = 0, 0
        with _decompressed(self._file) as stream, _open_tar(_Bounded(stream, self._budget)) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # which it never forgets otherwise
                count, size = count + 1, size + member.size
                self._budget.check(count, size)
                yield member, tar
            self._check_end(stream, tar.offset)

    def _check_end(self, stream: Any, position: int) -> None:
        """Raise where a tar does not end with zeros: tarfile takes a damaged header in the middle for the end.

        What follows is read too, since the sum of all that was compressed stands last.
        """
        stream.seek(position)
        block = stream.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE or block.strip(b"\0"):
            raise tarfile.ReadError(f"no header and no end at byte {position:,}")
        while stream.read(MAX_HEADER):
            self._budget.check(0, stream.tell())

    def _entry(self, member: tarfile.TarInfo) -> Entry:
        kinds = {member.isreg(): Kind.FILE, member.isdir(): Kind.FOLDER, member.issym(): Kind.SYMLINK,
                 member.islnk(): Kind.HARDLINK}  # fmt: skip
        kind = kinds.get(True, Kind.OTHER)
        executable = bool(member.mode & stat.S_IXUSR)
        return Entry(member.name, kind, member.size if kind is Kind.FILE else 0, member.linkname, executable)

    def contents(self) -> Iterator[tuple[int, IO[bytes]]]:
        """Yield the number and contents of each file."""
        for number, (member, tar) in enumerate(self._members()):
            if member.isreg() and (content := tar.extractfile(member)) is not None:
                yield number, content


def _open_tar(stream: Any) -> Any:
    return tarfile.open(fileobj=stream, mode="r:")


@contextmanager
def _decompressed(file: IO[bytes]) -> Iterator[Any]:
    """Open the tar inside a file by its first bytes."""
    import bz2
    import gzip
    import lzma

    file.seek(0)
    head = file.read(6)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=file) as stream:
            yield stream
    elif head.startswith(b"BZh"):
        with bz2.BZ2File(file) as packed:
            yield packed
    elif head == b"\xfd7zXZ\x00":
        with lzma.LZMAFile(file) as packed_by_xz:
            yield packed_by_xz
    else:
        yield file


class _Bounded:
    """A stream that refuses large pieces, as headers of a bomb are, and what is beyond the budget."""

    def __init__(self, stream: Any, budget: Budget) -> None:
        self._stream, self._budget = stream, budget

    def read(self, size: int) -> bytes:
        if size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self._budget.check(0, self._stream.tell())
        found: bytes = self._stream.read(size)
        return found

    def seek(self, position: int, whence: Literal[0, 1, 2] = 0) -> int:
        if whence == 0:
            self._budget.check(0, position)
        return int(self._stream.seek(position, whence))

    def tell(self) -> int:
        return int(self._stream.tell())
