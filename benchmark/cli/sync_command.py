"""`bench sync`: bring to W&B what is not there yet."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Annotated

import typer

from benchmark.cli.options import RUNS, SOME_FAILED, Json, Out
from benchmark.cli.runs_command import Names, select
from benchmark.cli.terminal import console as open_console

TRACKER = "wandb"
"""The tool that has a server."""


def sync(
    names: Names = None,
    out: Out = RUNS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be uploaded and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Upload to W&B, from their records, the runs that were to be mirrored there (--track wandb), or those named.

    What is there already is left alone, and what was sent is looked up on the server. The same command again goes on
    where it was. Exit code 3 if a run could not be uploaded.
    """
    from benchmark.records import scan
    from benchmark.track.follow import FAILED, Job, Task
    from benchmark.track.journal import Ledger
    from benchmark.track.mirroring import below, sync

    runs = list(scan(out))
    asked = Ledger(out.absolute()).asked(TRACKER)
    chosen = select(runs, names) if names else [run for run in runs if below(run.folder.path, out) in asked]
    titles = {below(run.folder.path, out): run.title for run in chosen}
    tasks = [Task(folder, asked.get(folder, "")) for folder in titles]
    console = open_console(stderr=as_json)
    if not tasks:
        console.print(f"No run in {out} was to be mirrored. Name those to upload, as in bench sync '*'.", markup=False)
    rows = []
    for result in sync(Job(str(out.absolute()), [TRACKER], tasks, upload=True, is_dry=dry_run)) if tasks else ():
        rows.append({"run": titles[result["folder"]], **result})
        if not as_json:
            words = f"{result['outcome']:9} {titles[result['folder']]}  {result['detail']}"
            console.print(words, markup=False, soft_wrap=True)
    counts = Counter(row["outcome"] for row in rows)
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    elif rows:
        console.print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()), markup=False)
    if counts[FAILED]:
        raise typer.Exit(SOME_FAILED)
