"""`bench serve`: the dashboards, live."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import RUNS, Out
from benchmark.cli.terminal import console as open_console
from benchmark.errors import Problem, UserError


def serve(
    out: Out = RUNS,
    host: Annotated[str, typer.Option(help="Name or address to listen at; 0.0.0.0 lets other machines in.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port, 0 for any that is free.")] = 8642,
) -> None:
    """Show every run in a browser while runs go on: the pages of bench report --html, live. Only reads."""
    from benchmark.site.server import Server

    if not out.is_dir():
        raise UserError(Problem("--out", "a folder", f"{out}, which is none", "Make runs with bench run first."))
    console = open_console()
    with Server(Path(out).resolve(), host, port) as server:
        console.print(f"Runs of {out} at {server.url} (Ctrl-C ends this)", markup=False, soft_wrap=True)
        if server.is_open_to_others:
            console.print("Anyone who reaches this machine can read them.", markup=False)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print("Stopped.")
