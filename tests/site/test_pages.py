"""Pages: the same bytes in any order, nothing of a user's texts taken for markup, and a page for whatever is there."""

from __future__ import annotations

import json
import random
import shutil
from html.parser import HTMLParser
from posixpath import dirname, join, normpath
from urllib.parse import unquote

import pytest

from benchmark.records import RunFolder, State, scan
from benchmark.site.curve_data import curves
from benchmark.site.pages import as_data, build, duration, write_site
from benchmark.site.reading import LOG_BYTES, number, read_log, read_run
from benchmark.site.rows import summarise

from .conftest import HOSTILE, probabilities_of, store


class Page(HTMLParser):
    """What a browser would make of a page: its elements, its texts, its data."""

    def __init__(self, content):
        super().__init__()
        self.elements, self.texts, self.data = [], [], ""
        self._inside = ""
        self.feed(content.decode())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("type", "") if tag == "script" else ""

    def handle_endtag(self, tag):
        self._inside = "" if tag == "script" else self._inside

    def handle_data(self, data):
        if self._inside == "application/json":
            self.data += data
        else:
            self.texts.append(data)

    @property
    def text(self):
        return "".join(self.texts)

    def of(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def pages_of(files):
    return {name: Page(content) for name, content in files.items() if name.endswith(".html")}


def test_the_order_in_which_runs_are_found_changes_no_byte(hostile_runs):
    runs = list(scan(hostile_runs))
    shuffled = runs[:]
    random.Random(0).shuffle(shuffled)
    assert [run.folder for run in shuffled] != [run.folder for run in runs]
    first = list(build(runs, hostile_runs))
    assert list(build(shuffled, hostile_runs)) == first
    assert list(build(runs, hostile_runs)) == first


def test_a_site_is_the_same_wherever_the_runs_lie(hostile_runs, site_of, tmp_path):
    shutil.copytree(hostile_runs, tmp_path / "elsewhere" / "copy")
    assert site_of(tmp_path / "elsewhere" / "copy") == site_of(hostile_runs)


def test_no_text_of_a_user_becomes_markup(hostile_runs, site_of):
    for name, page in pages_of(site_of(hostile_runs)).items():
        scripts = page.of("script")
        assert all("src" in one or one.get("type") == "application/json" for one in scripts), name
        assert all(one["src"].startswith(("assets/", "../assets/")) for one in scripts if "src" in one)
        assert not page.of("img")
        attributes = [attribute for _, attrs in page.elements for attribute in attrs]
        assert not [one for one in attributes if one.startswith("on")]
        assert not [a["href"] for a in page.of("a") if a["href"].startswith("javascript:")]


def test_every_text_of_a_user_is_there_to_read(hostile_runs, site_of):
    pages = pages_of(site_of(hostile_runs))
    for text in HOSTILE:
        assert text in pages["site/index.html"].text
        (page,) = [page for page in pages.values() if f"{text} {text} s" in page.text and page.data]
        assert any(sample["id"].startswith(text) for sample in mistakes(page))
        assert json.loads(page.data)["predictions"]["names"][0] == text
    assert "\x1b" not in pages["site/index.html"].text
    assert " ".join(HOSTILE) in pages["site/index.html"].text, "the cause of a failure"


def mistakes(page):
    return json.loads(page.data)["predictions"]["rules"]["best_valid"]["fused"]["mistakes"]


def test_every_link_leads_to_a_file_of_the_site_or_beside_it(hostile_runs, site_of):
    beside = {"a table & more.md", "100%.csv"}
    files = site_of(hostile_runs, beside)
    known = set(files) | beside
    for name, page in pages_of(files).items():
        links = [attrs.get(key) for tag in ("a", "link", "script") for attrs in page.of(tag) for key in ("href", "src")]
        links += [attrs["data-configs"] for attrs in page.of("select") if "data-configs" in attrs]
        wanted = [unquote(link) for link in links if link and not link.startswith(("#", "data:"))]
        assert wanted
        assert not {normpath(join(dirname(name), link)) for link in wanted} - known


def test_nothing_is_loaded_from_a_network(hostile_runs, site_of):
    for page in pages_of(site_of(hostile_runs)).values():
        values = [value for _, attrs in page.elements for key, value in attrs.items() if key in ("src", "href")]
        assert not [value for value in values if "//" in (value or "") and not any(text in value for text in HOSTILE)]


def test_pages_of_runs_that_are_gone_are_removed_and_nothing_else(whole_run, tmp_path):
    root, to = tmp_path / "runs", tmp_path / "report"
    first, _ = whole_run("aug", 0), whole_run("ogm", 0)
    write_site(scan(root), root, to)
    (to / "comparison.md").write_text("mine")
    before = {path.name for path in (to / "site" / "runs").iterdir()}
    shutil.rmtree(first.path)
    write_site(scan(root), root, to)
    after = {path.name for path in (to / "site" / "runs").iterdir()}
    assert len(before) == 2
    assert len(after) == 1
    assert after < before
    assert (to / "comparison.md").read_text() == "mine"


def test_a_page_is_small_whatever_the_run(whole_run, tmp_path, site_of):
    folder = whole_run()
    store(folder, *probabilities_of(0, num_samples=3000, num_classes=309))
    folder.cut_history(0)
    for epoch in range(1000):
        heads = {head: {"accuracy": 1 / (epoch + 3), "loss": 1.0} for head in ("fused", "audio", "video")}
        train = {f"signal{n}/audio": epoch / 7 + n for n in range(60)}
        folder.append_history({"epoch": epoch, "valid": heads, "test": heads, "train": train})
    folder.log.write_text("x" * 10_000_000)
    files = site_of(tmp_path / "runs")
    (name,) = [name for name in files if name.startswith("site/runs/")]
    assert len(files[name]) < 300_000
    assert "every 4th epoch" in Page(files[name]).text, "and says what it leaves out"


def test_the_sweep_page_counts_every_state_and_marks_what_failed(whole_run, made_up, tmp_path, site_of):
    whole_run("aug", 0)
    for seed, state in enumerate((State.FAILED, State.CANCELLED, State.INTERRUPTED, State.PLANNED)):
        made_up("ogm", seed, state=state, cause=f"cause {state}")
    broken = made_up("ogm", 9)
    (broken.path / "record.json").write_text("{")
    page = Page(site_of(tmp_path / "runs")["site/index.html"])
    found = [row["data-state"] for row in page.of("tr") if "data-state" in row]
    assert sorted(found) == ["cancelled", "damaged", "done", "failed", "interrupted", "planned"]
    for words in ("cause failed", "cause cancelled", "✗", "—", "record.json: truncated or damaged"):
        assert words in page.text


def test_scores_stand_under_their_rule_and_own_accuracies_under_their_modality(whole_run, tmp_path):
    whole_run("aug", 0, accuracy=0.25, oracle=0.75)
    root = tmp_path / "runs"
    (run,) = scan(root)
    row = summarise(run, root, run.folder.read_history())
    assert row.scores == (0.25, 0.25, 0.75)
    assert row.own == (("audio", 0.25), ("video", 0.25))
    assert row.seconds == 2.0
    assert row.curve == pytest.approx((0.25, 0.26, 0.27))
    assert (row.epoch, row.epochs, row.state, row.protocol) == (2, 2, "done", "unified, 2 epochs")


def test_test_curves_stand_apart_from_what_one_may_choose_by(whole_run):
    found = curves(whole_run().read_history(), ["audio", "video"])
    assert [chart.key for chart in found.learning] == ["valid", "loss"]
    assert [chart.key for chart in found.test] == ["test"]
    assert [(chart.title, chart.series) for chart in found.signals] == [("classifiers", {"audio": [1.0, 2.0, 3.0]})]
    assert list(found.learning[0].series) == ["fused", "audio", "video"]
    assert found.learning[1].series == {"total": [2.0, 1.0, 0.0], "audio": [1.0] * 3, "video": [0.5] * 3}
    assert found.epochs == [1, 2, 3]


DAMAGES = {
    "empty": b"", "cut": None, "binary": bytes(range(256)), "list": b"[1, [2]]", "number": b"7", "text": b'"x"',
    "nan": b'{"epoch": NaN, "valid": Infinity, "rules": NaN, "schema": 1, "files": {}, "state": "done"}\n',
    "types": b'{"epoch": "x", "valid": [], "test": 3, "train": [1], "rules": {"best_valid": 3, "last": []},'
    b' "schema": 1, "files": {}, "state": "done", "seconds": [], "modalities": 3, "class_names": {}}\n',
    "deep": b"[" * 100_000, "less": b"[" * 9_999, "nested": b'{"a":' * 5000,
    "spec": b"{method: x, dataset: [], fingerprint: 1, split: 2, protocol: {a: 1}, recipe: [], seed: [], core: 1,"
    b" torch: 2}",
    "halves": b"{method: {label: [1]}, dataset: {name: {}}, fingerprint: 1, split: 2, protocol: 3, seed: 1, core: 1,"
    b" torch: 2, recipe: {selection: []}}",
    "status": b'{"state": "running", "epoch": "x", "epochs": [], "cause": {}, "ends": 7, "started": "x"}',
    "huge": b'{"epoch": 1e999, "state": "done", "epochs": 1' + b"0" * 400 + b"}",
}  # fmt: skip
FILES = (
    "spec.yaml", "status.json", "history.jsonl", "record.json", "predictions.parquet", "env.json", "log.txt",
)  # fmt: skip


@pytest.mark.parametrize("damage", [*DAMAGES, "folder", "gone"])
@pytest.mark.parametrize("name", FILES)
def test_whatever_is_wrong_with_a_file_there_is_a_page(whole_run, tmp_path, name, damage):
    path = whole_run().path / name
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes(content[: len(content) // 2] if DAMAGES[damage] is None else DAMAGES[damage])
    root = tmp_path / "runs"
    run = read_run(RunFolder(path.parent))
    (index, page) = [file for file in build([run], root) if file.name.endswith(".html")]
    assert Page(index.content).of("tr")
    data = Page(page.content).data
    assert json.loads(data, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    if name in ("record.json", "spec.yaml", "status.json") and damage in ("empty", "cut", "binary", "number", "text"):
        assert "damaged" in Page(index.content).text or name == "status.json"


def test_a_log_is_shown_from_its_end_and_by_whole_lines(tmp_path):
    folder = RunFolder(tmp_path)
    folder.log.write_text("first\n" + "a line of the log\n" * 2000 + "last \x00\n")
    text, is_cut = read_log(folder)
    assert is_cut
    assert LOG_BYTES - 100 < len(text) <= LOG_BYTES
    assert text.startswith("a line of the log\n")
    assert text.endswith("last \N{REPLACEMENT CHARACTER}\n")


@pytest.mark.parametrize(
    ("value", "expected"), [(1, 1.0), (0.5, 0.5), (True, None), ("1", None), (None, None), (float("nan"), None),
                            (float("inf"), None), (10**400, None)]
)  # fmt: skip
def test_only_finite_numbers_count(value, expected):
    assert number(value) == expected


def test_durations_read_like_a_clock():
    assert [duration(value) for value in (0, 6.6, 65, 3600, None)] == ["0:00", "0:07", "1:05", "1:00:00", "—"]


def test_data_in_a_page_cannot_end_the_script_that_holds_it():
    value = {"a</script>": ["<!--", "&amp;", "'", 1.5]}
    text = str(as_data(value))
    assert not set("<>&") & set(text)
    assert json.loads(text) == value
