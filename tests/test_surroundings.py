"""What surrounds a process does not decide how it ends."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from benchmark.plan.experiment import read_experiment
from benchmark.plan.typed import parse_bracketed
from benchmark.protocol import read_yaml
from benchmark.records.files import write_atomic
from benchmark.tables.picture import encode, own_style


def train(bench, blobs, **options):
    return bench(
        "run", "--methods", "concat", "--datasets", blobs, "--epochs", 1, "--jobs", 1, "--out", "runs", **options
    )


@pytest.mark.full
def test_a_long_temporary_folder_is_no_hindrance(bench, blobs, tmp_path):
    folder = tmp_path / ("d" * 100)
    folder.mkdir()
    done = train(bench, blobs, env={"TMPDIR": str(folder)})
    assert done.rc == 0, done.said


@pytest.mark.full
def test_modules_in_the_current_folder_do_not_stand_in_for_others(bench, blobs, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    for name in ("random.py", "queue.py", "benchmark/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('not the one that was meant')")
    done = train(bench, blobs)
    assert done.rc == 0, done.said


NOBODY = ("unshare", "--user", "--map-user=54321")
"""Begins a command as a user whose number no list has."""


@pytest.mark.full
@pytest.mark.parametrize("home", ["-uHOME", "HOME=/proc"])
def test_a_user_without_an_entry_and_a_home_trains(bench, blobs, home):
    if shutil.which("unshare") is None or subprocess.run([*NOBODY, "true"], check=False).returncode:
        pytest.skip("no namespaces of users here")
    unnamed = ("env", "-uUSER", "-uLOGNAME", "-uLNAME", "-uUSERNAME", home)
    done = train(bench, blobs, prefix=(*NOBODY, *unnamed))
    assert done.rc == 0, done.said


def picture():
    with own_style():
        figure = Figure()
        figure.subplots().plot([0, 1], [0, 1], label="a")
    return encode(figure, "name")[0]["svg"]


def test_the_users_settings_do_not_change_a_figure():
    usual = picture()
    changes = {
        "font.size": 30,
        "axes.grid": True,
        "lines.linewidth": 9,
        "savefig.facecolor": "red",
        "savefig.bbox": "tight",
    }
    with mpl.rc_context(changes):
        assert picture() == usual
        assert mpl.rcParams["font.size"] == 30


def test_a_backend_that_is_not_there_is_not_asked(bench):
    code = "from benchmark.surroundings import settle; settle(); import matplotlib.figure"
    env = {**os.environ, "MPLBACKEND": "module://no_such_backend.at_all"}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_terminal_of_another_encoding_gets_what_it_can_show(bench):
    done = bench("list", "--help", env={"PYTHONIOENCODING": "ascii"})
    assert done.rc == 0
    done = bench("run", "--methods", "\u4e2d", "--datasets", "dialpad", env={"PYTHONIOENCODING": "ascii"})
    assert done.rc == 2
    assert "Traceback" not in done.said


def test_files_have_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o002)
    try:
        for mask, mode in ((0o002, 0o664), (0o077, 0o600), (0o022, 0o644)):
            os.umask(mask)
            write_atomic(tmp_path / "file", b"x")
            assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
    finally:
        os.umask(before)


def test_numbers_in_yaml_are_as_people_write_them():
    text = "a: 1e-3\nb: 1E5\nc: -2.e+3\nd: '1e-3'\ne: 1e\nf: 10\ng: 1.5e3\nh: e5\n"
    found = read_yaml(text, "test")
    assert found == {"a": 1e-3, "b": 1e5, "c": -2e3, "d": "1e-3", "e": "1e", "f": 10, "g": 1500.0, "h": "e5"}


@pytest.mark.parametrize(("given", "seeds"), [("0", "0"), ("[0, 1, 7]", "0,1,7"), ("0-4", "0-4"), ("'3'", "3")])
def test_seeds_in_an_experiment_are_numbers_or_text(tmp_path, given, seeds):
    path = tmp_path / "e.yaml"
    path.write_text(f"methods: [concat]\ndatasets: [dialpad]\nseeds: {given}\n")
    assert read_experiment(path).seeds == seeds


def test_a_plugin_in_a_folder_with_brackets_is_found(tmp_path):
    path = tmp_path / "a[b]" / "mine.py"
    path.parent.mkdir()
    path.touch()
    assert parse_bracketed(str(path)) == (str(path), [{}])
    assert parse_bracketed(f"{path}[alpha=0.1]") == (str(path), [{"alpha": 0.1}])
    assert parse_bracketed("./b.py[alpha=0.1]") == ("./b.py", [{"alpha": 0.1}])
