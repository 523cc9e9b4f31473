"""Commands that only show: what there is, one plugin in detail, the ledger; in this process, nothing is trained."""

from __future__ import annotations

import csv
import json

import pytest

from benchmark.records import State
from benchmark.registry import DATASETS, METHODS, REPORTS


def test_everything_that_there_is_is_listed(bench_here):
    listed = bench_here("list", "--json").json
    assert list(listed) == ["methods", "datasets", "reports", "protocols"]
    for title, kind in (("methods", METHODS), ("datasets", DATASETS), ("reports", REPORTS)):
        assert listed[title] == {name: plugin.about for name, plugin in kind.known().items()}
    said = bench_here("list").stdout
    assert all(f"  {name:12} " in said for name in (*METHODS.known(), *listed["protocols"]))


def test_a_plugin_is_shown_with_every_setting_and_its_default(bench_here):
    shown = bench_here("list", "mslr", "--json").json
    fields = METHODS.find("mslr").load().Config.model_fields
    assert (shown["name"], set(shown["settings"])) == ("mslr", set(fields))
    said = bench_here("list", "mslr").said
    for name, about in shown["settings"].items():
        assert f"{name} = {about['default']}" in said
        assert about["default"] == fields[name].get_default(call_default_factory=True)


def test_a_data_set_that_is_a_file_is_shown_too(bench_here, blobs):
    assert bench_here("list", "dialpad", "--json").json["name"] == "dialpad"
    done = bench_here("list", blobs)
    assert done.rc == 2
    assert "synthetic" in done.stderr, "a file is looked for among methods"


def test_the_ledger_is_printed_and_written_in_three_forms(bench_here, tmp_path):
    rows = bench_here("ledger", "--methods", "ogm,agm", "--json").json
    assert [row["method"] for row in rows] == ["ogm", "agm"]
    done = bench_here("ledger", "--methods", "ogm,agm", "--to", "ledger")
    assert done.rc == 0
    assert "ogm" in done.stdout
    assert sorted(path.name for path in (tmp_path / "ledger").iterdir()) == ["ledger.csv", "ledger.md", "ledger.tex"]
    with (tmp_path / "ledger" / "ledger.csv").open(encoding="utf-8") as stream:
        assert [row["method"] for row in csv.DictReader(stream)] == ["ogm", "agm"]


def test_an_ablation_that_is_only_asked_about_starts_nothing(bench_here, blobs, tmp_path):
    options = ("--datasets", blobs, "--seeds", "0-1", "--epochs", "1", "--out", "runs", "--dry-run", "--json")
    done = bench_here("ablate", "channel", *options)
    assert done.rc == 0, done.said
    titles = {run["run"] for run in json.loads(done.stdout)["runs"]}
    assert {f"synthetic channel{config} s{seed}" for config in ("", "[variant=released]") for seed in (0, 1)} <= titles
    assert not list(tmp_path.glob("runs/*/*"))


@pytest.mark.parametrize("command", ["status", "logs", "cancel", "report"])
def test_neither_names_nor_logs_send_control_characters_to_the_terminal(made_up, bench_here, command):
    hostile = "a\x1b]0;title\x07b\x1b[31mc\x9bd"
    folder = made_up(hostile, state=State.FAILED, cause=hostile)
    folder.log.write_text(f"{hostile}\n", encoding="utf-8")
    made_up(hostile, seed=1)
    names = {"status": (), "logs": (folder.path,), "cancel": (hostile,), "report": ("comparison",)}
    done = bench_here(command, *names[command], "--out", "runs")
    assert "]0;title" in done.said
    assert not set(done.stdout + done.stderr) & {"\x1b", "\x07", "\x9b"}
