"""The ledger: for each method what its paper says, what the released code does, what we do, and what shows it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmark.method import Ledger, Method
from benchmark.registry import METHODS, Plugin
from benchmark.tables.table import escape_latex

HEAD = ("method", "paper", "released", "ours", "tests", "status")
WIDTHS = ("0.09", "0.21", "0.21", "0.21", "0.14", "0.09")
"""Of the columns, in widths of a line."""
NO_ROW = "—"


@dataclass(frozen=True)
class Row:
    """A method's row, as printed."""

    method: str
    paper: str
    released: str
    ours: str
    tests: str
    status: str


def rows(plugins: Iterable[Plugin]) -> list[Row]:
    """Return a row for each method, in the given order; one without a ledger has `—` wherever it says nothing."""
    tests = METHODS.folder.parent / "tests" / METHODS.folder.name  # beside the sources; an installed wheel has none
    return [_row(plugin, tests) for plugin in plugins]


def _row(plugin: Plugin, tests: Path) -> Row:
    kind: type[Method] = plugin.load()
    reference = kind.reference
    source = " ".join(filter(None, [reference.venue, str(reference.year or "")]))
    entry = kind.ledger or Ledger(NO_ROW, NO_ROW, NO_ROW, "cannot be verified")
    paper = f"{reference.title}{f' ({source})' if source else ''}. {entry.paper}"
    released = f"{reference.code}. {entry.released}" if reference.code else entry.released
    return Row(plugin.name, paper, released, entry.ours, _shown_by(plugin.name, tests), entry.status)


def _shown_by(name: str, tests: Path) -> str:
    """Return what shows that a method does what it says: the contract tests, and the files that test it by name."""
    own = tests / f"test_{name}.py"
    files = [own] if own.exists() else [path for path in sorted(tests.glob("test_*.py")) if _tests(path, name)]
    return ", ".join([f"bench check {name}", *(path.name for path in files)])


def _tests(path: Path, name: str) -> bool:
    return re.search(rf"[\"'.]{name}\b", path.read_text(encoding="utf-8")) is not None


def to_markdown(found: Sequence[Row]) -> str:
    """Return the ledger as a GitHub table."""
    lines = [HEAD, ["---"] * len(HEAD), *(list(asdict(row).values()) for row in found)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def to_csv(found: Sequence[Row]) -> str:
    """Return the ledger with a line for each method."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([HEAD, *(asdict(row).values() for row in found)])
    return stream.getvalue()


def to_latex(found: Sequence[Row]) -> str:
    """Return a fragment to `\\input`; needs the packages booktabs and longtable."""
    columns = "".join(f"p{{{width}\\linewidth}}" for width in WIDTHS)
    lines = [f"\\begin{{longtable}}{{{columns}}}", "\\toprule", " & ".join(HEAD) + " \\\\", "\\midrule", "\\endhead"]
    lines += [" & ".join(map(escape_latex, asdict(row).values())) + " \\\\" for row in found]
    return "\n".join([*lines, "\\bottomrule", "\\end{longtable}"]) + "\n"
