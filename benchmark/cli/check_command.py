"""`bench check`: prove that a plugin keeps the contract."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.markup import escape

from benchmark.cli.options import SOME_FAILED, DataRoot, Json
from benchmark.cli.terminal import console as open_console


def check(
    name: Annotated[str, typer.Argument(help="A method or data set, by name or path.")],
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Run the contract tests on a method or a data set; exit code 3 if any fails."""
    import torch

    from benchmark.check import check_plugin

    torch.set_num_threads(1)  # tiny networks: more threads only wait for each other
    results = []
    console = open_console(stderr=as_json)
    for result in check_plugin(name, data_root):
        results.append(result)
        said = ": ".join(filter(None, [result.where, result.detail]))
        console.print(f"[{result.colour}]{result.verdict:5}[/] {escape(result.name)}  {escape(said)}", soft_wrap=True)
    if as_json:
        sys.stdout.write(json.dumps([result.__dict__ for result in results], indent=1) + "\n")
    if any(result.failed for result in results):
        raise typer.Exit(SOME_FAILED)
