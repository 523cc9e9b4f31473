"""The `bench` command. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer
from rich.markup import escape

from benchmark import __version__
from benchmark.cli import (
    ablate_command,
    check_command,
    cluster_command,
    data_command,
    evaluate_command,
    ledger_command,
    list_command,
    report_command,
    run_command,
    runs_command,
    serve_command,
    status_command,
    sync_command,
)  # fmt: skip
from benchmark.cli.visible import Console
from benchmark.errors import UserError
from benchmark.surroundings import settle

NOT_OURS = {errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EIO}
"""What a disk or its owner does not allow: told in a line, whatever the command was doing."""
BAD_INPUT = 2
"""Exit code for input that cannot be used."""


def print_version(wanted: bool) -> None:
    """Print the version and exit, where that is wanted."""
    if wanted:
        sys.stdout.write(f"modalbench {__version__}\n")
        raise typer.Exit


app = typer.Typer(
    name="bench",
    help="Train, record and compare methods for imbalanced multimodal learning.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """Train, record and compare methods for imbalanced multimodal learning."""


app.command("run")(run_command.run)
app.command("status")(status_command.status)
app.command("wait")(runs_command.wait)
app.command("cancel")(runs_command.cancel)
app.command("retry")(runs_command.retry)
app.command("logs")(runs_command.logs)
app.command("ablate")(ablate_command.ablate)
app.command("evaluate")(evaluate_command.evaluate)
app.command("report")(report_command.report)
app.command("serve")(serve_command.serve)
app.command("ledger")(ledger_command.ledger)
app.command("sync")(sync_command.sync)
app.command("list")(list_command.list_)
app.command("check")(check_command.check)
app.add_typer(data_command.app, name="data")
app.add_typer(cluster_command.app, name="cluster")


def main() -> None:
    """Run the command line; bad input ends with a message for each problem and exit code 2."""
    settle()
    try:
        app()
    except UserError as error:
        for problem in error.problems:
            _tell(str(problem))
        sys.exit(BAD_INPUT)
    except OSError as error:
        if error.errno not in NOT_OURS:
            raise
        _tell(f"{error.filename or 'the disk'}: {error.strerror}.")
        sys.exit(BAD_INPUT)


def _tell(problem: str) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[red]error:[/] {escape(problem)}")
