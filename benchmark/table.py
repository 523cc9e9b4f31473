"""Tables: cells with a mean, a spread and a mark, rendered as LaTeX, Markdown, CSV and for the terminal."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

MISSING, FAILED, UNSUPPORTED = "—", "✗", "n/a"


class Mark(StrEnum):
    """How a cell stands out in its column."""

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

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds (n - 1); None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def text(self, digits: int, plus_minus: str) -> str:
        if self.mean is None:
            return self.symbol
        mean = f"{self.mean:.{digits}f}"
        return mean if self.std is None else f"{mean}{plus_minus}{self.std:.{digits}f}"


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
            # rounded as printed, so that cells that look equal are marked alike
            means = [
                None if row[position].mean is None else round(row[position].mean or 0.0, column.digits) for row in cells
            ]
            best = sorted({mean for mean in means if mean is not None}, reverse=True)[:2]
            if not column.rank or len(best) < 2:
                continue
            for row, mean in zip(cells, means, strict=True):
                if mean in best:
                    row[position] = replace(row[position], mark=Mark.BEST if mean == best[0] else Mark.SECOND)
        return replace(self, rows=[(name, row) for (name, _), row in zip(self.rows, cells, strict=True)])

    def to_latex(self) -> str:
        """Return a booktabs fragment to `\\input`; needs the packages booktabs and, for symbols, none."""
        groups = self._groups()
        lines = ["\\begin{tabular}{l" + "c" * len(self.columns) + "}", "\\toprule"]
        if any(group for group, _ in groups):
            spans = [f"\\multicolumn{{{count}}}{{c}}{{{escape_latex(group)}}}" for group, count in groups]
            lines.append(" & ".join(["", *spans]) + " \\\\")
            start, rules = 2, []
            for group, count in groups:
                rules.append(f"\\cmidrule(lr){{{start}-{start + count - 1}}}" if group else "")
                start += count
            lines.append(" ".join(rule for rule in rules if rule))
        header = [escape_latex(self.corner), *(escape_latex(column.name) for column in self.columns)]
        lines += [" & ".join(header) + " \\\\", "\\midrule"]
        for name, row in self.rows:
            cells = [self._latex_cell(cell, column) for cell, column in zip(row, self.columns, strict=True)]
            lines.append(" & ".join([escape_latex(name), *cells]) + " \\\\")
        lines += ["\\bottomrule", "\\end{tabular}"]
        head = [f"% {line}" for text in (self.caption, *self.notes) for line in text.splitlines()]
        return "\n".join([*head, *lines]) + "\n"

    def to_markdown(self) -> str:
        """Return the caption, a GitHub table and the notes."""
        names = [f"{column.group}: {column.name}" if column.group else column.name for column in self.columns]
        lines = [_pipes([self.corner, *names]), _pipes(["---", *["---:"] * len(names)])]
        marks = {Mark.NONE: "{}", Mark.BEST: "**{}**", Mark.SECOND: "<u>{}</u>"}
        for name, row in self.rows:
            cells = [
                marks[cell.mark].format(cell.text(column.digits, " ± "))
                for cell, column in zip(row, self.columns, strict=True)
            ]
            lines.append(_pipes([name, *cells]))
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([f"**{self.caption}**\n", *lines, *notes]) + "\n"

    def to_csv(self) -> str:
        """Return one line for each cell: row, group, column, mean, std, n, symbol."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([self.corner, "group", "column", "mean", "std", "n", "symbol"])
        for name, row in self.rows:
            for cell, column in zip(row, self.columns, strict=True):
                symbol = "" if cell.values else cell.symbol
                writer.writerow([name, column.group, column.name, cell.mean, cell.std, len(cell.values), symbol])
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
        table.add_column(self.corner, no_wrap=True)
        for column in self.columns:
            table.add_column(f"{column.group}\n{column.name}" if column.group else column.name, justify="right")
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

    def _latex_cell(self, cell: Cell, column: Column) -> str:
        if cell.mean is None:
            return {MISSING: "---", FAILED: "$\\times$"}.get(cell.symbol, escape_latex(cell.symbol))
        text = cell.text(column.digits, " \\pm ")
        styles = {Mark.NONE: "${}$", Mark.BEST: "$\\mathbf{{{}}}$", Mark.SECOND: "\\underline{{${}$}}"}
        return styles[cell.mark].format(text)


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "†": r"$^\dagger$", "±": r"$\pm$", "−": r"$-$",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Escape what LaTeX would take for a command."""
    return "".join(_LATEX.get(char, char) for char in text)


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
