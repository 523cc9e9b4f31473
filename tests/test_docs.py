"""The docs site builds without a warning, holds every plugin, and needs no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.registry import DATASETS, METHODS, REPORTS

REPO = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of the built site."""
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "docs/mkdocs.yml", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.full
def test_every_plugin_has_its_place(site):
    for page, kind in {"methods": METHODS, "datasets": DATASETS, "ledger": METHODS}.items():
        text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        anchor = "<td>{}</td>" if page == "ledger" else 'id="{}"'
        assert not [name for name in kind.known() if anchor.format(name) not in text]


@pytest.mark.full
def test_every_report_that_the_pages_name_exists(site):
    source = (REPO / "docs/pages/tables.md").read_text(encoding="utf-8")
    table = source.partition("| question | report |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z]+)`", table))
    assert named
    assert named <= set(REPORTS.known())


@pytest.mark.full
def test_no_page_loads_anything_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img)[^>]+src=\"([^\"]+)\"|<link rel=\"stylesheet\" href=\"([^\"]+)\"", text)
        assert not [one for pair in loaded for one in pair if one.startswith(("http:", "https:", "//"))]


@pytest.mark.full
def test_the_contract_comes_from_its_docstrings(site):
    text = (site / "reference" / "method.html").read_text(encoding="utf-8")
    assert "Train on one batch, with any number of optimizer steps." in text
    assert "train_batches" in text
