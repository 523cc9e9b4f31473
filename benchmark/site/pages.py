"""The pages as text, and the whole site as files."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps

from benchmark import __version__
from benchmark.metrics import HEADLINE, PROBE
from benchmark.records import RunView, dig
from benchmark.report import Artifact, write
from benchmark.rules import RULES, heading
from benchmark.site.reading import read_history
from benchmark.site.rows import GLYPHS, Row, highest_valid, spark, summarise
from benchmark.site.run_page import config_of, configs_script, gather
from benchmark.tables.table import MISSING

FOLDER = "site"
"""Folder of the site, next to the tables and figures."""

Found = Sequence[tuple[Row, RunView]]


class Pages:
    """Makes pages from runs.

    Args:
        live: whether the pages look for newer ones of themselves.
    """

    def __init__(self, live: bool = False) -> None:
        self._jinja = Environment(
            loader=PackageLoader("benchmark.site"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._jinja.globals |= {"live": live, "version": __version__, "GLYPHS": GLYPHS}
        self._jinja.globals |= {"RULES": RULES, "HEADLINE": HEADLINE, "heading": heading, "PROBE": PROBE}
        self._jinja.filters |= {"percent": percent, "duration": duration, "data": as_data}

    def sweep(self, rows: Sequence[Row], files: Iterable[str] = (), alert: str = "") -> bytes:
        """Return the page of all runs.

        Args:
            rows: a line for each run.
            files: names of tables and figures in the folder above the site.
            alert: what went wrong with reading the runs, in words.
        """
        highest = highest_valid(rows)
        return self._render(
            "sweep.html",
            rows=[(row, spark(row, highest[row.dataset])) for row in rows],
            counts=Counter(row.state for row in rows),
            datasets=sorted({row.dataset for row in rows}),
            methods=sorted({row.method for row in rows}),
            modalities=sorted({modality for row in rows for modality, _ in row.own}),
            tables=_by_stem(files),
            alert=alert,
        )

    def run(self, run: RunView, row: Row) -> bytes:
        """Return a run's own page."""
        return self._render("run.html", page=gather(run, row), configs=configs_name(run))

    def message(self, title: str, text: str) -> bytes:
        """Return a page with one message."""
        return self._render("message.html", title=title, text=text)

    def _render(self, template: str, **values: Any) -> bytes:
        return encoded(self._jinja.get_template(template).render(**values))


def build(runs: Iterable[RunView], root: Path, files: Iterable[str] = ()) -> Iterator[Artifact]:
    """Yield the files of a static site; the order of the runs changes none.

    Args:
        runs: what was found, damaged runs included.
        root: the runs' folder.
        files: names of tables and figures in the folder above the site.
    """
    pages, found = Pages(), in_order((summarise(run, root, read_history(run.folder)), run) for run in runs)
    yield Artifact(f"{FOLDER}/index.html", pages.sweep([row for row, _ in found], files))
    for row, run in found:
        yield Artifact(f"{FOLDER}/runs/{row.page}", pages.run(run, row))
    for name, content in configs(found).items():
        yield Artifact(f"{FOLDER}/configs/{name}", content)
    for name, content in assets().items():
        yield Artifact(f"{FOLDER}/assets/{name}", content)


def write_site(runs: Iterable[RunView], root: Path, to: Path, files: Iterable[str] = ()) -> Path:
    """Write a static site below a folder, remove the pages of runs that are gone, and return its first page."""
    written = set(write(build(runs, root, files), to))
    for part in ("runs", "configs"):
        for path in (to / FOLDER / part).glob("*"):
            if path not in written:
                path.unlink()
    return to / FOLDER / "index.html"


def in_order(found: Iterable[tuple[Row, RunView]]) -> Found:
    """Sort runs by data set, method and seed."""

    def key(pair: tuple[Row, RunView]) -> tuple[str, str, int, str]:
        row = pair[0]
        return row.dataset, row.method, int(row.seed) if row.seed.isdigit() else -1, row.page

    return sorted(found, key=key)


def configs_name(run: RunView) -> str:
    """Return the name of the file with the settings of all runs of a run's data set."""
    name = str(dig(run.spec, "dataset", "name") or "unknown")
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:6]
    return re.sub(r"[^A-Za-z0-9]+", "-", name)[:40] + f"-{digest}.js"


def configs(found: Found) -> dict[str, bytes]:
    """Return the files with the settings of runs, one for each data set: {name: script}."""
    alike: dict[str, dict[str, tuple[str, Mapping[str, str]]]] = {}
    for row, run in found:
        title = f"{row.title} ({row.protocol}, {run.folder.path.name.partition('-')[2]})"
        alike.setdefault(configs_name(run), {})[row.page] = (title, config_of(run))
    return {name: encoded(configs_script(content)) for name, content in alike.items()}


@cache
def assets() -> dict[str, bytes]:
    """Return the scripts and the style that all pages share."""
    from plotly.offline import get_plotlyjs

    folder = resources.files("benchmark.site") / "assets"
    own = {entry.name: entry.read_bytes() for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)}
    return {**own, "plotly.min.js": get_plotlyjs().encode()}


def encoded(text: str) -> bytes:
    """Return a text as UTF-8; what damaged files hold may be no text at all."""
    return text.encode(errors="replace")


# --- filters of the templates --------------------------------------------------------------------------------------


def percent(share: float | None, blank: str = MISSING) -> str:
    """Return a share between 0 and 1 in per cent."""
    return blank if share is None else HEADLINE.text(share)


def duration(seconds: float | None, blank: str = MISSING) -> str:
    """Return seconds as `0:07` or `2:05:00`."""
    if seconds is None:
        return blank
    whole = max(round(seconds), 0)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def as_data(value: Any) -> str:
    """Return a value as JSON that is safe inside a script element: nothing in it can end the element."""
    return htmlsafe_json_dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _by_stem(files: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Return {name: [(format, file)]} of tables and figures."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name in sorted(files):
        stem, _, suffix = name.rpartition(".")
        found.setdefault(stem, []).append((suffix, name))
    return found
