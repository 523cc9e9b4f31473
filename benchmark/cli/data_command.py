"""`bench data`: prepare a data set from raw media, and look at it before training on it."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.cli.options import SOME_FAILED, DataRoot, Json
from benchmark.cli.terminal import console as open_console

if TYPE_CHECKING:
    from benchmark.inputs.audit import Audit

app = typer.Typer(no_args_is_help=True, help="Prepare a data set, and look at it before training on it.")

MAX_SHOWN = 20
"""Clips named in a message; the manifest names all."""
MAX_EXAMPLES = 3
"""Examples under a finding in a table; --json gives more."""


@app.command("unpack")
def unpack(
    archive: Annotated[Path, typer.Argument(help="A zip or tar archive.")],
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet, e.g. data/cremad.")],
    encoding: Annotated[
        str | None, typer.Option(help="Of a zip's names that do not say theirs. Default UTF-8 or GBK if they fit.")
    ] = None,
) -> None:
    """Unpack an archive, all of it or nothing: an entry that leads out of the folder is refused and named.

    So are damaged and encrypted archives, links that do not end at a file or folder of the archive, and what unpacks
    to more than 200 times its size (1 GiB is always allowed).
    """
    from benchmark.inputs.archives import unpack as unpack_archive

    unpack_archive(archive, folder, encoding)
    num_files = sum(path.is_file() for path in folder.rglob("*"))
    open_console().print(f"{num_files} files in {folder}", soft_wrap=True, markup=False)


@app.command("prepare")
def prepare(
    name: Annotated[str, typer.Argument(help="A data set, e.g. cremad[frames=3].")],
    root: Annotated[
        Path | None, typer.Option(help="Where data sets are, one folder each. Default $BENCH_DATA.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = len(os.sched_getaffinity(0)),
    allow_missing: Annotated[bool, typer.Option(help="Go on without clips that are missing or damaged.")] = False,
    as_json: Json = False,
) -> None:
    """Decode a data set's raw media once, into $BENCH_CACHE. A command that was killed goes on where it was."""
    from benchmark.errors import Problem, UserError
    from benchmark.inputs import clips
    from benchmark.inputs.prepare import prepare as prepare_clips
    from benchmark.plan.sweep import open_dataset

    dataset = open_dataset(name, root)
    if not isinstance(dataset, clips.ClipDataset):
        raise UserError(Problem(f"data set {name}", "one of raw media", "one that needs no preparation"))
    began = time.perf_counter()
    with _Progress(name, as_json) as tell:
        done = prepare_clips(dataset, jobs, allow_missing, tell)
    refused = bool(done.failed) and not allow_missing
    if as_json:
        facts = {"store": str(done.store), "num_clips": done.num_clips, "num_decoded": done.num_decoded,
                 "failed": list(done.failed), "num_bytes": done.num_bytes, "refused": refused}  # fmt: skip
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
    else:
        console = open_console()
        console.print(
            f"{name}: {done.num_clips - len(done.failed)} of {done.num_clips} clips in {done.store} "
            f"({done.num_bytes / 1e6:.1f} MB), {done.num_decoded} decoded in {time.perf_counter() - began:.0f} s",
            soft_wrap=True, markup=False,
        )  # fmt: skip
    if refused:
        where = f"data set {name}"
        advice = f"{dataset.advice or 'Get them.'} Or give the command again with --allow-missing."
        advice += f" All are named in {done.store}/manifest.json."
        shown = [
            Problem(f"{where}, clip {clip['id']}", "files that can be decoded", clip["reason"])
            for clip in done.failed[:MAX_SHOWN]
        ]
        raise UserError(
            *shown, Problem(where, "every clip of its lists", f"{len(done.failed)} missing or damaged", advice)
        )


class _Progress:
    """A progress bar on a terminal; lines at each tenth without one; nothing with --json."""

    def __init__(self, name: str, silent: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = open_console()
        self._silent = silent
        self._lines = not silent and not self._console.is_terminal
        columns = (
            TextColumn("preparing {task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        # refreshed by hand: a refreshing thread must not exist while worker processes are forked
        self._bar = Progress(*columns, console=self._console, auto_refresh=False, disable=silent or self._lines)
        self._task = self._bar.add_task(name, total=None)
        self._tenth = -1

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total, refresh=True)
        tenth = 10 * done // max(total, 1)
        if self._lines and tenth > self._tenth:
            self._console.print(f"{done} of {total} clips", markup=False)
        self._tenth = tenth


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="A data set, e.g. avletters[split=speaker].")],
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Look for what is wrong with a data set, or worth knowing of it: exit code 3 if something is wrong.

    Counts, classes, files, lengths, what parts share, repetitions, words that tell the label. Raw media need not be
    prepared.
    """
    from benchmark.inputs.audit import audit
    from benchmark.plan.sweep import open_dataset
    from benchmark.protocol import load_protocol

    dataset = open_dataset(name, data_root)
    recipe = load_protocol("unified").resolve(name.partition("[")[0], dataset.recipe, {})
    found = audit(dataset, recipe.valid_share)
    if as_json:
        facts = {
            "name": name,
            "about": dataset.about,
            "verdict": found.verdict,
            "counts": found.counts,
            "findings": [finding.__dict__ for finding in found.findings],
        }
        sys.stdout.write(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    else:
        _show(name, dataset.about, found)
    if found.verdict == "fail":
        raise typer.Exit(SOME_FAILED)


def _show(name: str, about: str, found: Audit) -> None:
    """Print a table of findings and a line of verdict."""
    from rich.markup import escape
    from rich.table import Table

    colours = {"ok": "green", "note": "yellow", "fail": "red"}
    table = Table("finding", "", "what was found")
    for finding in found.findings:
        examples = "".join(f"\n[dim]{escape(example)}[/]" for example in finding.examples[:MAX_EXAMPLES])
        verdict = f"[{colours[finding.verdict]}]{finding.verdict}[/]"
        table.add_row(escape(finding.name), verdict, escape(finding.detail) + examples)
    console = open_console()
    console.print(f"[bold]{escape(name)}[/]  {escape(about)}", soft_wrap=True)
    console.print(table)
    num = {verdict: sum(finding.verdict == verdict for finding in found.findings) for verdict in colours}
    meaning = {"ok": "as it should be", "note": "usable, with notes", "fail": "not as it should be"}[found.verdict]
    line = f"{escape(name)}: [{colours[found.verdict]}]{meaning}[/]"
    console.print(f"{line} ({num['fail']} failed, {num['note']} notes, {num['ok']} ok)", soft_wrap=True)
