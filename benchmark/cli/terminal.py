"""The console: as wide as the terminal, or wide enough for tables where there is none."""

from __future__ import annotations

<<<<<<< HEAD
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
=======
from collections.abc import Iterable

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
>>>>>>> b395f01 (One damaged run stops no command, input has bounds, and names reach neither terminal nor spreadsheet as commands)

from benchmark.cli.options import RUNS
from benchmark.metrics import HEADLINE
from benchmark.records import RunView, State, Status
from benchmark.tables.table import UNSUPPORTED

WIDE = 160
"""Columns when output goes to a file or a pipe."""


VISIBLE = {
    number: "\N{REPLACEMENT CHARACTER}" for number in (*range(32), *range(127, 160)) if chr(number) not in "\n\t"
}
"""{control character: what is shown in its place}: a name must not move the cursor or change the terminal."""


class Console(RichConsole):
    """A console to which no text can send control characters; what rich itself sends passes."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments of something printed."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else segment.text.translate(VISIBLE)
            yield segment if text == segment.text else Segment(text, segment.style)


def console(stderr: bool = False) -> Console:
    """Return a console for tables and plain lines; highlighting is off, so numbers look the same everywhere."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=WIDE)


def valid_score(status: Status, unit: str = "") -> str:
    """Return the fused validation score of a run's last epoch as printed; n/a where nothing was held out for it."""
    if status.metric is None:
        return UNSUPPORTED if status.epoch else ""
    return f"{HEADLINE.text(status.metric)} {unit}".strip()


def where_to_look(runs: Sequence[RunView], out: Path) -> list[str]:
    """Return a line with the command that says why runs failed; none where no run has."""
    failed = [run.folder.path.name for run in runs if run.status.state is State.FAILED]
    if not failed:
        return []
    command = shlex.join(["bench", "logs", failed[0], *(["--out", str(out)] if out != RUNS else [])])
    return [f"What it said: {command}" + f" (and so for {len(failed) - 1} more)" * (len(failed) > 1)]
