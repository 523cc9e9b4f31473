"""Reports as objects: tables and pictures that display in a notebook and can be written to a folder."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import Problem, UserError
from benchmark.records import RunView
from benchmark.registry import REPORTS, report_after
from benchmark.report import Artifact, compare, write
from benchmark.tables.table import Table


@dataclass(frozen=True)
class ShownReport:
    """What a report makes of some runs."""

    name: str
    tables: Sequence[Table]
    artifacts: Sequence[Artifact]
    """Every file: LaTeX, Markdown and CSV of the tables, figures as PNG, SVG and PDF."""
    problems: Sequence[str] = ()
    """What could not be read, in words."""

    @property
    def pictures(self) -> dict[str, bytes]:
        """The figures as PNG, by file name."""
        return {artifact.name: artifact.content for artifact in self.artifacts if artifact.name.endswith(".png")}

    def write(self, folder: str | Path) -> list[Path]:
        """Write every file into a folder and return the paths."""
        return write(self.artifacts, Path(folder))

    def __repr__(self) -> str:
        return "\n".join(table.to_markdown() for table in self.tables) or (
            f"<report {self.name}: {len(self.artifacts)} files>"
        )

    def _repr_html_(self) -> str:
        parts = [table.to_html() for table in self.tables]
        for name, content in self.pictures.items():
            data = base64.b64encode(content).decode()
            parts.append(f'<img alt="{name}" style="max-width:100%" src="data:image/png;base64,{data}">')
        return "\n".join(parts) or f"<p>report {self.name}: {len(self.artifacts)} files</p>"


def make_report(
    name: str | None, runs: Iterable[RunView], unsupported: Iterable[tuple[str, str, str]] = ()
) -> ShownReport:
    """Make a report of runs.

    Raises:
        UserError: when there is no such report, or no run that was ever started.
    """
    plugin = REPORTS.find(name) if name else report_after("run")
    comparisons, problems = compare(runs, unsupported)
    if not any(run.status.attempts or run.record for comparison in comparisons for run in comparison.runs):
        raise UserError(Problem(f"report {plugin.name}", "runs that were started", "none", "Make some with run()."))
    report = plugin.load()()
    from benchmark.tables.picture import own_style

    with own_style():
        artifacts = list(report.build(comparisons))
    return ShownReport(plugin.name, list(report.tables(comparisons)), artifacts, problems)
