"""Figures as files: the same bytes for the same figure, and names of any kind and length printed literally."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context, rcParams, rcParamsDefault
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, Formatter, FuncFormatter

LONGEST = 72
"""Characters of a line; longer ones are shortened, and end in a digest that tells them apart."""
FORMATS = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""{suffix: metadata that would differ from one time to the next}"""
STYLE: dict[Any, Any] = {"pdf.fonttype": 42, "savefig.dpi": 150}
"""TrueType in PDF: publishers refuse Type 3."""


@contextmanager
def own_style() -> Iterator[None]:
    """Draw with matplotlib's own defaults inside, whatever the user's settings (matplotlibrc, notebooks) are."""
    with rc_context():
        rcParams.update({key: value for key, value in rcParamsDefault.items() if not key.startswith("backend")})
        yield


def encode(figure: Figure, name: str) -> tuple[dict[str, bytes], list[str]]:
    """Return {suffix: content} of a figure, and a note for every text that is shortened.

    Dollar signs are printed: use Unicode for formulas.
    """
    notes = _settle(figure)
    content = {}
    with own_style(), rc_context({"svg.hashsalt": name, **STYLE}):
        for suffix, metadata in FORMATS.items():
            stream = io.BytesIO()
            figure.savefig(stream, format=suffix, metadata=metadata)
            content[suffix] = stream.getvalue()
    return content, notes


class _Named(Formatter):
    """Writes the names that another formatter gives to ticks, in characters that can be drawn."""

    def __init__(self, names: Formatter, full: dict[str, str], text: Text) -> None:
        self.names, self.full, self.text = names, full, text

    def __call__(self, x: float, pos: int | None = None) -> str:
        return _drawable(self.names(x, pos), self.text, self.full)


def _settle(figure: Figure) -> list[str]:
    """Make every text one that can be drawn; return what was shortened, in words."""
    full: dict[str, str] = {}
    for text in _texts(figure):
        text.set_text(_drawable(text.get_text(), text, full))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        names = axis.get_major_formatter()
        if isinstance(names, FixedFormatter | FuncFormatter):
            axis.set_major_formatter(_Named(names, full, axis.get_label()))
            for position, tick in enumerate(axis.get_majorticklocs()):
                axis.get_major_formatter()(tick, position)
    return [f"{short}: {whole}" for short, whole in sorted(full.items())]


def _texts(figure: Figure) -> Iterator[Text]:
    """Yield every text but those of ticks, which their axis writes again."""
    ticks = {id(text) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for text in axis.findobj(Text)}
    ticks -= {id(axis.get_label()) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)}
    yield from (text for text in figure.findobj(Text) if id(text) not in ticks)


def _drawable(words: str, text: Text, full: dict[str, str]) -> str:
    font = get_font(findfont(text.get_fontproperties()))
    lines = words.split("\n")
    for position, line in enumerate(lines):
        if len(line) > LONGEST:
            digest = hashlib.sha256(line.encode("utf-8", "backslashreplace")).hexdigest()[:4]
            lines[position] = f"{line[: LONGEST - 8]}… #{digest}"
            full[lines[position]] = line
    shown = "\n".join("".join(c if font.get_char_index(ord(c)) else f"U+{ord(c):04X}" for c in line) for line in lines)
    return shown.replace("$", r"\$") if text.get_parse_math() else shown
