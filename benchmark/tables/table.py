"""Tables: cells with a mean, a spread and a mark, rendered as LaTeX, Markdown, CSV and for the terminal."""

from __future__ import annotations

import csv
import io
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from html import escape
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from benchmark.tables.latex import (
    CODEPOINT,
    CODEPOINT_ADVICE,
    HEAD,
    HEADER_WIDTH,
    NAME_WIDTH,
    escape_latex,
    has_codepoints,
    lines_of,
    printed_width,
    stack,
)

MISSING, FAILED, UNSUPPORTED = "—", "✗", "n/a"
PAGE_LINES = 42
"""Lines of a table on one page of LaTeX; longer ones may be broken."""


class Mark(StrEnum):
    """How a cell is highlighted in its column."""

    NONE = ""
    BEST = "best"
    SECOND = "second"


@dataclass(frozen=True)
class Cell:
    """A mean over seeds, or a symbol for why there is none."""

    values: tuple[float, ...] = ()
    symbol: str = MISSING
    """Shown when there are no values."""
    mark: Mark = Mark.NONE

    @cached_property
    def mean(self) -> float | None:
        """The mean; NaN as soon as one value is no finite number, as a mean of the others would hide it."""
        if not self.values:
            return None
        return statistics.fmean(self.values) if self.is_finite else math.nan

    @cached_property
    def std(self) -> float | None:
        """Standard deviation over seeds (n - 1); None for fewer than two, or where the mean is NaN."""
        if len(self.values) < 2 or not self.is_finite or self.mean is None:
            return None
        return math.sqrt(math.fsum((value - self.mean) ** 2 for value in self.values) / (len(self.values) - 1))

    @cached_property
    def is_finite(self) -> bool:
        return all(map(math.isfinite, self.values))

    def text(self, digits: int, plus_minus: str) -> str:
        """Return what is printed: `61.3 ± 0.8`, `61.3` for one seed, `nan`, or the symbol."""
        if self.mean is None:
            return self.symbol
        mean = _rounded(self.mean, digits)
        return mean if self.std is None else f"{mean}{plus_minus}{_rounded(self.std, digits)}"


@dataclass(frozen=True)
class Column:
    """A column and the group whose title spans it."""

    name: str
    group: str = ""
    digits: int = 1
    rank: bool = True
    """Mark the highest and second-highest mean."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under grouped columns."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    notes: Sequence[str] = field(default_factory=tuple)
    corner: str = "method"

    def ranked(self) -> Table:
        """Return the table with the best and second-best mean of each ranked column marked."""
        cells = [list(row) for _, row in self.rows]
        for position, column in enumerate(self.columns):
            # rounded as printed, so that cells that look equal get the same mark
            means = [_comparable(row[position], column.digits) for row in cells]
            best = sorted({mean for mean in means if mean is not None}, reverse=True)[:2]
            if not column.rank or len(best) < 2:
                continue
            for row, mean in zip(cells, means, strict=True):
                if mean in best:
                    row[position] = replace(row[position], mark=Mark.BEST if mean == best[0] else Mark.SECOND)
        return replace(self, rows=[(name, row) for (name, _), row in zip(self.rows, cells, strict=True)])

    def to_latex(self) -> str:
        """Return a booktabs fragment to `\\input`; needs the package booktabs alone.

        Long names and headers are broken into lines. Caption and notes are comments: a paper has its own.
        """
        lines = self._latex_header()
        lines += ["\\midrule", *["\\benchhead"] * self.is_long]
        for name, row in self.rows:
            cells = [_latex_cell(cell, column) for cell, column in zip(row, self.columns, strict=True)]
            lines.append(" & ".join([stack(lines_of(name, NAME_WIDTH)), *cells]) + " \\\\")
        lines += ["\\bottomrule", "\\end{tabular}"]
        head = [f"% {line}" for text in (self.caption, *self.notes) for line in text.splitlines()]
        if has_codepoints("".join(lines)):
            head += [f"% {CODEPOINT_ADVICE}", CODEPOINT]
        return "\n".join([*head, *[HEAD] * self.is_long, *lines]) + "\n"

    @property
    def is_long(self) -> bool:
        """Whether it takes more than a page of LaTeX."""
        return self.extent[1] > PAGE_LINES

    @cached_property
    def extent(self) -> tuple[int, int]:
        """Characters across and lines down, as LaTeX prints it."""
        texts = [
            [name, *(cell.text(column.digits, " ± ") for cell, column in zip(row, self.columns, strict=True))]
            for name, row in self.rows
        ]
        headers = [min(printed_width(text), HEADER_WIDTH) for text in (self.corner, *(c.name for c in self.columns))]
        widest = [max(widths) for widths in zip(headers, *(map(_cell_width, row) for row in texts), strict=True)]
        lines = [max(map(_cell_height, row)) for row in texts]
        return sum(widest) + 2 * len(self.columns), 2 + sum(lines)

    def _latex_header(self) -> list[str]:
        groups = self._groups()
        lines = ["\\begin{tabular}{l" + "c" * len(self.columns) + "}", "\\toprule"]
        if any(group for group, _ in groups):
            titles = [stack(lines_of(group, HEADER_WIDTH * count), centred=True) for group, count in groups]
            spans = [f"\\multicolumn{{{count}}}{{c}}{{{t}}}" for t, (_, count) in zip(titles, groups, strict=True)]
            lines.append(" & ".join(["", *spans]) + " \\\\")
            start, rules = 2, []
            for group, count in groups:
                rules.append(f"\\cmidrule(lr){{{start}-{start + count - 1}}}" if group else "")
                start += count
            lines.append(" ".join(rule for rule in rules if rule))
        names = [stack(lines_of(column.name, HEADER_WIDTH), centred=True) for column in self.columns]
        return [*lines, " & ".join([escape_latex(self.corner), *names]) + " \\\\"]

    def to_markdown(self) -> str:
        """Return the caption, a GitHub table and the notes."""
        names = [f"{column.group}: {column.name}" if column.group else column.name for column in self.columns]
        lines = [_pipes(map(_markdown, [self.corner, *names])), _pipes(["---", *["---:"] * len(names)])]
        marks = {Mark.NONE: "{}", Mark.BEST: "**{}**", Mark.SECOND: "<u>{}</u>"}
        for name, row in self.rows:
            cells = [
                marks[cell.mark].format(_markdown(cell.text(column.digits, " ± ")))
                for cell, column in zip(row, self.columns, strict=True)
            ]
            lines.append(_pipes([_markdown(name), *cells]))
        notes = [f"\n{_markdown(note)}" for note in self.notes]
        return "\n".join([f"**{_markdown(self.caption)}**\n", *lines, *notes]) + "\n"

    def to_html(self) -> str:
        """Return the table as HTML for a notebook, caption above, notes below; every text is escaped."""
        marks = {Mark.NONE: "{}", Mark.BEST: "<b>{}</b>", Mark.SECOND: "<u>{}</u>"}
        names = [f"{column.group}: {column.name}" if column.group else column.name for column in self.columns]
        head = "".join(f"<th>{escape(name)}</th>" for name in [self.corner, *names])
        body = []
        for name, row in self.rows:
            cells = [
                f"<td>{marks[cell.mark].format(escape(cell.text(column.digits, ' ± ')))}</td>"
                for cell, column in zip(row, self.columns, strict=True)
            ]
            body.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
        notes = "".join(f"<p><small>{escape(note)}</small></p>" for note in self.notes)
        table = f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
        return f"<table><caption>{escape(self.caption)}</caption>{table}</table>{notes}"

    def to_csv(self) -> str:
        """Return one line for each cell: row, group, column, mean, std, n, symbol."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([no_formula(self.corner), "group", "column", "mean", "std", "n", "symbol"])
        for name, row in self.rows:
            for cell, column in zip(row, self.columns, strict=True):
                symbol = "" if cell.values else cell.symbol
                words = map(no_formula, (name, column.group, column.name))
                writer.writerow([*words, cell.mean, cell.std, len(cell.values), no_formula(symbol)])
        return stream.getvalue()

    def to_rich(self) -> RichTable:
        """Return the table for a terminal."""
        table = RichTable(
            box=SIMPLE_HEAD,
            title=Text(self.caption),
            caption=Text("\n".join(self.notes)),
            title_justify="left",
            caption_justify="left",
        )
        table.add_column(Text(self.corner), no_wrap=True)
        for column in self.columns:
            table.add_column(Text(f"{column.group}\n{column.name}" if column.group else column.name), justify="right")
        styles = {Mark.NONE: "", Mark.BEST: "bold green", Mark.SECOND: "underline"}
        for name, row in self.rows:
            cells = [
                Text(cell.text(column.digits, " ± "), style=styles[cell.mark])
                for cell, column in zip(row, self.columns, strict=True)
            ]
            table.add_row(Text(name), *cells)
        return table

    def _groups(self) -> list[tuple[str, int]]:
        return [(group, len(list(columns))) for group, columns in groupby(self.columns, lambda column: column.group)]


def _cell_width(text: str) -> int:
    return min(printed_width(text), NAME_WIDTH)


def _cell_height(text: str) -> int:
    return 1 if printed_width(text) <= NAME_WIDTH else len(lines_of(text, NAME_WIDTH))


def _comparable(cell: Cell, digits: int) -> float | None:
    """Return the mean as printed, or None for a cell that cannot be best."""
    return None if cell.mean is None or math.isnan(cell.mean) else round(cell.mean, digits)


def _rounded(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: there is no -0.0


def _latex_cell(cell: Cell, column: Column) -> str:
    if cell.mean is None:
        known = {MISSING: "---", FAILED: "$\\times$"}
        return known.get(cell.symbol) or stack(lines_of(cell.symbol, NAME_WIDTH))
    text = cell.text(column.digits, " \\pm ")
    text = text if cell.is_finite else f"\\mathrm{{{text}}}"
    styles = {Mark.NONE: "${}$", Mark.BEST: "$\\mathbf{{{}}}$", Mark.SECOND: "\\underline{{${}$}}"}
    return styles[cell.mark].format(text)


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    """Return text that Markdown prints literally, on one line; underscores inside words mean nothing there."""
    escaped = re.sub(r"([\\`*<|~$&]|(?<!\w)_|_(?!\w))", r"\\\1", text)
    return "<br>".join(escaped.splitlines())


def no_formula(text: str) -> str:
    """Return a cell of text that a spreadsheet does not compute, without carriage returns, which CSV leaves bare."""
    text = text.replace("\r", " ")
    begin = text.lstrip()
    is_formula = begin[:1] in ("=", "+", "@") or (begin[:1] == "-" and len(begin) > 1) or text[:1] == "\t"
    return f"'{text}" if is_formula else text
