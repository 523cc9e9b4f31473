"""A console to which names send no control characters."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

CONTROL = sorted({*range(32), *range(127, 160)} - {ord("\n"), ord("\t")})
VISIBLE = dict.fromkeys(CONTROL, "\N{REPLACEMENT CHARACTER}")
"""{control character: what is shown in its place}: a name must not move the cursor or change the terminal."""


def visible(text: str) -> str:
    """Return text without control characters, for what is written past the console."""
    return text.translate(VISIBLE)


class Console(RichConsole):
    """A console to which no text can send control characters; what rich itself sends passes."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments of something printed."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)
