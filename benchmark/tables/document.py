"""One LaTeX document of everything that reports wrote: it includes the fragments and figures next to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmark.report import Artifact
from benchmark.tables.latex import CODEPOINT, breakable, escape_latex, has_codepoints
from benchmark.tables.table import PAGE_LINES

PORTRAIT, LANDSCAPE = 110, 165
"""Characters of \\footnotesize across a page."""
SMALLEST = 0.7
"""A table that must shrink further than this gets a page in landscape."""
SIZES = ((1.0, "footnotesize"), (0.85, "scriptsize"), (0.0, "tiny"))
"""Type for tables over several pages, which cannot be shrunk as a whole: at which scale or more, which size."""

PREAMBLE = r"""\documentclass{article}
\usepackage[a4paper,margin=2cm]{geometry}
\usepackage[utf8]{inputenc}
\usepackage{booktabs,graphicx,longtable,pdflscape}
\setlength{\parindent}{0pt}
\setlength{\tabcolsep}{4pt}
\raggedright
\renewcommand{\_}{{\ttfamily\char95}} % a character that can be searched and copied, not a rule
@CODEPOINT@
\newsavebox{\entry}
% prints a box, smaller where it is wider or higher than the page
\newcommand{\fit}[1]{\sbox{\entry}{#1}%
  \ifdim\wd\entry>\linewidth\sbox{\entry}{\resizebox{\linewidth}{!}{\usebox{\entry}}}\fi
  \ifdim\dimexpr\ht\entry+\dp\entry>.85\textheight
    \sbox{\entry}{\resizebox*{!}{.85\textheight}{\usebox{\entry}}}\fi
  {\centering\usebox{\entry}\par}}
% a fragment as a table that goes on over pages, its header on each
\newcommand{\pages}[1]{{\let\tabular\longtable\let\endtabular\endlongtable
  \newcommand{\benchhead}{\endhead}\input{#1}}\addtocounter{table}{-1}} % a longtable counts itself
\newcommand{\titled}[2]{\refstepcounter{#1}{\interlinepenalty=10000
  \textbf{\csname #1name\endcsname~\csname the#1\endcsname.} #2\par}\nopagebreak\smallskip}
\newcommand{\done}{\goodbreak\bigskip}
\newcommand{\note}[1]{{\footnotesize #1\par}}
\begin{document}
""".replace("@CODEPOINT@", CODEPOINT)
CODEPOINT_NOTE = "U+XXXX: a character for which pdfLaTeX has no glyph; the Markdown and CSV files have it."


def document(sections: Iterable[tuple[str, Sequence[Artifact]]], name: str = "report") -> Artifact:
    """Return a document: every fragment and PDF figure with its caption and notes, under a heading for each report.

    Args:
        sections: what each report is about, and its files.
        name: of the file, without `.tex`.
    """
    parts = [PREAMBLE, "\\tableofcontents\n"]
    for title, artifacts in sections:
        shown = [artifact for artifact in artifacts if artifact.name.endswith((".tex", ".pdf"))]
        headings = [f"\\section{{{escape_latex(title)}}}\n", *[""] * len(shown)]
        parts += [_entry(artifact, heading) for artifact, heading in zip(shown, headings, strict=False)]
    return Artifact(f"{name}.tex", ("\n".join([*parts, "\\end{document}"]) + "\n").encode("utf-8", "backslashreplace"))


def _entry(artifact: Artifact, heading: str) -> str:
    """Return a table or figure under a heading, which may be empty."""
    stem, _, suffix = artifact.name.rpartition(".")
    if suffix == "tex":
        return _table(artifact, stem, heading)
    picture = f"\\fit{{\\includegraphics{{{artifact.name}}}}}"
    return heading + _titled("figure", artifact, picture) + "\\done\n"


def _table(artifact: Artifact, stem: str, heading: str) -> str:
    across, down = artifact.extent
    is_long = down > PAGE_LINES
    on_side = PORTRAIT / max(across, 1) < SMALLEST
    scale = (LANDSCAPE if on_side else PORTRAIT) / max(across, 1)
    if is_long and scale >= SMALLEST:
        size = next(size for minimum, size in SIZES if scale >= minimum)
        body = f"{{\\{size}\\pages{{{stem}}}}}"
    else:
        body = f"\\fit{{\\footnotesize\\input{{{stem}}}}}"
    entry = heading + _titled("table", artifact, body)
    return f"\\begin{{landscape}}\n{entry}\\end{{landscape}}\n" if on_side else entry + "\\done\n"


def _titled(kind: str, artifact: Artifact, body: str) -> str:
    lines = [f"\\titled{{{kind}}}{{{breakable(artifact.caption)}}}", body]
    notes = [f"\\note{{{breakable(note)}}}" for note in artifact.notes if note.strip()]
    lines += ["\\nopagebreak\\smallskip", *notes] if notes else []
    if has_codepoints("".join(lines)) or (kind == "table" and has_codepoints(artifact.content.decode())):
        lines.append(f"\\note{{{CODEPOINT_NOTE}}}")
    return "\n".join(lines) + "\n\n"
