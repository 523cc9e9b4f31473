"""LaTeX: any text made safe for pdfLaTeX without packages, and one document of everything that reports wrote.

Escapes work with OT1 and with T1 fonts and use commands of the kernel only, so that a fragment compiles in whatever
paper includes it. pdfLaTeX has no glyphs for most of Unicode: the rest is printed as code points, through
`\\benchchar`, which a paper with the fonts may define to print the character instead.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache

CODEPOINT = r"\providecommand{\benchchar}[2]{{\ttfamily U+#1}}"
"""Takes the code point in hexadecimal digits and the character itself."""
CODEPOINT_ADVICE = r"U+XXXX: no glyph in pdfLaTeX; to print it: \newcommand{\benchchar}[2]{#2} before \input"
HEAD = r"\providecommand{\benchhead}{}"
"""Stands after the header of a table that is longer than a page: `\\endhead` in a longtable, nothing in a tabular."""

ROW_END, STRUT = r" \\ ", r"\hbox{\strut "

NAME_WIDTH, HEADER_WIDTH = 42, 16
"""Characters in a line of a name, and of a header above one column."""
WORD_WIDTH = 24
"""Characters in a paragraph without a place to break."""

_ASCII = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"{\ttfamily\char34}", "`": r"{\ttfamily\char96}",
    "[": "{[}", "*": "{*}",  # after the end of a row these two would be its options
}  # fmt: skip
_TEXT = {
    "\N{NO-BREAK SPACE}": "~", "–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "…": r"\dots{}",
    "§": r"\S{}", "¶": r"\P{}", "©": r"\copyright{}", "£": r"\pounds{}", "¡": "!`", "¿": "?`", "ß": r"\ss{}",
    "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}",
    "Ł": r"\L{}", "ı": r"\i{}",
}  # fmt: skip
_MATH = {
    "†": r"^\dagger", "‡": r"^\ddagger", "±": r"\pm", "−": "-", "×": r"\times", "✗": r"\times", "÷": r"\div",
    "·": r"\cdot", "•": r"\bullet", "∞": r"\infty", "≤": r"\leq", "≥": r"\geq", "≠": r"\neq", "≈": r"\approx",
    "→": r"\rightarrow", "←": r"\leftarrow", "↔": r"\leftrightarrow", "↑": r"\uparrow", "↓": r"\downarrow",
    "∈": r"\in", "√": r"\surd", "∑": r"\sum", "∏": r"\prod", "∂": r"\partial", "∇": r"\nabla", "⊕": r"\oplus",
    "⊗": r"\otimes", "∼": r"\sim", "°": r"^\circ", "′": r"^\prime", "µ": r"\mu",
    "⁰": "^0", "¹": "^1", "²": "^2", "³": "^3", **{char: f"^{n}" for n, char in enumerate("⁴⁵⁶⁷⁸⁹", 4)},
    **{char: f"_{n}" for n, char in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    **dict(zip("ΓΔΘΛΞΠΣΥΦΨΩ", (rf"\{name}" for name in (
        "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega")), strict=True)),
    **dict(zip("αβγδεζηθικλμνξπρστυφχψω", (rf"\{name}" for name in (
        "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
        "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega")), strict=True)),
}  # fmt: skip
_ACCENTS: Mapping[str, str] = {
    "\N{COMBINING GRAVE ACCENT}": "`", "\N{COMBINING ACUTE ACCENT}": "'", "\N{COMBINING CIRCUMFLEX ACCENT}": "^",
    "\N{COMBINING TILDE}": "~", "\N{COMBINING DIAERESIS}": '"', "\N{COMBINING RING ABOVE}": "r",
    "\N{COMBINING CARON}": "v", "\N{COMBINING BREVE}": "u", "\N{COMBINING MACRON}": "=",
    "\N{COMBINING DOT ABOVE}": ".", "\N{COMBINING CEDILLA}": "c", "\N{COMBINING DOUBLE ACUTE ACCENT}": "H",
    "\N{COMBINING DOT BELOW}": "d",
}  # fmt: skip
_BELOW = "\N{COMBINING CEDILLA}\N{COMBINING DOT BELOW}"
_DOUBLED = {"-": "{}", ",": "{}", "'": "{}", " ": "\\"}
"""Two of these in a row would become one sign: what to put between."""


def escape_latex(text: str) -> str:
    """Return text that LaTeX prints literally: special characters escaped, what has no glyph as U+XXXX."""
    return "".join(_pieces(text))


def has_codepoints(latex: str) -> bool:
    """Return whether `latex` prints code points."""
    return r"\benchchar" in latex


def lines_of(text: str, width: int) -> list[str]:
    """Return text escaped and broken into lines of at most `width` printed characters, after punctuation if it can."""
    lines: list[str] = []
    words = re.findall(r"[^\s,=;:/_|+\]}-]*(?:[\s,=;:/_|+\]}-]+|$)", unicodedata.normalize("NFC", text))
    line, used = "", 0
    for word in words:
        pieces = _pieces(word)
        if used and used + printed_width(word.rstrip()) > width:
            lines.append(line)
            line, used = "", 0
        for piece, char in zip(pieces, word, strict=True):
            if used and used + _width(char) > width and char != " ":
                lines.append(line)
                line, used = "", 0
            line += piece
            used += _width(char)
    return [*lines, line] if line or not lines else lines


def printed_width(text: str) -> int:
    """Return how many characters LaTeX prints for a text."""
    return sum(map(_width, unicodedata.normalize("NFC", text)))


def breakable(text: str) -> str:
    """Return text escaped for a paragraph, in which names of any length can be broken."""
    return " ".join(r"\allowbreak ".join(lines_of(part, WORD_WIDTH)) for part in text.split("\n"))


def stack(lines: Sequence[str], centred: bool = False) -> str:
    """Return lines one below the other in one cell, with no package: centred on the last, or flush with the first."""
    if len(lines) == 1:
        return lines[0]
    lines = [line.rstrip(" ") for line in lines]
    if centred:
        return rf"\shortstack{{{ROW_END.join(lines)}}}"
    return rf"\vtop{{{''.join(f'{STRUT}{line}}}' for line in lines)}}}"


def _pieces(text: str) -> list[str]:
    """Return the LaTeX of each character of a text in NFC."""
    composed = unicodedata.normalize("NFC", text)
    pieces = []
    for before, char in zip(["", *composed], composed, strict=False):
        piece = _latex(char)
        doubled = char == before and char in _DOUBLED
        pieces.append(_DOUBLED[char] + piece if doubled else piece)
    return pieces


@cache
def _latex(char: str) -> str:
    if char in _ASCII or char in _TEXT:
        return _ASCII.get(char) or _TEXT[char]
    if char in _MATH:
        return f"${_MATH[char]}$"
    if " " <= char < "\x7f":
        return char
    letter, accent = unicodedata.normalize("NFD", char)[:1], unicodedata.normalize("NFD", char)[1:]
    if accent in _ACCENTS and letter.isascii() and letter.isalpha():
        letter = rf"\{letter}" if letter in "ij" and accent not in _BELOW else letter  # without its dot
        return rf"\{_ACCENTS[accent]}{{{letter}}}"
    shown = char if unicodedata.category(char)[0] in "LNPS" else ""
    return rf"\benchchar{{{ord(char):04X}}}{{{shown}}}"


@cache
def _width(char: str) -> int:
    return len(f"U+{ord(char):04X}") if has_codepoints(_latex(char)) else 1
