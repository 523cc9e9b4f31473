"""A whole sweep of made-up runs, with holes, failures and names of every kind, through every report."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from benchmark.records import State, scan
from benchmark.registry import REPORTS
from benchmark.report import compare

LONG = "long" + "[" + ",".join(f"setting_{number}=0.{number}" for number in range(30)) + "]"
METHODS = {
    "concat": 0.6, "late_sum": 0.65, "ogm": 0.7, "ogm[alpha=0.1]": 0.72, "aug": 0.9, "aug[losses=[residual]]": 0.8,
    "pmr": 0.66, "gated": 0.61, LONG: 0.58, "50%_of_$x^2$ & {a}#~b\\c": 0.5, "方法一 ü α": 0.55,
    'm["audio":1]|<b>*x*': 0.4,
}  # fmt: skip
DATASETS = ("blobs", "sound", "数据_集", "talk[split=speaker,encoders={audio:resnet50,video:resnet50,text:b}]")
SEEDS = range(5)
BUILD = Path(__file__).with_name("golden.py")
needs_latex = pytest.mark.skipif(
    not (shutil.which("pdflatex") and shutil.which("pdftotext")), reason="pdflatex or pdftotext is not installed"
)


def fate(method, dataset, seed):
    """Say what has become of a run: most are done, some failed, are missing or not finished."""
    methods, datasets = list(METHODS), list(DATASETS)
    if method == "gated" and dataset == "sound":
        return None
    place = 7 * methods.index(method) + 11 * datasets.index(dataset) + seed
    fates = {3: State.FAILED, 9: None, 14: State.INTERRUPTED, 20: State.PLANNED}
    if (method, dataset) == ("pmr", "blobs"):
        return State.FAILED
    return fates.get(place % 41, State.DONE)


@pytest.fixture(scope="session")
def sweep(once, builder):
    """12 methods x 4 data sets x 5 seeds. Read only."""
    return once("golden", lambda folder: write_sweep(folder / "runs", builder)) / "runs"


def write_sweep(out, builder):
    for number, (method, dataset, seed) in enumerate(product(METHODS, DATASETS, SEEDS)):
        state = fate(method, dataset, seed)
        if state is None:
            continue
        spec = builder.spec_of(method, dataset, seed, name=method.partition("[")[0])
        path = out / f"d{DATASETS.index(dataset)}" / f"m{number:03d}" / f"s{seed}-{number:010d}"
        if state is State.DONE:
            builder.write_full_run(path, spec, METHODS[method])
        else:
            builder.write_run(path, spec, state=state, cause="out of GPU memory (wanted 12 % more)")


def build(sweep, to, shuffle, hashseed, *names):
    """Build reports in a process of its own; return {name: content} of what it wrote."""
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": str(hashseed), "HOME": str(to)}
    line = [sys.executable, "-P", str(BUILD), str(sweep), str(to / "report"), str(shuffle), *names]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return {path.name: path.read_bytes() for path in (to / "report").iterdir()}


@pytest.fixture(scope="session")
def built(sweep, once):
    """What the sweep gives, in a folder. Read only."""
    return once("built", lambda folder: build(sweep, folder, 0, 0)) / "report"


def cells(content):
    """Return {(row, group, column): row of the CSV}."""
    rows = csv.reader(io.StringIO(content))
    next(rows)
    return {tuple(row[:3]): row[3:] for row in rows}


@pytest.mark.full
def test_every_artefact_has_the_same_bytes_whatever_the_order_and_the_hash_seed(sweep, built, tmp_path):
    first = {path.name: path.read_bytes() for path in built.iterdir()}
    second = build(sweep, tmp_path, 1, 77)
    assert second.keys() == first.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert {name.rpartition(".")[2] for name in first} == {"tex", "md", "csv", "png", "svg", "pdf"}
    assert len(first) > 100


@pytest.mark.full
def test_the_numbers_are_those_of_the_records(sweep, built):
    accuracies = {}
    for run in scan(sweep):
        if run.dataset == "blobs" and run.record:
            test = run.record.rules["best_valid"].test
            accuracies.setdefault(run.method, []).append(100 * test["fused"]["accuracy"])
    table = cells((built / "fused-blobs--unified--2-epochs.csv").read_text(encoding="utf-8"))
    shown = {row: cell for (row, *place), cell in table.items() if place == ["fused test acc at epoch", "best valid"]}
    assert accuracies.keys() == {row for row, cell in shown.items() if cell[0]}
    for method, values in accuracies.items():
        mean, std, count, symbol = shown[method]
        assert float(mean) == pytest.approx(statistics.fmean(values))
        assert float(std) == pytest.approx(statistics.stdev(values))
        assert (int(count), symbol) == (len(values), "")
    assert shown["pmr"] == ["", "", "0", "✗"]


@pytest.mark.full
def test_what_failed_or_is_not_there_is_named_in_every_format(built):
    for suffix in ("md", "tex"):
        text = (built / f"ablation-sound--unified--2-epochs.{suffix}").read_text(encoding="utf-8")
        assert "n/a" in text
        assert "defined for two modalities" in text
    text = (built / "ablation-blobs--unified--2-epochs.md").read_text(encoding="utf-8")
    assert "✗ pmr, seeds 0, 1, 2, 3, 4: out of GPU memory" in text
    assert "Partial: " in text


@pytest.mark.full
@needs_latex
def test_the_document_compiles_and_its_text_has_the_numbers_names_and_marks(built, tmp_path):
    folder = shutil.copytree(built, tmp_path / "report")
    log = compile_latex(folder / "report.tex")
    assert "Missing character" not in log
    overfull = [float(width) for width in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
    assert not [width for width in overfull if width > 20]
    assert "Overfull \\vbox" not in log, "what is higher than a page is lost below it"
    text = text_of(folder / "report.pdf")
    for kind in ("Table", "Figure"):
        count = (built / "report.tex").read_text(encoding="utf-8").count(f"\\titled{{{kind.lower()}}}")
        numbers = [int(number) for number in re.findall(rf"{kind} (\d+)\. ", text)]
        assert numbers == list(range(1, count + 1)), "each is there once, in order"
    for name in ("late_sum", "ogm[alpha=0.1]", "aug[losses=[residual]]", "50%_of_$x^2$", "& {a}#~b\\c", "U+65B9"):
        assert name in text
    assert "setting_29=0.29]" in text.replace(" ", "").replace("\n", "")
    assert 'm["audio":1]|<b>*x*' in text
    for sign in ("±", "×", "†", "n/a", "—"):
        assert sign in text
    for cell in cells((built / "fused-blobs--unified--2-epochs.csv").read_text(encoding="utf-8")).values():
        if cell[0] and abs(float(cell[0])) >= 0.05:
            assert f"{float(cell[0]):.1f} ± {float(cell[1]):.1f}".replace("-", "−") in text
    stems = {path.stem for path in built.glob("*.tex")} - {"report"}
    source = (built / "report.tex").read_text(encoding="utf-8")
    assert stems == set(re.findall(r"\\(?:input|pages)\{([^#}]+)\}", source))
    captions = re.findall(r"\\titled\{figure\}\{(.*)\}", source)
    assert len(set(captions)) == len(captions), "no two figures have one caption"
    assert "andrange" not in text
    assert {path.name for path in built.glob("*.pdf")} == set(re.findall(r"\\includegraphics\{([^}]+)\}", source))


@pytest.mark.full
@needs_latex
def test_a_fragment_compiles_alone_in_a_paper_with_booktabs_under_either_font_encoding(built, tmp_path):
    for encoding in ("", "\\usepackage[T1]{fontenc}"):
        folder = shutil.copytree(built, tmp_path / f"paper{bool(encoding)}")
        body = "\n\n".join(f"\\input{{{path.stem}}}" for path in sorted(folder.glob("*unified*.tex")))
        paper = (
            f"\\documentclass{{article}}{encoding}\\usepackage{{booktabs}}\\begin{{document}}{body}\\end{{document}}"
        )
        (folder / "paper.tex").write_text(paper, encoding="utf-8")
        compile_latex(folder / "paper.tex", draft=True)


@pytest.mark.full
@needs_latex
def test_a_paper_with_the_fonts_can_print_what_others_print_as_code_points(tmp_path):
    from benchmark.tables.table import Cell, Column, Table

    (tmp_path / "t.tex").write_text(Table("", [Column("acc")], [("方法 x", [Cell((1.0,))])]).to_latex(), "utf-8")
    define = "\\newcommand{\\benchchar}[2]{(glyph #1)}"
    paper = (
        f"\\documentclass{{article}}\\usepackage{{booktabs}}{define}\\begin{{document}}\\input{{t}}\\end{{document}}"
    )
    (tmp_path / "paper.tex").write_text(paper, "utf-8")
    compile_latex(tmp_path / "paper.tex")
    assert "(glyph 65B9)" in text_of(tmp_path / "paper.pdf")


# --- what must survive ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REPORTS.known()))
def test_nan_infinity_and_one_seed_of_one_method_survive(name, tmp_path, builder):
    folder = builder.write_full_run(tmp_path / "d" / "m" / "s0-0000000000", builder.spec_of("x" * 300, "y" * 300, 0))
    record = json.loads((folder.path / "record.json").read_text())
    record["rules"]["best_valid"]["test"]["fused"].update(accuracy=math.nan, macro_f1=math.inf)
    record["rules"]["last"]["test"]["fused"].update(accuracy=-math.inf, macro_f1=math.nan)
    (folder.path / "record.json").write_text(json.dumps(record))
    comparisons, _ = compare(scan(tmp_path))
    report = REPORTS.find(name).load()()
    artifacts = list(report.build(comparisons))
    assert all(len(artifact.name.encode()) < 255 for artifact in artifacts)
    for table in report.tables(comparisons):
        table.to_rich()


@pytest.mark.parametrize("name", sorted(REPORTS.known()))
def test_a_sweep_that_has_not_begun_or_has_only_failed_gives_no_number(name, tmp_path, builder):
    for number, state in enumerate((State.PLANNED, State.FAILED)):
        path = tmp_path / "d" / "m" / f"s{number}-000000000{number}"
        builder.write_run(path, builder.spec_of(f"m{number}", "blobs", number), state=state, cause="no reason")
        (path / "history.jsonl").unlink()
    comparisons, _ = compare(scan(tmp_path))
    report = REPORTS.find(name).load()()
    for artifact in report.build(comparisons):
        if artifact.name.endswith(".csv"):
            assert not [cell for cell in cells(artifact.content.decode()).values() if cell[0]]


def compile_latex(source, draft=False):
    """Compile, twice for the contents unless a draft will do; return the log."""
    line = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", *["-draftmode"] * draft, source.name]
    for _ in range(1 if draft else 2):
        done = subprocess.run(line, cwd=source.parent, capture_output=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-3000:]
    return source.with_suffix(".log").read_text(encoding="utf-8", errors="replace").replace("\n", " ")


def text_of(pdf):
    done = subprocess.run(["pdftotext", "-layout", str(pdf), "-"], capture_output=True, check=True, timeout=100)
    return done.stdout.decode()
