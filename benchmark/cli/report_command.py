"""`bench report`: tables and figures from records."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from benchmark.cli.options import RUNS, DataRoot, Json, Out
from benchmark.cli.terminal import console as open_console
from benchmark.errors import Problem, UserError

if TYPE_CHECKING:
    from benchmark.records import RunView
    from benchmark.registry import Plugin

STALE = "Edited since an earlier report wrote them, so they stay, with its numbers"

Unsupported = Sequence[tuple[str, str, str]]
"""(method, data set, reason)"""


def report(
    names: Annotated[list[str] | None, typer.Argument(help="Reports, or experiment files; all by default.")] = None,
    out: Out = RUNS,
    data_root: DataRoot = None,
    to: Annotated[Path, typer.Option("--to", help="Folder to write into.")] = Path("report"),
    html: Annotated[bool, typer.Option("--html", help="Also write pages for a browser: site/index.html.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Write files, print no tables.")] = False,
    as_json: Json = False,
) -> None:
    """Write every table (LaTeX, Markdown, CSV) and figure (SVG, PDF, PNG) that the records allow.

    report.tex includes them all: pdflatex report.tex. Some reports, or an experiment's, have a document of their own:
    report-comparison.tex. Files of an earlier report that a new one no longer has are removed; manifest.json lists what
    was written. For an experiment file it also says what is missing of the experiment, and the command that fills it.
    """
    from benchmark.plan.experiment import read_experiment
    from benchmark.records import view_all
    from benchmark.registry import REPORTS
    from benchmark.report import slug

    files = [Path(name) for name in names or () if name.endswith((".yaml", ".yml"))]
    wanted = [name for name in names or () if Path(name) not in files]
    experiments = [read_experiment(file) for file in files]
    wanted += [name for experiment in experiments for name in experiment.reports]
    if out == RUNS:  # else what was typed wins
        out = next((Path(experiment.out) for experiment in experiments if experiment.out), out)
    plugins = [REPORTS.find(name) for name in dict.fromkeys(wanted or sorted(REPORTS.known()))]
    runs: list[RunView] = []
    unsupported: list[tuple[str, str, str]] = []
    missing: list[dict[str, Any]] = []
    for file in files:
        found, without = _planned(file, out, data_root)
        runs += found
        unsupported += without
        if not all(run.record for run in found):
            missing.append(_missing(file, found, out, data_root))
    console = open_console(stderr=as_json)
    for one in missing:
        console.print(one["words"], markup=False, soft_wrap=True)
    everything = runs if files else view_all(out)
    name = "-".join(["report", *(file.stem for file in files), *(plugin.name for plugin in plugins if wanted)])
    make_reports(plugins, everything, unsupported, to, quiet, as_json, missing, out if html else None, slug(name))


def make_reports(
    plugins: Iterable[Plugin],
    runs: Iterable[RunView],
    unsupported: Unsupported,
    to: Path,
    quiet: bool,
    as_json: bool,
    missing: Sequence[dict[str, Any]] = (),
    html_of: Path | None = None,
    name: str = "report",
) -> None:
    """Write the reports of these runs into a folder, and the document `name` of them all; print tables and paths.

    With `html_of`, the runs' folder, also a site of all these runs, the finished and the others.

    Raises:
        UserError: when there is no run, or the folder cannot be written.
    """
    from benchmark.launch.driver import check_writable
    from benchmark.report import compare
    from benchmark.tables.document import document
    from benchmark.tables.manifest import write_document
    from benchmark.tables.picture import own_style

    console = open_console(stderr=as_json)
    runs = list(runs)
    comparisons, problems = compare(runs, unsupported)
    if not any(run.status.attempts or run.record for comparison in comparisons for run in comparison.runs):
        advice = missing[0]["command"] if missing else "Make some with bench run."
        raise UserError(Problem("--out", "a folder with runs", "none of those wanted", advice))
    check_writable(to)
    for problem in problems:
        console.print(f"[yellow]warning:[/] {escape(problem)}", soft_wrap=True)
    for line in dict.fromkeys(line for comparison in comparisons for line in comparison.older):
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    sections = []
    for plugin in plugins:
        made = plugin.load()()
        with own_style():
            sections.append((f"{plugin.name}: {made.about}", list(made.build(comparisons))))
        if not (as_json or quiet):
            for table in made.tables(comparisons):
                console.print(table.to_rich())
    artifacts = [artifact for _, found in sections for artifact in found]
    written = write_document(document(sections, name), artifacts, to)
    paths = written.paths
    if html_of is not None:
        from benchmark.site.pages import write_site

        paths.append(write_site(runs, html_of, to, [artifact.name for artifact in artifacts]))
    for what, files in (("Removed, of an earlier report", written.removed), (STALE, written.kept)):
        if files:
            words = [f"{what}:", *(f"  {path}" for path in files)]
            console.print("\n".join(words), markup=False, soft_wrap=True)
    if as_json:
        content = {
            "files": [str(path) for path in paths],
            "removed": [str(path) for path in written.removed],
            "stale": [str(path) for path in written.kept],
            "problems": problems,
            "missing": missing,
        }
        sys.stdout.write(json.dumps(content, indent=1) + "\n")
    else:
        console.print("\n".join(["Wrote", *(f"  {path}" for path in paths)]), markup=False, soft_wrap=True)


def _planned(experiment: Path, out: Path, data_root: Path | None) -> tuple[list[RunView], Unsupported]:
    """Return an experiment's runs, finished or not, and its unsupported combinations."""
    from benchmark.plan.coverage import planned
    from benchmark.plan.experiment import sweep_of
    from benchmark.plan.sweep import plan

    made = plan(sweep_of(experiment, {}, data_root))
    return list(planned(made.runs, out)), made.unsupported


def _missing(experiment: Path, runs: Sequence[RunView], out: Path, data_root: Path | None) -> dict[str, Any]:
    """Print what is missing of an experiment and the command that trains it."""
    from benchmark.plan.coverage import missing

    root = ["--data-root", str(data_root)] if data_root else []
    command = shlex.join(["bench", "run", str(experiment), "--out", str(out), *root])
    lines = missing(runs)
    count = sum(run.record is None for run in runs)
    words = [f"{experiment}: {count} of {len(runs)} runs are missing or failed.", *(f"  {line}" for line in lines)]
    words.append(f"To fill it: {command}")
    return {"command": command, "runs": count, "of": len(runs), "lines": lines, "words": "\n".join(words)}
