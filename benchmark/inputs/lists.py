"""Annotation files and the files they name, read so that every mistake is named, all at once. Nothing is executed.

Readers return `Row`s with the columns asked for, as text; checks take rows and raise what is wrong with any of them:

    rows = read_csv(root / "train.csv", ["id", "label"])
    check_unique(rows, "id")
    labels = label_indices(rows, "label", CLASSES)
    clips = find_files(root, [f"wav/{row['id']}.wav" for row in rows], "data set mine", "Get it from ...")
"""

from __future__ import annotations

import ast
import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar

from benchmark.errors import Problem, UserError, nearest
from benchmark.inputs.media import MediaError

T = TypeVar("T")

SHOWN = 5
"""How many problems of one kind a message names; it counts the others."""


@dataclass(frozen=True)
class Row:
    """One entry of an annotation file."""

    where: str
    """File and line, for messages."""
    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]


# --- readers -------------------------------------------------------------------------------------------------------


def read_csv(path: Path, columns: Sequence[str], *, header: bool = False, mixed: bool = False) -> list[Row]:
    """Read comma-separated values, quoted where needed.

    Args:
        path: the file; a byte order mark, CRLF and blank lines are fine.
        columns: names of the columns: all of them, in order, or with a header those wanted.
        header: the first line names the columns.
        mixed: the file mixes encodings: what is not UTF-8 becomes U+FFFD instead of an error.

    Raises:
        UserError: with each malformed line, or a column that the header lacks.
    """
    return _read_table(path, columns, header, _fields(path, mixed, delimiter=",", strict=True))


def read_tsv(path: Path, columns: Sequence[str], *, mixed: bool = False) -> list[Row]:
    """Read tab-separated values under a header, in which quotes mean nothing.

    Of columns with the same name the second is called `name.1`, the third `name.2`, as pandas does.
    Otherwise as `read_csv`.
    """
    return _read_table(path, columns, True, _fields(path, mixed, delimiter="\t", quoting=csv.QUOTE_NONE))


def read_json_lines(path: Path, columns: Sequence[str], *, mixed: bool = False) -> list[Row]:
    """Read one JSON object a line; `columns` are the keys wanted, and the rest is as in `read_csv`."""
    lines = read_lines(path, mixed=mixed)
    return _rows(path, columns, ((where, _parse(where, json.loads, line, "a JSON object")) for where, line in lines))


def read_json(path: Path, columns: Sequence[str], *, mixed: bool = False) -> list[Row]:
    """Read a JSON list of objects; `columns` are the keys wanted, and the rest is as in `read_csv`."""
    entries = _parse(str(path), json.loads, _read_text(path, mixed), "a JSON list of objects")
    if isinstance(entries, Problem):
        raise UserError(entries)
    if not isinstance(entries, list):
        raise UserError(Problem(str(path), "a JSON list of objects", type(entries).__name__))
    return _rows(path, columns, ((f"{path}, entry {i}", entry) for i, entry in enumerate(entries, 1)))


def read_literals(path: Path, columns: Sequence[str], *, mixed: bool = False) -> list[Row]:
    """Read one Python list of literals a line, such as `['id', 'text', 1]`; the rest is as in `read_csv`."""
    lines = read_lines(path, mixed=mixed)
    parsed = ((where, _parse(where, ast.literal_eval, line.strip(), "a list of literals")) for where, line in lines)
    return _rows(path, columns, parsed)


def read_lines(path: Path, *, mixed: bool = False) -> list[tuple[str, str]]:
    """Return (file and line, text) of every line that is not blank.

    Raises:
        UserError: when the file cannot be read, or is not UTF-8 and not `mixed`.
    """
    lines = enumerate(io.StringIO(_read_text(path, mixed)), 1)
    return [(f"{path}, line {number}", line.rstrip("\n")) for number, line in lines if line.strip()]


def _read_text(path: Path, mixed: bool) -> str:
    """Return a file's text with `\\n` at the end of each line and no byte order mark."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(
            Problem(str(path), "a readable file", str(error.strerror), nearest(path.name, siblings))
        ) from None
    try:
        text = raw.decode("utf-8-sig", errors="replace" if mixed else "strict")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(Problem(f"{path}, line {line}", "UTF-8", f"the byte 0x{raw[error.start]:02x}")) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _fields(
    path: Path, mixed: bool, *, delimiter: str, strict: bool = False, quoting: int = csv.QUOTE_MINIMAL
) -> Iterator[tuple[str, list[str] | Problem]]:
    """Yield the fields of each line that is not blank."""
    text = _read_text(path, mixed)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=strict, quoting=quoting)  # type: ignore[arg-type]
    while True:
        where = f"{path}, line {reader.line_num + 1}"
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield where, Problem(where, "well-formed fields and quotes", str(error))
            continue
        if len(fields) > 1 or "".join(fields).strip():
            yield where, fields


def _read_table(
    path: Path, columns: Sequence[str], header: bool, lines: Iterator[tuple[str, list[str] | Problem]]
) -> list[Row]:
    if not header:
        return _rows(path, columns, lines)
    where, first = next(lines, (str(path), Problem(str(path), "a line that names the columns", "an empty file")))
    if isinstance(first, Problem):
        raise UserError(first)
    stems: list[str] = []
    names: list[str] = []
    for name in (field.strip() for field in first):
        repeats = stems.count(name)
        names.append(f"{name}.{repeats}" if repeats else name)
        stems.append(name)
    raise_some(
        [Problem(where, f"a column {c!r}", ", ".join(names), nearest(c, names)) for c in columns if c not in names]
    )
    return _rows(path, columns, ((place, _named(place, names, fields)) for place, fields in lines))


def _named(where: str, names: Sequence[str], fields: list[str] | Problem) -> dict[str, str] | Problem:
    if isinstance(fields, Problem):
        return fields
    return dict(zip(names, fields, strict=True)) if len(fields) == len(names) else _misfit(where, names, fields)


def _misfit(where: str, names: Sequence[str], fields: Sequence[object]) -> Problem:
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return Problem(where, f"{len(names)} fields ({shown})", f"{len(fields)}")


def _parse(where: str, parse: Callable[[str], object], text: str, expected: str) -> object:
    """Return what the text says, or the problem with it."""
    try:
        return parse(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        reason = f"{type(error).__name__}: {getattr(error, 'msg', None) or error}".split("\n")[0]
        return Problem(where, expected, f"{text[:60]!r} ({reason})")


def _rows(path: Path, columns: Sequence[str], entries: Iterable[tuple[str, object]]) -> list[Row]:
    """Return a row for each entry: fields in the order of `columns`, or a mapping from their names."""
    rows: list[Row] = []
    problems: list[Problem] = []
    for where, entry in entries:
        try:
            rows.append(Row(where, _values(where, columns, entry)))
        except UserError as error:
            problems += error.problems
    raise_some(problems)
    if not rows:
        raise UserError(Problem(str(path), "at least one entry", "none"))
    return rows


def _values(where: str, columns: Sequence[str], entry: object) -> dict[str, str]:
    if isinstance(entry, Problem):
        raise UserError(entry)
    if isinstance(entry, list | tuple):
        if len(entry) != len(columns):
            raise UserError(_misfit(where, columns, entry))
        entry = dict(zip(columns, entry, strict=True))
    if not isinstance(entry, dict):
        raise UserError(Problem(where, f"values of {', '.join(columns)}", type(entry).__name__))
    problems = []
    for column in columns:
        if column not in entry:
            problems.append(Problem(where, f"a value of {column!r}", "none", nearest(column, map(str, entry))))
        elif isinstance(entry[column], bool) or not isinstance(entry[column], str | int | float):
            problems.append(Problem(where, f"text or a number as {column!r}", repr(entry[column])[:60]))
    if problems:
        raise UserError(*problems)
    return {column: str(entry[column]) for column in columns}


# --- checks --------------------------------------------------------------------------------------------------------


def check_unique(rows: Iterable[Row], column: str) -> None:
    """Raise `UserError` with each row that repeats the value of an earlier row."""
    first: dict[str, str] = {}
    problems = [
        Problem(row.where, f"another {column}", f"{row[column]!r} again, after {first[row[column]]}")
        for row in rows
        if first.setdefault(row[column], row.where) != row.where
    ]
    raise_some(problems)


def label_indices(rows: Iterable[Row], column: str, names: Sequence[str]) -> list[int]:
    """Return the position of each row's label in `names`.

    Raises:
        UserError: with each row that has another label, and the nearest name.
    """
    index = {name: i for i, name in enumerate(names)}
    rows = list(rows)
    unknown = [row for row in rows if row[column] not in index]
    raise_some([Problem(row.where, f"a {column}", repr(row[column]), nearest(row[column], names)) for row in unknown])
    return [index[row[column]] for row in rows]


def check_counts(where: str, expected: Mapping[str, int], got: Mapping[str, int], advice: str = "") -> None:
    """Raise `UserError` with each count that is not the published one."""
    wrong = {what: got.get(what, 0) for what, count in expected.items() if got.get(what, 0) != count}
    raise_some([Problem(where, f"{expected[what]:,} {what}", f"{count:,}", advice) for what, count in wrong.items()])


def find_files(root: Path | None, names: Iterable[str], where: str, advice: str) -> list[Path]:
    """Return the files of these names, relative to a data set's folder.

    Args:
        root: the folder; None if no data root is known.
        names: with `/` between folders; a name that leads out of the folder is refused.
        where: what is being looked for, such as "data set mosi".
        advice: where to get the files and how to arrange them.

    Raises:
        UserError: with the first few that are missing, empty or unreadable, and how many others are.
    """
    if root is None or not root.is_dir():
        got = "no data root" if root is None else f"no folder {root}"
        raise UserError(Problem(where, "a folder with its files under --data-root or $BENCH_DATA", got, advice))
    paths = {name: root / name for name in names}
    raise_some([Problem(where, f"names of files inside {root}", repr(name)) for name in paths if leads_out(name)])
    faults = [f"{name} ({reason})" for name, path in paths.items() if (reason := _unreadable(path))]
    if faults:
        rest = f" and {len(faults) - SHOWN:,} others" if len(faults) > SHOWN else ""
        got = f"{', '.join(faults[:SHOWN])}{rest}"
        raise UserError(Problem(f"{where} in {root}", f"{len(paths):,} readable files", got, advice))
    return list(paths.values())


def read_files(paths: Sequence[Path], read: Callable[[Path], T], where: str) -> list[T]:
    """Return what a decoder makes of each file.

    Raises:
        UserError: with the first few files that it cannot read, why, and how many others there are.
    """
    contents, faults = [], []
    for path in paths:
        try:
            contents.append(read(path))
        except MediaError as error:
            faults.append(Problem(where, f"a whole file {path}", str(error), "Get it again."))
    raise_some(faults)
    return contents


def leads_out(name: str) -> bool:
    """Return whether a name is absolute or takes a step up, on any system, and so may lead out of its folder."""
    windows = PureWindowsPath(name)
    absolute = PurePosixPath(name).is_absolute() or bool(windows.drive or windows.root)
    return absolute or ".." in windows.parts or "\0" in name


def _unreadable(path: Path) -> str:
    """Return why a file cannot be read, or nothing."""
    try:
        size = path.stat().st_size
    except OSError as error:  # missing, not permitted, a loop of links
        return str(error.strerror).lower()
    if not path.is_file():
        return "not a file"
    return "" if size else "an empty file"


def raise_some(problems: Sequence[Problem]) -> None:
    """Raise `UserError` with the first few problems and the number of the others; nothing if there are none."""
    more = len(problems) - SHOWN
    rest = [Problem("others like these", "none", f"{more:,} more")] if more > 0 else []
    if problems:
        raise UserError(*problems[:SHOWN], *rest)
