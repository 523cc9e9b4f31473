"""Text for LaTeX: nothing is lost, nothing is a command, lines have an end. That it compiles, test_golden.py shows."""

from __future__ import annotations

import pytest

from benchmark.tables.latex import breakable, escape_latex, has_codepoints, lines_of, printed_width, stack


@pytest.mark.parametrize("char", ["中", "ą", "\x00", "\N{FIRE}", "\u202e", "\ud800"])
def test_what_has_no_glyph_is_printed_as_its_code_point(char):
    latex = escape_latex(f"a{char}b")
    assert f"\\benchchar{{{ord(char):04X}}}" in latex
    assert has_codepoints(latex)


def test_accents_and_greek_are_composed_of_what_every_font_has():
    assert escape_latex("ä í ő α²") == r"\"{a} \'{\i} \H{o} $\alpha$$^2$"
    assert escape_latex("a\N{COMBINING DIAERESIS}") == escape_latex("ä")


@pytest.mark.parametrize(("text", "latex"), [("a--b", "a-{}-b"), ("a  b", r"a \ b"), ("[x] *", "{[}x] {*}")])
def test_no_ligature_option_or_lost_space_changes_a_name(text, latex):
    assert escape_latex(text) == latex


@pytest.mark.parametrize("text", ["x" * 300, "setting=0.1," * 25, "中" * 100, "two words " * 30, "a_b%" * 80])
def test_lines_are_short_and_together_the_whole_text(text):
    lines = lines_of(text, 42)
    assert "".join(lines) == escape_latex(text)
    assert len(lines) > 1
    assert len(lines) <= 1 + printed_width(text) / (42 - 12)


def test_a_short_text_is_one_line_and_an_empty_one_too():
    assert lines_of("late_sum", 42) == [r"late\_sum"]
    assert stack(lines_of("", 42)) == ""


def test_a_paragraph_keeps_the_spaces_at_its_breaks():
    words = "paired differences of fused test accuracy " * 4
    assert breakable(words).replace("\\allowbreak ", "") == words
