"""What earlier reports wrote goes when it is no longer true, and nothing else does."""

from __future__ import annotations

import json

import pytest

from benchmark.report import Artifact
from benchmark.tables.manifest import NAME, write_document


def report(folder, *names, document="report.tex", content=b"1"):
    return write_document(Artifact(document, b"tex"), [Artifact(name, content) for name in names], folder)


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_a_file_that_a_later_report_lacks_is_removed_and_the_users_own_stay(tmp_path):
    (tmp_path / "paper.tex").write_text("mine")
    report(tmp_path, "fused-4-epochs.tex", "same.tex")
    done = report(tmp_path, "fused-25-epochs.tex", "same.tex")
    assert done.removed == [tmp_path / "fused-4-epochs.tex"]
    assert names_in(tmp_path) == {"paper.tex", "fused-25-epochs.tex", "same.tex", "report.tex", NAME}


def test_a_file_that_was_edited_stays_and_is_told(tmp_path):
    report(tmp_path, "fused.tex")
    (tmp_path / "fused.tex").write_text("with my remarks")
    done = report(tmp_path, "other.tex")
    assert (done.removed, done.kept) == ([], [tmp_path / "fused.tex"])
    assert (tmp_path / "fused.tex").read_text() == "with my remarks"


def test_a_partial_report_leaves_the_complete_one_and_what_it_includes(tmp_path):
    report(tmp_path, "fused.tex", "gap.tex")
    report(tmp_path, "fused.tex", "fused-more.tex", document="report-comparison.tex", content=b"2")
    report(tmp_path, document="report-comparison.tex")
    assert names_in(tmp_path) == {"fused.tex", "gap.tex", "report.tex", "report-comparison.tex", NAME}
    report(tmp_path)
    assert names_in(tmp_path) == {"report.tex", "report-comparison.tex", NAME}


@pytest.mark.parametrize("name", ["../outside.tex", "/outside.tex", "sub/outside.tex", "..", ""])
def test_a_list_that_names_files_elsewhere_removes_none(tmp_path, name):
    folder, outside = tmp_path / "report", tmp_path / "outside.tex"
    (folder / "sub").mkdir(parents=True)
    for path in (outside, folder / "sub" / "outside.tex"):
        path.write_bytes(b"1")
    report(folder, "fused.tex")
    content = json.loads((folder / NAME).read_text())
    content["files"][name] = content["files"]["fused.tex"]
    content["documents"]["report.tex"].append(name)
    (folder / NAME).write_text(json.dumps(content))
    assert report(folder, "fused.tex").removed == []
    assert outside.exists()
    assert (folder / "sub" / "outside.tex").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": 1, "documents": 2}', "[" * 5000, '{"documents": {"a": 3}}']
)
def test_a_damaged_list_removes_nothing_and_is_written_anew(tmp_path, text):
    report(tmp_path, "fused.tex")
    (tmp_path / NAME).write_text(text)
    assert report(tmp_path, "other.tex").removed == []
    assert set(json.loads((tmp_path / NAME).read_text())["files"]) == {"other.tex", "report.tex"}


def test_the_command_writes_documents_of_their_own_for_parts_and_clears_up_behind_itself(made_up, bench_here, tmp_path):
    folder, first = tmp_path / "report", made_up("concat", 0)
    assert bench_here("report", "comparison", "gap", "--out", "runs", "--quiet").rc == 0
    assert bench_here("report", "gap", "--out", "runs", "--quiet").rc == 0
    assert {path.name for path in folder.glob("report*.tex")} == {"report-comparison-gap.tex", "report-gap.tex"}
    spec = (first.path / "spec.yaml").read_text()
    (first.path / "spec.yaml").write_text(spec.replace("epochs: 2", "epochs: 5"))
    done = bench_here("report", "comparison", "gap", "--out", "runs", "--json")
    assert folder / "fused-blobs--unified--2-epochs.tex" in [tmp_path / path for path in done.json["removed"]]
    assert not list(folder.glob("fused-*2-epochs*"))
    assert (folder / "gap-blobs--unified--2-epochs.tex").exists(), "report-gap.tex includes it"
