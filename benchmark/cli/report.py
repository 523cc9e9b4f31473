"""`bench report`: tables and figures from records."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from benchmark.cli.options import RUNS, Json, Out
from benchmark.cli.terminal import console as open_console
from benchmark.errors import Problem, UserError


def report(
    names: Annotated[list[str] | None, typer.Argument(help="Reports to make; all by default.")] = None,
    out: Out = RUNS,
    to: Annotated[Path, typer.Option("--to", help="Folder to write into.")] = Path("report"),
    quiet: Annotated[bool, typer.Option("--quiet", help="Write files, print no tables.")] = False,
    as_json: Json = False,
) -> None:
    """Write every table (LaTeX, Markdown, CSV) and figure (SVG, PNG) that the records allow."""
    from benchmark.cli.run import check_writable
    from benchmark.records import scan
    from benchmark.registry import REPORTS
    from benchmark.report import compare, write

    plugins = [REPORTS.find(name) for name in names or sorted(REPORTS.known())]
    comparisons, problems = compare(scan(out))
    if not comparisons:
        raise UserError(Problem("--out", "a folder with runs", f"none in {out}", "Make some with bench run."))
    check_writable(to)
    console = open_console(stderr=as_json)
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
