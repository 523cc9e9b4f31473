"""`bench report`: tables and figures from records."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from benchmark.cli.options import RUNS, DataRoot, Json, Out
from benchmark.cli.terminal import console as open_console
from benchmark.errors import Problem, UserError

if TYPE_CHECKING:
    from benchmark.records import RunFolder


def report(
    names: Annotated[list[str] | None, typer.Argument(help="Reports, or experiment files; all by default.")] = None,
    out: Out = RUNS,
    data_root: DataRoot = None,
    to: Annotated[Path, typer.Option("--to", help="Folder to write into.")] = Path("report"),
    quiet: Annotated[bool, typer.Option("--quiet", help="Write files, print no tables.")] = False,
    as_json: Json = False,
) -> None:
    """Write every table (LaTeX, Markdown, CSV) and figure (SVG, PNG) that the records allow."""
    from benchmark.cli.run import check_writable
    from benchmark.experiment import read_experiment
    from benchmark.records import scan, view
    from benchmark.registry import REPORTS
    from benchmark.report import compare, write

    files = [Path(name) for name in names or () if name.endswith((".yaml", ".yml"))]
    wanted = [name for name in names or () if Path(name) not in files]
    wanted += [name for file in files for name in read_experiment(file).reports]
    plugins = [REPORTS.find(name) for name in wanted or sorted(REPORTS.known())]
    console = open_console(stderr=as_json)
    if files:
        runs = [view(folder) for file in files for folder in _planned(file, out, data_root)]
        missing = sum(run.record is None for run in runs)
        if missing:
            command = f"bench run {' '.join(map(str, files))} --out {out}"
            console.print(f"{missing} of {len(runs)} runs are missing or failed: {command}", soft_wrap=True)
    else:
        runs = list(scan(out))
    comparisons, problems = compare(run for run in runs if run.spec)
    if not comparisons:
        raise UserError(Problem("--out", "a folder with runs", f"none in {out}", "Make some with bench run."))
    check_writable(to)
    for problem in problems:
        console.print(f"[yellow]warning:[/] {escape(problem)}", soft_wrap=True)
    paths = []
    for plugin in plugins:
        made = plugin.load()()
        paths += write(made.build(comparisons), to)
        if not (as_json or quiet):
            for table in made.tables(comparisons):
                console.print(table.to_rich())
    if as_json:
        sys.stdout.write(json.dumps({"files": [str(path) for path in paths], "problems": problems}, indent=1) + "\n")
    else:
        console.print("\n".join(["Wrote", *(f"  {path}" for path in paths)]), soft_wrap=True)


def _planned(experiment: Path, out: Path, data_root: Path | None) -> Iterator[RunFolder]:
    """Yield the folders of an experiment's runs, finished or not."""
    from benchmark.experiment import sweep_of
    from benchmark.records import RunFolder
    from benchmark.spec import plan

    for spec in plan(sweep_of(experiment, {}, data_root)).runs:
        yield RunFolder(spec.folder(out))
