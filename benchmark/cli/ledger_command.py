"""`bench ledger`: what papers say, what released code does, what we do."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from benchmark.cli.options import Json
from benchmark.cli.terminal import console as open_console
from benchmark.plan.typed import split_plugins


def ledger(
    methods: Annotated[str, typer.Option(help="Methods, by name or path, or 'all'.")] = "all",
    to: Annotated[
        Path | None, typer.Option("--to", help="Also write ledger.md, .csv and .tex into this folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a row for each method: paper, released code, ours, how far both were compared, tests."""
    from benchmark.launch.driver import check_writable
    from benchmark.registry import METHODS
    from benchmark.report import Artifact, write
    from benchmark.tables.ledger import HEAD, rows, to_csv, to_latex, to_markdown

    if to is not None:
        check_writable(to)
    names = [
        name for token in split_plugins(methods) for name in (sorted(METHODS.known()) if token == "all" else [token])
    ]
    found = rows(METHODS.find(name) for name in names)
    if to is not None:
        texts = {"md": to_markdown(found), "csv": to_csv(found), "tex": to_latex(found)}
        write((Artifact(f"ledger.{suffix}", text.encode()) for suffix, text in texts.items()), to)
    if as_json:
        sys.stdout.write(json.dumps([asdict(row) for row in found], indent=1, ensure_ascii=False) + "\n")
        return
    table = Table(show_lines=True)
    for name in HEAD[:-1]:
        long = name in ("paper", "released", "ours")
        table.add_column(name, ratio=1 if long else None, max_width=None if long else 14, overflow="fold")
    for row in found:
        table.add_row(*(Text(text) for text in (row.method, row.paper, row.released, row.ours, row.code, row.known)))
    open_console().print(table)
