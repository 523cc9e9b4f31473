"""Archives of data sets, unpacked without letting any entry out of its folder."""

from __future__ import annotations

import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path

from benchmark.errors import Problem, UserError
from benchmark.inputs.lists import leads_out, raise_some

DAMAGED = (zipfile.BadZipFile, tarfile.TarError, BadGzipFile, EOFError, zlib.error, LZMAError, RuntimeError)
"""What the readers of archives raise on bytes that are no archive, cut or encrypted."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into a new folder: all of it or nothing.

    Every entry is looked at before anything is written. Owners, special permissions and devices are never restored.

    Raises:
        UserError: when the folder exists, the archive is damaged, or an entry is absolute, has `..`, or is a link out
            of the folder.
    """
    if not archive.is_file():
        raise UserError(Problem(str(archive), "a zip or tar archive", "no such file"))
    if folder.exists():
        raise UserError(Problem(f"folder of {archive}", "a folder that does not exist yet", str(folder)))
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, staging)
        else:
            _unpack_tar(archive, staging)
        staging.chmod(0o755)  # mkdtemp makes it private
        staging.rename(folder)
    except DAMAGED as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise UserError(Problem(str(archive), "a whole zip or tar archive", reason, "Get it again.")) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        links = [entry.filename for entry in entries if stat.S_ISLNK(entry.external_attr >> 16)]
        _refuse(archive, [entry.filename for entry in entries if leads_out(entry.filename)], links)
        opened.extractall(folder)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        entries = opened.getmembers()
        out = [entry.name for entry in entries if leads_out(entry.name)]
        _refuse(archive, out, [entry.name for entry in entries if entry.name not in out and _escapes(entry, folder)])
        opened.extractall(folder, filter="data")  # follows links made earlier, which no look at names alone can


def _escapes(entry: tarfile.TarInfo, folder: Path) -> bool:
    """Return whether tarfile's own rules refuse an entry: a link out of the folder, a device, a pipe."""
    try:
        tarfile.data_filter(entry, str(folder))
    except tarfile.FilterError:
        return True
    return False


def _refuse(archive: Path, out: list[str], links: list[str]) -> None:
    expected = "entries inside the folder"
    names = [Problem(str(archive), expected, f"the name {name!r}", "Do not trust this archive.") for name in out]
    special = [Problem(str(archive), expected, f"the link or device {name!r}") for name in links]
    raise_some([*names, *special])
