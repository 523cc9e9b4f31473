"""Nothing of a figure is cut off at its edge, and no title is shortened."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

import benchmark.tables.picture as picture
from benchmark.records import scan
from benchmark.registry import REPORTS
from benchmark.report import compare

LONG = "long" + "[" + ",".join(f"setting_{number}=0.{number}" for number in range(8)) + "]"
METHODS = (
    "concat",
    "late_sum",
    "ogm",
    "ogm[alpha=0.1]",
    "aug[losses=[residual]]",
    "pmr",
    "50%_of_$x^2$ & {a}#~b\\c",
    LONG,
)
DATASETS = ("blobs", "sound", "talk[split=speaker,encoders={audio:resnet50,video:resnet50,text:b}]")
SLACK = 1.0
"""Pixels by which something may reach over the edge."""


@pytest.fixture
def figures(monkeypatch):
    """Return the figures that reports write, each by its name."""
    found: dict[str, Figure] = {}
    encode = picture.encode

    def keep(figure: Figure, name: str) -> object:
        found[name] = figure
        return encode(figure, name)

    monkeypatch.setattr(picture, "encode", keep)
    return found


def cut(figure: Figure) -> list[str]:
    """Say by how many pixels what is drawn reaches over each edge of a figure, and which titles are shortened."""
    figure.canvas.draw()
    box, edge = figure.get_tightbbox(), figure.bbox_inches
    over = {"left": -box.x0, "bottom": -box.y0, "right": box.x1 - edge.x1, "top": box.y1 - edge.y1}
    found = [f"{side}: {figure.dpi * by:.0f}" for side, by in over.items() if figure.dpi * by > SLACK]
    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    return found + [title for title in titles if "… #" in title]


@pytest.fixture
def runs(tmp_path, builder):
    for place, dataset in enumerate(DATASETS):
        for number, method in enumerate(METHODS):
            spec = builder.spec_of(method, dataset, 0, name=method.partition("[")[0], batch_size=32)
            path = tmp_path / f"d{place}" / f"m{number}" / "s0-0000000000"
            replaced = {"epochs": 25, "batch_size": 64}
            builder.write_full_run(path, {**spec, "replaced": replaced}, 0.3 + 0.07 * number)
    return list(scan(tmp_path))


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(REPORTS.known()))
def test_no_text_of_a_figure_is_cut(name, runs, figures):
    list(REPORTS.find(name).load()().build(compare(runs)[0]))
    wrong = {stem: found for stem, figure in figures.items() if (found := cut(figure))}
    assert not wrong


def test_the_check_sees_a_text_that_is_cut():
    figure = Figure(figsize=(2, 2))
    figure.text(0.5, 0.5, "inside", ha="center")
    assert not cut(figure)
    figure.suptitle("a title much too long for two inches")
    assert len(cut(figure)) == 2
