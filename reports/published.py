"""Published: what papers print beside what we measure, cell by cell, with the source of each figure.

The figures are in experiments/published/*.csv, one row for each cell of a paper's table. A paper's protocol is its own;
here only the rule that chose the epoch is made the same, so a difference is a question and not a verdict.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import Problem, UserError, nearest
from benchmark.metrics import FUSED, in_tables
from benchmark.report import Artifact, Comparison, Report, render
from benchmark.rules import ORACLE_TEST, RULES, title
from benchmark.tables.table import Cell, Column, Table

from .comparison import cell

FOLDER = Path(__file__).parents[1] / "experiments" / "published"
"""Beside this package's folder in a repository and, as `benchmark.experiments`, in a wheel."""
UNKNOWN = "unknown"
"""A paper's rule of selection where it does not say."""
FIELDS = ("paper", "table", "dataset", "method", "head", "metric", "value", "selection", "source", "note")
"""Columns of the files. `dataset` and `method` are our labels, or the paper's words for a method that we do not have;
`head` is fused or a modality, `value` is in per cent; only a note may be empty."""


class PublishedReport(Report):
    about = "published figures beside ours, with the difference and the source of each"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        figures = read_folder(FOLDER)
        found = list(beside(comparisons, figures))
        for comparison, table in found:
            yield from render(table, f"published-{comparison.stem}")
        if not found:
            yield from render(nothing(figures), "published")

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        return [table for _, table in beside(comparisons, read_folder(FOLDER))]


@dataclass(frozen=True)
class Figure:
    """One number of a paper's table."""

    paper: str
    table: str
    dataset: str
    method: str
    head: str
    """`fused` or a modality."""
    metric: str
    value: float
    """In per cent."""
    selection: str
    """The rule by which the paper chose the epoch."""
    source: str
    note: str

    @property
    def row(self) -> tuple[str, str, str, str, str]:
        """What one row of the report shows: several metrics of one thing."""
        return self.paper, self.table, self.method, self.head, self.selection


def read_folder(folder: Path) -> list[Figure]:
    """Return the published figures, by file name and line.

    Raises:
        UserError: with every malformed line, and every cell that two lines give.
    """
    figures: list[Figure] = []
    problems: list[Problem] = []
    lines: dict[tuple[object, ...], str] = {}
    for path in sorted(folder.glob("*.csv")):
        for where, fields in read_lines(path, problems):
            wrong = list(check(where, fields))
            problems += wrong
            if wrong:
                continue
            figure = Figure(**{**fields, "value": float(fields["value"])})  # type: ignore[arg-type]
            key = (*figure.row, figure.dataset, figure.metric)
            if key in lines:
                problems.append(Problem(where, "each cell of a paper once", f"the cell of {lines[key]} again"))
            lines[key] = where
            figures.append(figure)
    if problems:
        raise UserError(*problems)
    return figures


def read_lines(path: Path, problems: list[Problem]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each line stands and its fields; append what is no table to `problems`."""
    where = f"published figures, {path.name}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(where, "a readable UTF-8 file", str(error)))
        return
    reader = csv.reader(text.splitlines())
    header = [name.strip() for name in next(reader, [])]
    if sorted(header) != sorted(FIELDS):
        problems.append(Problem(f"{where}, line 1", f"the columns {', '.join(FIELDS)}", ", ".join(header) or "nothing"))
        return
    for values in reader:
        place = f"{where}, line {reader.line_num}"
        if len(values) == len(header):
            yield place, {name: value.strip() for name, value in zip(header, values, strict=True)}
        elif values:
            fix = "Put quotes around a value with a comma."
            problems.append(Problem(place, f"{len(header)} values", str(len(values)), fix))


def check(where: str, fields: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what is wrong with a line."""
    for name in FIELDS:
        if not fields[name] and name not in ("note", "value"):
            yield Problem(where, f"a {name}", "nothing")
    for name, known in (("metric", [metric.name for metric in in_tables()]), ("selection", [*RULES, UNKNOWN])):
        if fields[name] and fields[name] not in known:
            yield Problem(where, f"a known {name}", repr(fields[name]), nearest(fields[name], known))
    try:
        value = float(fields["value"])
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        yield Problem(where, "a value from 0 to 100, in per cent", repr(fields["value"]))


def beside(comparisons: Sequence[Comparison], figures: Sequence[Figure]) -> Iterator[tuple[Comparison, Table]]:
    """Yield each comparison whose data set has published figures, with its table."""
    for comparison in comparisons:
        name = comparison.runs[0].spec["dataset"]["name"]
        chosen = [figure for figure in figures if figure.dataset in (comparison.dataset, name)]
        if chosen:
            yield comparison, table_of(comparison, chosen)


def table_of(comparison: Comparison, figures: Sequence[Figure]) -> Table:
    """Return published and our scores in per cent, and ours minus published in points."""
    metrics = [metric for metric in in_tables() if any(figure.metric == metric.name for figure in figures)]
    rows: dict[tuple[str, ...], dict[str, Figure]] = {}
    for figure in figures:
        rows.setdefault(figure.row, {})[figure.metric] = figure
    ours = f"ours, {title(comparison.selection)}"
    columns = [Column("chosen by", rank=False)]
    for metric in metrics:
        names = ("published", "ours, as they", "difference", ours)  # papers print two digits
        columns += [Column(name, metric.heading, digits=2, rank=False) for name in names]
    lines = []
    for (paper, table, method, head, rule), by_metric in rows.items():
        what = f"{method}, {head}" if head != FUSED else method
        cells = [Cell(symbol=title(rule))]
        for metric in metrics:
            cells += four(comparison, by_metric[metric.name]) if metric.name in by_metric else [Cell()] * 4
        lines.append((f"{what} ({paper}, {table})", cells))
    caption = f"{comparison.title}: published test scores and ours (%), ours as mean ± std over seeds"
    return Table(caption, columns, lines, notes(comparison, figures))


def four(comparison: Comparison, figure: Figure) -> list[Cell]:
    """Return the published value, ours by the paper's rule, the difference, and ours by the comparison's rule."""
    method = (variants(comparison, figure.method) or [figure.method])[0]
    honest = cell(comparison, method, (comparison.selection, figure.head, figure.metric))
    if figure.selection == UNKNOWN:
        return [Cell((figure.value,)), Cell(), Cell(), honest]
    same = cell(comparison, method, (figure.selection, figure.head, figure.metric))
    gaps = tuple(value - figure.value for value in same.values)
    return [Cell((figure.value,)), same, Cell(gaps, same.symbol), honest]


def variants(comparison: Comparison, method: str) -> list[str]:
    """Return which of our labels stands for a published method: its own, or the only one with settings of ours."""
    if method in comparison.methods:
        return [method]
    labels = sorted({run.method for run in comparison.runs if run.spec["method"]["name"] == method})
    return labels if len(labels) == 1 else []


def notes(comparison: Comparison, figures: Sequence[Figure]) -> list[str]:
    """Return what a reader must know of the figures: where each comes from, and what is uncertain about it."""
    lines = [
        f"chosen by: how the paper chose the epoch; {ORACLE_TEST.title} is the best epoch on test. 'as they' is our run"
        f" by that rule, under {comparison.protocol}; the paper's protocol is its own, and so a difference shows"
        " what is to be explained and not who is right.",
        "— no run of ours, or not published; ✗ failed, n/a unsupported.",
    ]
    for method in dict.fromkeys(figure.method for figure in figures):
        lines += [f"{method}: ours is {label}." for label in variants(comparison, method) if label != method]
    lines += dict.fromkeys(f"{figure.paper}, {figure.table}: {figure.source}." for figure in figures)
    lines += dict.fromkeys(
        f"{figure.method} ({figure.paper}, {figure.table}): {figure.note}." for figure in figures if figure.note
    )
    return [*lines, *comparison.about_protocol(), *comparison.left_out()]


def nothing(figures: Sequence[Figure]) -> Table:
    """Return an empty table that says for which data sets figures are known."""
    known = ", ".join(sorted({figure.dataset for figure in figures})) or "none"
    note = f"No run on a data set with published figures; there are figures for: {known}."
    return Table("Published test scores and ours", [Column("published")], [], [note])
