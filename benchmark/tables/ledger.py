"""The ledger: for each method what its paper says, what the released code does, what we do, and what shows it."""

from __future__ import annotations

import csv
import inspect
import io
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmark.method import Ledger, Method
from benchmark.registry import Plugin
from benchmark.tables.table import escape_latex, no_formula

HEAD = ("method", "paper", "released", "ours", "code is", "paper is", "tests")
WIDTHS = ("0.08", "0.18", "0.18", "0.19", "0.08", "0.08", "0.14")
"""Of the columns, in widths of a line."""
NO_ROW = "—"
PART = re.compile(r"^(Paper|Released code|Ours):\s", re.MULTILINE)
"""What a part of a method's docstring begins with."""


@dataclass(frozen=True)
class Row:
    """A method's row, as printed."""

    method: str
    paper: str
    released: str
    ours: str
    code: str
    """How ours was held against the released code."""
    known: str
    """How the paper was known."""
    tests: str


def rows(plugins: Iterable[Plugin]) -> list[Row]:
    """Return a row for each method, in the given order; one has `—` wherever it says nothing."""
    return [_row(plugin) for plugin in plugins]


def _row(plugin: Plugin) -> Row:
    kind: type[Method] = plugin.load()
    reference, parts = kind.reference, account(kind)
    source = " ".join(filter(None, [reference.venue, str(reference.year or "")]))
    paper = f"{reference.title}{f' ({source})' if source else ''}. {parts.get('Paper', NO_ROW)}"
    released = f"{reference.code}. " * bool(reference.code) + parts.get("Released code", NO_ROW)
    code, known = standing(kind)
    return Row(plugin.name, paper, released, parts.get("Ours", NO_ROW), code, known, ", ".join(shown_by(plugin)))


def standing(kind: type[Method]) -> tuple[str, str]:
    """Return how a method was held against the released code, and how its paper was known; — where it does not say."""
    return (kind.ledger.code, kind.ledger.paper) if kind.ledger else (NO_ROW, NO_ROW)


def account(kind: type[Method]) -> Mapping[str, str]:
    """Return what the docstring of a method's file, or of its class, says in its parts: {Paper, Released code, Ours}.

    A part reaches to the next or to the end; line breaks are spaces.
    """
    for docstring in (sys.modules[kind.__module__].__doc__, vars(kind).get("__doc__")):
        _, *found = PART.split(inspect.cleandoc(docstring or ""))
        if found:
            return {name: " ".join(text.split()) for name, text in zip(found[::2], found[1::2], strict=True)}
    return {}


def shown_by(plugin: Plugin) -> list[str]:
    """Return what shows that a method does what it says: the contract tests, then `FILE::test` of its ledger."""
    entry: Ledger | None = plugin.load().ledger
    named = [test for test in (entry.code_test, entry.paper_test) if test] if entry else []
    own = f"tests/methods/test_{plugin.name}.py"
    return [f"bench check {plugin.name}", *(test if "::" in test else f"{own}::{test}" for test in named)]


def to_markdown(found: Sequence[Row]) -> str:
    """Return the ledger as a GitHub table."""
    lines = [HEAD, ["---"] * len(HEAD), *(list(asdict(row).values()) for row in found)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def to_csv(found: Sequence[Row]) -> str:
    """Return the ledger with a line for each method."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([HEAD, *(map(no_formula, asdict(row).values()) for row in found)])
    return stream.getvalue()


def to_latex(found: Sequence[Row]) -> str:
    """Return a fragment to `\\input`; needs the packages booktabs and longtable."""
    columns = "".join(f"p{{{width}\\linewidth}}" for width in WIDTHS)
    lines = [f"\\begin{{longtable}}{{{columns}}}", "\\toprule", " & ".join(HEAD) + " \\\\", "\\midrule", "\\endhead"]
    lines += [" & ".join(map(escape_latex, asdict(row).values())) + " \\\\" for row in found]
    return "\n".join([*lines, "\\bottomrule", "\\end{longtable}"]) + "\n"
